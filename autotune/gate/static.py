"""The static tier: every committed selection, compiled from the templates at hand, fact by fact.

Needs no GPU and has no noise. The comparison is exact and goes both ways: an improvement fails,
too, until it is pinned, so that the pins always say what is (two-way ratchets are usual for size
and instruction counts, as in PyTorch's compile-time benchmarks).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.arch import GpuArch
from autotune.build import Builder
from autotune.gate.fact_change import Direction, FactChange, compare_reports, summarize
from autotune.gate.finding import Finding
from autotune.gate.tree import Tree
from autotune.gate.verdict import Verdict
from autotune.kernels import load_kernel
from autotune.kernels.spec import KernelSpec
from autotune.problem import Problem
from autotune.records import CompileReport, Evaluation, Selection, Status
from autotune.results import CellResult

_Reports = tuple[CompileReport, ...]


@dataclass(frozen=True, slots=True)
class Pinned:
    """One distinct binary among the selections of a cell."""

    selection: Selection
    points: int
    """Points that it serves."""


def pinned_binaries(cell: CellResult) -> list[Pinned]:
    """The compiled selections of a cell, each machine code once for each account of its facts.

    Where two selections tell the same code differently, both are compared: one must be wrong.
    """
    groups: list[list[Selection]] = []
    for selection in cell.selections:
        if selection.reports:
            told = (group for group in groups if group[0].reports == selection.reports)
            group = next(told, None)
            if group is None:
                groups.append([selection])
            else:
                group.append(selection)
    return [Pinned(group[0], len(group)) for group in groups]


class StaticGate:
    """Compares the facts of two trees for one GPU."""

    def __init__(
        self,
        arch: GpuArch,
        baseline: Tree,
        candidate: Tree,
        after: Builder,
        before: Builder | None,
        accept: Sequence[str] = (),
    ) -> None:
        """Set up.

        Args:
            arch: GPU whose selections are looked at.
            baseline: side whose facts are the measure.
            candidate: side under test.
            after: compiles the candidate's templates.
            before: compiles the baseline's templates, where it has some; used if the pins come from
                another toolchain.
            accept: facts whose fall is wanted: "occupancy", "registers", ...
        """
        self._arch = arch
        self._baseline = baseline
        self._candidate = candidate
        self._after = after
        self._before = before
        self._accept = frozenset(accept)

    def compare(self, kernel: str) -> Iterator[Finding]:
        """Judge all selections of a kernel; nothing if neither side has any.

        Raises:
            CorruptResultError: a results file cannot be trusted.
            RenderError: the candidate's template does not render.
        """
        old = self._cells(self._baseline, kernel)
        new = self._cells(self._candidate, kernel) if self._candidate.results else old
        spec = load_kernel(kernel)
        for key in dict.fromkeys((*old, *new)):
            where = spec.problem_type.from_axes((old.get(key) or new[key]).exact).label("exact")
            if key not in new:
                yield Finding(
                    Verdict.MISSING, self._arch.name, kernel, where, "the cell has no selections"
                )
                continue
            yield from self._compare_cell(spec, old.get(key), new[key])

    def _cells(self, tree: Tree, kernel: str) -> dict[str, CellResult]:
        if tree.results is None:
            return {}
        return {cell.key: cell for cell in tree.store().read(self._arch.name, kernel)}

    def _compare_cell(
        self, spec: KernelSpec[Any], old: CellResult | None, new: CellResult
    ) -> Iterator[Finding]:
        problem = spec.problem_type.from_axes(new.exact)
        binaries = pinned_binaries(new)
        configs = [binary.selection.config for binary in binaries]
        after = self._after.evaluate(spec, problem, configs)
        expected = self._expected(spec, problem, new, binaries)
        for binary, pin, evaluation in zip(binaries, expected, after, strict=True):
            was = _same_config(old, binary.selection)
            yield self._judge(spec.name, problem, binary, pin, evaluation, was)
        served = [s for s in new.selections if s.library is not None]
        for name in dict.fromkeys(s.library for s in served):
            points = sum(s.library == name for s in served)
            yield Finding(
                Verdict.SAME,
                self._arch.name,
                spec.name,
                f"{problem.label('exact')} [library {name}]",
                f"nothing to compile ({points} point{'s' if points > 1 else ''})",
            )
        if old is not None and old is not new:
            yield from self._points(spec, problem, old, new)

    def _expected(
        self,
        spec: KernelSpec[Any],
        problem: Problem,
        cell: CellResult,
        binaries: Sequence[Pinned],
    ) -> list[_Reports | None]:
        """Facts to hold the candidate to; None where there are none for this toolchain."""
        if cell.environment.triton == self._after.environment.triton and (
            cell.environment.assembler == self._after.environment.assembler
        ):
            return [binary.selection.reports for binary in binaries]
        if self._before is None:
            return [None] * len(binaries)
        configs = [binary.selection.config for binary in binaries]
        return [e.reports for e in self._before.evaluate(spec, problem, configs)]

    def _judge(
        self,
        kernel: str,
        problem: Problem,
        binary: Pinned,
        pin: _Reports | None,
        evaluation: Evaluation,
        was: Selection | None,
    ) -> Finding:
        where = f"{problem.label('exact')} [{evaluation.config}]"
        points = f"{binary.points} point{'s' if binary.points > 1 else ''}"

        def finding(verdict: Verdict, detail: str, changes: Sequence[FactChange] = ()) -> Finding:
            return Finding(
                verdict,
                self._arch.name,
                kernel,
                where,
                f"{detail} ({points})",
                tuple(changes),
                accepted=tuple(sorted(self._accept & {c.fact for c in changes})),
            )

        reference = pin if pin is not None else binary.selection.reports
        changes = compare_reports(reference, evaluation.reports, self._arch)
        if evaluation.status is not Status.OK:
            reason = f"{evaluation.status}: {evaluation.reason}"
            return finding(Verdict.UNSOUND, reason, changes)
        if pin is None:
            return finding(
                Verdict.TOOLCHAIN,
                f"pinned with another toolchain than {self._after.environment.triton}, "
                f"{self._after.environment.assembler}: pin again in a commit of its own",
                changes,
            )
        if changes:
            return finding(_verdict_of(self._kept(changes)), summarize(changes), changes)
        if was is not None and was.reports and was.reports != binary.selection.reports:
            repinned = compare_reports(was.reports, evaluation.reports, self._arch)
            worst = max((c.direction for c in self._kept(repinned)), default=Direction.BETTER)
            verdict = Verdict.UNSOUND if worst is Direction.UNSOUND else Verdict.REPINNED
            return finding(verdict, f"pinned anew: {summarize(repinned)}", repinned)
        return finding(Verdict.SAME, "as pinned")

    def _kept(self, changes: Sequence[FactChange]) -> list[FactChange]:
        return [change for change in changes if change.fact not in self._accept]

    def _points(
        self, spec: KernelSpec[Any], problem: Problem, old: CellResult, new: CellResult
    ) -> Iterator[Finding]:
        """Points that are gone, or have another configuration."""
        by_sizes = {tuple(s.nearest.items()): s for s in new.selections}
        for selection in old.selections:
            point = problem.at(**selection.nearest)
            now = by_sizes.get(tuple(selection.nearest.items()))
            if now is None:
                verdict, detail = Verdict.MISSING, "the point has no selection"
            elif changes := now.changes_from(selection):
                verdict, detail = Verdict.RESELECTED, ", ".join(changes)
            else:
                continue
            yield Finding(verdict, self._arch.name, spec.name, point.label(), detail)


def _same_config(cell: CellResult | None, selection: Selection) -> Selection | None:
    if cell is None:
        return None
    return next(
        (
            s
            for s in cell.selections
            if s.nearest == selection.nearest and s.config == selection.config
        ),
        None,
    )


def _verdict_of(changes: Sequence[FactChange]) -> Verdict:
    if not changes:
        return Verdict.MOVED  # all that moved was accepted; the pin is stale nevertheless
    worst = max(change.direction for change in changes)
    if worst is Direction.UNSOUND:
        return Verdict.UNSOUND
    if worst is Direction.WORSE:
        return Verdict.WORSE
    known = {c.direction for c in changes if c.fact != "binary_sha"}
    return Verdict.IMPROVED if known == {Direction.BETTER} else Verdict.MOVED
