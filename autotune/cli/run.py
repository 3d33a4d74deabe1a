"""`autotune run`."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.arch import GpuArch
from autotune.binary_facts import write_facts
from autotune.build import Builder
from autotune.cli.cells import (
    add_cell_arguments,
    checked_store,
    chosen_arch,
    chosen_cells,
    chosen_effort,
    no_device,
)
from autotune.cli.exit_codes import INTERRUPTED
from autotune.cli.output import print_json
from autotune.cli.types import positive_float
from autotune.deadline import Deadline
from autotune.device import LocalDevice, find_local
from autotune.effort import EFFORTS
from autotune.errors import UsageError
from autotune.gpu import Gpu, simulated, simulated_device
from autotune.paths import cache_dir, results_dirs, studies_dir, templates_dir
from autotune.peers import load_peer, peers_of
from autotune.pool import WorkerPool
from autotune.progress import Reporter, choose_reporter
from autotune.race_log import RaceLog
from autotune.record import record, write_spaces
from autotune.render import TemplateFolder
from autotune.results import ResultsStore
from autotune.simulated import SimulatedDevice
from autotune.standing import Standing, compare_with_peers

if TYPE_CHECKING:
    from autotune.cell import Cell
    from autotune.tune import Tuned
    from autotune.warm_starts import Elsewhere

EXAMPLES = """examples:
  autotune run --gpu a100                           the default model's shapes
  autotune run --gpu h100 --model qwen3-8b --kernel paged_attention_decode --block-size 16,64
  autotune run --gpu h100 --kernel paged_attention_decode --kv-dtype fp8 --kv-scale token
  autotune run --gpu mi300x --model ./my-model/config.json --trials 64 --seed 1
  autotune run --kernel fused_mlp --peers --peer mine.py:gate_up   race the winners against others
  autotune run --effort exhaustive --record spaces --budget 600    keep every time, for replay

Without that GPU in this machine every candidate is cross-compiled for it and ranked by what the
compiler says and a cost model; such times are labelled predicted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_cell_arguments(parser)
    add = parser.add_argument
    add(
        "--budget",
        type=positive_float,
        metavar="S",
        help="stop searching after so many seconds, shared by all cells",
    )
    add(
        "--warm-start",
        action=argparse.BooleanOptionalAction,
        help="begin with up to 4 configurations that results files have for other GPUs or other "
        "models, and time them among the finalists (default: where anything is timed)",
    )
    add("--results", metavar="DIR", help="where to write (default: the results folder)")
    add("--storage", metavar="URL", help="Optuna database instead of a journal file")
    add(
        "--peers",
        action="store_true",
        help="race the selections against torch's own implementations (SDPA, cuBLAS, ...)",
    )
    add(
        "--peer",
        action="append",
        default=[],
        metavar="FILE.py:FUNCTION",
        help="and against this one: FUNCTION(problem, inputs) returns what is timed, a function "
        "without arguments that returns the output",
    )
    add(
        "--record",
        type=Path,
        metavar="DIR",
        help="time every configuration (or a sample, as far as --budget goes a second time) and "
        "write recorded spaces for `autotune replay`",
    )
    add(
        "--raw",
        type=Path,
        metavar="FILE",
        help="raw samples of all races (default: races.jsonl beside the studies)",
    )
    # A rehearsal: GPU[?trait=number&...], see `simulated`. Results go to --results only.
    add("--simulate", metavar="GPU", help=argparse.SUPPRESS)
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on where a run was interrupted")
    again.add_argument("--fresh", action="store_true", help="start over (the default)")
    add("--json", action="store_true", help="print JSON, no progress")


