"""Tokens are drawn from the right distribution, and from the request's own stream."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from runtime.draw import DrawLayout, DrawPlan, draw_tokens
from runtime.random_stream import stream_key, stream_seed, uniforms
from runtime.sampler import Sampled, Sampler
from runtime.sampling_params import SamplingParams
from runtime.sequence import Request, Sequence, SequenceStatus
from runtime.stream import HostStream

VOCAB_SIZE = 50


def make_logits(num_rows: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(num_rows, VOCAB_SIZE, generator=generator)


def make_sequence(params: SamplingParams, name: str = "a", prompt: Many[int] = (1,)) -> Sequence:
    request = Request(name, tuple(prompt), params, eos_token_ids=frozenset({0}))
    return Sequence(request, (0, 1, 0), 1000)


def draw(logits: torch.Tensor, params: Many[SamplingParams], numbers: Many[float]) -> torch.Tensor:
    layout = DrawLayout.make(range(len(params)), params)
    plan = DrawPlan(layout, np.array(numbers)[layout.rows])
    rows, found = draw_tokens(logits, plan, HostStream())
    return torch.zeros_like(found).index_copy_(0, rows, found)


def sample(
    sampler: Sampler, logits: torch.Tensor, samples: Many[Sequence], output_indices: Many[int]
) -> Sampled:
    """All three parts; every token is known."""
    inputs = torch.tensor([sequence.token_ids[-1] for sequence in samples])
    stream = HostStream()
    pending = sampler.launch(logits, sampler.plan(samples, output_indices), inputs, stream)
    return pending.download(stream).read()


def support(logits: torch.Tensor, **options: Any) -> dict[int, float]:
    """Share of each token over an even grid of random numbers: exact to one part in 4000."""
    grid = [(i + 0.5) / 4000 for i in range(4000)]
    params = [SamplingParams(**options)] * len(grid)
    tokens = draw(logits.expand(len(grid), -1), params, grid)
    counts = tokens.bincount(minlength=VOCAB_SIZE) / len(grid)
    return {i: share for i, share in enumerate(counts.tolist()) if share}


@pytest.mark.parametrize(
    ("options", "warper"),
    [
        ({}, None),
        ({"top_k": 5}, TopKLogitsWarper(5)),
        ({"top_p": 0.6}, TopPLogitsWarper(0.6)),
        ({"top_p": 1e-6}, TopPLogitsWarper(1e-6)),
        ({"min_p": 0.1}, MinPLogitsWarper(0.1)),
        ({"top_k": 1}, TopKLogitsWarper(1)),
        ({"top_k": 1000}, None),
    ],
)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_shares_are_those_of_hugging_face(
    options: dict[str, Any], warper: Any, temperature: float
) -> None:
    logits = make_logits(1)
    warped = logits / temperature
    if warper is not None:
        warped = warper(None, warped)
    expected = torch.softmax(warped, dim=-1)[0]
    found = support(logits, temperature=temperature, **options)
    shares = torch.tensor([found.get(i, 0.0) for i in range(VOCAB_SIZE)])
    assert (shares - expected).abs().max() < 1e-3
    assert (shares[expected == 0] == 0).all()


def test_cuts_combine() -> None:
    logits = make_logits(1, seed=3)
    order = logits[0].argsort(descending=True).tolist()
    both = support(logits, top_k=4, top_p=0.99)
    assert set(both) == set(order[:4])
    # After top-k the rest is normalised again, so top-p counts within it.
    shares = torch.softmax(logits[0, order[:4]], dim=0)
    kept = 1 + int((shares.cumsum(0) < 0.7).sum())
    assert set(support(logits, top_k=4, top_p=0.7)) == set(order[:kept])


def test_a_row_does_not_know_its_neighbours() -> None:
    logits = make_logits(6)
    params = [SamplingParams(top_k=k, temperature=t) for k, t in ((0, 1), (3, 2), (0, 0.5))] * 2
    numbers = [0.1, 0.9, 0.5, 0.999999, 0.0, 0.3]
    together = draw(logits, params, numbers).tolist()
    alone = [draw(logits[i : i + 1], params[i : i + 1], numbers[i : i + 1]) for i in range(6)]
    assert together == torch.cat(alone).tolist()


def test_the_last_random_number_still_names_a_token() -> None:
    logits = torch.full((1, VOCAB_SIZE), -torch.inf)
    logits[0, 7] = 0.0
    for number in (0.0, 1 - 2**-53):
        assert draw(logits, [SamplingParams()], [number]) == 7
        assert draw(logits, [SamplingParams(top_p=0.5)], [number]) == 7


def test_streams() -> None:
    keys = [stream_key(s, i) for s in (0, 1, -5) for i in range(3)]
    assert len(set(keys)) == len(keys)
    named = np.array(keys, dtype=np.uint64)
    numbers = uniforms(named[None], np.arange(1000, dtype=np.uint64)[:, None])  # [1000, 9]
    assert len(set(numbers.ravel())) == numbers.size
    assert ((numbers >= 0) & (numbers < 1)).all()
    # A uniform variable has mean 1/2, variance 1/12, and nothing in common with its neighbours.
    assert np.abs(numbers.mean(axis=0) - 0.5).max() < 4 * (1 / 12 / 1000) ** 0.5
    assert np.abs(numbers.var(axis=0) - 1 / 12).max() < 0.01
    both = np.concatenate((numbers[:-1], numbers[1:]), axis=1)  # now and next, of all streams
    alike = np.corrcoef(both, rowvar=False) - np.eye(both.shape[1])
    assert np.abs(alike).max() < 5 / 1000**0.5
    # The reference implementation of SplitMix64 gives this first number for the seed 1234567.
    assert (
        uniforms(np.uint64([1234567]), np.uint64([0]))[0] == (6457827717110365317 >> 11) * 2.0**-53
    )
    assert stream_seed(0, "a") == stream_seed(0, "a") != stream_seed(0, "b")
    assert stream_seed(1, "a") != stream_seed(0, "a")


def test_sampled_by_seed_and_token_index_only() -> None:
    logits = make_logits(1).expand(3, -1)
    params = SamplingParams(seed=7)
    one, other = make_sequence(params, "one"), make_sequence(params, "other")
    unseeded = make_sequence(SamplingParams(), "third")
    sampler = Sampler(0)
    first = [
        sample(sampler, logits.clone(), [one, other, unseeded], [i, i, i]).token_ids
        for i in range(20)
    ]
    assert [row[0] for row in first] == [row[1] for row in first]
    assert [row[0] for row in first] != [row[2] for row in first]
    alone = [
        sample(Sampler(9), logits[:1].clone(), [other], [index]).token_ids[0] for index in range(20)
    ]
    assert alone == [row[0] for row in first], "engine seed and batch do not matter with a seed"


def adjusted(params: SamplingParams, prompt: Many[int], output: Many[int]) -> torch.Tensor:
    """Logits after the rules, seen through a greedy sampler that changes them in place."""
    logits = make_logits(1)
    sequence = make_sequence(params, prompt=prompt)
    sequence.token_ids.extend(output)
    sample(Sampler(0), logits, [sequence], [len(output)])
    return logits[0]


def test_repetition_penalty_is_that_of_hugging_face() -> None:
    prompt, output = (3, 4, 4, 9), (9, 30)
    params = SamplingParams(temperature=0, repetition_penalty=1.7)
    processor = RepetitionPenaltyLogitsProcessor(1.7)
    expected = processor(torch.tensor([[*prompt, *output]]), make_logits(1))[0]
    assert torch.equal(adjusted(params, prompt, output), expected)


def test_presence_and_frequency_count_the_output_only() -> None:
    params = SamplingParams(temperature=0, presence_penalty=0.5, frequency_penalty=0.25)
    expected = make_logits(1)[0]
    expected[9] -= 0.5 + 2 * 0.25
    expected[30] -= 0.5 + 0.25
    assert torch.allclose(adjusted(params, (3, 9), (9, 30, 9)), expected)


def test_bias_and_min_tokens() -> None:
    params = SamplingParams(
        temperature=0, logit_bias={5: 100.0, 6: -100.0}, min_tokens=2, stop_token_ids=(8,)
    )
    for num_output, is_masked in ((0, True), (1, True), (2, False)):
        logits = adjusted(params, (1,), (3,) * num_output)
        assert logits.argmax() == 5
        assert logits[6] < -90
        assert bool(logits[8] == -torch.inf) == is_masked
        assert bool(logits[0] == -torch.inf) == is_masked, "the end-of-sequence token"


def test_logprobs_are_the_models_own() -> None:
    logits = make_logits(2)
    expected = torch.log_softmax(logits, dim=-1)
    params = SamplingParams(temperature=0, logprobs=3, logit_bias={11: 100.0})
    silent = SamplingParams(temperature=0)
    sampled = sample(Sampler(0), logits, [make_sequence(params), make_sequence(silent)], [0, 0])
    assert sampled.token_ids[0] == 11
    assert sampled.logprobs[1] is None
    found = sampled.logprobs[0]
    assert found is not None
    order = expected[0].argsort(descending=True).tolist()
    top = [token for token in order[:3] if token != 11]
    assert found.token_ids == (11, *top)
    assert found.logprobs == pytest.approx([expected[0, i].item() for i in found.token_ids])
    assert found.ranks == tuple(order.index(i) + 1 for i in found.token_ids)


def test_a_penalised_sequence_does_not_inherit_counts() -> None:
    """Of one that ended, and of a prompt of one token, before which nothing was counted."""
    params = SamplingParams(temperature=0, repetition_penalty=2.0, frequency_penalty=1.0)
    sampler = Sampler(0)
    for tokens in ((9, 30, 9), (5,), (6, 7)):
        sequence = make_sequence(params, prompt=tokens)
        found, expected = make_logits(1), make_logits(1)
        sample(sampler, found, [sequence], [0])
        sample(Sampler(0), expected, [make_sequence(params, prompt=tokens)], [0])
        assert torch.equal(found, expected)
        sequence.status = SequenceStatus.FINISHED


def test_counts_grow_with_the_input_of_each_step() -> None:
    params = SamplingParams(temperature=0, repetition_penalty=1.5, presence_penalty=0.5)
    sampler = Sampler(0)
    sequence = make_sequence(params, prompt=(3, 4))
    for index, token in enumerate((11, 12, 11, 13)):
        found, expected = make_logits(1, seed=index), make_logits(1, seed=index)
        sample(sampler, found, [sequence], [index])
        whole = make_sequence(params, prompt=(3, 4))
        whole.token_ids = list(sequence.token_ids)
        sample(Sampler(0), expected, [whole], [index])
        assert torch.equal(found, expected)
        sequence.token_ids.append(token)
