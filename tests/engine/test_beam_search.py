"""Beam search gives Hugging Face's outputs, in order, however the beams are disturbed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from references import Reference
from tiny_models import make_prompts

from runtime.errors import NeverFitsError
from runtime.llm import LLM
from runtime.preemption import PreemptionMode
from runtime.sampling_params import BeamSearchParams, SamplingParams

GetReference = Callable[[str], Reference]


def make_llm(found: Reference, **options: Any) -> LLM:
    fixed = {"num_blocks": 100, "block_size": 8, "max_model_len": 128, "skip_tokenizer": True}
    return LLM(found.folder, **{**fixed, **options})


def hf_beams(
    found: Reference, prompt: Sequence[int], width: int, num_tokens: int, penalty: float, eos: Any
) -> list[list[int]]:
    """Outputs of `generate`, best first, without padding."""
    ids = torch.tensor([list(prompt)])
    done = found.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=width,
        num_return_sequences=width,
        max_new_tokens=num_tokens,
        length_penalty=penalty,
        eos_token_id=eos,
        pad_token_id=0,
    )
    ends = set(eos) if isinstance(eos, list) else {eos}
    rows = done[:, len(prompt) :].tolist()
    return [
        row[: next((i + 1 for i, token in enumerate(row) if token in ends), len(row))]
        for row in rows
    ]


def our_beams(llm: LLM, prompts: Any, params: BeamSearchParams) -> list[list[list[int]]]:
    outputs = llm.beam_search(prompts, params)
    llm.engine.scheduler.check_integrity()
    assert not llm.engine.has_unfinished
    return [[list(c.token_ids) for c in output.outputs] for output in outputs]


@pytest.mark.parametrize("name", ["llama", "qwen3"])
@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.5])
def test_beams(reference: GetReference, name: str, width: int, penalty: float) -> None:
    found = reference(name)
    prompts = [found.prompts[0], found.prompts[1]]
    expected = [hf_beams(found, prompt, width, 12, penalty, 2) for prompt in prompts]
    params = BeamSearchParams(width, max_tokens=12, length_penalty=penalty)
    assert our_beams(make_llm(found), prompts, params) == expected


def test_beams_that_end_early(reference: GetReference) -> None:
    found = reference("llama")
    llm = make_llm(found)
    num_short = 0
    for prompt in make_prompts([4, 9, 15, 22], seed=8):
        free = hf_beams(found, prompt, 3, 12, 1.0, 2)
        # Tokens that the beams pass through become ends of sequences.
        ends = [free[0][3], free[1][5]]
        expected = hf_beams(found, prompt, 3, 12, 1.0, ends)
        llm.engine.model_config = _with_ends(llm, ends)
        outputs = llm.beam_search([prompt], BeamSearchParams(3, max_tokens=12))
        assert [list(c.token_ids) for c in outputs[0].outputs] == expected
        for completion in outputs[0].outputs:
            has_ended = completion.token_ids[-1] in ends
            assert completion.finish_reason == ("stop" if has_ended else "length")
            num_short += len(completion.token_ids) < 12
    assert num_short >= 6, "too few beams ended early to say anything"


def _with_ends(llm: LLM, ends: Sequence[int]) -> Any:
    from dataclasses import replace

    return replace(llm.engine.model_config, eos_token_ids=frozenset(ends))


@pytest.mark.parametrize("mode", PreemptionMode)
@pytest.mark.parametrize("chunk", [None, 5])
def test_beams_under_pressure(
    reference: GetReference, mode: PreemptionMode, chunk: int | None
) -> None:
    found = reference("llama")
    prompts = [found.prompts[i] for i in (2, 0, 4, 2)]
    expected = [hf_beams(found, prompt, 3, 16, 1.0, 2) for prompt in prompts]
    llm = make_llm(
        found,
        num_blocks=11,
        swap_bytes=1 << 20,
        preemption_mode=mode,
        enable_forecast=False,
        long_prefill_token_threshold=chunk,
    )
    assert our_beams(llm, prompts, BeamSearchParams(3, max_tokens=16)) == expected
    assert llm.engine.scheduler.stats().num_preemptions[mode.value] > 0


def test_beams_beside_samples(reference: GetReference) -> None:
    found = reference("llama")
    engine = make_llm(found).engine
    engine.add_request("beams", found.prompts[1], BeamSearchParams(4, max_tokens=10))
    engine.add_request("greedy", found.prompts[0], SamplingParams(temperature=0, max_tokens=20))
    done = {}
    while engine.has_unfinished:
        done.update((output.request_id, output) for output in engine.step())
    assert list(done["greedy"].outputs[0].token_ids) == found.outputs[0][:20]
    expected = hf_beams(found, found.prompts[1], 4, 10, 1.0, 2)
    assert [list(c.token_ids) for c in done["beams"].outputs] == expected
    scores = [c.cumulative_logprob for c in done["beams"].outputs]
    assert scores == sorted(scores, reverse=True), "all are of one length here"


def test_aborted_and_refused(reference: GetReference) -> None:
    found = reference("llama")
    engine = make_llm(found, max_num_seqs=4).engine
    engine.add_request("a", found.prompts[1], BeamSearchParams(4, max_tokens=10))
    for _ in range(3):
        engine.step()
    output = engine.abort("a")
    assert output is not None
    assert output.finished
    engine.scheduler.check_integrity()
    assert not engine.has_unfinished
    with pytest.raises(NeverFitsError, match="beam_width"):
        engine.add_request("b", [1], BeamSearchParams(5))
