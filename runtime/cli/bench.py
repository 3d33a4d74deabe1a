"""`runtime bench`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime.config import DTYPE_NAMES
from runtime.errors import InvalidParameterError

EXAMPLES = """examples:
  runtime bench path/to/model                          the engine alone
  runtime bench path/to/model --against hf,hf-batch    beside transformers, in turns
  runtime bench path/to/model --workload shared-prefix --rounds 3 --json"""

_AGAINST = ("hf", "hf-batch", "hf-continuous")
_WORKLOADS = ("mixed", "shared-prefix")
_PIPE_WIDTH = 160


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of the model")
    parser.add_argument(
        "--against", type=_names, default=(), help=f"comma-separated: {', '.join(_AGAINST)}"
    )
    parser.add_argument("--workload", choices=_WORKLOADS, default="mixed", help="default mixed")
    parser.add_argument("--requests", type=int, default=32, help="the first so many (default 32)")
    parser.add_argument("--rounds", type=int, default=1, help="of all, in turns (default 1)")
    parser.add_argument(
        "--dtype",
        choices=DTYPE_NAMES,
        default="auto",
        help="default auto: each side's own default for the checkpoint",
    )
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")


def handle(options: argparse.Namespace) -> int:
    """Run every contender in turns; print medians."""
    for name in ("requests", "rounds", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InvalidParameterError(name, value, "at least 1")
    import torch
    from transformers.utils import logging

    from runtime.bench.contenders import CONTENDERS
    from runtime.bench.workload import WORKLOADS
    from runtime.model_config import load_model_config

    logging.disable_progress_bar()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    config = load_model_config(options.model)
    full = WORKLOADS[options.workload](config.vocab_size, options.seed)
    workload = full.first(options.requests)
    if workload.max_len > config.max_position:
        raise InvalidParameterError(
            "workload", options.workload, f"within the model's context, {config.max_position}"
        )
    names = ("engine", *options.against)
    runs = {
        name: CONTENDERS[name](options.model, options.dtype, workload.max_len) for name in names
    }
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for run in runs.values():
        run(workload.first(1))  # first calls allocate and load code
    for _ in range(options.rounds):
        for name, run in runs.items():
            seconds[name].append(run(workload))
    report = {
        "workload": workload.name,
        "num_requests": len(workload.prompts),
        "num_prompt_tokens": workload.num_prompt_tokens,
        "num_output_tokens": workload.num_output_tokens,
        "threads": torch.get_num_threads(),
        "dtype": options.dtype,
        "seconds": seconds,
    }
    if options.json:
        json.dump(report, sys.stdout, indent=1)
        print()
    else:
        _print(workload.num_output_tokens, seconds, report)
    return 0


def _print(num_tokens: int, seconds: dict[str, list[float]], report: dict[str, object]) -> None:
    title = (
        f"{report['workload']}: {report['num_requests']} requests, {report['num_prompt_tokens']} "
        f"tokens in, {num_tokens} out, {report['threads']} threads, dtype {report['dtype']}"
    )
    print(title)
    table = Table(box=None, pad_edge=False)
    for column in ("contender", "median s", "output tokens/s", "engine is"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    ours = statistics.median(seconds["engine"])
    for name, values in seconds.items():
        median = statistics.median(values)
        ratio = "" if name == "engine" else f"{median / ours:.2f} x"
        row = (name, f"{median:.2f}", f"{num_tokens / median:.1f}", ratio)
        table.add_row(*map(Text, row))
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(highlight=False, width=width).print(table)


def _names(word: str) -> tuple[str, ...]:
    names = tuple(word.split(","))
    for name in names:
        if name not in _AGAINST:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(_AGAINST)}")
    return names
