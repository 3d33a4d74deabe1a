"""Fits the cost model's constants to measured winners; deterministic.

The loss of a record is that of choosing among the legal configurations by a softmax over predicted
log times (Plackett-Luce with one place), plus its regret, plus the log error of its time where one
was measured. Constants are fitted in two rounds: one row per kind over all GPUs, held to the
physical defaults by a ridge on their logarithms; then one row per architecture class, held to the
kind's row more tightly, so that few records move it little. L-BFGS-B with finite differences.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from autotune.arch import GpuArch, lookup
from autotune.coefficients import BOUNDS, Coefficients, CoefficientTable, class_of
from autotune.cost_model import launch_us
from autotune.launch import Launch
from autotune.tiles import Array
from autotune.winners.case import Case
from autotune.winners.score import score, summarise, trust

Indices = NDArray[np.int64]

_TEMPERATURE = 0.1
"""Of the softmax, in log time: how well tuners tell two configurations apart."""
_REGRET_WEIGHT = 8.0
_TIME_WEIGHT = 4.0
_RIDGE = 0.01
_MANY, _FEW = 20, 10
"""Problems of one family and GPU that serve a fit, and one that leaves something out."""
_CANDIDATES_PER_CASE = 60
"""Candidates of a problem that serve, besides its winners."""
_RECORDS_PER_CASE = 3
_OTHER_KERNELS = 1.25
"""Error factors are widened by this: the kernels that were measured are not those of ours."""
_KIND_FREEDOM, _CLASS_FREEDOM = 1.5, 0.7
"""Factors on the widths below."""
_WIDTHS: Mapping[str, float] = {
    "dram_efficiency": 0.08,
    "l2_bytes_per_clock": 0.3,
    "dram_latency_us": 0.35,
    "launch_us": 0.3,
    "prologue_us": 0.6,
    "clocks_per_instruction": 0.5,
    "issue_efficiency": 0.3,
    "shared_efficiency": 0.3,
    "matrix_efficiency": 0.4,
    "group_efficiency": 0.5,
    "sync_us": 0.7,
    "spill_penalty": 0.7,
    "atomic_bytes_per_clock": 0.7,
    "sharpness": 0.4,
    "feeding_warps": 0.6,
    "unpack_cost": 0.4,
    "rows_exponent": 0.1,
    "cols_exponent": 0.1,
    "depth_exponent": 0.1,
    "warps_exponent": 0.1,
}
"""Standard deviation of the ridge: of logarithms, and of exponents as they are."""
_HELD = {
    "attention": (
        "dram_efficiency",
        "l2_bytes_per_clock",
        "shared_efficiency",
        "matrix_efficiency",
        "group_efficiency",
    )
}
"""Constants that a kind's records say little of, since other terms bound them: a fifth as wide.
The attention that was measured waits for its loads and for itself, in small batches."""
_NAMES = tuple(_WIDTHS)


@dataclass(frozen=True, slots=True)
class _Pack:
    """Problems of one family on one GPU, their candidates end to end."""

    kind: str
    arch: GpuArch
    launches: tuple[Launch, ...]
    starts: Indices
    """First candidate of each problem."""
    winners: Indices
    problem_of: Indices
    """Problem of each winner."""
    weights: Array
    times_us: Array
    """Of each winner; empty if none was measured."""


def fit(cases: Sequence[Case], note: str) -> CoefficientTable:
    """A table fitted to the problems that are not held out, with its error on those that are."""
    packs = _packs([case for case in cases if not case.held_out], _MANY)
    return judged_table(_fit_rows(packs), cases, note)


def judged_table(
    rows: Mapping[tuple[str, str], Coefficients], cases: Sequence[Case], note: str
) -> CoefficientTable:
    """A table of these rows, with their error on the problems that are held out."""
    bare = CoefficientTable(rows, fitted=note)
    scores = list(score(cases, bare))
    factors = {}
    for kind in sorted({one.kind for one in scores}):
        seen = [one for one in scores if one.kind == kind and one.held_out]
        known = [line.error_factor for line in summarise(seen) if line.error_factor is not None]
        factors[kind] = round(_OTHER_KERNELS * max(known), 2) if known else 2.0
    return dataclasses.replace(bare, error_factors=factors, trust=trust(scores))


def fit_without(cases: Sequence[Case], what: str, name: str) -> CoefficientTable:
    """Rows that judge one GPU or family (`what`), fitted to all others, from fewer problems.

    A class that only the missing GPU speaks for gets no row, and falls back to its kind's.
    """
    judged = [case for case in cases if getattr(case, what) == name]
    wanted = {(case.kind, class_of(lookup(case.gpu))) for case in judged}
    kinds = {kind for kind, _ in wanted}
    others = [case for case in cases if case.kind in kinds and getattr(case, what) != name]
    packs = _packs([case for case in others if not case.held_out], _FEW)
    return CoefficientTable(_fit_rows(packs, wanted), fitted=f"without {name}")


def _fit_rows(
    packs: Sequence[_Pack], wanted: Collection[tuple[str, str]] | None = None
) -> dict[tuple[str, str], Coefficients]:
    """Default rows of all kinds, and rows of the (kind, class) that are wanted, None for all."""
    rows: dict[tuple[str, str], Coefficients] = {}
    for kind in sorted({pack.kind for pack in packs}):
        members = [pack for pack in packs if pack.kind == kind]
        default = _fit_row(members, Coefficients(), _KIND_FREEDOM)
        rows[kind, "default"] = default
        for name in sorted({class_of(pack.arch) for pack in members}):
            if wanted is None or (kind, name) in wanted:
                own = [pack for pack in members if class_of(pack.arch) == name]
                rows[kind, name] = _fit_row(own, default, _CLASS_FREEDOM)
    return rows


def _fit_row(packs: Sequence[_Pack], base: Coefficients, freedom: float) -> Coefficients:
    def loss(row: Coefficients) -> float:
        return sum(_loss(pack, row) for pack in packs) / len(packs)

    return ridge_fit(loss, base, freedom, _HELD.get(packs[0].kind, ()))


def ridge_fit(
    data_loss: Callable[[Coefficients], float],
    base: Coefficients,
    freedom: float,
    held: Collection[str] = (),
) -> Coefficients:
    """Constants of least loss, held to `base` by a ridge on their logarithms.

    Args:
        data_loss: what the data say of a row.
        base: where the search begins, and what it is held to.
        freedom: factor on how far each may go.
        held: constants that may go a fifth as far.
    """
    start = _encode(base)
    widths = np.array([_WIDTHS[n] * (0.2 if n in held else 1.0) for n in _NAMES]) * freedom

    def loss(x: Array) -> float:
        ridge = float((((x - start) / widths) ** 2).sum())
        return data_loss(_decode(x)) + _RIDGE * ridge

    bounds = [
        BOUNDS[name] if name.endswith("exponent") else tuple(np.log(BOUNDS[name]))
        for name in _NAMES
    ]
    found = minimize(
        loss, start, method="L-BFGS-B", bounds=bounds, options={"maxiter": 30, "eps": 1e-3}
    )
    return _decode(found.x)


def _encode(row: Coefficients) -> Array:
    values = [getattr(row, name) for name in _NAMES]
    logs = [v if n.endswith("exponent") else np.log(v) for n, v in zip(_NAMES, values, strict=True)]
    return np.array(logs, dtype=np.float64)


def _decode(x: Array) -> Coefficients:
    values = {
        name: float(v) if name.endswith("exponent") else float(np.exp(v))
        for name, v in zip(_NAMES, x, strict=True)
    }
    # The way through logarithms may leave the bounds by a rounding.
    return Coefficients(**{n: float(np.clip(v, *BOUNDS[n])) for n, v in values.items()})


def _loss(pack: _Pack, row: Coefficients) -> float:
    times = sum(launch_us(launch, pack.arch, row) for launch in pack.launches)
    logs = np.log(times)
    scaled = -logs / _TEMPERATURE
    total = np.logaddexp.reduceat(scaled, pack.starts)
    best = np.minimum.reduceat(logs, pack.starts)
    chosen = total[pack.problem_of] - scaled[pack.winners]
    regret = np.minimum(1.0, logs[pack.winners] - best[pack.problem_of])
    found = ((chosen + _REGRET_WEIGHT * regret) * pack.weights).sum() / pack.weights.sum()
    if len(pack.times_us):
        found += _TIME_WEIGHT * np.abs(logs[pack.winners] - np.log(pack.times_us)).mean()
    return float(found)


def _packs(cases: Sequence[Case], most: int) -> list[_Pack]:
    groups: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: case.digest):
        members = groups[case.family, case.gpu]
        if len(members) < most:
            members.append(case)
    return [_pack(members) for _, members in sorted(groups.items())]


def _pack(cases: Sequence[Case]) -> _Pack:
    columns: list[dict[str, list[Array]]] = [defaultdict(list) for _ in cases[0].launches]
    starts, winners, problem_of, weights, times = [], [], [], [], []
    size = 0
    for number, case in enumerate(cases):
        chosen = _sample(case)
        for launch, column in zip(case.launches, columns, strict=True):
            for field in fields(Launch):
                value = np.broadcast_to(getattr(launch, field.name), (case.size,))
                column[field.name].append(value[chosen].astype(np.float64))
        own = case.winners[:_RECORDS_PER_CASE]
        starts.append(size)
        winners += [size + int(np.searchsorted(chosen, winner)) for winner in own]
        problem_of += [number] * len(own)
        weights += [1 / len(own)] * len(own)
        times += list(case.times_us[:_RECORDS_PER_CASE])
        size += len(chosen)
    return _Pack(
        kind=cases[0].kind,
        arch=lookup(cases[0].gpu),
        launches=tuple(
            Launch(**{name: np.concatenate(parts) for name, parts in column.items()})
            for column in columns
        ),
        starts=np.array(starts, dtype=np.int64),
        winners=np.array(winners, dtype=np.int64),
        problem_of=np.array(problem_of, dtype=np.int64),
        weights=np.array(weights),
        times_us=np.array(times),
    )


def _sample(case: Case) -> Indices:
    """Indices of some candidates, the winners among them, sorted; the same in every run."""
    if case.size <= _CANDIDATES_PER_CASE:
        return np.arange(case.size, dtype=np.int64)
    draw = np.random.default_rng(case.digest).choice(case.size, _CANDIDATES_PER_CASE, replace=False)
    chosen: Indices = np.unique(np.concatenate([draw, np.array(case.winners, dtype=np.int64)]))
    return chosen
