"""Turns the scheduler's integers into a step's tensors, through buffers that are made once.

The host part (`prepare`) writes the integers of a batch into staged arrays; the device part
(`upload`) copies them, and fetches what only the device knows: the tokens that the step before has
sampled, and the block tables, which are kept there by row and changed where the batch says so.
All tensors of the device stay at their addresses, so a CUDA graph can be captured over them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.batch import ScheduledBatch
from runtime.block_pool import TRASH_BLOCK
from runtime.model_input import KernelTables, ModelInput
from runtime.row_tables import PreparedTables, RowTables
from runtime.scheduler_config import SchedulerConfig
from runtime.staging import Staging
from runtime.stream import Stream


@dataclass(frozen=True, slots=True)
class PreparedInputs:
    """What the staged arrays of a frame hold."""

    frame: int
    num_tokens: int
    """Padding included, as in the next field."""
    num_seqs: int
    num_decodes: int
    num_samples: int
    tables: PreparedTables | None
    block_tables: tuple[tuple[int, ...], ...]
    query_lens: tuple[int, ...]
    context_lens: tuple[int, ...]


class StepInputs:
    """The input tensors of all steps of an engine, at most `max_steps_in_flight` on their way."""

    def __init__(self, limits: SchedulerConfig, stream: Stream, *, with_tables: bool) -> None:
        seats, tokens = limits.max_num_seqs, limits.max_num_batched_tokens
        self.stream = stream
        self.staging = staging = Staging(stream, limits.max_steps_in_flight)
        self.block_size = limits.block_size
        self.max_model_len = limits.max_model_len
        # Head: the token sampled last in each row. Tail: this step's tokens that the host knows.
        self._known = torch.zeros(seats + tokens, dtype=torch.int64, device=stream.device)
        self._tokens = staging.array_for(self._known[seats:])
        self._sources = staging.array((tokens,), torch.int64)  # index of each input in `_known`
        self._own = np.arange(seats, seats + tokens)
        self._token_ids = torch.zeros(tokens, dtype=torch.int64, device=stream.device)
        self._positions = staging.array((tokens,), torch.int64)
        self._slots = staging.array((tokens,), torch.int64)
        self._sample_rows = staging.array((seats,), torch.int64)
        self._sample_seats = staging.array((seats,), torch.int64)
        self._row_tables = RowTables(limits, staging) if with_tables else None
        self._context_len = staging.array((seats,), torch.int32)
        self._query_starts = staging.array((seats + 1,), torch.int32)
        # What is captured before the first step is one token per sequence, in the trash block.
        self._context_len.device.fill_(1)
        self._query_starts.device.copy_(torch.arange(seats + 1))

    # ---- host -----------------------------------------------------------------------------------

    def prepare(self, batch: ScheduledBatch, graph_size: int | None = None) -> PreparedInputs:
        """Write a batch into the next frame.

        Args:
            batch: as scheduled; its sequences have not moved on since.
            graph_size: number of sequences to pad a batch of decodes alone to, as it is to be
                replayed: those that are added write to the trash block and read only that.
        """
        num_padding = 0 if graph_size is None else graph_size - len(batch.sequences)
        frame = self.staging.begin()
        num_tokens, num_seqs = batch.num_tokens, len(batch.sequences)
        rows = np.array([sequence.row for sequence in batch.sequences], dtype=np.int64)
        begins = np.array(batch.starts, dtype=np.int64)
        counts = np.array(batch.counts, dtype=np.int64)
        ends = begins + counts
        starts = np.zeros(num_seqs + num_padding + 1, dtype=np.int64)
        np.cumsum(counts, out=starts[1 : num_seqs + 1])
        self._stage_tokens(batch, rows, begins)
        self._slots.fill(batch.slot_mapping)
        if len(batch.samples) == num_seqs == batch.num_decodes:
            self._sample_rows.fill(starts[:num_seqs])
            self._sample_seats.fill(rows)
        else:
            self._sample_rows.fill(starts[np.array(batch.sample_indices, dtype=np.int64) + 1] - 1)
            self._sample_seats.fill([sequence.row for sequence in batch.samples])
        if num_padding:
            self._stage_padding(num_tokens, num_padding)
            starts[num_seqs + 1 :] = np.arange(num_tokens + 1, num_tokens + num_padding + 1)
        tables = None
        if self._row_tables is not None:
            self._query_starts.fill(starts)
            self._context_len.fill(ends)
            self._context_len.host[num_seqs : num_seqs + num_padding] = 1
            tables = self._row_tables.prepare(batch, rows, num_padding)
        is_replay = graph_size is not None
        return PreparedInputs(
            frame=frame,
            num_tokens=num_tokens + num_padding,
            num_seqs=num_seqs + num_padding,
            num_decodes=batch.num_decodes + num_padding,
            num_samples=len(batch.samples),
            tables=tables,
            block_tables=() if is_replay else self._host_tables(batch, ends.tolist()),
            query_lens=() if is_replay else tuple(batch.counts),
            context_lens=() if is_replay else tuple(ends.tolist()),
        )

    def _stage_tokens(
        self, batch: ScheduledBatch, rows: NDArray[np.int64], begins: NDArray[np.int64]
    ) -> None:
        """Write tokens and positions; a token that is in flight is named by its row."""
        num_decodes, sequences = batch.num_decodes, batch.sequences
        tokens, positions = self._tokens.host, self._positions.host
        sources = self._sources.host
        sources[: batch.num_tokens] = self._own[: batch.num_tokens]
        if num_decodes:
            decodes = sequences[:num_decodes]
            positions[:num_decodes] = begins[:num_decodes]
            pending = begins[:num_decodes] >= [len(sequence.token_ids) for sequence in decodes]
            np.copyto(sources[:num_decodes], rows[:num_decodes], where=pending)
            if not pending.all():
                tokens[:num_decodes] = [sequence.token_ids[-1] for sequence in decodes]
        at = num_decodes
        for index in range(num_decodes, len(sequences)):
            sequence, start, count = sequences[index], batch.starts[index], batch.counts[index]
            known = sequence.token_ids[start : start + count]
            assert len(known) == count, f"{sequence}: a token to compute is not known yet"
            tokens[at : at + count] = known
            positions[at : at + count] = np.arange(start, start + count)
            at += count

    def _stage_padding(self, first: int, count: int) -> None:
        """Add tokens of sequences that nobody asked for, in the trash block."""
        added = slice(first, first + count)
        self._tokens.host[added] = 0
        self._sources.host[added] = self._own[added]
        self._positions.host[added] = 0
        self._slots.host[added] = TRASH_BLOCK * self.block_size

    def _host_tables(self, batch: ScheduledBatch, ends: list[int]) -> tuple[tuple[int, ...], ...]:
        size = self.block_size
        return tuple(
            tuple(sequence.block_table[: -(-end // size)])
            for sequence, end in zip(batch.sequences, ends, strict=True)
        )

    # ---- device ---------------------------------------------------------------------------------

    def upload(self, prepared: PreparedInputs) -> ModelInput:
        """Copy a frame to the device and complete it there."""
        frame, count = prepared.frame, prepared.num_tokens
        self._tokens.upload(frame, count)
        sources = self._sources.upload(frame, count)
        token_ids = self._token_ids[:count]
        torch.index_select(self._known, 0, sources, out=token_ids)
        self._positions.upload(frame, count)
        self._slots.upload(frame, count)
        self._sample_seats.upload(frame, prepared.num_samples)
        sample_rows = self._sample_rows.upload(frame, prepared.num_samples)
        if self._row_tables is not None and prepared.tables is not None:
            self._context_len.upload(frame, prepared.num_seqs)
            self._query_starts.upload(frame, prepared.num_seqs + 1)
            self._row_tables.upload(frame, prepared.tables)
        return self._input(
            count,
            prepared.num_seqs,
            block_tables=prepared.block_tables,
            query_lens=prepared.query_lens,
            context_lens=prepared.context_lens,
            num_decodes=prepared.num_decodes,
            sample_rows=sample_rows,
        )

    def remember(self, prepared: PreparedInputs, token_ids: torch.Tensor) -> None:
        """Keep the sampled tokens, int64 [num_samples], as inputs of the next step."""
        seats = self._sample_seats.device[: prepared.num_samples]
        self._known.index_copy_(0, seats, token_ids)

    def static_decodes(self, num_seqs: int) -> ModelInput:
        """Return a step of `num_seqs` decodes over the tensors that every such step is put in.

        Only the tensors may be read when it is replayed; the integers are bounds.
        """
        assert self._row_tables is not None, "a step to be captured has its tables on the device"
        return self._input(
            num_seqs,
            num_seqs,
            block_tables=(),
            query_lens=(1,) * num_seqs,
            context_lens=(self.max_model_len,) * num_seqs,
            num_decodes=num_seqs,
            sample_rows=self._sample_rows.device[:num_seqs],
        )

    def _input(
        self,
        num_tokens: int,
        num_seqs: int,
        *,
        block_tables: tuple[tuple[int, ...], ...],
        query_lens: tuple[int, ...],
        context_lens: tuple[int, ...],
        num_decodes: int,
        sample_rows: torch.Tensor,
    ) -> ModelInput:
        tables = None
        if self._row_tables is not None:
            tables = KernelTables(
                block_table=self._row_tables.static(num_seqs),
                query_starts=self._query_starts.device[: num_seqs + 1],
                context_len=self._context_len.device[:num_seqs],
            )
        return ModelInput(
            token_ids=self._token_ids[:num_tokens],
            positions=self._positions.device[:num_tokens],
            slot_mapping=self._slots.device[:num_tokens],
            block_tables=block_tables,
            query_lens=query_lens,
            context_lens=context_lens,
            num_decodes=num_decodes,
            sample_rows=sample_rows,
            block_size=self.block_size,
            tables=tables,
        )
