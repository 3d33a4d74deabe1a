"""Who runs a workload: the engine, and Hugging Face one by one, in padded batches, continuously."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from runtime.bench.workload import Workload
from runtime.config import EngineConfig
from runtime.engine import LLMEngine
from runtime.loader import DTYPES
from runtime.sampling_params import SamplingParams

_CONTINUOUS_PAGE_TOKENS = 128
_NO_TOKEN = 0
"""Padding; masked."""
_NEVER = -1
"""An end token that no model writes."""

Run = Callable[[Workload, int], None]
"""Serve all requests to their ends, at most so many at once where the contender has batches."""


def prepare_engine(
    folder: Path,
    dtype: str,
    max_len: int,
    kv_cache_dtype: str = "auto",
    quantization: str | None = None,
) -> Run:
    """Load the engine; every run starts with an empty prefix cache."""
    config = EngineConfig(
        folder,
        dtype=dtype,
        kv_cache_dtype=kv_cache_dtype,
        quantization=quantization,
        max_model_len=max_len,
        skip_tokenizer=True,
    )
    first = LLMEngine(config)

    def run(workload: Workload, batch_size: int) -> None:
        serve(LLMEngine(config, model=first.runner.model, ops=first.plan.ops), workload)

    return run


def serve(
    engine: LLMEngine, workload: Workload, after_step: Callable[[], None] | None = None
) -> None:
    """Submit all requests and step until they have ended."""
    for index, (prompt, count) in enumerate(
        zip(workload.prompts, workload.output_lens, strict=True)
    ):
        params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
        engine.add_request(str(index), prompt, params)
    num_tokens = 0
    while engine.has_unfinished:
        for output in engine.step():
            if output.finished:
                num_tokens += len(output.outputs[0].token_ids)
        if after_step is not None:
            after_step()
    assert num_tokens == workload.num_output_tokens, "a request ended early"


def prepare_hf(folder: Path, dtype: str, max_len: int) -> Run:
    """`generate`, one request at a time."""
    model = _load(folder, dtype)

    def run(workload: Workload, batch_size: int) -> None:
        for prompt, count in zip(workload.prompts, workload.output_lens, strict=True):
            ids = torch.tensor([prompt])
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                min_new_tokens=count,
                max_new_tokens=count,
            )

    return run


def prepare_hf_batch(folder: Path, dtype: str, max_len: int) -> Run:
    """`generate` on batches of requests in their order, each padded to its longest on both ends."""
    model = _load(folder, dtype)

    def run(workload: Workload, batch_size: int) -> None:
        for start in range(0, len(workload.prompts), batch_size):
            part = workload.part(start, start + batch_size)
            longest = max(map(len, part.prompts))
            rows = [[_NO_TOKEN] * (longest - len(p)) + list(p) for p in part.prompts]
            mask = [[0] * (longest - len(p)) + [1] * len(p) for p in part.prompts]
            count = max(part.output_lens)
            model.generate(
                torch.tensor(rows),
                attention_mask=torch.tensor(mask),
                min_new_tokens=count,
                max_new_tokens=count,
            )

    return run


def prepare_hf_continuous(folder: Path, dtype: str, max_len: int) -> Run:
    """Continuous batching of transformers, `generate_batch`, with a length per request."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    model = _load(folder, dtype)
    plan = GenerationConfig(do_sample=False, pad_token_id=_NO_TOKEN, eos_token_id=_NEVER)

    def run(workload: Workload, batch_size: int) -> None:
        # Left to itself, the cache takes all memory.
        pages = sum(
            -(-(len(p) + n) // _CONTINUOUS_PAGE_TOKENS)
            for p, n in zip(workload.prompts, workload.output_lens, strict=True)
        )
        cache = ContinuousBatchingConfig(
            page_size=_CONTINUOUS_PAGE_TOKENS, num_blocks=pages + 4, max_batch_tokens=2048
        )
        with model.continuous_batching_context_manager(
            generation_config=plan, continuous_batching_config=cache
        ) as manager:
            for prompt, count in zip(workload.prompts, workload.output_lens, strict=True):
                manager.add_request(list(prompt), max_new_tokens=count)
            num_tokens = num_done = 0
            while num_done < len(workload.prompts):
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    num_done += 1
                    num_tokens += len(result.generated_tokens)
                assert result is not None or manager.is_running(), "transformers has given up"
        assert num_tokens == workload.num_output_tokens, "a request ended early"

    return run


def _load(folder: Path, dtype: str) -> Any:
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=DTYPES[dtype], local_files_only=True, trust_remote_code=False
    ).eval()
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=_NO_TOKEN)
    return model


CONTENDERS: Mapping[str, Callable[[Path, str, int], Run]] = {
    "engine": prepare_engine,
    "hf": prepare_hf,
    "hf-batch": prepare_hf_batch,
    "hf-continuous": prepare_hf_continuous,
}
"""Name -> loads a model folder in a dtype, for sequences of a length."""
