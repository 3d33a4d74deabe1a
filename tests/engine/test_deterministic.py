"""With `deterministic` a request's numbers are those of the request alone, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from references import Reference

from autotune.arch import lookup
from autotune.kernels import load_kernel
from autotune.paths import data_dir
from autotune.registry import TunedKernels
from runtime.config import EngineConfig
from runtime.engine import LLMEngine
from runtime.engine_plan import plan_engine
from runtime.errors import InvalidParameterError, KernelError
from runtime.kernel_set import KernelSet
from runtime.kernel_table import KernelTable
from runtime.llm import LLM
from runtime.ops.base import AttentionSpec
from runtime.ops.limits import StepLimits
from runtime.ops.request import CacheWrite, Demands, MlpShape, NormShape
from runtime.ops.torch_library import CpuKernels
from runtime.ops.torch_ops import TorchOps
from runtime.outputs import RequestOutput
from runtime.preemption import PreemptionMode
from runtime.sampling_params import SamplingParams

GetReference = Callable[[str], Reference]
PARAMS = SamplingParams(temperature=0, max_tokens=12, logprobs=3, prompt_logprobs=2)
LLAMA = AttentionSpec(num_heads=32, num_kv_heads=8, head_dim=128, scale=128**-0.5)
LIMITS = StepLimits(max_num_seqs=256, max_num_tokens=8192, max_model_len=8192, pool_tokens=500_000)


def numbers(output: RequestOutput) -> list[object]:
    """Every number that is reported of a request; floats are compared to the bit."""
    (completion,) = output.outputs
    return [completion.token_ids, completion.logprobs, output.prompt_logprobs]


def generate(folder: Path, prompts: list[list[int]], **options: Any) -> list[list[object]]:
    options = {"dtype": "fp32", "max_model_len": 128, "num_blocks": 128} | options
    llm = LLM(folder, ops="torch", skip_tokenizer=True, enable_prefix_caching=False, **options)
    return [numbers(output) for output in llm.generate(prompts, PARAMS)]


@pytest.mark.parametrize("family", ["llama3", "mistral", "gemma2", "qwen3"])
def test_batches_and_chunks_change_no_bit(reference: GetReference, family: str) -> None:
    found = reference(family)
    alone = [generate(found.folder, [p], deterministic=True)[0] for p in found.prompts]
    for options in (
        {},
        {"long_prefill_token_threshold": 1},
        {"max_num_batched_tokens": 23, "max_num_seqs": 8},
    ):
        assert generate(found.folder, found.prompts, deterministic=True, **options) == alone
    many = [*found.prompts, *found.prompts[::-1], *found.prompts[1:3], *found.prompts]
    assert len(many) == 17
    together = generate(found.folder, many, deterministic=True)
    assert together == [alone[found.prompts.index(prompt)] for prompt in many]


def test_a_warm_cache_changes_no_bit(reference: GetReference) -> None:
    found = reference("llama3")
    params = SamplingParams(temperature=0, max_tokens=12, logprobs=3)
    llm = LLM(found.folder, ops="torch", skip_tokenizer=True, dtype="fp32", deterministic=True)
    cold, warm = (llm.generate(found.prompts, params) for _ in range(2))
    assert sum(output.num_cached_tokens for output in warm) > 0
    assert list(map(numbers, warm)) == list(map(numbers, cold))


@pytest.mark.parametrize("mode", PreemptionMode)
def test_preemption_changes_no_bit(reference: GetReference, mode: PreemptionMode) -> None:
    found = reference("llama3")
    alone = [generate(found.folder, [p], deterministic=True)[0][:2] for p in found.prompts]
    config = EngineConfig(
        found.folder,
        ops="torch",
        skip_tokenizer=True,
        dtype="fp32",
        deterministic=True,
        max_model_len=96,
        block_size=8,
        num_blocks=13,  # the longest request fits, three shorter ones outgrow them
        enable_forecast=False,
        enable_prefix_caching=False,
        preemption_mode=mode,
        swap_bytes=1 << 24,
    )
    engine = LLMEngine(config)
    params = replace(PARAMS, prompt_logprobs=None)
    for index, prompt in enumerate(found.prompts):
        engine.add_request(str(index), prompt, params)
    ended: dict[str, list[object]] = {}
    while engine.has_unfinished:
        ended.update((o.request_id, numbers(o)[:2]) for o in engine.step() if o.finished)
    assert engine.scheduler.stats().num_preemptions[mode.value] > 0
    assert [ended[str(index)] for index in range(len(alone))] == alone


def test_without_it_a_bit_differs(reference: GetReference) -> None:
    found = reference("llama3")
    (alone,) = generate(found.folder, [found.prompts[3]])
    (cut,) = generate(found.folder, [found.prompts[3]], long_prefill_token_threshold=1)
    assert alone[0] == cut[0], "the same tokens"
    assert alone[2] != cut[2]


@pytest.mark.parametrize("kind", [{"dtype": "bf16"}, {"kv_cache_dtype": "int8"}], ids=str)
def test_other_types_change_no_bit(reference: GetReference, kind: dict[str, str]) -> None:
    found = reference("llama3")
    (alone,) = generate(found.folder, [found.prompts[1]], deterministic=True, **kind)
    for options in ({}, {"long_prefill_token_threshold": 5}):
        together = generate(found.folder, found.prompts, deterministic=True, **kind, **options)
        assert together[1] == alone


def test_what_cannot_be_promised_is_refused(
    reference: GetReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = reference("llama3").folder
    config = EngineConfig(folder, ops="torch", deterministic=True)
    with pytest.raises(InvalidParameterError, match="transformers"):
        plan_engine(replace(config, model_impl="transformers"))
    with pytest.raises(KernelError, match="fp16"):
        plan_engine(replace(config, dtype="fp16"))
    monkeypatch.setattr(CpuKernels, "load", lambda dtype: None)
    with pytest.raises(KernelError, match="C kernels"):
        plan_engine(config)
    wide = Demands({AttentionSpec(1, 1, 512, 0.1): 1}, None)
    monkeypatch.undo()
    with pytest.raises(KernelError, match="heads of 512"):
        TorchOps(deterministic_for=wide).resolve("fp32", "auto", 8, LIMITS)


@pytest.mark.parametrize("gpu", ["a100", "h100", "mi300x"])
def test_kernels_of_all_sizes_sum_in_one_order(gpu: str) -> None:
    tuned = TunedKernels.load(gpu, data_dir("results"))

    def tables(*, deterministic: bool) -> list[KernelTable]:
        kernels = KernelSet(tuned, "bf16", LIMITS, deterministic=deterministic)
        served = [
            kernels.decode(LLAMA, 16),
            kernels.prefill(LLAMA, 16),
            kernels.gate_up(MlpShape(14336, 4096, "silu", has_bias=False)),
            kernels.linear(4096, 14336),
            kernels.norm(NormShape(4096, has_residual=True)),
            kernels.write(CacheWrite(32, 8, 128, 128)),
        ]
        return [table for table in served if isinstance(table, KernelTable)]

    def orders(table: KernelTable) -> int:
        return len({tuned.reduction_order(entry) for entry in table.entries})

    fixed, free = tables(deterministic=True), tables(deterministic=False)
    assert [orders(table) for table in fixed] == [1] * 6
    assert max(orders(table) for table in free) > 1
    for table in fixed:
        for entry in table.entries:
            space = load_kernel(entry.kernel).space(entry.problem, lookup(gpu)).repeatable
            assert space.why_illegal(entry.config) is None


def test_a_kernel_that_cannot_serve_is_not_replaced_by_torch() -> None:
    tuned = TunedKernels.load("a100", data_dir("results"))
    kernels = KernelSet(tuned, "bf16", LIMITS, deterministic=True)
    with pytest.raises(KernelError, match="bias"):
        kernels.gate_up(MlpShape(14336, 4096, "silu", has_bias=True))
