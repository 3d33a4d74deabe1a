"""From evaluated binaries to one selection per point: the default competes to the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autotune.cell import Cell, Choice
from autotune.config import Config
from autotune.portfolio import choose_portfolio
from autotune.problem import Problem
from autotune.records import Evaluation, Provenance, Selection, Status

LEAST_GAIN = 1.01
"""A winner must beat the default by this factor, or the default is kept."""


def select(cell: Cell, evaluations: Sequence[Evaluation]) -> list[Selection]:
    """Pick the fastest predicted configuration at every point, out of a small portfolio.

    In a repeatable cell all of them have one order of summation: the one whose fastest times have
    the least geometric mean over the points.
    """
    usable = [evaluation for evaluation in evaluations if evaluation.status is Status.OK]
    by_binary = {cell.space.binary_of(e.config): e for e in evaluations}
    # With nothing usable defaults are stored, untested: all of the first point's order.
    order = cell.order(cell.defaults[cell.points[0]])
    if usable:
        order, times = _best_order(cell, usable)
        kept = choose_portfolio(times)
        usable = [evaluation for evaluation in usable if evaluation.config in kept]
    return [_select_at(cell, point, usable, by_binary, order) for point in cell.points]


def _best_order(
    cell: Cell, usable: Sequence[Evaluation]
) -> tuple[Config | None, dict[Config, list[float]]]:
    """Return an order of summation, and the times at all points of the binaries that have it."""
    by_order: dict[Config | None, dict[Config, list[float]]] = {}
    for evaluation in usable:
        for order in cell.orders(evaluation):
            times = cell.times_us(evaluation, order)
            by_order.setdefault(order, {})[evaluation.config] = times

    def loss(times: Mapping[Config, Sequence[float]]) -> float:
        return sum(math.log(min(at_point)) for at_point in zip(*times.values(), strict=True))

    return min(by_order.items(), key=lambda item: loss(item[1]))


def predict_again(
    cell: Cell, selection: Selection, by_binary: Mapping[Config, Evaluation]
) -> Selection:
    """Return the selection with its configuration kept and all else as new facts predict it.

    Args:
        cell: of the selection.
        selection: what was chosen.
        by_binary: evaluations of its binary, and of the default's at its point.
    """
    point = cell.problem.at(**selection.nearest)
    evaluation = by_binary[cell.space.binary_of(selection.config)]
    default_config = cell.space.named(cell.spec.default_config(point, cell.arch))
    default_evaluation = by_binary[cell.space.binary_of(default_config)]
    default: Choice | None = None
    if default_evaluation.status in (Status.OK, Status.DUPLICATE):
        default = cell.predict(point, default_config, default_evaluation)
    choice = cell.predict(point, selection.config, evaluation)
    if selection.config == default_config:
        reason = "the default, compiled anew"
    else:
        reason = f"compiled anew since it was selected; {_why(choice, default)}"
    return _selection(cell, point, choice, default, evaluation, reason)


def _select_at(
    cell: Cell,
    point: Problem,
    usable: Sequence[Evaluation],
    by_binary: dict[Config, Evaluation],
    order: Config | None,
) -> Selection:
    default_config = cell.defaults[point]
    default_evaluation = by_binary.get(cell.space.binary_of(default_config))
    default: Choice | None = None
    if default_evaluation and default_evaluation.status in (Status.OK, Status.DUPLICATE):
        default = cell.predict(point, default_config, default_evaluation)
    ranked = [(cell.best_at(point, evaluation, order), evaluation) for evaluation in usable]
    best, evaluation = min(
        ranked, key=lambda pair: pair[0].prediction.time_us, default=(None, None)
    )
    agrees = cell.order(default_config) == order
    if (
        default is not None
        and agrees
        and (best is None or default.prediction.time_us < best.prediction.time_us * LEAST_GAIN)
    ):
        assert default_evaluation is not None
        return _selection(
            cell,
            point,
            default,
            default,
            default_evaluation,
            "the default: nothing was predicted to beat it by 1 %",
        )
    if best is None or evaluation is None:
        return Selection(
            exact=point.exact_axes(),
            nearest=point.nearest_axes(),
            config=cell.space.stored(default_config if agrees else cell.defaults[cell.points[0]]),
            provenance=Provenance.DEFAULT,
            time_us=None,
            error_factor=None,
            default_us=None,
            floor_us=cell.floor_us(point),
            reason="the default, untested: no candidate compiled to a sound binary",
        )
    return _selection(cell, point, best, default, evaluation, _why(best, default))


def _selection(
    cell: Cell,
    point: Problem,
    choice: Choice,
    default: Choice | None,
    evaluation: Evaluation,
    reason: str,
) -> Selection:
    return Selection(
        exact=point.exact_axes(),
        nearest=point.nearest_axes(),
        config=cell.space.stored(choice.config),
        provenance=Provenance.PREDICTED,
        time_us=choice.prediction.time_us,
        error_factor=cell.model.error_factor(evaluation.reports[0].entry),
        default_us=None if default is None else default.prediction.time_us,
        floor_us=cell.floor_us(point),
        reason=reason,
        reports=evaluation.reports,
    )


def _why(best: Choice, default: Choice | None) -> str:
    """One line: what bounds the winner, what bounded the default, and the knobs that differ."""
    text = f"bound by {best.prediction.bound}, {best.prediction.blocks_per_sm} blocks per SM"
    if default is None:
        return f"{text}; the default does not compile to a sound binary"
    was = f"{default.prediction.bound}, {default.prediction.blocks_per_sm} blocks"
    return f"{text} (default: {was}); {', '.join(best.config.changes_from(default.config))}"
