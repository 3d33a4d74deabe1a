"""The cost model on recorded spaces, told: rows for a table, a JSON document, Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.coefficients import CoefficientTable
from autotune.model_case import ModelCase
from autotune.model_fit import predict_unseen
from autotune.model_score import PICKS, ModelScore, ModelSummary, score, summarise
from autotune.tiles import Array

SHIPPED, ESTIMATED, FITTED = "shipped", "estimates", "refitted"
"""The table with the compiler's facts; with estimated ones; fitted to the other sizes."""
GOALS = {1: 0.95, 8: 0.99}
"""Fraction of the optimum that a pick without measuring, and the best of eight, are to reach."""
COLUMNS = (
    "kernel", "sizes", "model", ">configs", ">Spearman", ">regret@1", ">regret@4", ">regret@8",
    ">top-8 recall", ">first pick", ">best of 8", ">blind pick",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judged:
    """One model on one space."""

    case: ModelCase
    model: str
    score: ModelScore


def judge(cases: Sequence[ModelCase], table: CoefficientTable, fits: bool = True) -> list[Judged]:
    """Score every space by the table with the compiler's facts, with estimates, and refitted.

    Where no facts were kept, estimates are all there is. `fits` asks for fits to other sizes of
    the same cells, which takes some seconds.
    """
    known = [case for case in cases if case.stacks]
    unseen = predict_unseen(known, table) if fits and known else {}
    ways: dict[str, Callable[[ModelCase], Array | None]] = {
        SHIPPED: lambda case: case.predict_us(table) if case.stacks else None,
        ESTIMATED: lambda case: case.guess_us(table),
        FITTED: lambda case: unseen.get(case.name),
    }
    found = []
    for case in cases:
        for model, way in ways.items():
            predicted = way(case)
            if predicted is not None:
                found.append(Judged(case, model, score(case.times_us, predicted)))
    return found


def document(judged: Sequence[Judged]) -> dict[str, Any]:
    """JSON form: every space, every kernel, and all of them, by model."""
    return {
        "goals": {str(picks): goal for picks, goal in GOALS.items()},
        "spaces": [
            {
                "space": one.case.name,
                "kernel": one.case.kernel,
                "exact": dict(one.case.exact),
                "gpu": one.case.arch.name,
                "point": one.case.point,
                "complete": one.case.complete,
                "model": one.model,
                "configs": one.score.candidates,
                "spearman": one.score.spearman,
                "regret": {str(k): one.score.regret(k) for k in PICKS},
                "top_8_recall": one.score.recall,
                "fraction": {str(k): one.score.fractions[k] for k in PICKS},
                "blind_fraction": one.score.typical,
            }
            for one in judged
        ],
        "means": [
            {
                "kernel": kernel,
                "model": model,
                "spaces": line.spaces,
                "spearman": line.spearman,
                "top_8_recall": line.recall,
                "fraction": {str(k): line.fractions[k] for k in PICKS},
                "none_ran": {str(k): line.without[k] for k in PICKS},
                "blind_fraction": line.typical,
            }
            for (kernel, model), line in _means(judged).items()
        ],
    }


def rows(judged: Sequence[Judged]) -> list[tuple[str, ...]]:
    """One row per space and model, then means; as `COLUMNS` names them."""
    labels = _labels([one.case for one in judged])
    found = [
        (
            labels[one.case.cell],
            one.case.point + ("" if one.case.complete else " (sample)"),
            one.model,
            str(one.score.candidates),
            f"{one.score.spearman:.2f}",
            *(_percent(one.score.regret(k)) for k in PICKS),
            f"{one.score.recall:.0%}",
            _percent(one.score.fractions[1]),
            _percent(one.score.fractions[8]),
            f"{one.score.typical:.0%}",
        )
        for one in judged
    ]
    for (kernel, model), line in _means(judged).items():
        regrets = (None if f is None else 1 / f - 1 for f in line.fractions.values())
        found.append(
            (
                kernel,
                f"mean of {line.spaces}",
                model,
                "",
                f"{line.spearman:.2f}",
                *map(_percent, regrets),
                f"{line.recall:.0%}",
                _percent(line.fractions[1]) + (f" ({n} failed)" if (n := line.without[1]) else ""),
                _percent(line.fractions[8]),
                f"{line.typical:.0%}",
            )
        )
    return found


def markdown(judged: Sequence[Judged]) -> str:
    """The rows as a table, and what stands in its columns."""
    heads = [column.removeprefix(">") for column in COLUMNS]
    sides = ["--:" if column.startswith(">") else "---" for column in COLUMNS]
    lines = [heads, sides, *rows(judged)]
    goals = " and ".join(f"{goal:.0%} of the optimum with {k}" for k, goal in GOALS.items())
    return (
        "\n".join(f"| {' | '.join(line)} |" for line in lines)
        + "\n\nModels: shipped, with the compiler's facts; on estimated facts; refitted to the "
        "other sizes of each cell. Regret@k: how much slower than the optimum the best of the "
        "model's first k is. First pick, best of 8: the optimum's time over theirs; means are "
        "geometric. Blind pick: "
        f"the same for the median configuration. Goals: {goals}.\n"
    )


def _means(judged: Sequence[Judged]) -> Mapping[tuple[str, str], ModelSummary]:
    labels = _labels([one.case for one in judged])
    groups: dict[tuple[str, str], list[ModelScore]] = {}
    for kernel in (*dict.fromkeys(labels.values()), "all"):
        for one in judged:
            if kernel in (labels[one.case.cell], "all"):
                groups.setdefault((kernel, one.model), []).append(one.score)
    return {name: summarise(scores) for name, scores in groups.items()}


def _labels(cases: Sequence[ModelCase]) -> dict[str, str]:
    """Cell → kernel, and the axes in which the cells of that kernel differ."""
    labels = {}
    for case in cases:
        kin = [dict(other.exact) for other in cases if other.kernel == case.kernel]
        odd = [f"{k}={v}" for k, v in case.exact.items() if any(o.get(k) != v for o in kin)]
        labels[case.cell] = " ".join((case.kernel, *odd))
    return labels


def _percent(value: float | None) -> str:
    return "none ran" if value is None else f"{value:.1%}"
