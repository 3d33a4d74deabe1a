"""Which requests are taken at all, and how many blocks to leave free for those that run.

Refusal is by what can never be; the headroom is a forecast, backed by preemption when it errs. The
forecast is the peak formula of LightLLM's request queue: order the sequences by the tokens that
each still has to write; when one ends, all with more to come have grown by as much, and all with
less have given their blocks back.
"""

from __future__ import annotations

from collections.abc import Iterable

from runtime.errors import InvalidParameterError, NeverFitsError, PromptTooLongError
from runtime.scheduler_config import SchedulerConfig
from runtime.sequence import Request, Sequence

_MEMORY = 1 / 16
"""Weight of the newest output's length in the moving mean."""


def bound_total_tokens(request: Request, config: SchedulerConfig) -> int:
    """Return the most tokens, prompt and output, that each sequence of a request may reach.

    Raises:
        PromptTooLongError: the model's context has no room for an output token.
        NeverFitsError: one sequence would not fit in the empty pool, or the request has more
            sequences than there are seats.
        InvalidParameterError: beam search and n > 1 at once.
    """
    num_prompt_tokens = len(request.prompt_token_ids)
    if request.beam_search is not None and request.sampling_params.n > 1:
        raise InvalidParameterError("n", request.sampling_params.n, "1 with beam search")
    if request.num_seats > config.max_num_seqs:
        raise NeverFitsError(
            "sequences at once",
            request.num_seats,
            config.max_num_seqs,
            "lower n or beam_width, or raise max_num_seqs",
        )
    if num_prompt_tokens >= config.max_model_len:
        raise PromptTooLongError(num_prompt_tokens, config.max_model_len)
    total = min(config.max_model_len, config.max_pool_tokens)
    if request.max_tokens is not None:
        total = min(config.max_model_len, num_prompt_tokens + request.max_tokens)
    needed = max(total, num_prompt_tokens + 1)
    if needed > config.max_pool_tokens:
        raise NeverFitsError(
            "tokens of KV cache",
            needed - 1,
            config.max_pool_tokens - 1,
            "shorten the prompt, lower max_tokens, or give the engine more blocks",
        )
    return total


class OutputForecast:
    """Learns how long outputs are, and foresees the blocks that running sequences will take."""

    def __init__(self, expected_output_tokens: int) -> None:
        self.expected_output_tokens = float(expected_output_tokens)

    def observe(self, sequence: Sequence) -> None:
        """Take note of a sequence that ended by itself."""
        surprise = sequence.num_output_tokens - self.expected_output_tokens
        self.expected_output_tokens += _MEMORY * surprise

    def num_tokens_left(self, sequence: Sequence) -> int:
        """Tokens still expected; one that has outlived the mean is given a quarter more."""
        num_output = sequence.num_output_tokens
        expected = max(self.expected_output_tokens - num_output, num_output / 4, 1.0)
        return min(int(expected), sequence.max_total_tokens - len(sequence.token_ids))

    def peak_growth(self, sequences: Iterable[Sequence], block_size: int) -> int:
        """Blocks, beyond those held now, that `sequences` will need at the worst moment."""
        pairs = [
            (self.num_tokens_left(s), len(s.token_ids) - s.num_cached_tokens) for s in sequences
        ]
        pairs.sort()
        peak = freed = 0
        alive = len(pairs)
        for left, private in pairs:
            peak = max(peak, left * alive - freed)
            freed += private
            alive -= 1
        return -(-peak // block_size)