def handle(options: argparse.Namespace) -> int:
    """Search, write, and print what won and why."""
    arch, here = _target(options)
    effort = chosen_effort(options, arch, here)
    further = options.peers or options.peer or options.record
    if further and here is None:
        raise no_device("--peers, --peer and --record", arch)
    measures = effort != "predict" or further
    for peer in options.peer:
        load_peer(peer)
    shape, cells = chosen_cells(options, arch)
    store = checked_store(options.results, cells)
    # Optuna and scikit-learn take seconds to load: not before the arguments are known to be good.
    from autotune.cli.summary import print_standings, print_summary, run_document
    from autotune.study import SearchOptions
    from autotune.tune import tune

    search = SearchOptions(
        effort=effort,
        trials=options.trials,
        sampler=options.sampler or EFFORTS[effort].sampler,
        seed=options.seed,
        resume=options.resume,
        storage_url=options.storage,
    )
    reporter = choose_reporter(options.json, sys.stderr)
    started = time.monotonic()
    templates = TemplateFolder(templates_dir())
    log = RaceLog(options.raw or studies_dir() / "races.jsonl")
    with contextlib.ExitStack() as stack:
        builder = Builder(
            arch, templates, cache_dir(), stack.enter_context(WorkerPool(options.jobs))
        )
        device: Gpu | None = None
        if options.simulate:
            device = stack.enter_context(simulated(options.simulate, templates, cache_dir(), log))
        elif here is not None and measures:
            device = stack.enter_context(Gpu(here, templates, cache_dir(), log))
        trials = sum(search.trials_for(cell) for cell in cells)
        reporter.start(
            f"{shape.name} on {arch.title} ({arch.target}): {len(cells)} cells, "
            f"{trials} candidates, effort {effort}",
            trials,
        )
        try:
            done = tune(
                cells,
                builder,
                store,
                studies_dir(),
                search,
                Deadline(options.budget),
                reporter,
                device if effort != "predict" else None,
                _elsewhere(options, effort, cells),
            )
            standings, recorded = _afterwards(options, done, builder, device, reporter)
        except KeyboardInterrupt:
            reporter.stop()
            print(
                "autotune: interrupted; what was compiled is kept. Go on with the same command and "
                "--resume",
                file=sys.stderr,
            )
            return INTERRUPTED
        finally:
            reporter.stop()
    seconds = time.monotonic() - started
    if options.json:
        document = run_document(arch, done, builder.compiled, seconds)
        document["peers"] = [standing.to_json() for standing in standings]
        document["recorded"] = list(map(str, recorded))
        print_json(document)
    else:
        print_summary(arch, done, builder.compiled, seconds)
        print_standings(standings)
        for path in recorded:
            print(f"recorded {path}")
    return 0


def _elsewhere(options: argparse.Namespace, effort: str, cells: Sequence[Cell]) -> Elsewhere | None:
    """Where warm starts come from; None without.

    A search that measures nothing takes none unasked: its results follow from the tools alone.
    """
    from autotune.warm_starts import Elsewhere

    wanted = effort != "predict" if options.warm_start is None else options.warm_start
    stores = [ResultsStore(folder) for folder in results_dirs(options.results)]
    return Elsewhere(stores, cells) if wanted else None


def _afterwards(
    options: argparse.Namespace,
    done: Sequence[Tuned],
    builder: Builder,
    device: Gpu | None,
    reporter: Reporter,
) -> tuple[list[Standing], list[Path]]:
    """What may follow a search on a device: races against peers, recordings of whole spaces."""
    standings: list[Standing] = []
    recorded: list[Path] = []
    if device is None:
        return standings, recorded
    deadline = Deadline(options.budget)
    for number, tuned in enumerate(done):
        cell = tuned.cell
        peers = [*(peers_of(cell.spec.name) if options.peers else ()), *options.peer]
        standings += compare_with_peers(cell, tuned.result.selections, device, peers)
        if options.record is not None:
            share = deadline.share(len(done) - number)
            found = record(cell, builder, device, share, options.seed)
            recorded += write_spaces(found.spaces, options.record)
            recorded.append(write_facts(found.facts, options.record))
            reporter.line(
                f"[{number + 1}/{len(done)}] {cell.spec.name}: recorded {len(found.spaces)}"
            )
    return standings, recorded


def _target(options: argparse.Namespace) -> tuple[GpuArch, LocalDevice | None]:
    """GPU to tune for, and the one of this machine that is it."""
    if options.simulate:
        if options.results is None:
            raise UsageError("--simulate needs --results DIR: nothing of it is a measurement")
        arch = SimulatedDevice.parse(options.simulate).arch
        return arch, simulated_device(arch)
    arch = chosen_arch(options.gpu)
    return arch, find_local(arch)
