"""What one step computes: integers only, cheap to build, read by the model runner at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from runtime.sequence import Sequence


@dataclass(slots=True, eq=False)
class ScheduledBatch:
    """The work of one step; the scheduler fills it, everybody else only reads it.

    The runner performs `swap_outs`, `swap_ins` and `copies` in this order, then the forward pass,
    and steps in the order of their ids. Where `sequences[i]` has a token range that reaches
    `len(token_ids)` or beyond, the last input token is the one most recently sampled for its row.
    The block tables are the sequences' own lists: read them before the next call of the scheduler,
    or keep a device-side table by row from `new_rows` and `table_updates`.
    """

    step_id: int
    sequences: list[Sequence] = field(default_factory=list)
    """Decodes first (one token each, all sampled), then prefill chunks."""
    num_decodes: int = 0
    starts: list[int] = field(default_factory=list)
    """Position of the first token, per sequence."""
    counts: list[int] = field(default_factory=list)
    """Number of tokens, per sequence."""
    slot_mapping: list[int] = field(default_factory=list)
    """Where each token's keys and values go: block id * block size + offset, per token."""
    samples: list[Sequence] = field(default_factory=list)
    """Sequences that get one token each, in the order in which `finish_step` takes the tokens."""
    sample_indices: list[int] = field(default_factory=list)
    """For each sample, the index into `sequences` whose last token's logits it is drawn from."""
    copies: list[tuple[int, int]] = field(default_factory=list)
    """Copy-on-write: (source block, destination block) on the device."""
    swap_outs: list[tuple[int, int]] = field(default_factory=list)
    """(device block, host block) to save."""
    swap_ins: list[tuple[int, int]] = field(default_factory=list)
    """(host block, device block) to restore."""
    new_rows: list[Sequence] = field(default_factory=list)
    """Sequences whose row is new: write the whole block table and the sampling parameters."""
    table_updates: list[tuple[int, int, int]] = field(default_factory=list)
    """(row, index, block id) changed in block tables of rows written in earlier steps."""

    @property
    def num_tokens(self) -> int:
        """Tokens that the forward pass takes."""
        return len(self.slot_mapping)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing at all to do."""
        return not (self.sequences or self.swap_outs or self.swap_ins)

    def block_tables(self) -> list[list[int]]:
        """Physical blocks of each sequence, in logical order; shared lists, not copies."""
        return [sequence.block_table for sequence in self.sequences]

    def output_indices(self) -> list[int]:
        """For each sample, which output token it is (0 is the first): its random counter."""
        ends = [self.starts[i] + self.counts[i] for i in self.sample_indices]
        return [
            end - sequence.num_prompt_tokens
            for end, sequence in zip(ends, self.samples, strict=True)
        ]

    def add_chunk(self, sequence: Sequence, count: int, block_size: int) -> None:
        """Append `count` tokens of a sequence whose block table covers them already."""
        start = sequence.num_computed_tokens
        end = start + count
        self.sequences.append(sequence)
        self.starts.append(start)
        self.counts.append(count)
        for index in range(start // block_size, -(-end // block_size)):
            low = max(start, index * block_size)
            high = min(end, (index + 1) * block_size)
            offset = (sequence.block_table[index] - index) * block_size
            self.slot_mapping.extend(range(low + offset, high + offset))

    def add_samples(self, sequences: Iterable[Sequence]) -> None:
        """Draw one token for each of `sequences` from the logits of the last one appended."""
        for sequence in sequences:
            self.samples.append(sequence)
            self.sample_indices.append(len(self.sequences) - 1)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What the tokens of one step led to."""

    accepted: list[Sequence]
    """Sequences that took a token, in the order of `samples`; it is the last of `token_ids`."""
    finished: list[Sequence]
    """Those of `accepted` that ended with it; their `finish_reason` is set."""
    parked: list[Sequence]
    """Beams that have been sampled and wait for `Scheduler.advance_beams`."""
    dropped: list[int]
    """Indices into the batch's `samples` whose sequences had ended before: discard those tokens."""
