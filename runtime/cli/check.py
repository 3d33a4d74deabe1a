"""`runtime check`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime.cli.engine_options import (
    add_kv_cache_dtype,
    add_model_impl,
    add_ops_arguments,
    add_quantization,
    note_impl,
    prepare_process,
)
from runtime.errors import InvalidParameterError

if TYPE_CHECKING:
    from runtime.check.engine_bench import EngineBench
    from runtime.check.outcome import Outcome
    from runtime.model_sizes import ModelSizes

EXAMPLES = """examples:
  runtime check path/to/model                  fp32: the same tokens in every scenario
  runtime check path/to/model --dtype bf16     log-probabilities along Hugging Face's tokens
  runtime check path/to/model --kv-cache-dtype int8    the same, beside HF with its cache rounded
  runtime check path/to/model --quantization int4      the same, beside HF with these weights
  runtime check path/to/model --prompts 12 --max-tokens 200 --json
  runtime check path/to/model --ops interpreter --prompts 2 --max-tokens 4

exit code: 0 all equal, 1 a mismatch (the first position is named), 2 usage"""

_PIPE_WIDTH = 160


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of the model")
    parser.add_argument("--against", choices=("hf",), default="hf", help="default hf: transformers")
    parser.add_argument(
        "--dtype", choices=("fp32", "bf16", "fp16"), default="fp32", help="default fp32"
    )
    add_kv_cache_dtype(parser)
    add_quantization(parser)
    add_model_impl(parser)
    parser.add_argument("--prompts", type=int, default=6, help="random prompts (default 6)")
    parser.add_argument("--max-tokens", type=int, default=64, help="per prompt (default 64)")
    parser.add_argument(
        "--block-size", type=int, help="tokens per KV block, where a scenario has none of its own"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the prompts (default 0)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_ops_arguments(parser.add_argument_group("engine"))


def handle(options: argparse.Namespace) -> int:
    """Compare, print a table, return 1 on any mismatch."""
    prepare_process(options.ops)
    for name in ("prompts", "max_tokens"):
        if getattr(options, name) < 1:
            raise InvalidParameterError(name, getattr(options, name), "at least 1")
    from runtime.kv_format import check_kv_cache_dtype
    from runtime.model_config import load_model_config, with_quantization

    config = load_model_config(options.model, options.model_impl)
    config = with_quantization(config, options.quantization)
    check_kv_cache_dtype(options.kv_cache_dtype, config)
    note_impl(config)
    prompts = _prompts(options, config)
    outcomes = list(_checks(options, config, prompts))
    if options.json:
        rows = [{**dataclasses.asdict(o), "passed": o.passed} for o in outcomes]
        json.dump(rows, sys.stdout, indent=1)
        print()
    else:
        _print(options, outcomes)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def _prompts(options: argparse.Namespace, config: ModelSizes) -> list[list[int]]:
    """Random ids; lengths spread from 1 to what the context leaves, at most 160."""
    longest = min(160, config.max_position - options.max_tokens)
    if longest < 1:
        raise InvalidParameterError(
            "max_tokens", options.max_tokens, f"below the model's context, {config.max_position}"
        )
    source = random.Random(options.seed)
    spread = max(1, options.prompts - 1)
    lengths = [1 + (longest - 1) * index // spread for index in range(options.prompts)]
    return [[source.randrange(config.vocab_size) for _ in range(length)] for length in lengths]


def _checks(
    options: argparse.Namespace, config: ModelSizes, prompts: list[list[int]]
) -> Iterator[Outcome]:
    from transformers.utils import logging

    from runtime.check.dequantised import dequantised
    from runtime.check.exact import check_exact
    from runtime.check.forced import check_forced, check_free
    from runtime.check.reference import Reference
    from runtime.check.scenarios import SCENARIOS
    from runtime.loader import DTYPES
    from runtime.model_config import ModelConfig

    logging.disable_progress_bar()
    eos = sorted(config.eos_token_ids)
    is_exact = options.dtype == "fp32" and options.kv_cache_dtype == "auto"
    ends = [] if is_exact else eos
    tensors = None
    if isinstance(config, ModelConfig) and config.linears is not None:
        tensors = dequantised(options.model, config.linears, DTYPES[options.dtype])
    reference = Reference(options.model, options.dtype, ends, options.kv_cache_dtype, tensors)
    runs = [reference.run(prompt, options.max_tokens) for prompt in prompts]
    shares_codes = options.dtype == "fp32" and not is_exact
    again = [reference.score(run) for run in runs] if shares_codes else None
    del reference
    max_len = max(map(len, prompts)) + options.max_tokens
    if is_exact:
        bench = _bench(options, max_len)
        yield from check_exact(bench, runs, options.max_tokens, end_ids=eos)
        return
    wide = Reference(options.model, "fp32", eos, tensors=tensors)
    exact = [wide.score(run) for run in runs]
    del wide
    bench = _bench(options, max_len)
    together = next(scenario for scenario in SCENARIOS if scenario.name == "all at once")
    yield check_forced(bench.engine(together), runs, exact, again)
    # In half precision every way of cutting the work has a rounding of its own.
    further = [each for each in SCENARIOS if not each.ends_early]  # all do here
    for scenario in further if shares_codes else [together]:
        yield check_free(bench, scenario, runs, exact, options.max_tokens, again)


def _bench(options: argparse.Namespace, max_len: int) -> EngineBench:
    from runtime.check.engine_bench import EngineBench

    return EngineBench(
        options.model,
        options.dtype,
        max_len,
        options.model_impl,
        options.ops,
        options.results,
        options.enforce_eager,
        options.kv_cache_dtype,
        options.quantization,
        options.block_size,
    )


def _types(options: argparse.Namespace) -> str:
    """What is rounded, on both sides."""
    if options.kv_cache_dtype == "auto":
        return str(options.dtype)
    return f"{options.dtype}, KV cache {options.kv_cache_dtype} on both sides"


def _print(options: argparse.Namespace, outcomes: list[Outcome]) -> None:
    table = Table(
        title=f"{options.model} against transformers, {_types(options)}",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    for column in ("tier", "scenario", "tokens", "result", "note"):
        table.add_column(column, justify="right" if column == "tokens" else "left")
    for o in outcomes:
        result = "ok" if o.passed else "MISMATCH"
        row = (o.tier.value, o.scenario, str(o.num_tokens), result, o.note)
        table.add_row(*map(Text, row))
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(highlight=False, width=width).print(table)
    for outcome in outcomes:
        if not outcome.passed:
            print(f"{outcome.tier.value}, {outcome.scenario}: ", end="")
            print(outcome.mismatch or outcome.problem)
