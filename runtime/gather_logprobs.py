"""Picks the log-probabilities that callers asked for out of whole rows of the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runtime.logprobs import PositionLogprobs


def gather_logprobs(
    logprobs: torch.Tensor, token_ids: Sequence[int], counts: Sequence[int]
) -> list[PositionLogprobs]:
    """Pick each row's token and its most likely ones.

    Args:
        logprobs: [num_rows, vocab_size], normalised.
        token_ids: one per row.
        counts: how many of the most likely tokens to add, per row.
    """
    vocab_size = logprobs.shape[1]
    chosen = torch.tensor(token_ids, device=logprobs.device)[:, None]
    values = logprobs.gather(1, chosen)  # [num_rows, 1]
    ranks = (logprobs > values).sum(dim=1) + 1
    most = min(max(counts), vocab_size)
    top_values, top_ids = logprobs.topk(most, dim=1)
    rows = zip(
        values[:, 0].tolist(), ranks.tolist(), top_values.tolist(), top_ids.tolist(), strict=True
    )
    found = []
    for token_id, count, (value, rank, others, ids) in zip(token_ids, counts, rows, strict=True):
        kept = [index for index in range(min(count, most)) if ids[index] != token_id]
        found.append(
            PositionLogprobs(
                (token_id, *(ids[index] for index in kept)),
                (value, *(others[index] for index in kept)),
                (rank, *(index + 1 for index in kept)),
            )
        )
    return found
