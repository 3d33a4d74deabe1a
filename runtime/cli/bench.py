"""`runtime bench`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.cli.engine_options import (
    add_kv_cache_dtype,
    add_load_format,
    add_ops_arguments,
    add_quantization,
    prepare_process,
)
from runtime.config import DTYPE_NAMES, EngineConfig
from runtime.errors import InvalidParameterError

if TYPE_CHECKING:
    from runtime.bench.turns import Limits
    from runtime.bench.workload import Workload

EXAMPLES = """examples:
  runtime bench path/to/model                          the engine alone
  runtime bench path/to/model --against hf,hf-batch    beside transformers, in turns
  runtime bench path/to/model --workload requests.jsonl --json
  runtime bench out/m125 --make-model llama-125m       on a random model, made first
  runtime bench out/8b --make-model llama-3.1-8b --load-format dummy --workload uniform \\
    --max-num-seqs 256 --max-num-batched-tokens 8192 --gpu-memory-utilization 0.9   on a GPU

a workload file has one JSON object a line: {"prompt_token_ids": [...], "max_tokens": N}, or with
"prompt": "text"; each contender runs in a process of its own, so that peak memory is its own"""

_AGAINST = ("hf", "hf-batch", "hf-continuous")
_WORKLOADS = ("mixed", "shared-prefix", "long", "uniform")
_MODELS = ("llama-125m", "llama-2m-32k", "llama-3.1-8b", "qwen3-0.6b")
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
    add_load_format(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    _add_limits(parser.add_argument_group("contenders of transformers"))
    group = parser.add_argument_group("engine")
    add_ops_arguments(group)
    default = {field.name: field.default for field in fields(EngineConfig)}
    for name in ("max_num_seqs", "max_num_batched_tokens"):
        group.add_argument(f"--{name.replace('_', '-')}", type=int, default=default[name])
    group.add_argument("--block-size", type=int, help="tokens per KV block")
    group.add_argument(
        "--gpu-memory-utilization", type=float, metavar="SHARE", help="default: a KV cache of 1 GiB"
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    """Declare what spares slow contenders work."""
    group.add_argument(
        "--batch-sizes",
        type=_sizes,
        help="of padded batches to try, comma-separated (default 8,16,32)",
    )
    group.add_argument(
        "--trial-tokens",
        type=int,
        metavar="N",
        help="try each size on one batch with at most so many output tokens (default: on all)",
    )
    group.add_argument(
        "--sample", type=int, metavar="N", help="serve only the first so many one by one"
    )
    group.add_argument(
        "--continuous-seconds",
        type=float,
        metavar="S",
        help="cut a continuous run off, and count what it has done",
    )


def handle(options: argparse.Namespace) -> int:
    """Run every contender in turns; print medians."""
    prepare_process(options.ops)
    for name in ("requests", "rounds", "threads", "trial_tokens", "sample"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InvalidParameterError(name, value, "at least 1")
    from runtime.bench.environment import describe_environment
    from runtime.bench.kv_facts import LEAST_LEN
    from runtime.bench.make_model import make_model
    from runtime.bench.report import print_report, summarise
    from runtime.bench.setup import Setup
    from runtime.bench.turns import take_turns
    from runtime.engine_plan import plan_engine
    from runtime.model_config import load_model_config
    from runtime.threads import default_threads

    if options.make_model is not None and not options.model.exists():
        make_model(options.make_model, options.model, is_dummy=options.load_format == "dummy")
    config = load_model_config(options.model)
    workload = _workload(options, config.vocab_size)
    if options.requests is not None:
        workload = workload.first(options.requests)
    if workload.max_len > config.max_position:
        raise InvalidParameterError(
            "workload", options.workload, f"within the model's context, {config.max_position}"
        )
    dtype = options.dtype
    engine = _engine_fields(options)
    plan = plan_engine(EngineConfig(options.model, dtype=dtype, **engine))
    if dtype == "auto":
        dtype = plan.dtype_name
    environment = describe_environment(str(plan.device))
    names = ("engine", *options.against)
    rounds = options.rounds or (_ROUNDS_AGAINST if options.against else 1)
    threads = options.threads or default_threads()
    max_len = max(workload.max_len, min(LEAST_LEN, config.max_position))
    setup = Setup(options.model, dtype, threads, max_len, plan.device.type, engine)
    scores, kv = take_turns(names, setup, workload, rounds, _limits(options))
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


def _engine_fields(options: argparse.Namespace) -> dict[str, Any]:
    """What is set of the engine's own configuration."""
    return {
        "kv_cache_dtype": options.kv_cache_dtype,
        "quantization": options.quantization,
        "load_format": options.load_format,
        "ops": options.ops,
        "results": options.results,
        "enforce_eager": options.enforce_eager,
        "block_size": options.block_size,
        "max_num_seqs": options.max_num_seqs,
        "max_num_batched_tokens": options.max_num_batched_tokens,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "seed": options.seed,
    }


def _limits(options: argparse.Namespace) -> Limits:
    from runtime.bench.turns import Limits

    found = Limits(
        trial_tokens=options.trial_tokens,
        sample=options.sample,
        continuous_s=options.continuous_seconds,
    )
    if options.batch_sizes is None:
        return found
    return dataclasses.replace(found, batch_sizes=options.batch_sizes)


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


def _sizes(word: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in word.split(",") if part.isdecimal())
    if len(sizes) != word.count(",") + 1 or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a list like 8,16,32")
    return sizes


def _names(word: str) -> tuple[str, ...]:
    names = tuple(word.split(","))
    for name in names:
        if name not in _AGAINST:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(_AGAINST)}")
    return names
