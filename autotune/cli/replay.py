"""`autotune replay`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.cli.output import print_json, print_table
from autotune.cli.replay_model import EXAMPLES as MODEL_EXAMPLES
from autotune.cli.replay_model import add_model_arguments, handle_model
from autotune.cli.replay_winners import EXAMPLES as WINNERS_EXAMPLES
from autotune.cli.replay_winners import add_winners_arguments, handle_winners
from autotune.cli.types import positive_int
from autotune.effort import DEFAULT_SAMPLER, SAMPLERS
from autotune.errors import UnknownChoiceError, UsageError
from autotune.progress import choose_reporter

EXAMPLES = f"""examples:
  autotune replay gemm.json.gz conv.json.gz              {DEFAULT_SAMPLER} and random, 20 seeds
  autotune replay gemm.json.gz --sampler forest tpe gp --evals 200 --plot curves.svg
  autotune replay conv_a100.json.gz --warm-from conv_a4000.json.gz
  autotune replay t4_results.json.gz --convert gemm.space.json.gz

Every configuration that is asked for counts as one evaluation, also one that fails.

{MODEL_EXAMPLES}

{WINNERS_EXAMPLES}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "spaces",
        nargs="*",
        type=Path,
        metavar="SPACE",
        help="recorded space: ours, a table of rows, T4 or a Kernel Tuner cache file (gzip or not)",
    )
    parser.add_argument(
        "--sampler",
        nargs="+",
        action="extend",
        metavar="S",
        help=f"any of {', '.join(SAMPLERS)} (default: {DEFAULT_SAMPLER} and random)",
    )
    parser.add_argument("--evals", type=positive_int, default=100, help="default 100")
    parser.add_argument("--seeds", type=positive_int, default=20, help="searches (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="the first of the seeds")
    parser.add_argument(
        "--batch", type=positive_int, default=1, help="evaluations asked for at once (default 1)"
    )
    parser.add_argument(
        "--warm-from", type=Path, metavar="SPACE", help="begin with 4 of another GPU's best"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="curves as svg, html, png or pdf")
    parser.add_argument(
        "--convert", type=Path, metavar="FILE", help="write the one SPACE in our format, and stop"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_model_arguments(parser)
    add_winners_arguments(parser)


def handle(options: argparse.Namespace) -> int:
    """Replay every sampler on every space and print how soon each gets how far."""
    if options.winners is not None:
        return handle_winners(options)
    if not options.spaces:
        raise UsageError("name a recorded SPACE to replay, or --winners FOLDER")
    if options.model:
        return handle_model(options)
    samplers = list(dict.fromkeys(options.sampler or (DEFAULT_SAMPLER, "random")))
    for name in samplers:
        if name not in SAMPLERS:
            raise UnknownChoiceError("sampler", name, SAMPLERS)
    from autotune.recorded_files import read_space, write_space

    spaces = [read_space(path) for path in options.spaces]
    if options.convert is not None:
        if len(spaces) != 1:
            raise UsageError("--convert needs exactly one SPACE")
        write_space(spaces[0], options.convert)
        print(f"{options.convert}: {len(spaces[0].configs)} configurations", file=sys.stderr)
        return 0
    # Optuna and scikit-learn take a second to load: after everything cheap has been checked.
    from autotune.replay import Replay, ReplayOptions, replay, warm_starts

    how = ReplayOptions(options.evals, options.seeds, options.seed, options.batch)
    source = None if options.warm_from is None else read_space(options.warm_from)
    warm = [() if source is None else warm_starts(source, space) for space in spaces]
    reporter = choose_reporter(options.json, sys.stderr)
    rounds = len(spaces) * len(samplers) * how.seeds
    reporter.start("replaying", rounds)
    done: list[Replay] = []
    try:
        for space, starts in zip(spaces, warm, strict=True):
            for sampler in samplers:
                reporter.cell(f"{space.name} {sampler}")
                done.append(replay(space, sampler, how, starts, lambda: reporter.advance(1)))
    finally:
        reporter.stop()
    if options.plot is not None:
        from autotune.curve_plot import plot

        plot(done, options.plot)
    document = _document(done, options)
    if options.json:
        print_json(document)
    else:
        _print(document)
    return 0


def _document(done: Sequence[Any], options: argparse.Namespace) -> dict[str, Any]:
    from autotune.curves import arrival, checkpoints, estimate, geometric_mean

    points = checkpoints(options.evals)
    rows = []
    for one in done:
        fractions = {str(p): dataclasses.asdict(estimate(one.best[:, p - 1])) for p in points}
        rows.append(
            {
                "space": one.space.name,
                "gpu": one.space.gpu,
                "kernel": one.space.kernel,
                "configs": len(one.space.configs),
                "failed": one.space.times_us.count(None),
                "sampler": one.sampler,
                "warm_starts": one.warm_starts,
                "fraction_of_optimum": fractions,
                "evals_to_95_percent": dataclasses.asdict(arrival(one.best)),
            }
        )
    means = [
        {
            "sampler": sampler,
            "fraction_of_optimum": {
                str(p): dataclasses.asdict(
                    geometric_mean([one.best for one in done if one.sampler == sampler], p)
                )
                for p in points
            },
        }
        for sampler in dict.fromkeys(one.sampler for one in done)
    ]
    settings = {name: getattr(options, name) for name in ("evals", "seeds", "seed", "batch")}
    source = None if options.warm_from is None else options.warm_from.name
    return {"settings": settings, "warm_from": source, "replays": rows, "geometric_mean": means}


def _print(document: dict[str, Any]) -> None:
    settings = document["settings"]
    points = list(document["geometric_mean"][0]["fraction_of_optimum"])
    heads = [f">{point} evals" for point in points]
    rows = []
    for row in document["replays"]:
        soon = row["evals_to_95_percent"]
        median = soon["median_evals"] or f"over {settings['evals']}"
        rows.append(
            (
                row["space"],
                row["sampler"] + (f" +{row['warm_starts']} warm" if row["warm_starts"] else ""),
                *(_shown(row["fraction_of_optimum"][point]) for point in points),
                f"{median} ({soon['reached']}/{soon['searches']})",
            )
        )
    for row in document["geometric_mean"]:
        fractions = (_shown(row["fraction_of_optimum"][point]) for point in points)
        rows.append(("geometric mean", row["sampler"], *fractions, ""))
    title = (
        f"fraction of the optimum, mean of {settings['seeds']} seeds [95 % interval], "
        f"batches of {settings['batch']}"
    )
    columns = ("space", "sampler", *heads, ">evals to 95 % (reached)")
    print_table(title, columns, rows)


def _shown(one: dict[str, float]) -> str:
    return f"{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
