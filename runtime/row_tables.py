"""Block tables of the running sequences, kept on the device by row.

A batch names the rows that are new and the entries that have changed; only those are sent. A step's
own table is gathered from them, at the full width of the model's context, so that its shape and
address never change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.batch import ScheduledBatch
from runtime.block_pool import TRASH_BLOCK
from runtime.scheduler_config import SchedulerConfig
from runtime.staging import Staging

_ROW_ALIGNMENT = 16
"""Entries that a table's rows are padded to a multiple of: Triton compiles another variant of a
kernel for strides that are not, and every row then starts at an aligned address."""


@dataclass(frozen=True, slots=True)
class PreparedTables:
    """What the staged arrays of a frame hold."""

    num_seqs: int
    num_new_rows: int
    num_changes: int


class RowTables:
    """Written in the order of the steps; the row after the last seat is the padding's."""

    def __init__(self, limits: SchedulerConfig, staging: Staging) -> None:
        seats = limits.max_num_seqs
        width = -(-limits.max_model_len // limits.block_size)
        width = -(-width // _ROW_ALIGNMENT) * _ROW_ALIGNMENT
        device = staging.stream.device
        self._padding_row = seats
        self._width = width
        self._tables = torch.full((seats + 1, width), TRASH_BLOCK, dtype=torch.int32, device=device)
        self._step = torch.zeros((seats, width), dtype=torch.int32, device=device)
        self._rows = staging.array((seats,), torch.int64)
        self._new_rows = staging.array((seats,), torch.int64)
        self._new_tables = staging.array((seats, width), torch.int32)
        self._changed = staging.array((seats,), torch.int64)
        self._changes = staging.array((seats,), torch.int32)

    def prepare(
        self, batch: ScheduledBatch, rows: NDArray[np.int64], num_padding: int
    ) -> PreparedTables:
        """Write what a batch changes, and the rows of its sequences, into the present frame."""
        num_seqs = self._rows.fill(rows)
        self._rows.host[num_seqs : num_seqs + num_padding] = self._padding_row
        by_row = {sequence.row: sequence for sequence in batch.new_rows}
        self._new_rows.fill(list(by_row))
        tables = self._new_tables.host
        for index, sequence in enumerate(by_row.values()):
            table = sequence.block_table
            tables[index, : len(table)] = table
            tables[index, len(table) :] = TRASH_BLOCK
        updates = batch.table_updates
        self._changed.fill([row * self._width + index for row, index, _ in updates])
        self._changes.fill([block_id for _, _, block_id in updates])
        return PreparedTables(num_seqs + num_padding, len(by_row), len(updates))

    def upload(self, frame: int, prepared: PreparedTables) -> torch.Tensor:
        """Bring the tables up to date; returns the step's, int32 [num_seqs, max_blocks]."""
        if prepared.num_new_rows:
            rows = self._new_rows.upload(frame, prepared.num_new_rows)
            tables = self._new_tables.upload(frame, prepared.num_new_rows)
            self._tables.index_copy_(0, rows, tables)
        if prepared.num_changes:
            changed = self._changed.upload(frame, prepared.num_changes)
            changes = self._changes.upload(frame, prepared.num_changes)
            self._tables.view(-1).index_copy_(0, changed, changes)
        rows = self._rows.upload(frame, prepared.num_seqs)
        step = self.static(prepared.num_seqs)
        torch.index_select(self._tables, 0, rows, out=step)
        return step

    def static(self, num_seqs: int) -> torch.Tensor:
        """Where the table of every step of `num_seqs` sequences is put."""
        return self._step[:num_seqs]
