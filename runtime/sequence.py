"""A request as it was asked, and the sequences that serve it: tokens, progress, blocks, state."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from enum import Enum

from runtime.block_hash import BlockHash, root_hash
from runtime.errors import InvalidParameterError
from runtime.sampling_params import BeamSearchParams, SamplingParams


class SequenceStatus(Enum):
    """Where a sequence is; FINISHED is entered once and never left."""

    WAITING = "waiting"
    RUNNING = "running"
    SWAPPED = "swapped"
    FINISHED = "finished"


class FinishReason(Enum):
    """Why a sequence ended."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    PRUNED = "pruned"
    """A beam that no chosen continuation starts from."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for. Raises InvalidParameterError for a prompt that is empty or negative."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling_params: SamplingParams = field(default_factory=SamplingParams)
    beam_search: BeamSearchParams | None = None
    """Beam search in place of sampling; `sampling_params` then counts for its logprobs alone."""
    eos_token_ids: frozenset[int] = frozenset()
    priority: int = 0
    """Smaller is sooner; counts under the priority policy only."""
    cache_salt: str | None = None
    """Requests share cached prefixes only with requests of the same salt."""
    lora_name: str | None = None
    run_ahead: bool = True
    """Whether the next token may be scheduled before the host has seen the last one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_token_ids", tuple(self.prompt_token_ids))
        if not self.prompt_token_ids or min(self.prompt_token_ids) < 0:
            raise InvalidParameterError(
                "prompt_token_ids", self.prompt_token_ids[:8], "token ids of at least 0, not none"
            )

    @property
    def num_seats(self) -> int:
        """Sequences that this request runs at once."""
        if self.beam_search is not None:
            return self.beam_search.beam_width
        return self.sampling_params.n

    @property
    def max_tokens(self) -> int | None:
        """Bound on the output tokens of each sequence, None for the engine's own bound."""
        if self.beam_search is not None:
            return self.beam_search.max_tokens
        return self.sampling_params.max_tokens

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a sequence; for beams, the search decides instead."""
        if self.beam_search is not None:
            return frozenset()
        stop = frozenset(self.sampling_params.stop_token_ids)
        return stop if self.sampling_params.ignore_eos else stop | self.eos_token_ids

    def root_hash(self) -> BlockHash:
        """Start of the hash chain: all that the KV values depend on, tokens excepted."""
        keys = (("cache_salt", self.cache_salt), ("lora_name", self.lora_name))
        return root_hash([(tag, value) for tag, value in keys if value is not None])


class Sequence:
    """One line of tokens under way. Only the scheduler and the block manager change it.

    `token_ids` holds the known tokens. `num_computed_tokens` counts the tokens whose keys and
    values are in the blocks once the steps scheduled so far have run; the last of them samples the
    next token, so `num_tokens` is at least one more. A sequence has work while it has tokens to
    compute: that one rule covers prefill, chunks, prefix hits, decode and resumption.
    """

    __slots__ = (
        "block_hashes",
        "block_table",
        "finish_reason",
        "host_table",
        "is_beam",
        "is_parked",
        "key",
        "max_total_tokens",
        "next_event",
        "num_cached_tokens",
        "num_computed_tokens",
        "num_forks",
        "num_preemptions",
        "num_prompt_tokens",
        "num_registered_blocks",
        "num_seats",
        "request",
        "resume_after",
        "root_hash",
        "row",
        "runs_ahead",
        "slot_offset",
        "status",
        "stop_ids",
        "stop_token_id",
        "token_ids",
    )

    def __init__(self, request: Request, key: tuple[int, int, int], max_total_tokens: int) -> None:
        self.request = request
        self.key = key
        """(priority, arrival, index): the order of service."""
        self.status = SequenceStatus.WAITING
        self.finish_reason: FinishReason | None = None
        self.stop_token_id: int | None = None
        self.token_ids = list(request.prompt_token_ids)
        self.num_prompt_tokens = len(self.token_ids)
        self.max_total_tokens = max_total_tokens
        self.stop_ids = request.stop_ids
        self.num_computed_tokens = 0
        self.num_cached_tokens = 0
        """Prompt tokens found in the prefix cache when the sequence was first admitted."""
        self.num_preemptions = 0
        self.is_beam = request.beam_search is not None
        self.runs_ahead = request.run_ahead and not self.is_beam
        self.num_seats = request.num_seats
        """Seats to reserve: those of the sequences that are still to be forked, and one."""
        self.num_forks = 0 if self.is_beam else request.sampling_params.n - 1
        """Siblings to fork when the first token is sampled."""
        self.row: int | None = None
        """Seat of a running sequence, 0 to max_num_seqs - 1: its row in device-side state."""
        self.is_parked = False
        """A beam that has its candidates and waits for the search to choose."""
        self.resume_after = 0
        """Step that must end before this preempted sequence may come back."""
        self.block_table: list[int] = []
        self.host_table: list[int] = []
        self.root_hash = request.root_hash()
        self.block_hashes: list[BlockHash] = []
        self.num_registered_blocks = 0
        self.next_event = 0
        """Up to this position a decode needs no block, no copy and no check."""
        self.slot_offset = 0
        """Slot minus position within the last block; valid below `next_event`."""

    def fork(self, index: int) -> Sequence:
        """Copy of the tokens and the progress, without blocks or a seat."""
        child = Sequence(self.request, (*self.key[:2], index), self.max_total_tokens)
        child.token_ids = list(self.token_ids)
        child.num_cached_tokens = self.num_cached_tokens
        child.block_hashes = list(self.block_hashes)
        child.num_seats = 1
        child.num_forks = 0
        return child

    @property
    def index(self) -> int:
        """Number among the request's sequences; with the seed it names the random stream."""
        return self.key[2]

    @property
    def num_tokens(self) -> int:
        """Known tokens, and those that steps in flight are about to sample."""
        return max(len(self.token_ids), self.num_computed_tokens + 1)

    @property
    def num_output_tokens(self) -> int:
        """Known output tokens; the random stream of the next one is (seed, index, this count)."""
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def output_token_ids(self) -> Tokens[int]:
        """Known output tokens, in order."""
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def is_finished(self) -> bool:
        """Whether the sequence has ended, for whatever reason."""
        return self.status is SequenceStatus.FINISHED

    def __repr__(self) -> str:
        return (
            f"Sequence({self.request.request_id!r}/{self.index}, {self.status.value}, "
            f"computed={self.num_computed_tokens} of {self.num_tokens}, blocks={self.block_table})"
        )
