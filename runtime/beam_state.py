"""A beam search under way: gathers its beams' candidates, moves the scheduler's beams along."""

from __future__ import annotations

from runtime.beam_search import BeamSearch, Hypothesis
from runtime.detokenizer import IncrementalDetokenizer
from runtime.outputs import CompletionOutput, RequestOutput
from runtime.sampler import BeamCandidates
from runtime.scheduler import Scheduler
from runtime.sequence import FinishReason, Request, Sequence
from runtime.tokenizer import Tokenizer


class BeamState:
    """The caller's side of one request with beams."""

    def __init__(
        self, request: Request, first: Sequence, prompt: str | None, tokenizer: Tokenizer | None
    ) -> None:
        assert request.beam_search is not None
        self.request = request
        self._first = first
        self._prompt = prompt
        self._tokenizer = tokenizer
        max_tokens = first.max_total_tokens - first.num_prompt_tokens
        self._search = BeamSearch(request.beam_search, request.eos_token_ids, max_tokens)
        self._beams = [first]
        self._candidates: dict[Sequence, BeamCandidates] = {}
        self._is_finished = False

    def take(self, beam: Sequence, candidates: BeamCandidates) -> None:
        """Keep a sampled beam's candidates until all beams have theirs."""
        self._candidates[beam] = candidates

    def advance(self, scheduler: Scheduler) -> bool:
        """Go on if every beam has its candidates; says whether something has changed."""
        if any(beam not in self._candidates for beam in self._beams):
            return False
        found = [self._candidates[beam] for beam in self._beams]
        chosen = self._search.advance(
            [beam.output_token_ids for beam in self._beams],
            [tuple(zip(each.token_ids, each.logprobs, strict=True)) for each in found],
        )
        self._candidates.clear()
        if chosen:
            choices = [(self._beams[each.beam], each.token_id) for each in chosen]
            self._beams = scheduler.advance_beams(self.request.request_id, choices)
        else:
            scheduler.finish_request(self.request.request_id, FinishReason.STOP)
            self._is_finished = True
        return True

    def output(self, *, finished: bool | None = None) -> RequestOutput:
        """Return the finished hypotheses, best first; there may be none while it runs."""
        hypotheses = self._search.hypotheses
        return RequestOutput(
            request_id=self.request.request_id,
            prompt=self._prompt,
            prompt_token_ids=self.request.prompt_token_ids,
            prompt_logprobs=None,
            outputs=[self._completion(index, each) for index, each in enumerate(hypotheses)],
            finished=self._is_finished if finished is None else finished,
            num_cached_tokens=self._first.num_cached_tokens,
        )

    def _completion(self, index: int, hypothesis: Hypothesis) -> CompletionOutput:
        return CompletionOutput(
            index=index,
            text=self._text(hypothesis),
            token_ids=hypothesis.token_ids,
            cumulative_logprob=hypothesis.logprob,
            logprobs=None,
            finish_reason=(
                FinishReason.STOP if hypothesis.has_ended else FinishReason.LENGTH
            ).value,
            stop_reason=None,
        )

    def _text(self, hypothesis: Hypothesis) -> str:
        if self._tokenizer is None:
            return ""
        detokenizer = IncrementalDetokenizer(
            self._tokenizer, self.request.prompt_token_ids, skip_special_tokens=True
        )
        pieces = [detokenizer.append(token_id) for token_id in hypothesis.token_ids]
        return "".join((*pieces, detokenizer.flush()))
