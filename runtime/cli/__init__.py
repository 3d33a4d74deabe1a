"""The `runtime` command: one file per subcommand, loaded when it is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from runtime.errors import EngineError

COMMANDS = {
    "generate": "continue prompts",
    "serve": "serve a model by OpenAI's API",
    "check": "compare the engine with Hugging Face, token by token",
    "bench": "measure throughput beside Hugging Face",
    "bench serve": "put a server under load, and measure it",
}
"""Subcommand → what it does; each lives in the module of that name in this package."""

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit code.

    0 ok, 1 a check failed, 2 usage, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except EngineError as error:
        print(f"runtime: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("runtime: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader (`head`, say) has seen enough; keep the interpreter's last flush quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(words: list[str]) -> int:
    if " ".join(words[:2]) in COMMANDS:
        words = [" ".join(words[:2]), *words[2:]]
    parser = argparse.ArgumentParser(
        prog="runtime",
        description="A small serving engine on tuned kernels.",
        epilog='Example: runtime generate path/to/model --prompt "Once upon a time"',
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in words if word in COMMANDS), None)
    for name, summary in COMMANDS.items():
        # Only the module of the command at hand is loaded: `--help` stays instant.
        if name == chosen:
            module = importlib.import_module(f"runtime.cli.{name.replace(' ', '_')}")
            if hasattr(module, "expand_words"):
                words = module.expand_words(words)
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
