"""The engine's greedy tokens are Hugging Face's, however the work is cut and disturbed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from references import NUM_TOKENS, Reference
from tiny_models import CONFIGS, hf_greedy, make_prompts

from runtime.llm import LLM
from runtime.ops.torch_build import VARIABLE
from runtime.preemption import PreemptionMode
from runtime.sampling_params import SamplingParams
from runtime.scheduler_config import SchedulingPolicy

GetReference = Callable[[str], Reference]
GREEDY = SamplingParams(temperature=0, max_tokens=NUM_TOKENS)
ROOMY = {"num_blocks": 120, "block_size": 16, "max_model_len": 128}


def make_llm(found: Reference, **options: Any) -> LLM:
    return LLM(found.folder, dtype="fp32", skip_tokenizer=True, **{**ROOMY, **options})


def tokens(llm: LLM, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    outputs = llm.generate(list(prompts), GREEDY)
    llm.engine.scheduler.check_integrity()
    return [list(output.outputs[0].token_ids) for output in outputs]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("block_size", [1, 5, 16, 64])
def test_batch_cold_then_warm(reference: GetReference, name: str, block_size: int) -> None:
    found = reference(name)
    llm = make_llm(found, block_size=block_size, num_blocks=1200 // block_size + 8)
    assert tokens(llm, found.prompts) == found.outputs
    assert llm.engine.scheduler.stats().num_prefix_hits == 0
    assert tokens(llm, found.prompts) == found.outputs
    assert llm.engine.scheduler.stats().num_prefix_hits > 60


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("chunk", [None, 7])
def test_without_kernels(
    reference: GetReference, name: str, chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no compiler, PyTorch's operations give the same tokens."""
    monkeypatch.setenv(VARIABLE, "off")
    found = reference(name)
    llm = make_llm(found, block_size=5, num_blocks=250, long_prefill_token_threshold=chunk)
    assert tokens(llm, found.prompts) == found.outputs
    assert tokens(llm, found.prompts) == found.outputs, "with a warm prefix cache"


@pytest.mark.parametrize("name", CONFIGS)
def test_one_by_one(reference: GetReference, name: str) -> None:
    found = reference(name)
    llm = make_llm(found)
    assert [tokens(llm, [prompt])[0] for prompt in found.prompts] == found.outputs


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("chunk", [1, 7])
def test_chunked_prompts(reference: GetReference, name: str, chunk: int) -> None:
    found = reference(name)
    llm = make_llm(found, long_prefill_token_threshold=chunk)
    assert tokens(llm, found.prompts) == found.outputs
    assert tokens(llm, found.prompts) == found.outputs, "with a warm prefix cache"


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("mode", PreemptionMode)
@pytest.mark.parametrize("caching", [True, False])
def test_preempted(reference: GetReference, name: str, mode: PreemptionMode, caching: bool) -> None:
    found = reference(name)
    # 12 usable blocks of 8 hold the longest request, 94 tokens, and not much beside it.
    llm = make_llm(
        found,
        block_size=8,
        num_blocks=13,
        swap_bytes=1 << 20,
        enable_forecast=False,
        preemption_mode=mode,
        enable_prefix_caching=caching,
        long_prefill_token_threshold=7,
    )
    short = [found.prompts[i] for i in (0, 2, 4)]
    expected = [found.outputs[i] for i in (0, 2, 4)]
    assert tokens(llm, [*short, *short]) == [*expected, *expected]
    assert llm.engine.scheduler.stats().num_preemptions[mode.value] > 0
    assert tokens(llm, found.prompts) == found.outputs


def test_a_neighbour_does_not_change_a_request(reference: GetReference) -> None:
    found = reference("llama")
    llm = make_llm(found, max_num_seqs=2, max_num_batched_tokens=16)
    assert tokens(llm, found.prompts) == found.outputs


def test_longrope_beyond_the_original_context(reference: GetReference) -> None:
    """Prompts longer than the original context use the long frequencies on both sides."""
    found = reference("phi3")
    prompts = make_prompts([130, 150], seed=4)
    expected = [hf_greedy(found.model, prompt, NUM_TOKENS) for prompt in prompts]
    llm = make_llm(found, max_model_len=256)
    assert tokens(llm, prompts) == expected
    assert tokens(llm, prompts) == expected, "with a warm prefix cache"
    assert tokens(llm, [found.prompts[0]]) != [found.outputs[0]], "short prompts differ by now"


@pytest.mark.parametrize("policy", SchedulingPolicy)
def test_salts_and_priorities_change_no_token(
    reference: GetReference, policy: SchedulingPolicy
) -> None:
    found = reference("llama")
    engine = make_llm(found, policy=policy, max_num_seqs=2).engine
    for index, prompt in enumerate([*found.prompts, *found.prompts]):
        salt = "tenant" if index >= len(found.prompts) else None
        engine.add_request(str(index), prompt, GREEDY, priority=-index, cache_salt=salt)
    done = {}
    while engine.has_unfinished:
        done.update((output.request_id, output) for output in engine.step() if output.finished)
    outputs = [list(done[str(index)].outputs[0].token_ids) for index in range(len(done))]
    assert outputs == [*found.outputs, *found.outputs]
