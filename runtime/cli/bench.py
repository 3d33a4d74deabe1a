"""`runtime bench`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.cli.engine_options import add_kv_cache_dtype, add_quantization
from runtime.config import DTYPE_NAMES
from runtime.errors import InvalidParameterError

if TYPE_CHECKING:
    from runtime.bench.workload import Workload

EXAMPLES = """examples:
  runtime bench path/to/model                          the engine alone
  runtime bench path/to/model --against hf,hf-batch    beside transformers, in turns
  runtime bench path/to/model --workload requests.jsonl --json
  runtime bench out/m125 --make-model llama-125m       on a random model, made first

a workload file has one JSON object a line: {"prompt_token_ids": [...], "max_tokens": N}, or with
"prompt": "text"; each contender runs in a process of its own, so that peak memory is its own"""

_AGAINST = ("hf", "hf-batch", "hf-continuous")
_WORKLOADS = ("mixed", "shared-prefix", "long")
_MODELS = ("llama-125m", "llama-2m-32k")
_ROUNDS_AGAINST = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of the model")
    parser.add_argument(
        "--against", type=_names, default=(), help=f"comma-separated: {', '.join(_AGAINST)}"
    )
    parser.add_argument(
        "--workload",
        default="mixed",
        metavar="NAME|FILE",
        help=f"{', '.join(_WORKLOADS)} or a file (default mixed)",
    )
    parser.add_argument("--requests", type=int, help="the first so many (default all)")
    parser.add_argument(
        "--rounds", type=int, help=f"of all, in turns (default 1; {_ROUNDS_AGAINST} with --against)"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPE_NAMES,
        default="auto",
        help="of every contender; default auto: what the engine computes the checkpoint in",
    )
    add_kv_cache_dtype(parser)
    add_quantization(parser)
    parser.add_argument("--threads", type=int, help="default: physical cores that may be used")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--make-model", choices=_MODELS, help="write MODEL first if there is no such folder"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def handle(options: argparse.Namespace) -> int:
    """Run every contender in turns; print medians."""
    for name in ("requests", "rounds", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InvalidParameterError(name, value, "at least 1")
    from runtime.bench.environment import describe_environment
    from runtime.bench.make_model import make_model
    from runtime.bench.report import print_report, summarise
    from runtime.bench.turns import Setup, take_turns
    from runtime.config import EngineConfig
    from runtime.engine_plan import plan_engine
    from runtime.model_config import load_model_config
    from runtime.threads import default_threads

    environment = describe_environment()
    if options.make_model is not None and not options.model.exists():
        make_model(options.make_model, options.model)
    config = load_model_config(options.model)
    workload = _workload(options, config.vocab_size)
    if options.requests is not None:
        workload = workload.first(options.requests)
    if workload.max_len > config.max_position:
        raise InvalidParameterError(
            "workload", options.workload, f"within the model's context, {config.max_position}"
        )
    dtype = options.dtype
    plan = plan_engine(
        EngineConfig(
            options.model,
            dtype=dtype,
            kv_cache_dtype=options.kv_cache_dtype,
            quantization=options.quantization,
        )
    )
    if dtype == "auto":
        dtype = plan.dtype_name
    names = ("engine", *options.against)
    rounds = options.rounds or (_ROUNDS_AGAINST if options.against else 1)
    threads = options.threads or default_threads()
    setup = Setup(
        options.model,
        dtype,
        threads,
        workload.max_len,
        options.kv_cache_dtype,
        options.quantization,
    )
    scores, kv = take_turns(names, setup, workload, rounds)
    report = {
        "command": ["runtime", *sys.argv[1:]],
        "environment": environment,
        "workload": workload.name,
        "num_requests": len(workload.prompts),
        "num_prompt_tokens": workload.num_prompt_tokens,
        "num_output_tokens": workload.num_output_tokens,
        "threads": setup.threads,
        "dtype": dtype,
        "kv_dtype": plan.kv.words,
        "weights": "plain" if plan.linears is None else plan.linears.words,
        "rounds": rounds,
        "contenders": summarise(workload, scores),
        "kv": kv,
    }
    if options.json:
        json.dump(report, sys.stdout, indent=1)
        print()
    else:
        print_report(report)
    return 0


def _workload(options: argparse.Namespace, vocab_size: int) -> Workload:
    from runtime.bench.workload import WORKLOADS, read_workload
    from runtime.tokenizer import Tokenizer

    if options.workload in WORKLOADS:
        return WORKLOADS[options.workload](vocab_size, options.seed)
    path = Path(options.workload)
    if not path.is_file():
        raise InvalidParameterError(
            "workload", options.workload, f"a file, or one of {', '.join(_WORKLOADS)}"
        )
    workload = read_workload(path, lambda text: Tokenizer.load(options.model).encode(text))
    if max(map(max, workload.prompts)) >= vocab_size:
        raise InvalidParameterError(
            "workload", options.workload, f"of token ids below the vocabulary's size, {vocab_size}"
        )
    return workload


def _names(word: str) -> tuple[str, ...]:
    names = tuple(word.split(","))
    for name in names:
        if name not in _AGAINST:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(_AGAINST)}")
    return names
