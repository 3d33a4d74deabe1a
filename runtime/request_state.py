"""A request under way, from the caller's side: its prompt, its completions, its scores."""

from __future__ import annotations

from runtime.completion import Completion, name_logprobs
from runtime.logprobs import PositionLogprobs
from runtime.model_runner import PromptLogprobs
from runtime.outputs import RequestOutput, TokenLogprobs
from runtime.sequence import Request, Sequence
from runtime.tokenizer import Tokenizer


class RequestState:
    """Gathers what the steps give; sequences that are forked later join when they are sampled."""

    def __init__(
        self, request: Request, first: Sequence, prompt: str | None, tokenizer: Tokenizer | None
    ) -> None:
        self.request = request
        self.first = first
        self._prompt = prompt
        self._tokenizer = tokenizer
        self._completions: dict[int, Completion] = {0: Completion(first, tokenizer)}
        self._prompt_logprobs: list[TokenLogprobs | None] | None = None
        if request.sampling_params.prompt_logprobs is not None:
            self._prompt_logprobs = [None] * len(request.prompt_token_ids)

    @property
    def is_finished(self) -> bool:
        """Whether all sequences have ended."""
        completions = self._completions.values()
        return len(completions) == self.request.sampling_params.n and all(
            completion.sequence.is_finished for completion in completions
        )

    def take(self, sequence: Sequence, token_id: int, logprobs: PositionLogprobs | None) -> bool:
        """Add a token to its completion; says whether that completed a stop string."""
        completion = self._completions.get(sequence.index)
        if completion is None:
            completion = Completion(sequence, self._tokenizer)
            self._completions[sequence.index] = completion
        return completion.take(token_id, logprobs)

    def take_prompt_logprobs(self, scores: PromptLogprobs) -> None:
        """Fill in a stretch of the prompt; computed again after a preemption, it is the same."""
        assert self._prompt_logprobs is not None
        named = [name_logprobs(entry, self._tokenizer) for entry in scores.logprobs]
        self._prompt_logprobs[scores.position : scores.position + len(named)] = named

    def output(self, *, finished: bool | None = None) -> RequestOutput:
        """What the caller sees now."""
        completions = [self._completions[index] for index in sorted(self._completions)]
        return RequestOutput(
            request_id=self.request.request_id,
            prompt=self._prompt,
            prompt_token_ids=self.request.prompt_token_ids,
            prompt_logprobs=self._prompt_logprobs,
            outputs=[completion.output() for completion in completions],
            finished=self.is_finished if finished is None else finished,
            num_cached_tokens=self.first.num_cached_tokens,
        )
