"""The growing output of one sequence: its text, its log-probabilities, why it ended."""

from __future__ import annotations

import math

from runtime.detokenizer import IncrementalDetokenizer
from runtime.errors import ModelOutputError
from runtime.logprobs import Logprob, PositionLogprobs
from runtime.outputs import CompletionOutput, TokenLogprobs
from runtime.sequence import FinishReason, Sequence
from runtime.stop_strings import StopStrings
from runtime.tokenizer import Tokenizer


class Completion:
    """Takes a sequence's tokens one by one; finds stop strings in their text."""

    def __init__(self, sequence: Sequence, tokenizer: Tokenizer | None) -> None:
        params = sequence.request.sampling_params
        self.sequence = sequence
        self.stop_string: str | None = None
        self._params = params
        self._tokenizer = tokenizer
        self._text = ""
        self._num_searched = 0
        self._cumulative = 0.0
        self._logprobs: list[TokenLogprobs] = []
        self._stops = StopStrings(params.stop, include_in_output=params.include_stop_str_in_output)
        self._detokenizer: IncrementalDetokenizer | None = None
        if tokenizer is not None and params.detokenize:
            self._detokenizer = IncrementalDetokenizer(
                tokenizer,
                sequence.request.prompt_token_ids,
                skip_special_tokens=params.skip_special_tokens,
            )

    def take(self, token_id: int, logprobs: PositionLogprobs | None) -> bool:
        """Add one token; says whether a stop string is complete with it, and ends the text there.

        If the sequence has ended with this token, what was held back is added too.
        """
        if logprobs is not None:
            self._cumulative += logprobs.logprobs[0]
            self._logprobs.append(name_logprobs(logprobs, self._tokenizer))
        if self._detokenizer is None:
            return False
        is_stop_token = self.sequence.stop_token_id is not None
        if not is_stop_token or self._params.include_stop_str_in_output:
            self._text += self._detokenizer.append(token_id)
        if self.sequence.is_finished:
            self._text += self._detokenizer.flush()
        return self._search()

    def _search(self) -> bool:
        # A stop string counts only if it ends after the first `min_tokens` tokens.
        if self.sequence.num_output_tokens < self._params.min_tokens:
            self._num_searched = len(self._text)
            return False
        found = self._stops.find(self._text, self._num_searched)
        self._num_searched = len(self._text)
        if found is None:
            return False
        self.stop_string, length = found
        self._text = self._text[:length]
        return True

    def output(self) -> CompletionOutput:
        """What the caller sees now."""
        sequence = self.sequence
        reason = sequence.finish_reason
        if self.stop_string is not None:
            reason = FinishReason.STOP  # even where the same token was the last one allowed
        text = self._text
        if reason is None:
            text = text[: len(text) - self._stops.num_held_back(text)]
        has_logprobs = self._params.logprobs is not None
        return CompletionOutput(
            index=sequence.index,
            text=text,
            token_ids=tuple(sequence.output_token_ids),
            cumulative_logprob=self._cumulative if has_logprobs else None,
            logprobs=list(self._logprobs) if has_logprobs else None,
            finish_reason=None if reason is None else reason.value,
            stop_reason=self._stop_reason(reason),
        )

    def _stop_reason(self, reason: FinishReason | None) -> int | str | None:
        if reason is not FinishReason.STOP:
            return None
        if self.stop_string is not None:
            return self.stop_string
        token_id = self.sequence.stop_token_id
        return token_id if token_id in self._params.stop_token_ids else None


def name_logprobs(logprobs: PositionLogprobs, tokenizer: Tokenizer | None) -> TokenLogprobs:
    """Log-probabilities by token id, with each token's text.

    Raises:
        ModelOutputError: one is not a number. Callers would take it for a score, and JSON has none.
    """
    if any(map(math.isnan, logprobs.logprobs)):
        raise ModelOutputError("a log-probability of the model is not a number")

    def text(token_id: int) -> str | None:
        if tokenizer is None:
            return None
        return tokenizer.decode([token_id], skip_special_tokens=False)

    rows = zip(logprobs.token_ids, logprobs.logprobs, logprobs.ranks, strict=True)
    return {token_id: Logprob(value, rank, text(token_id)) for token_id, value, rank in rows}
