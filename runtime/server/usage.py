"""Counts a request's tokens as the engine reports them."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.server.messages import Advance
from runtime.server.prompts import Prompt
from runtime.server.responses import PromptTokensDetails, Usage


class UsageCount:
    """Of one HTTP request, all prompts and completions together."""

    def __init__(self, prompts: Sequence[Prompt], *, counts_output: bool = True) -> None:
        self._num_prompt_tokens = sum(len(prompt.token_ids) for prompt in prompts)
        self._num_output_tokens = 0
        self._cached = [0] * len(prompts)
        self._counts_output = counts_output

    def add(self, index: int, advance: Advance) -> None:
        """Take what prompt `index` has gained."""
        self._cached[index] = advance.num_cached_tokens
        if self._counts_output:
            self._num_output_tokens += sum(delta.num_tokens for delta in advance.deltas)

    def usage(self) -> Usage:
        """So far."""
        return Usage(
            prompt_tokens=self._num_prompt_tokens,
            completion_tokens=self._num_output_tokens,
            total_tokens=self._num_prompt_tokens + self._num_output_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=sum(self._cached)),
        )
