"""Every GPU and kernel that is promised has committed results, and each names its facts.

That the facts are those of the templates is the static gate's business: `make gate`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.kernels import searched_kernels
from autotune.records import Provenance
from autotune.results import ResultsStore, results_text

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "results").glob("*/*.json"))


def test_every_gpu_that_is_promised_has_every_kernel() -> None:
    promised = {"a100", "h100", "h200", "rtx4090", "mi300x"}
    found = {(path.parent.name, path.stem) for path in FILES}
    assert {(gpu, kernel) for gpu in promised for kernel in searched_kernels()} <= found


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_selection_that_claims_a_time_has_facts_to_pin(path: Path) -> None:
    cells = ResultsStore(ROOT / "results").read(path.parent.name, path.stem)
    assert cells
    for cell in cells:
        for selection in cell.selections:
            assert bool(selection.reports) == (selection.provenance is not Provenance.DEFAULT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_writing_a_file_again_changes_no_byte(path: Path) -> None:
    """Variants that kernels gained since do not show in what was selected without them."""
    gpu, kernel = path.parent.name, path.stem
    cells = ResultsStore(ROOT / "results").read(gpu, kernel)
    ordered = sorted(cells, key=lambda cell: cell.key)
    assert results_text(gpu, kernel, ordered) == path.read_text(encoding="utf-8")
