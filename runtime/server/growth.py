"""Turns outputs, which are whole at every step, into what is new in them."""

from __future__ import annotations

from runtime.outputs import CompletionOutput, RequestOutput, TokenLogprobs
from runtime.server.messages import Advance, Delta, TokenScore, TokenScores


class _Told:
    """How much of one completion the front end knows."""

    __slots__ = ("is_finished", "num_chars", "num_tokens")

    def __init__(self) -> None:
        self.num_chars = 0
        self.num_tokens = 0
        self.is_finished = False


class Growth:
    """Remembers, for each live request, what has been told of it."""

    def __init__(self) -> None:
        self._told: dict[str, dict[int, _Told]] = {}

    def add(self, request_id: str) -> None:
        """A request has been taken."""
        self._told[request_id] = {}

    def forget(self, request_id: str) -> None:
        """A request has ended otherwise than by its output."""
        self._told.pop(request_id, None)

    def advance(self, output: RequestOutput) -> Advance:
        """What is new since the last output of this request."""
        told = self._told[output.request_id]
        is_first = not told
        deltas = []
        for completion in output.outputs:
            known = told.setdefault(completion.index, _Told())
            delta = _delta(completion, known)
            if delta is not None:
                deltas.append(delta)
        if output.finished:
            del self._told[output.request_id]
        prompt_scores = None
        if is_first and output.prompt_logprobs is not None:
            prompt_scores = [
                None if entry is None else _scores(entry) for entry in output.prompt_logprobs
            ]
        return Advance(
            output.request_id, deltas, output.finished, output.num_cached_tokens, prompt_scores
        )


def _delta(completion: CompletionOutput, told: _Told) -> Delta | None:
    num_tokens = len(completion.token_ids) - told.num_tokens
    if told.is_finished or (not num_tokens and completion.finish_reason is None):
        return None
    scores = None
    if completion.logprobs is not None:
        scores = [_scores(entry) for entry in completion.logprobs[told.num_tokens :]]
    text = completion.text[told.num_chars :]
    told.num_chars = len(completion.text)
    told.num_tokens = len(completion.token_ids)
    told.is_finished = completion.finish_reason is not None
    return Delta(
        completion.index,
        text,
        num_tokens,
        scores,
        completion.finish_reason,
        completion.stop_reason,
    )


def _scores(entry: TokenLogprobs) -> TokenScores:
    return [
        TokenScore(token_id, found.decoded_token or "", found.logprob, found.rank)
        for token_id, found in entry.items()
    ]
