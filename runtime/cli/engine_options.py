"""Command-line options that every command with an engine shares; defaults are EngineConfig's."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime import interpreter
from runtime.config import (
    DTYPE_NAMES,
    KV_CACHE_ALIASES,
    KV_CACHE_DTYPES,
    LOAD_FORMATS,
    MODEL_IMPLS,
    QUANTIZATIONS,
    EngineConfig,
)
from runtime.errors import InvalidParameterError
from runtime.ops import OPERATION_SETS
from runtime.preemption import PreemptionMode
from runtime.threads import default_threads

if TYPE_CHECKING:
    from runtime.model_sizes import ModelSizes

SWITCHES = ("enable-prefix-caching", "enable-chunked-prefill", "async-scheduling", "forecast")
"""Options of which there is a --no- form."""

_GIB = 1 << 30


def add_engine_arguments(parser: argparse.ArgumentParser, utilization: float | None = None) -> None:
    """Declare MODEL and the engine's options; `utilization` as `engine_config` is given it."""
    default = {field.name: field.default for field in fields(EngineConfig)}
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of the model")
    group = parser.add_argument_group("engine")
    group.add_argument("--dtype", choices=DTYPE_NAMES, default=default["dtype"])
    add_kv_cache_dtype(group)
    add_quantization(group)
    add_load_format(group)
    add_model_impl(group)
    add_ops_arguments(group)
    group.add_argument(
        "--block-size", type=_block_size, help="tokens per KV block; default auto: the best tuned"
    )
    group.add_argument("--num-blocks", type=int, help="KV blocks, in place of --kv-cache-gib")
    group.add_argument(
        "--kv-cache-gib",
        type=float,
        help=f"most that the KV cache may take (default 1{_or_share(utilization)})",
    )
    group.add_argument(
        "--gpu-memory-utilization",
        type=float,
        metavar="SHARE",
        help="of a GPU's memory, for weights and KV cache together, in place of --kv-cache-gib",
    )
    group.add_argument(
        "--swap-gib", "--swap-space", type=float, help="host memory for preempted sequences"
    )
    for name in ("max_num_seqs", "max_num_batched_tokens", "max_model_len", "seed"):
        group.add_argument(f"--{name.replace('_', '-')}", type=int, default=default[name])
    group.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="another folder's tokenizer and chat template"
    )
    for name in ("--revision", "--tokenizer-revision", "--code-revision"):
        group.add_argument(name, type=_no_revision, help=argparse.SUPPRESS)
    _add_scheduling(group)
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="outputs that do not depend on the batch, to the bit; slower",
    )
    group.add_argument("--threads", type=int, help="default: physical cores that may be used")
    _add_parallel(group)


def _add_scheduling(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--enable-prefix-caching",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="share blocks of equal beginnings (default)",
    )
    # An older name.
    group.add_argument(
        "--no-prefix-caching",
        dest="enable_prefix_caching",
        action="store_false",
        help=argparse.SUPPRESS,
    )
    group.add_argument(
        "--enable-chunked-prefill",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let steps take parts of prompts (default)",
    )
    group.add_argument(
        "--async-scheduling",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="schedule a step while the one before it runs (default: on GPUs)",
    )
    group.add_argument(
        "--preemption-mode",
        choices=("auto", *(mode.value for mode in PreemptionMode)),
        default="auto",
        help="what becomes of a preempted sequence's KV blocks (default auto: the cheaper)",
    )
    group.add_argument(
        "--forecast",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="hold requests back while running ones will need the blocks (default)",
    )
    group.add_argument(
        "--cudagraph-capture-sizes",
        type=int,
        nargs="+",
        metavar="N",
        help="batch sizes to capture (default: powers and multiples up to --max-num-seqs)",
    )


def _add_parallel(group: argparse._ArgumentGroup) -> None:
    for words in (
        ("--tensor-parallel-size", "-tp"),
        ("--pipeline-parallel-size", "-pp"),
        ("--data-parallel-size", "-dp"),
    ):
        group.add_argument(*words, type=int, default=1, metavar="1", help="only 1 is supported")


