"""Every committed selection compiles for its GPU, soundly, to the facts that are recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.arch import lookup
from autotune.build import Builder
from autotune.kernels import KERNELS, load_kernel
from autotune.paths import cache_dir
from autotune.pool import WorkerPool
from autotune.records import Status
from autotune.render import TemplateFolder
from autotune.results import ResultsStore

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "results").glob("*/*.json"))


def test_every_gpu_that_is_promised_has_every_kernel() -> None:
    promised = {"a100", "h100", "h200", "rtx4090", "mi300x"}
    found = {(path.parent.name, path.stem) for path in FILES}
    assert {(gpu, kernel) for gpu in promised for kernel in KERNELS} <= found


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_selections_compile_to_what_is_recorded(path: Path) -> None:
    gpu, kernel = path.parent.name, path.stem
    spec = load_kernel(kernel)
    with WorkerPool(1) as pool:
        builder = Builder(lookup(gpu), TemplateFolder(ROOT / "templates"), cache_dir(), pool)
        for cell in ResultsStore(ROOT / "results").read(gpu, kernel):
            problem = spec.problem_type.from_axes(cell.exact)
            by_binary = {
                tuple(report.binary_sha for report in selection.reports): selection
                for selection in cell.selections
            }
            wanted = list(by_binary.values())
            evaluations = builder.evaluate(spec, problem, [s.config for s in wanted])
            for evaluation, selection in zip(evaluations, wanted, strict=True):
                where = f"{gpu} {problem.label('exact')} {evaluation.config}"
                assert evaluation.status is Status.OK, f"{where}: {evaluation.reason}"
                # Another toolchain may allocate differently; the same one must not.
                if cell.environment == builder.environment:
                    assert evaluation.reports == selection.reports, where
