"""What a search ends with: selections, timed where there is a device, and how they were found."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from autotune.build import Builder
from autotune.cell import Cell
from autotune.cost_model import MODEL_VERSION
from autotune.effort import EFFORTS
from autotune.measure import MOST_REASON, Device, measure
from autotune.objective import DEFAULT_OBJECTIVE
from autotune.records import Environment, Evaluation, Selection
from autotune.results import CellResult
from autotune.select import select
from autotune.study import SearchOptions
from autotune.warm_starts import WarmStart


def conclude(
    cell: Cell,
    builder: Builder,
    options: SearchOptions,
    evaluations: Sequence[Evaluation],
    stopped: str,
    device: Device | None,
    warm: Sequence[WarmStart] = (),
) -> CellResult:
    """Select per point among all evaluations, in the order of their trials; time the finalists."""
    selections = select(cell, evaluations)
    if device is not None:
        finalists = EFFORTS[options.effort].finalists
        compiled = [*evaluations, *_missing_defaults(cell, builder, evaluations)]
        further = [start.config for start in warm]
        selections = measure(cell, compiled, selections, device, finalists, further)
    selections = [_with_origin(cell, selection, warm) for selection in selections]
    environment = builder.environment if device is None else device.describe(builder.environment)
    result = _result(cell, builder, environment, options, evaluations, selections, stopped)
    if not warm:
        return result
    told = [f"{start.origin}: {start.config}" for start in warm]
    return dataclasses.replace(result, search={**result.search, "warm_starts": told})


def _with_origin(cell: Cell, selection: Selection, warm: Sequence[WarmStart]) -> Selection:
    """Say so where a warm start is what won."""
    if selection.library is not None:
        return selection
    binary = cell.space.binary_of(selection.config)
    for start in warm:
        if cell.space.binary_of(start.config) == binary:
            reason = f"{selection.reason}; a warm start of {start.origin}"
            return dataclasses.replace(selection, reason=reason[:MOST_REASON])
    return selection


def _missing_defaults(
    cell: Cell, builder: Builder, evaluations: Sequence[Evaluation]
) -> list[Evaluation]:
    """Compile the defaults that a search of few trials left out: they race at every point."""
    known = {cell.space.binary_of(evaluation.config) for evaluation in evaluations}
    wanted = dict.fromkeys(map(cell.space.binary_of, cell.defaults.values()))
    configs = [cell.representative(binary) for binary in wanted if binary not in known]
    return builder.evaluate(cell.spec, cell.problem, configs)


def _result(
    cell: Cell,
    builder: Builder,
    environment: Environment,
    options: SearchOptions,
    evaluations: Sequence[Evaluation],
    selections: Sequence[Selection],
    stopped: str,
) -> CellResult:
    outcomes = Counter(evaluation.status.value for evaluation in evaluations)
    return CellResult(
        exact=cell.problem.exact_axes(),
        template_sha=builder.templates.sha(cell.spec.template),
        environment=environment,
        search={
            "effort": options.effort,
            "sampler": options.sampler,
            "seed": options.seed,
            "model": MODEL_VERSION,
            "stopped_by": stopped,
            **(
                {"objective": cell.objective_name}
                if cell.objective_name != DEFAULT_OBJECTIVE
                else {}
            ),
            "space": {
                "cartesian": cell.space.cartesian_size,
                "legal": len(cell.space.legal),
                "binaries": len(cell.binaries),
                **({"variants": sorted(cell.space.plain)} if cell.variants else {}),
            },
            **_order_found(cell, selections),
            "outcomes": dict(sorted(outcomes.items())),
        },
        selections=tuple(selections),
    )


def _order_found(cell: Cell, selections: Sequence[Selection]) -> dict[str, Any]:
    if not cell.repeatable:
        return {}
    order, *others = {cell.order(cell.space.named(one.config)) for one in selections}
    assert order is not None
    assert not others, "selections of a repeatable cell agree"
    return {"reduction_order": dict(order)}
