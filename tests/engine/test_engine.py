"""Requests through the whole engine: outputs step by step, stops, scores, siblings, aborts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from references import Reference
from tiny_models import hf_greedy, make_prompts, save_model
from tiny_tokenizer import save_tokenizer

from runtime.config import EngineConfig
from runtime.engine import LLMEngine
from runtime.errors import (
    DuplicateRequestError,
    InvalidParameterError,
    NeverFitsError,
    PromptTooLongError,
    TokenizerError,
)
from runtime.llm import LLM
from runtime.sampling_params import SamplingParams

GetReference = Callable[[str], Reference]


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A Llama with a tokenizer."""
    folder = tmp_path_factory.mktemp("text-model")
    model = save_model("llama-text", folder)
    save_tokenizer(folder)
    return folder, model


def make_llm(folder: Path, **options: Any) -> LLM:
    return LLM(folder, **{"num_blocks": 64, "block_size": 8, "max_model_len": 128, **options})


def test_text_in_text_out(text_model: tuple[Path, Any]) -> None:
    folder, model = text_model
    llm = make_llm(folder)
    prompt = "the quick brown"
    (output,) = llm.generate(prompt, SamplingParams(temperature=0, max_tokens=20))
    tokenizer = llm.engine.tokenizer
    assert tokenizer is not None
    assert output.prompt_token_ids == tuple(tokenizer.encode(prompt))
    expected = hf_greedy(model, output.prompt_token_ids, 20)
    completion = output.outputs[0]
    assert list(completion.token_ids) == expected
    assert completion.text == tokenizer.decode(expected, skip_special_tokens=True)
    assert (completion.finish_reason, completion.stop_reason) == ("length", None)


def test_streamed_text_only_grows(text_model: tuple[Path, Any]) -> None:
    engine = make_llm(text_model[0]).engine
    params = SamplingParams(temperature=1.5, seed=3, max_tokens=30, stop=("a", "zz"), n=3)
    engine.add_request("r", "once upon", params)
    shown = ["", "", ""]
    while engine.has_unfinished:
        for output in engine.step():
            for completion in output.outputs:
                assert completion.text.startswith(shown[completion.index])
                shown[completion.index] = completion.text
                assert "a" not in completion.text
    assert any(shown)


def test_stop_strings_and_tokens(text_model: tuple[Path, Any]) -> None:
    llm = make_llm(text_model[0])
    greedy = {"temperature": 0.0, "max_tokens": 30}
    (plain,) = llm.generate("the lazy dog", SamplingParams(**greedy))
    text, ids = plain.outputs[0].text, plain.outputs[0].token_ids
    middle = text[4:7]
    assert "\ufffd" not in middle
    (cut,) = llm.generate("the lazy dog", SamplingParams(**greedy, stop=middle))
    assert cut.outputs[0].text == text[: text.index(middle)]
    assert (cut.outputs[0].finish_reason, cut.outputs[0].stop_reason) == ("stop", middle)
    assert cut.outputs[0].token_ids == ids[: len(cut.outputs[0].token_ids)]
    (kept,) = llm.generate(
        "the lazy dog", SamplingParams(**greedy, stop=middle, include_stop_str_in_output=True)
    )
    assert kept.outputs[0].text == text[: text.index(middle)] + middle
    (by_id,) = llm.generate("the lazy dog", SamplingParams(**greedy, stop_token_ids=(ids[5],)))
    place = ids.index(ids[5])
    assert by_id.outputs[0].token_ids == ids[: place + 1]
    assert (by_id.outputs[0].finish_reason, by_id.outputs[0].stop_reason) == ("stop", ids[5])
    assert text.startswith(by_id.outputs[0].text)


