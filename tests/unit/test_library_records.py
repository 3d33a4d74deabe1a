"""Selections that say `library`: in files, the registry, gates and commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_folders import Folders
from record_cases import make_report, sha

from autotune.arch import lookup
from autotune.cli import main
from autotune.errors import CorruptResultError
from autotune.gate.static import StaticGate
from autotune.gate.timed import TimedGate
from autotune.gate.tree import Tree
from autotune.gate.verdict import Verdict
from autotune.kernels import load_kernel
from autotune.paths import data_dir
from autotune.records import (
    Environment,
    Provenance,
    Selection,
    Timing,
)
from autotune.registry import Tier, TunedKernels
from autotune.results import CellResult, ResultsStore

GATE_UP = "n=1024,k=1024"


def mlp_selections(*libraries: str | None, kernel: str = "fused_mlp") -> list[Selection]:
    """Measured selections at m of 1, 1024, 4096: kernels, or routines."""
    spec, arch = load_kernel(kernel), lookup("a100")
    report = make_report(entry="fused_mlp_gate_up", binary_sha=sha("main"))
    found = []
    for m, library in zip((1, 1024, 4096), libraries, strict=True):
        point = spec.problem_type.parse(GATE_UP).at(m=m)
        found.append(
            Selection(
                exact=point.exact_axes(),
                nearest=point.nearest_axes(),
                config=spec.default_config(point.at(m=4096), arch),
                provenance=Provenance.MEASURED,
                time_us=10.0,
                error_factor=None,
                default_us=20.0,
                floor_us=1.0,
                reason="made up",
                reports=() if library is not None else (report,),
                timing=Timing(10.0, 9.0, 11.0, 20),
                library=library,
            )
        )
    return found


def save(folder: Path, *libraries: str | None) -> Path:
    selections = mlp_selections(*libraries)
    cell = CellResult(
        selections[0].exact, sha("t"), Environment("3.7.1", "ptxas 1"), {}, tuple(selections)
    )
    return ResultsStore(folder).merge("a100", "fused_mlp", [cell])


def test_files_say_library_and_are_numbered_apart(folders: Folders) -> None:
    path = save(folders.results, None, "cublas", "compiled")
    text = path.read_text()
    assert json.loads(text)["schema"] == 2
    store = ResultsStore(folders.results)
    (stored,) = store.read("a100", "fused_mlp")
    assert [s.library for s in stored.selections] == [None, "cublas", "compiled"]
    assert store.merge("a100", "fused_mlp", [stored]).read_text() == text
    without = save(folders.results, None, None, None).read_text()
    assert json.loads(without)["schema"] == 1
    assert "library" not in without


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d, p: p.update(library="cutlass"), "unknown library routine"),
        (lambda d, p: p.update(library="../x"), "library"),
        (lambda d, p: p.update(library=None), "library"),
        (lambda d, p: p.pop("library"), "schema"),
        (lambda d, p: d.update(schema=1), "schema 2 is that of files in which a library"),
        (lambda d, p: d.update(schema=3), "schema"),
        (lambda d, p: p.update(provenance="predicted", timing=None, error_factor=2.0), "library"),
        (lambda d, p: p.update(binary=d["cells"][0]["points"][0]["binary"]), "no binary of ours"),
    ],
    ids=["name", "path", "null", "gone", "old", "future", "predicted", "binary"],
)
def test_a_file_that_lies_about_the_library_is_refused(
    folders: Folders, edit: Callable[[dict[str, Any], dict[str, Any]], None], words: str
) -> None:
    path = save(folders.results, None, None, "compiled")
    data = json.loads(path.read_text())
    edit(data, data["cells"][0]["points"][2])
    path.write_text(json.dumps(data))
    with pytest.raises(CorruptResultError, match=words):
        ResultsStore(folders.results).read("a100", "fused_mlp")
    tuned = TunedKernels.load("a100", folders.results)
    problem = load_kernel("fused_mlp").problem_type.parse(GATE_UP)
    assert tuned.resolve("fused_mlp", problem).tier is Tier.DEFAULT


def test_the_registry_resolves_to_the_library_and_says_so(folders: Folders) -> None:
    save(folders.results, None, "cublas", "cublas")
    tuned = TunedKernels.load("a100", folders.results)
    problem = load_kernel("fused_mlp").problem_type.parse(GATE_UP)
    found = {m: tuned.resolve("fused_mlp", problem.at(m=m)) for m in (1, 1024, 8192)}
    assert [r.library for r in found.values()] == [None, "cublas", "cublas"]
    assert [r.tier for r in found.values()] == [Tier.EXACT, Tier.EXACT, Tier.NEAREST]
    assert found[8192].source == "library cublas: measured on a100 at m=4096 (tier nearest)"
    repeatable = tuned.resolve("fused_mlp", problem.at(m=1024), repeatable=True)
    assert repeatable.library is None, "torch's sums may depend on the neighbours in a batch"
    bound = tuned.bind_resolved(found[1024])
    assert not any(folders.cache.rglob("*.py")), "nothing was rendered"
    assert callable(bound.launch)


def tree(folder: Path, *libraries: str | None) -> Tree:
    save(folder / "results", *libraries)
    if not (folder / "templates").exists():
        (folder / "templates").symlink_to(data_dir("templates"))
    return Tree.open(folder)


class NothingToCompile:
    """A builder that must not be asked for anything."""

    environment = Environment("3.7.1", "ptxas 1")

    def evaluate(self, spec: Any, problem: Any, configs: Any) -> list[Any]:
        assert not configs
        return []


def test_gates_find_nothing_to_compile_or_to_time(tmp_path: Path) -> None:
    names = ("compiled", "compiled", "cublas")
    old, new = tree(tmp_path / "old", *names), tree(tmp_path / "new", *names)
    arch, builder = lookup("a100"), NothingToCompile()
    same = list(StaticGate(arch, old, new, builder, None).compare("fused_mlp"))  # type: ignore[arg-type]
    assert [(f.verdict, f.detail) for f in same] == [
        (Verdict.SAME, "nothing to compile (2 points)"),
        (Verdict.SAME, "nothing to compile (1 point)"),
    ]
    timed = list(TimedGate(arch, old, new, object()).compare("fused_mlp"))  # type: ignore[arg-type]
    assert {f.verdict for f in timed} == {Verdict.SAME}
    other = tree(tmp_path / "other", "cublas", "compiled", "cublas")
    for gate in (
        StaticGate(arch, old, other, builder, None),  # type: ignore[arg-type]
        TimedGate(arch, old, other, object()),  # type: ignore[arg-type]
    ):
        (moved,) = [f for f in gate.compare("fused_mlp") if f.verdict is not Verdict.SAME]
        assert moved.verdict is Verdict.RESELECTED
        assert "library compiled→library cublas" in moved.detail


def test_commands_show_the_library(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: str | Path) -> str:
        assert main(list(map(str, words))) == 0
        return capsys.readouterr().out

    save(folders.results, None, "cublas", "compiled")
    results = ("--results", folders.results)
    save(tmp_path / "b", None, None, "compiled")
    (pair,) = [
        p for p in json.loads(told("compare", folders.results, tmp_path / "b", "--json"))
        if p["verdict"] != "same config"
    ]  # fmt: skip
    assert (pair["a"]["library"], pair["b"]["library"]) == ("cublas", None)
    assert "cublas→the kernel" in told("compare", folders.results, tmp_path / "b")
    shown = told("show", "fused_mlp", "--gpu", "a100", "--problem", f"{GATE_UP},m=4096", *results)
    assert "library  compiled" in shown
    for name, left in (("json", 0), ("t4", 2), ("vllm", 2)):
        words = ("export", "--gpu", "a100", "--format", name, "--out", tmp_path / name, "--json")
        report = json.loads(told(*words, *results))
        assert sum("was faster" in line for line in report["left_out"]) == left
    (path,) = (tmp_path / "json").iterdir()
    assert [row["library"] for row in json.loads(path.read_text())] == [None, "cublas", "compiled"]
    out = tmp_path / "r.html"
    told("report", "--gpu", "a100", "--out", out, "--studies", tmp_path / "none", *results)
    assert "library compiled" in out.read_text()
