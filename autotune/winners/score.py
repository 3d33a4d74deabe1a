"""Where measured winners stand in a model's order of the legal configurations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autotune.arch import lookup
from autotune.coefficients import CoefficientTable, Trust
from autotune.cost_model import launch_us
from autotune.tiles import Array
from autotune.winners.case import Case


@dataclass(frozen=True, slots=True)
class Score:
    """One record against the model."""

    family: str
    gpu: str
    kind: str
    held_out: bool
    percentile: float
    """Share of the legal configurations that are predicted faster; of equals, half."""
    regret: float
    """Predicted time of the winner over that of the predicted best, less one."""
    ratio: float | None = None
    """Predicted over measured time; None where no time was recorded."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians and quartiles over records."""

    family: str
    gpu: str
    records: int
    percentile: tuple[float, float, float]
    """Lower quartile, median, upper quartile; so for the others."""
    regret: tuple[float, float, float]
    fold: tuple[float, float, float] | None
    """Of the ratio or its inverse, whichever exceeds 1."""
    error_factor: float | None
    """Nine of ten measured times lie within this factor of the prediction."""


def predict_us(case: Case, table: CoefficientTable) -> Array:
    """Predicted time of every candidate: [candidates]."""
    arch = lookup(case.gpu)
    row = table.row(case.kind, arch)
    total = np.zeros(case.size)
    for launch in case.launches:
        total += launch_us(launch, arch, row)
    return total


def score(cases: Iterable[Case], table: CoefficientTable) -> Iterator[Score]:
    """One score per record."""
    for case in cases:
        times = predict_us(case, table)
        best = times.min()
        for number, winner in enumerate(case.winners):
            won = times[winner]
            faster = np.count_nonzero(times < won * (1 - 1e-9))
            equal = np.count_nonzero(times <= won * (1 + 1e-9)) - faster - 1
            yield Score(
                family=case.family,
                gpu=case.gpu,
                kind=case.kind,
                held_out=case.held_out,
                percentile=float((faster + equal / 2) / case.size),
                regret=float(won / best - 1),
                ratio=float(won / case.times_us[number]) if case.times_us else None,
            )


def summarise(scores: Sequence[Score]) -> list[Summary]:
    """Summaries by family and GPU, sorted."""
    groups: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for one in scores:
        groups[one.family, one.gpu].append(one)
    return [_summary(family, gpu, members) for (family, gpu), members in sorted(groups.items())]


def trust(scores: Sequence[Score]) -> dict[str, tuple[Trust, ...]]:
    """Kind → medians by family and GPU, of the scores that a fit has not seen."""
    kinds: dict[str, list[Score]] = defaultdict(list)
    for one in scores:
        if one.held_out:
            kinds[one.kind].append(one)
    return {
        kind: tuple(
            Trust(
                family=line.family,
                gpu=line.gpu,
                records=line.records,
                percentile=round(line.percentile[1], 4),
                regret=round(line.regret[1], 4),
                fold=None if line.fold is None else round(line.fold[1], 3),
            )
            for line in summarise(members)
        )
        for kind, members in sorted(kinds.items())
    }


def _summary(family: str, gpu: str, members: Sequence[Score]) -> Summary:
    ratios = np.array([one.ratio for one in members if one.ratio is not None])
    folds = np.maximum(ratios, 1 / ratios) if len(ratios) else None
    return Summary(
        family=family,
        gpu=gpu,
        records=len(members),
        percentile=_quartiles(np.array([one.percentile for one in members])),
        regret=_quartiles(np.array([one.regret for one in members])),
        fold=None if folds is None else _quartiles(folds),
        error_factor=None if folds is None else float(np.quantile(folds, 0.9)),
    )


def _quartiles(values: Array) -> tuple[float, float, float]:
    low, middle, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    return low, middle, high
