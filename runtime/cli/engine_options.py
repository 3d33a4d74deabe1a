"""Command-line options that every command with an engine shares; defaults are EngineConfig's."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime import interpreter
from runtime.config import DTYPE_NAMES, MODEL_IMPLS, EngineConfig
from runtime.ops import OPERATION_SETS
from runtime.threads import default_threads

if TYPE_CHECKING:
    from runtime.model_sizes import ModelSizes

_GIB = 1 << 30


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare MODEL and the engine's options."""
    default = {field.name: field.default for field in fields(EngineConfig)}
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of the model")
    group = parser.add_argument_group("engine")
    group.add_argument("--dtype", choices=DTYPE_NAMES, default=default["dtype"])
    add_model_impl(group)
    add_ops_arguments(group)
    group.add_argument(
        "--block-size", type=_block_size, help="tokens per KV block; default auto: the best tuned"
    )
    group.add_argument("--num-blocks", type=int, help="KV blocks, in place of --kv-cache-gib")
    group.add_argument(
        "--kv-cache-gib", type=float, help="most that the KV cache may take (default 1)"
    )
    group.add_argument("--swap-gib", type=float, help="host memory for preempted sequences")
    for name in ("max_num_seqs", "max_num_batched_tokens", "max_model_len", "seed"):
        group.add_argument(f"--{name.replace('_', '-')}", type=int, default=default[name])
    group.add_argument("--no-prefix-caching", action="store_true")
    group.add_argument("--threads", type=int, help="default: physical cores that may be used")


def add_model_impl(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Declare --model-impl."""
    parser.add_argument(
        "--model-impl",
        choices=MODEL_IMPLS,
        default="auto",
        help="whose code computes the model (default auto: ours where there is some)",
    )


def note_impl(model: ModelSizes) -> None:
    """Say on standard error where transformers' code computes the model."""
    if model.impl != "native":
        print(
            f"runtime: {model.architecture} runs transformers' code, with paged attention",
            file=sys.stderr,
        )


def add_ops_arguments(group: argparse._ArgumentGroup) -> None:
    """Declare what the model runs on."""
    group.add_argument(
        "--ops",
        choices=("auto", *OPERATION_SETS),
        default="auto",
        help="default auto: triton on GPUs, torch elsewhere; interpreter: Triton's, on the CPU",
    )
    group.add_argument(
        "--results", type=Path, metavar="DIR", help="tuned kernels, in place of own and shipped"
    )
    group.add_argument("--enforce-eager", action="store_true", help="capture no CUDA graphs")


def prepare_process(ops: str) -> None:
    """Do what has to be done before anything is loaded that imports triton.

    Raises:
        DeviceError: it has been imported already, to compile.
    """
    if ops == "interpreter":
        interpreter.choose()


def engine_config(options: argparse.Namespace) -> EngineConfig:
    """Make the engine's configuration of the parsed options."""
    sizes: dict[str, Any] = {}
    if options.kv_cache_gib is not None:
        sizes["kv_cache_bytes"] = int(options.kv_cache_gib * _GIB)
    if options.swap_gib is not None:
        sizes["swap_bytes"] = int(options.swap_gib * _GIB)
    return EngineConfig(
        options.model,
        dtype=options.dtype,
        model_impl=options.model_impl,
        ops=options.ops,
        results=options.results,
        enforce_eager=options.enforce_eager,
        block_size=options.block_size,
        num_blocks=options.num_blocks,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        max_model_len=options.max_model_len,
        seed=options.seed,
        enable_prefix_caching=not options.no_prefix_caching,
        threads=default_threads() if options.threads is None else options.threads,
        **sizes,
    )


def _block_size(word: str) -> int | None:
    if word == "auto":
        return None
    try:
        return int(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r} is neither auto nor a number") from error