def test_end_of_sequence_and_min_tokens(reference: GetReference) -> None:
    found = reference("llama")
    prompt, full = found.prompts[1], found.outputs[1]
    end = full[6]
    place = full.index(end)
    hf = hf_greedy(found.model, prompt, 24, eos_token_id=end)
    assert hf == full[: place + 1]
    late = hf_greedy(found.model, prompt, 24, eos_token_id=end, min_new_tokens=place + 3)
    llm = make_llm(found.folder, skip_tokenizer=True)
    stop = {"temperature": 0.0, "max_tokens": 24, "stop_token_ids": (end,)}
    (early,) = llm.generate([prompt], SamplingParams(**stop))
    assert list(early.outputs[0].token_ids) == hf
    (after,) = llm.generate([prompt], SamplingParams(**stop, min_tokens=place + 3))
    assert list(after.outputs[0].token_ids) == late


@pytest.mark.parametrize("chunk", [None, 5])
def test_logprobs_of_prompt_and_output(reference: GetReference, chunk: int | None) -> None:
    found = reference("qwen3")
    llm = make_llm(found.folder, skip_tokenizer=True, long_prefill_token_threshold=chunk)
    prompt = found.prompts[1]
    params = SamplingParams(temperature=0, max_tokens=6, logprobs=2, prompt_logprobs=1)
    llm.generate([prompt], SamplingParams(max_tokens=1))
    (output,) = llm.generate([prompt], params)
    ids = [*prompt, *output.outputs[0].token_ids]
    with torch.no_grad():
        expected = torch.log_softmax(found.model(torch.tensor([ids])).logits[0], dim=-1)
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    assert output.outputs[0].logprobs is not None
    scores = [*output.prompt_logprobs[1:], *output.outputs[0].logprobs]
    assert len(scores) == len(ids) - 1
    for position, (entry, token_id) in enumerate(zip(scores, ids[1:], strict=True)):
        assert entry is not None
        assert entry[token_id].logprob == pytest.approx(
            expected[position, token_id].item(), abs=1e-4
        )
        best = int(expected[position].argmax())
        assert entry[best].rank == 1
    total = sum(expected[len(prompt) - 1 + i, t].item() for i, t in enumerate(ids[len(prompt) :]))
    assert output.outputs[0].cumulative_logprob == pytest.approx(total, abs=1e-3)


def test_siblings_share_the_prompt_and_differ(reference: GetReference) -> None:
    found = reference("llama")
    params = SamplingParams(n=4, seed=5, max_tokens=12, temperature=2.0)
    llm = make_llm(found.folder, skip_tokenizer=True)
    (output,) = llm.generate([found.prompts[1]], params)
    llm.engine.scheduler.check_integrity()
    assert [completion.index for completion in output.outputs] == [0, 1, 2, 3]
    assert len({completion.token_ids for completion in output.outputs}) == 4
    # The first is what it would be alone; so are all, with chunks, other blocks and neighbours.
    (alone,) = llm.generate(
        [found.prompts[1]], SamplingParams(seed=5, max_tokens=12, temperature=2.0)
    )
    assert alone.outputs[0].token_ids == output.outputs[0].token_ids
    other = make_llm(
        found.folder, skip_tokenizer=True, block_size=5, long_prefill_token_threshold=3
    )
    many = other.generate([*found.prompts, found.prompts[1]], params)
    for again in (many[1], many[-1]):
        assert [c.token_ids for c in again.outputs] == [c.token_ids for c in output.outputs]


def test_sampling_is_the_same_after_preemption(reference: GetReference) -> None:
    found = reference("llama")
    params = SamplingParams(
        seed=1, max_tokens=20, temperature=1.0, repetition_penalty=1.2, ignore_eos=True
    )
    roomy = make_llm(found.folder, skip_tokenizer=True)
    tight = make_llm(found.folder, skip_tokenizer=True, num_blocks=9, enable_forecast=False)
    prompts = [found.prompts[i] for i in (0, 2, 4)] * 2
    expected = [o.outputs[0].token_ids for o in roomy.generate(prompts, params)]
    assert [o.outputs[0].token_ids for o in tight.generate(prompts, params)] == expected
    assert tight.engine.scheduler.stats().num_preemptions["recompute"] > 0


