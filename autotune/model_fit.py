"""Fits the cost model to recorded spaces: all times of some points, to be judged at the others.

The loss of a space joins two aims. The expected time of a pick by a softmax over predicted log
times, over the optimum: what choosing by the model costs. And the absolute error of log times, in
which a configuration counts the less the slower it is. Constants are held to the shipped row by
the ridge of `winners.fit`; kinds are fitted one after the other.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from autotune.coefficients import Coefficients, CoefficientTable, class_of
from autotune.model_case import ModelCase
from autotune.tiles import Array
from autotune.winners.fit import ridge_fit

_TEMPERATURE = 0.05
"""Of the softmax, in log time."""
_TIME_WEIGHT = 0.3
_FREEDOM = 3.0
"""Whole spaces tell more than lone winners do: three times as wide as those fits."""
_HELD = ("other",)
"""Kinds that are left alone: small companions of the kernels that are recorded."""


def fit_spaces(cases: Sequence[ModelCase], base: CoefficientTable) -> CoefficientTable:
    """Return `base` with rows fitted to these spaces, all of GPUs of one class."""
    assert len({class_of(case.arch) for case in cases}) == 1, "one class at a time"
    arch = cases[0].arch
    table = base
    kinds = {stack.kind for case in cases for stack in case.stacks} - set(_HELD)
    for kind in sorted(kinds):
        own = [case for case in cases if any(stack.kind == kind for stack in case.stacks)]
        row = ridge_fit(
            lambda row, kind=kind, own=own, table=table: float(  # type: ignore[misc]
                np.mean([_loss(case, _with(table, kind, case, row)) for case in own])
            ),
            table.row(kind, arch),
            _FREEDOM,
        )
        table = _with(table, kind, cases[0], row)
    return table


def predict_unseen(cases: Sequence[ModelCase], base: CoefficientTable) -> dict[str, Array]:
    """Predict every space by a fit that has not seen its sizes: name → [candidates].

    Points of each cell take turns: the odd ones judge what the even ones fitted, and the reverse.
    Spaces of a cell with one point are not in the result.
    """
    cells: dict[str, list[ModelCase]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: case.name):
        cells[case.cell].append(case)
    found: dict[str, Array] = {}
    for name in sorted({class_of(case.arch) for case in cases}):
        own = [
            members
            for members in cells.values()
            if len(members) > 1 and class_of(members[0].arch) == name
        ]
        for half in (0, 1):
            seen = [case for members in own for case in members[1 - half :: 2]]
            judged = [case for members in own for case in members[half::2]]
            if seen:
                table = fit_spaces(seen, base)
                found |= {case.name: case.predict_us(table) for case in judged}
    return found


def _with(
    table: CoefficientTable, kind: str, case: ModelCase, row: Coefficients
) -> CoefficientTable:
    return dataclasses.replace(table, rows={**table.rows, (kind, class_of(case.arch)): row})


def _loss(case: ModelCase, table: CoefficientTable) -> float:
    ran = np.isfinite(case.times_us)
    measured = np.log(case.times_us[ran])
    predicted = np.log(case.predict_us(table)[ran])
    slower = measured - measured.min()
    chance = np.exp(-(predicted - predicted.min()) / _TEMPERATURE)
    regret = float((chance * slower).sum() / chance.sum())
    weights = np.exp(-2.0 * slower)
    error = float((weights * np.abs(predicted - measured)).sum() / weights.sum())
    return regret + _TIME_WEIGHT * error
