"""`--explain` and `--gpu`, for every command with an engine."""

from __future__ import annotations

import argparse
import json
import sys

from runtime.config import EngineConfig
from runtime.errors import InvalidParameterError

_PIPE_WIDTH = 200


def add_explain_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("explaining")
    group.add_argument(
        "--explain", action="store_true", help="say what the engine would run on and why, and stop"
    )
    group.add_argument("--gpu", help="with --explain: for this GPU, whether it is here or not")


def check_gpu(options: argparse.Namespace) -> None:
    """Refuse --gpu without --explain: an engine runs on the GPU that is here.

    Raises:
        InvalidParameterError: it is given alone.
    """
    if options.gpu is not None and not options.explain:
        raise InvalidParameterError("gpu", options.gpu, "given with --explain only")


def print_explanation(config: EngineConfig, gpu: str | None, *, as_json: bool) -> int:
    """Plan an engine and print what it would run on; loads no weights.

    Raises:
        EngineError: as the engine itself would.
    """
    from rich.console import Console

    from runtime.engine_plan import plan_engine
    from runtime.explain import explain, render

    explanation = explain(plan_engine(config, gpu=gpu))
    if as_json:
        json.dump(explanation.as_json(), sys.stdout, indent=1)
        print()
    else:
        width = None if sys.stdout.isatty() else _PIPE_WIDTH
        Console(highlight=False, width=width).print(render(explanation))
    return 0
