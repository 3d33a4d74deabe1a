"""Engines over one model in memory, set up for a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from runtime.check.scenarios import Scenario
from runtime.config import EngineConfig
from runtime.engine import LLMEngine
from runtime.outputs import RequestOutput
from runtime.sampling_params import SamplingParams

_BLOCK_SIZE = 8
"""In scenarios that preempt: small, so that blocks run out in the midst of decoding."""


class EngineBench:
    """Loads the weights once; every scenario gets a fresh scheduler and KV cache."""

    def __init__(
        self,
        folder: Path,
        dtype: str,
        max_len: int,
        model_impl: str = "auto",
        ops: str = "auto",
        results: Path | None = None,
        enforce_eager: bool = False,
        kv_cache_dtype: str = "auto",
        quantization: str | None = None,
        block_size: int | None = None,
    ) -> None:
        self._config = EngineConfig(
            folder,
            dtype=dtype,
            kv_cache_dtype=kv_cache_dtype,
            quantization=quantization,
            model_impl=model_impl,
            max_model_len=max_len,
            max_num_seqs=32,
            skip_tokenizer=True,
            block_size=block_size,
            ops=ops,
            results=results,
            enforce_eager=enforce_eager,
        )
        self._first = LLMEngine(self._config)

    def engine(self, scenario: Scenario) -> LLMEngine:
        """Make an engine for a scenario."""
        config = replace(self._config, **scenario.options)
        if scenario.preemption is not None:
            assert config.max_model_len is not None
            # One sequence fits, two that are nearly as long do not.
            num_blocks = 2 - (-config.max_model_len // _BLOCK_SIZE)
            config = replace(config, block_size=_BLOCK_SIZE, num_blocks=num_blocks)
        first = self._first
        return LLMEngine(config, model=first.runner.model, ops=first.plan.ops)


def run_all(
    engine: LLMEngine,
    prompts: Sequence[Sequence[int]],
    params: Sequence[SamplingParams],
    *,
    one_by_one: bool = False,
) -> list[RequestOutput]:
    """Run prompts to their ends; outputs in their order. Request ids are the indices."""
    done: dict[str, RequestOutput] = {}
    for index, (prompt, each) in enumerate(zip(prompts, params, strict=True)):
        engine.add_request(str(index), prompt, each)
        if one_by_one:
            _drain(engine, done)
    _drain(engine, done)
    return [done[str(index)] for index in range(len(prompts))]


def _drain(engine: LLMEngine, done: dict[str, RequestOutput]) -> None:
    while engine.has_unfinished:
        done.update((output.request_id, output) for output in engine.step() if output.finished)