def test_abort_gives_what_there_is(reference: GetReference) -> None:
    found = reference("llama")
    engine = make_llm(found.folder, skip_tokenizer=True).engine
    for name in "ab":
        engine.add_request(name, found.prompts[0], SamplingParams(temperature=0, max_tokens=10))
    for _ in range(4):
        engine.step()
    output = engine.abort("a")
    assert output is not None
    assert output.finished
    assert output.outputs[0].finish_reason == "abort"
    assert list(output.outputs[0].token_ids) == found.outputs[0][:4]
    assert engine.abort("a") is None
    done = []
    while engine.has_unfinished:
        done.extend(engine.step())
    assert {o.request_id for o in done} == {"b"}
    assert list(done[-1].outputs[0].token_ids) == found.outputs[0][:10]
    assert engine.step() == []


def test_refusals_leave_nothing_behind(reference: GetReference) -> None:
    found = reference("llama")
    llm = make_llm(found.folder, skip_tokenizer=True, max_num_seqs=4)
    engine = llm.engine
    prompt = found.prompts[0]
    engine.add_request("a", prompt)
    with pytest.raises(DuplicateRequestError):
        engine.add_request("a", prompt)
    engine.abort("a")
    with pytest.raises(PromptTooLongError):
        engine.add_request("b", make_prompts([128])[0])
    with pytest.raises(NeverFitsError):
        engine.add_request("b", prompt, SamplingParams(n=5))
    bad: list[tuple[Any, SamplingParams, str]] = [
        ([1, 151], SamplingParams(), "below the vocabulary's size, 151"),
        ("text", SamplingParams(), "token ids, as there is no tokenizer"),
        (prompt, SamplingParams(stop="x"), "no tokenizer"),
        (prompt, SamplingParams(stop_token_ids=(500,)), "vocabulary"),
        (prompt, SamplingParams(logit_bias={500: 1.0}), "vocabulary"),
        ([], SamplingParams(), "not none"),
    ]
    for given, params, match in bad:
        with pytest.raises(InvalidParameterError, match=match):
            engine.add_request("b", given, params)
    with pytest.raises(PromptTooLongError):
        llm.generate([prompt, make_prompts([128])[0]])
    assert not engine.has_unfinished
    assert llm.generate([], SamplingParams()) == []


def test_options_are_checked(reference: GetReference, tmp_path: Path) -> None:
    folder = reference("llama").folder
    with pytest.raises(InvalidParameterError, match=r"options are .*'dtype'"):
        LLM(folder, blocksize=16)
    with pytest.raises(InvalidParameterError, match="at most 256, the model's context"):
        LLM(folder, skip_tokenizer=True, max_model_len=512)
    with pytest.raises(InvalidParameterError, match="two blocks"):
        LLM(folder, skip_tokenizer=True, kv_cache_bytes=100)
    with pytest.raises(InvalidParameterError, match="one of auto, fp32"):
        EngineConfig(folder, dtype="float32")
    with pytest.raises(TokenizerError):
        LLMEngine(EngineConfig(folder))
    llm = make_llm(folder, skip_tokenizer=True)
    with pytest.raises(InvalidParameterError, match="as many as prompts: 2"):
        llm.generate([[1], [2]], [SamplingParams()])


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_runs_near_the_reference(reference: GetReference, dtype: str) -> None:
    found = reference("llama")
    llm = make_llm(found.folder, skip_tokenizer=True, dtype=dtype)
    prompt = found.prompts[1]
    (output,) = llm.generate([prompt], SamplingParams(max_tokens=1, prompt_logprobs=0))
    with torch.no_grad():
        expected = torch.log_softmax(found.model(torch.tensor([prompt])).logits[0], dim=-1)
    assert output.prompt_logprobs is not None
    for position, entry in enumerate(output.prompt_logprobs[1:]):
        token_id = prompt[position + 1]
        assert entry is not None
        assert entry[token_id].logprob == pytest.approx(expected[position, token_id].item(), abs=1)
