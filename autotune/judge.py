"""Legality by the compiler's facts: what Triton compiles without complaint, yet must not ship."""

from __future__ import annotations

from collections.abc import Iterable

from autotune.arch import GpuArch
from autotune.config import Config
from autotune.occupancy import occupancy
from autotune.records import CompileReport, Evaluation, Status


def find_fault(
    reports: Iterable[CompileReport], arch: GpuArch, expected_mma: str | None
) -> tuple[Status, str] | None:
    """First reason to reject a compiled candidate, None if there is none.

    `expected_mma` is the class that the first entry point must use; None accepts any.
    """
    for index, report in enumerate(reports):
        if report.shared_bytes > arch.shared_bytes_per_block:
            return Status.OVER_LIMIT, (
                f"{report.entry} needs {report.shared_bytes} B of shared memory; "
                f"a block on {arch.name} gets {arch.shared_bytes_per_block}"
            )
        if report.stack_bytes > 0:
            return Status.SPILLS, (
                f"{report.entry} spills: {report.stack_bytes} B of stack per thread at "
                f"{report.registers} registers"
            )
        if occupancy(report, arch).blocks == 0:
            return Status.OVER_LIMIT, (
                f"{report.entry}: {report.num_warps} warps of {report.registers} registers do "
                f"not fit on one SM of {arch.name}"
            )
        if index == 0 and expected_mma is not None and report.mma != expected_mma:
            return Status.WRONG_MMA, (
                f"{report.entry} compiled to {report.mma or 'no matrix instruction'}; "
                f"{expected_mma} is what {arch.name} needs here"
            )
    return None


class DuplicateFinder:
    """Remembers which configuration first gave each machine code, within one cell."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, ...], Config] = {}

    def screen(self, evaluation: Evaluation) -> Evaluation:
        """Return the evaluation, turned into DUPLICATE if its machine code has been seen."""
        if evaluation.status is not Status.OK:
            return evaluation
        code = tuple(report.binary_sha for report in evaluation.reports)
        twin = self._first.setdefault(code, evaluation.config)
        if twin == evaluation.config:
            return evaluation
        return Evaluation(
            config=evaluation.config,
            status=Status.DUPLICATE,
            reason=f"the same machine code as {twin}",
            reports=evaluation.reports,
            twin=twin,
        )
