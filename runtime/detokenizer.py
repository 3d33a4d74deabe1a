"""Turns tokens into text as they come, never giving out part of a character.

A token may be a few bytes of a character, and a token's text may depend on the one before it. So a
window of tokens is decoded twice, without and with the new one; the difference is the new text,
held back while it ends in an incomplete character. The two-offset window is that of Hugging Face's
text generation server and of vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

_REPLACEMENT = "\ufffd"
_CONTEXT_TOKENS = 6
"""Prompt tokens before the first output token: enough for its text to come out as it would."""


class Decoder(Protocol):
    """The part of a tokenizer that is used here."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Text of the tokens."""
        ...


class IncrementalDetokenizer:
    """Text of one sequence's output."""

    def __init__(
        self, decoder: Decoder, prompt_token_ids: Sequence[int], *, skip_special_tokens: bool
    ) -> None:
        self._decoder = decoder
        self._skip_special_tokens = skip_special_tokens
        self._window = list(prompt_token_ids[-_CONTEXT_TOKENS:])
        self._num_shown = len(self._window)  # tokens of the window whose text has been given out

    def append(self, token_id: int) -> str:
        """Take one token; returns the text that is complete with it, often but not always its."""
        self._window.append(token_id)
        return self._advance(final=False)

    def flush(self) -> str:
        """Return what was held back, at the end of the sequence."""
        return self._advance(final=True)

    def _advance(self, *, final: bool) -> str:
        shown = self._decode(self._window[: self._num_shown])
        text = self._decode(self._window)
        if len(text) <= len(shown) or (text.endswith(_REPLACEMENT) and not final):
            return ""
        self._window = self._window[self._num_shown :]
        self._num_shown = len(self._window)
        return text[len(shown) :]

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._decoder.decode(token_ids, skip_special_tokens=self._skip_special_tokens)
