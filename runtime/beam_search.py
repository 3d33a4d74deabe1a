"""Beam search of one request: which continuations live on, which are finished, when to end.

The rules are those of Hugging Face's `_beam_search` with `early_stopping=False`, so that results
agree token for token: a continuation that ends counts only among the best `beam_width`, finished
ones are ranked by sum / length ** length_penalty, and the search ends when the best running beam,
taken at its present length, could not displace the worst of enough finished ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.sampling_params import BeamSearchParams


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished output."""

    token_ids: tuple[int, ...]
    logprob: float
    """Sum over the tokens."""
    score: float
    """By which hypotheses are ranked."""
    has_ended: bool
    """With an end token, rather than at the bound on length."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """A beam and the token that goes on from it."""

    beam: int
    token_id: int
    logprob: float
    """Sum over the tokens, this one included."""


class BeamSearch:
    """Fed with every beam's candidates once per length; knows no scheduler and no tensors."""

    def __init__(
        self, params: BeamSearchParams, end_token_ids: frozenset[int], max_tokens: int
    ) -> None:
        self._params = params
        self._end_token_ids = frozenset() if params.ignore_eos else end_token_ids
        self._max_tokens = max_tokens
        self._logprobs = [0.0]  # sum so far, per beam
        self._length = 0
        self.hypotheses: list[Hypothesis] = []
        """Finished outputs, best first, at most `beam_width`."""

    def num_candidates(self) -> int:
        """Continuations that are looked at: enough that `beam_width` of them do not end."""
        return max(2, 1 + len(self._end_token_ids)) * self._params.beam_width

    def advance(
        self,
        outputs: Sequence[Sequence[int]],
        candidates: Sequence[Sequence[tuple[int, float]]],
    ) -> list[Continuation]:
        """Take one step of the search.

        Args:
            outputs: tokens of each beam, in the order of the last call's result.
            candidates: per beam, its best next tokens with their log-probabilities.

        Returns:
            The beams of the next step, best first; none if the search is over.
        """
        assert len(outputs) == len(candidates) == len(self._logprobs), "a beam is missing"
        width = self._params.beam_width
        best = sorted(
            (
                Continuation(beam, token_id, self._logprobs[beam] + logprob)
                for beam, options in enumerate(candidates)
                for token_id, logprob in options
            ),
            key=lambda continuation: -continuation.logprob,
        )[: self.num_candidates()]
        self._length += 1
        is_last = self._length == self._max_tokens
        for continuation in best[:width]:
            if is_last or continuation.token_id in self._end_token_ids:
                self._finish(outputs[continuation.beam], continuation)
        if is_last:
            return []
        alive = [c for c in best if c.token_id not in self._end_token_ids][:width]
        self._logprobs = [continuation.logprob for continuation in alive]
        return alive if self._can_improve() else []

    def _can_improve(self) -> bool:
        if len(self.hypotheses) < self._params.beam_width:
            return True
        return self._score(self._logprobs[0]) > self.hypotheses[-1].score

    def _finish(self, output: Sequence[int], continuation: Continuation) -> None:
        has_ended = continuation.token_id in self._end_token_ids
        logprob = continuation.logprob
        tokens = (*output, continuation.token_id)
        self.hypotheses.append(Hypothesis(tokens, logprob, self._score(logprob), has_ended))
        self.hypotheses.sort(key=lambda hypothesis: -hypothesis.score)
        del self.hypotheses[self._params.beam_width :]

    def _score(self, logprob: float) -> float:
        return float(logprob / self._length**self._params.length_penalty)
