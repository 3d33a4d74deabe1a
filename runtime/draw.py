"""Draws one token per row of logits: temperature, min-p, top-k, top-p, then one random number each.

A token is found by inverting the cumulative distribution at the row's number, so one number in
[0, 1) decides, and rows do not know of each other. min-p is of Nguyen et al. (2024), top-p of
Holtzman et al. (2020), top-k of Fan et al. (2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.sampling_params import SamplingParams
from runtime.stream import Stream


@dataclass(frozen=True, slots=True, eq=False)
class DrawLayout:
    """Which rows of the logits to draw from, and how; the rows that are not cut come first."""

    rows: NDArray[np.int64]
    num_whole: int
    temperatures: NDArray[np.float32]
    min_p: NDArray[np.float32]
    """This and the next two are for the cut rows alone."""
    top_k: NDArray[np.int64]
    """0 for every token."""
    top_p: NDArray[np.float32]

    @classmethod
    def make(cls, rows: Sequence[int], params: Sequence[SamplingParams]) -> DrawLayout:
        """Plan to draw from `rows`, none of them greedy."""
        # Cut rows are drawn in order of likelihood, the others in that of the vocabulary: which,
        # must depend on the row alone.
        order = sorted(range(len(rows)), key=lambda place: _is_cut(params[place]))
        cut = [params[place] for place in order if _is_cut(params[place])]
        return cls(
            rows=np.array([rows[place] for place in order], dtype=np.int64),
            num_whole=len(rows) - len(cut),
            temperatures=np.array([params[p].temperature for p in order], dtype=np.float32),
            min_p=np.array([p.min_p for p in cut], dtype=np.float32),
            top_k=np.array([max(p.top_k, 0) for p in cut], dtype=np.int64),
            top_p=np.array([p.top_p for p in cut], dtype=np.float32),
        )


@dataclass(frozen=True, slots=True, eq=False)
class DrawPlan:
    """A layout, and a number in [0, 1) for each of its rows."""

    layout: DrawLayout
    uniforms: NDArray[np.float64]


def draw_tokens(
    logits: torch.Tensor, plan: DrawPlan, stream: Stream
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw from softmax(logits / temperature), cut as each row's parameters say.

    Args:
        logits: float32 [num_rows, vocab_size]; rows that are not in the plan are left alone.
        plan: which rows, and how.
        stream: of the logits' device.

    Returns:
        The plan's rows and their tokens, each int64 [number of planned rows].
    """
    layout = plan.layout
    rows = stream.send(layout.rows)
    temperatures = stream.send(layout.temperatures)
    scaled = logits.index_select(0, rows) / temperatures[:, None]
    numbers = stream.send(plan.uniforms)
    count = layout.num_whole
    drawn = []
    if count:
        drawn.append(_invert(torch.softmax(scaled[:count], dim=-1), numbers[:count]))
    if count < len(layout.rows):
        ordered, ids = scaled[count:].sort(dim=-1, descending=True, stable=True)
        _cut(ordered, layout, stream)
        places = _invert(torch.softmax(ordered, dim=-1), numbers[count:])
        drawn.append(ids.gather(1, places[:, None])[:, 0])
    return rows, torch.cat(drawn)


def _is_cut(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1 or params.min_p > 0


def _cut(ordered: torch.Tensor, layout: DrawLayout, stream: Stream) -> None:
    """Exclude the unlikely tokens of rows in falling order, in place; the first always stays."""
    vocab_size = ordered.shape[1]
    min_p = stream.send(layout.min_p)[:, None]
    ordered.masked_fill_((ordered - ordered[:, :1]).exp() < min_p, -torch.inf)
    top_k = stream.send(np.where(layout.top_k > 0, layout.top_k, vocab_size))
    places = torch.arange(vocab_size, device=ordered.device)
    ordered.masked_fill_(places >= top_k[:, None], -torch.inf)
    top_p = stream.send(layout.top_p)[:, None]
    shares = torch.softmax(ordered, dim=-1)
    before = shares.cumsum(dim=-1) - shares
    outside = (before >= top_p) & (top_p < 1)
    outside[:, 0] = False
    ordered.masked_fill_(outside, -torch.inf)


def _invert(shares: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """First place of each row where the cumulative share passes the row's number."""
    cumulative = shares.double().cumsum(dim=-1)
    total = cumulative[:, -1:]
    place = torch.searchsorted(cumulative, numbers[:, None] * total, right=True)
    # Rounding may reach the total: then it is the last place that has any share.
    # Logits that are not numbers give no place at all, and the last token: an index beyond it would
    # take every request down with this one.
    last = torch.searchsorted(cumulative, total.contiguous()).clamp_(max=shares.shape[1] - 1)
    return torch.minimum(place, last)[:, 0]