def add_quantization(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Declare --quantization."""
    parser.add_argument(
        "--quantization",
        "-q",
        choices=QUANTIZATIONS,
        help="of linear layers: int8 and int4 round any checkpoint when it is loaded; gptq, awq: "
        "what it must be (default: whatever it is)",
    )


def add_load_format(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Declare --load-format."""
    parser.add_argument(
        "--load-format",
        choices=LOAD_FORMATS,
        default="auto",
        help="of weights; dummy: random ones by --seed in config.json's shapes, no file is read "
        "(default auto: safetensors)",
    )


def add_model_impl(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Declare --model-impl."""
    parser.add_argument(
        "--model-impl",
        choices=MODEL_IMPLS,
        default="auto",
        help="whose code computes the model (default auto: ours where there is some)",
    )


def add_kv_cache_dtype(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Declare --kv-cache-dtype."""
    parser.add_argument(
        "--kv-cache-dtype",
        type=lambda word: KV_CACHE_ALIASES.get(word, word),
        choices=KV_CACHE_DTYPES,
        default="auto",
        help="of keys and values; int8 and fp8: scaled by token and head (default auto: --dtype)",
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


def engine_config(options: argparse.Namespace, utilization: float | None = None) -> EngineConfig:
    """Make the engine's configuration of the parsed options.

    Args:
        options: of a command that has declared them.
        utilization: of a GPU's memory, where no option says how large the KV cache is to be.

    Raises:
        InvalidParameterError: a value is off, or asks for more than one device.
    """
    for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        if getattr(options, name) != 1:
            raise InvalidParameterError(
                name,
                getattr(options, name),
                "1: a model runs on one device; to use several, start a server on each "
                "(CUDA_VISIBLE_DEVICES) behind a load balancer",
            )
    sizes: dict[str, Any] = {}
    if options.gpu_memory_utilization is not None:
        sizes["gpu_memory_utilization"] = options.gpu_memory_utilization
    elif options.kv_cache_gib is None:
        sizes["gpu_memory_utilization"] = utilization
    if options.kv_cache_gib is not None:
        sizes["kv_cache_bytes"] = int(options.kv_cache_gib * _GIB)
    if options.swap_gib is not None:
        sizes["swap_bytes"] = int(options.swap_gib * _GIB)
    return EngineConfig(
        options.model,
        dtype=options.dtype,
        kv_cache_dtype=options.kv_cache_dtype,
        quantization=options.quantization,
        load_format=options.load_format,
        tokenizer=options.tokenizer,
        model_impl=options.model_impl,
        ops=options.ops,
        results=options.results,
        deterministic=options.deterministic,
        enforce_eager=options.enforce_eager,
        block_size=options.block_size,
        num_blocks=options.num_blocks,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        max_model_len=options.max_model_len,
        seed=options.seed,
        enable_prefix_caching=options.enable_prefix_caching,
        enable_chunked_prefill=options.enable_chunked_prefill,
        enable_forecast=options.forecast,
        async_scheduling=options.async_scheduling,
        preemption_mode=options.preemption_mode,
        cudagraph_capture_sizes=_tuple(options.cudagraph_capture_sizes),
        threads=default_threads() if options.threads is None else options.threads,
        **sizes,
    )


def _or_share(utilization: float | None) -> str:
    return "" if utilization is None else f"; on GPUs what {utilization:.0%}% of the memory leaves"


def _no_revision(word: str) -> None:
    raise argparse.ArgumentTypeError(
        f"{word!r}: models are local folders, which have no revisions; give the folder of that one"
    )


def _tuple(sizes: list[int] | None) -> tuple[int, ...] | None:
    return None if sizes is None else tuple(sizes)


def _block_size(word: str) -> int | None:
    if word == "auto":
        return None
    try:
        return int(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r} is neither auto nor a number") from error
