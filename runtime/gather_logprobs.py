"""Picks the log-probabilities that callers asked for out of whole rows of the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from runtime.logprobs import PositionLogprobs
from runtime.stream import Stream


@dataclass(frozen=True, slots=True, eq=False)
class GatheredLogprobs:
    """Each row's token and its most likely ones, still on the device, or on the way to the host."""

    token_ids: torch.Tensor  # int64 [num_rows]
    values: torch.Tensor  # [num_rows]
    ranks: torch.Tensor  # int64 [num_rows]
    top_values: torch.Tensor  # [num_rows, num_top]
    top_ids: torch.Tensor  # int64 [num_rows, num_top]

    def download(self, stream: Stream) -> GatheredLogprobs:
        """Copy to the host; `read` it once a later mark of the stream has passed."""
        return GatheredLogprobs(
            stream.download(self.token_ids),
            stream.download(self.values),
            stream.download(self.ranks),
            stream.download(self.top_values),
            stream.download(self.top_ids),
        )

    def read(self, counts: Sequence[int]) -> list[PositionLogprobs]:
        """Return one entry per row, with `counts[row]` of the most likely tokens."""
        rows = zip(
            self.token_ids.tolist(),
            self.values.tolist(),
            self.ranks.tolist(),
            self.top_values.tolist(),
            self.top_ids.tolist(),
            strict=True,
        )
        found = []
        for count, (token_id, value, rank, others, ids) in zip(counts, rows, strict=True):
            kept = [index for index in range(min(count, len(ids))) if ids[index] != token_id]
            found.append(
                PositionLogprobs(
                    (token_id, *(ids[index] for index in kept)),
                    (value, *(others[index] for index in kept)),
                    (rank, *(index + 1 for index in kept)),
                )
            )
        return found


def gather_logprobs(
    logprobs: torch.Tensor, token_ids: torch.Tensor, num_top: int
) -> GatheredLogprobs:
    """Pick each row's token and its most likely ones.

    Args:
        logprobs: [num_rows, vocab_size], normalised.
        token_ids: int64 [num_rows].
        num_top: most likely tokens to pick; no more than there are.
    """
    values = logprobs.gather(1, token_ids[:, None])  # [num_rows, 1]
    ranks = (logprobs > values).sum(dim=1) + 1
    top_values, top_ids = logprobs.topk(min(num_top, logprobs.shape[1]), dim=1)
    return GatheredLogprobs(token_ids, values[:, 0], ranks, top_values, top_ids)
