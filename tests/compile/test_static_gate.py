"""The static gate on real templates: planted regressions fail by name, harmless edits pass."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from gate_plants import GPU, KERNELS, PLANTS, Plant, small_tree

from autotune.cli import main
from autotune.results import ResultsStore


def gate(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, dict[str, Any]]:
    code = main(["gate", *map(str, words), "--static-only", "--jobs", "1", "--json"])
    return code, json.loads(capsys.readouterr().out)


def candidate(base: Path, plant: Plant | None = None) -> Path:
    """A copy of a tree as a pull request's checkout; the same pins, perhaps other templates."""
    folder = base.parent / "candidate"
    shutil.copytree(base, folder)
    if plant is not None:
        plant.apply(folder / "templates")
    return folder


def planted(name: str) -> Plant:
    (plant,) = [plant for plant in PLANTS if plant.name == name]
    return plant


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_regression_planted_in_any_kernel_fails_by_the_name_of_its_fact(
    plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = small_tree(tmp_path / "base", plant.wants)
    code, report = gate(capsys, base, candidate(base, plant))
    assert code == 1
    assert {finding["kernel"] for finding in report["findings"]} == set(KERNELS)
    for finding in report["findings"]:
        assert finding["verdict"] in ("worse", "unsound"), finding
        assert plant.fact in {change["fact"] for change in finding["changes"]}, finding


def test_comments_change_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = small_tree(tmp_path / "base", lambda selection: True)
    after = candidate(base)
    for path in sorted((after / "templates").rglob("*.jinja")):
        text = path.read_text().replace("@triton.jit", "# A word more.\n@triton.jit")
        path.write_text("{# and one of jinja's #}\n" + text)
    code, report = gate(capsys, base, after)
    assert (code, report["counts"]) == (0, {"same": len(KERNELS)})


def test_a_wanted_change_is_pinned_and_then_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = KERNELS[0]
    plant = planted("no prefetch")
    base = small_tree(tmp_path / "base", plant.wants)
    after = candidate(base, plant)
    words = ["gate", str(base), str(after), "--kernel", kernel]
    assert main([*words, "--pin"]) == 0
    printed = capsys.readouterr().out
    assert "loop.async_copy" in printed
    assert "1 cells pinned anew" in printed
    code, report = gate(capsys, *words[1:])
    assert (code, report["counts"]) == (0, {"repinned": 1})
    old, new = (
        ResultsStore(folder / "results").read(GPU, kernel)[0].selections[0]
        for folder in (base, after)
    )
    assert new.config == old.config
    assert new.reports != old.reports
    assert new.time_us != old.time_us, "the prediction follows from the facts"
    assert main([*words, "--pin"]) == 0
    assert "0 cells pinned anew" in capsys.readouterr().out


def test_what_is_unsound_cannot_be_pinned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = KERNELS[0]
    plant = planted("a spill")
    base = small_tree(tmp_path / "base", plant.wants)
    after = candidate(base, plant)
    path = ResultsStore(after / "results").path(GPU, kernel)
    before = path.read_bytes()
    assert main(["gate", str(base), str(after), "--kernel", kernel, "--pin"]) == 1
    assert "NOT pinned" in capsys.readouterr().out
    assert path.read_bytes() == before


def test_pins_of_another_toolchain_are_a_verdict_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = small_tree(tmp_path / "base", lambda selection: True)
    path = ResultsStore(base / "results").path(GPU, KERNELS[0])
    text, count = re.subn('"triton": "[^"]*"', '"triton": "3.0.0"', path.read_text())
    assert count == 1
    path.write_text(text)
    only = ("--kernel", KERNELS[0])
    code, report = gate(capsys, base / "results", base, *only)
    assert (code, report["counts"]) == (1, {"toolchain": 1})
    # With the baseline's templates at hand, both sides are compiled here and compared.
    code, report = gate(capsys, base, candidate(base), *only)
    assert (code, report["counts"]) == (0, {"same": 1})
