"""The `autotune` command: one file per subcommand, loaded when it is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from autotune import __version__
from autotune.cli.exit_codes import INTERRUPTED
from autotune.errors import AutotuneError

COMMANDS = {
    "run": "search kernels for a GPU and write results",
    "gpus": "list the GPUs that can be tuned for",
    "kernels": "list kernels with their axes and knobs",
    "show": "print a selection, its source, assembly or compiler facts",
    "verify": "check random legal configurations against an fp64 reference",
    "compare": "list what two results folders chose, and at what time",
    "gate": "fail where a change makes a generated kernel worse",
    "report": "write one page: winners, gains, roofline, searches",
    "export": "write selections in other programs' formats",
    "worker": "search together with other workers, on one or many machines",
    "replay": "judge search samplers on recorded spaces",
}
"""Subcommand → what it does; each lives in the module of that name in this package."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit code.

    0 ok, 1 a check failed, 2 usage, 3 no such device, 4 corrupt result, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except AutotuneError as error:
        print(f"autotune: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("autotune: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`head`, say) has seen enough; keep the interpreter's last flush quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="autotune",
        description="Compiler-driven autotuning of Triton kernels for LLM inference.",
        epilog="Example: autotune run --gpu a100 --model llama-3.1-8b",
    )
    parser.add_argument("--version", action="version", version=f"pagetune {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in words if word in COMMANDS), None)
    for name, summary in COMMANDS.items():
        # Only the module of the command at hand is loaded: `--help` stays instant.
        if name == chosen:
            module = importlib.import_module(f"autotune.cli.{name}")
            subparser = subparsers.add_parser(
                name,
                help=summary,
                description=f"{summary[0].upper()}{summary[1:]}.",
                epilog=module.EXAMPLES,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            module.add_arguments(subparser)
            subparser.set_defaults(handler=module.handle)
        else:
            subparsers.add_parser(name, help=summary)
    options = parser.parse_args(words)
    code: int = options.handler(options)
    return code
