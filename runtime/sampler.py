"""Chooses the next token of every sample in a step, and reports log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence as Samples
from dataclasses import dataclass

import torch

from runtime.draw import draw_tokens
from runtime.gather_logprobs import gather_logprobs
from runtime.logit_rules import apply_rules, changes_logits
from runtime.logprobs import PositionLogprobs
from runtime.random_stream import stream_seed, uniform
from runtime.sequence import Request, Sequence


@dataclass(frozen=True, slots=True)
class BeamCandidates:
    """The best continuations of one beam, best first."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Sampled:
    """What was chosen, one entry per sample."""

    token_ids: list[int]
    """For a beam, a placeholder: the search chooses among the candidates."""
    logprobs: list[PositionLogprobs | None]
    """Of the model itself, before any penalty or temperature; None where not asked for."""
    candidates: list[BeamCandidates | None]
    """For beams only."""


class Sampler:
    """Stateless but for the engine's seed: the same step gives the same tokens."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def sample(
        self, logits: torch.Tensor, samples: Samples[Sequence], output_indices: Samples[int]
    ) -> Sampled:
        """Choose one token per row.

        Args:
            logits: float32 [num_samples, vocab_size]; changed in place.
            samples: sequence of each row.
            output_indices: which of its output tokens each row gives.
        """
        params = [sequence.request.sampling_params for sequence in samples]
        wanted = [
            index
            for index, sequence in enumerate(samples)
            if sequence.is_beam or params[index].logprobs is not None
        ]
        logprobs = torch.log_softmax(logits[wanted], dim=-1) if wanted else None
        for index, sequence in enumerate(samples):
            if changes_logits(params[index]) and not sequence.is_beam:
                apply_rules(logits[index], sequence, output_indices[index])
        token_ids = logits.argmax(dim=-1).tolist()
        drawn = [
            index
            for index, sequence in enumerate(samples)
            if not params[index].is_greedy and not sequence.is_beam
        ]
        if drawn:
            uniforms = [self._uniform(samples[index], output_indices[index]) for index in drawn]
            tokens = draw_tokens(logits[drawn], [params[index] for index in drawn], uniforms)
            for index, token in zip(drawn, tokens, strict=True):
                token_ids[index] = token
        sampled = Sampled(token_ids, [None] * len(samples), [None] * len(samples))
        if logprobs is not None:
            self._report(sampled, logprobs, samples, wanted)
        return sampled

    def _report(
        self,
        sampled: Sampled,
        logprobs: torch.Tensor,
        samples: Samples[Sequence],
        wanted: Samples[int],
    ) -> None:
        counts = [samples[index].request.sampling_params.logprobs or 0 for index in wanted]
        token_ids = [sampled.token_ids[index] for index in wanted]
        gathered = gather_logprobs(logprobs, token_ids, counts)
        for row, index in enumerate(wanted):
            if samples[index].is_beam:
                sampled.candidates[index] = _candidates(logprobs[row], samples[index].request)
            else:
                sampled.logprobs[index] = gathered[row]

    def _uniform(self, sequence: Sequence, output_index: int) -> float:
        request = sequence.request
        seed = request.sampling_params.seed
        if seed is None:
            seed = stream_seed(self._seed, request.request_id)
        return uniform(seed, sequence.index, output_index)


def _candidates(logprobs: torch.Tensor, request: Request) -> BeamCandidates:
    """As many as the search could take from one beam, were all others worse."""
    assert request.beam_search is not None
    count = max(2, 1 + len(request.eos_token_ids)) * request.beam_search.beam_width
    values, ids = logprobs.topk(min(count, logprobs.shape[0]))
    return BeamCandidates(tuple(ids.tolist()), tuple(values.tolist()))
