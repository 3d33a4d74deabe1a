"""The library in a kernel's place: right on the kernel's hard sizes, chosen where it is faster."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from made_up_device import MadeUpDevice
from own_folders import Folders
from record_cases import make_report, sha
from toy_kernel import ToyKernel, ToyProblem, sound

from autotune.arch import lookup
from autotune.cell import Cell
from autotune.cli import main
from autotune.correctness import complaint, errors_of
from autotune.errors import CorruptResultError, UnknownChoiceError
from autotune.gate.static import StaticGate
from autotune.gate.timed import TimedGate
from autotune.gate.tree import Tree
from autotune.gate.verdict import Verdict
from autotune.gpu import simulated
from autotune.judge import DuplicateFinder
from autotune.kernels import KERNELS, load_kernel
from autotune.library import PREFIX, ROUTINES, WITHOUT, load_routine, routines_for
from autotune.library.routine import Routine
from autotune.measure import measure
from autotune.paths import data_dir, templates_dir
from autotune.problem import Problem
from autotune.race_log import RaceLog
from autotune.records import (
    CompileReport,
    Environment,
    Evaluation,
    Provenance,
    Selection,
    Status,
    Timing,
)
from autotune.registry import Tier, TunedKernels
from autotune.render import TemplateFolder
from autotune.results import CellResult, ResultsStore
from autotune.select import select
from autotune.standing import compare_with_peers

TOY = Routine(lambda problem: None, lambda problem: print)
GATE_UP = "n=1024,k=1024"
Duel = Callable[[Problem, str, bool], float | None]


def test_every_kernel_has_routines_or_a_reason() -> None:
    assert ROUTINES.keys() | WITHOUT.keys() == KERNELS.keys()
    assert not ROUTINES.keys() & WITHOUT.keys()


@pytest.mark.parametrize(
    ("kernel", "name"), [("fused_mlp", "cublas"), ("paged_attention_prefill", "sdpa")]
)
def test_a_routine_is_right_wherever_it_says_that_it_serves(kernel: str, name: str) -> None:
    spec = load_kernel(kernel)
    served = [p for p in spec.hard_problems() if name in routines_for(p)]
    assert len(served) >= 12
    for problem in served:
        assert wrong(problem, name) is None, problem.label()


def wrong(problem: Problem, name: str) -> str | None:
    """By the kernel's own tolerance, on inputs whose unused memory is NaN."""
    spec = load_kernel(problem.kernel)
    module = ModuleType(name)
    module.launch = load_routine(name, problem)  # type: ignore[attr-defined]
    inputs = spec.make_inputs(problem, 3, "cpu")
    out = spec.values(problem, inputs, spec.run(module, problem, inputs))
    return complaint(errors_of(out, spec.reference(problem, inputs)), spec.tolerance(problem))


def test_the_activation_is_compiled_twice_and_not_at_each_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    # What is traced, and when again, is the same; Inductor would take ten seconds here.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    spec = load_kernel("fused_mlp")
    problem = spec.problem_type.parse("dtype=fp32,activation=gelu_tanh,n=40,k=33")
    launch = load_routine("compiled", problem)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for m in (3, 1, 2, 64, 65):
        inputs = spec.make_inputs(problem.at(m=m), m, "cpu")
        launch(**inputs)
        reference = spec.reference(problem.at(m=m), inputs)
        assert complaint(errors_of(inputs["out"], reference), spec.tolerance(problem)) is None
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before == 2


@pytest.mark.parametrize(
    ("kernel", "axes", "names"),
    [
        ("fused_mlp", "part=down,activation=none", ("cublas",)),
        ("paged_attention_prefill", "window=128", ()),
        ("paged_attention_prefill", "softcap=50.0", ()),
        ("paged_attention_prefill", "kv_dtype=int8", ()),
        ("paged_attention_prefill", "alibi=true", ()),
        ("paged_attention_prefill", "sinks=true", ()),
        ("paged_attention_decode", "", ()),
        ("dequant_gemm", "", ()),
    ],
)
def test_what_torch_has_not_is_not_offered(kernel: str, axes: str, names: tuple[str, ...]) -> None:
    assert routines_for(load_kernel(kernel).problem_type.parse(axes)) == names


def test_unknown_routines_list_the_choices() -> None:
    problem = load_kernel("fused_mlp").problem_type()
    with pytest.raises(UnknownChoiceError, match="compiled, cublas"):
        load_routine("cutlass", problem)


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    monkeypatch.setitem(KERNELS, "toy", "toy_kernel:ToyKernel")
    monkeypatch.setitem(ROUTINES, "toy", {"plain": f"{__name__}:TOY", "odd": f"{__name__}:TOY"})
    return Cell(ToyKernel(), lookup("a100"), ToyProblem())


def test_a_repeatable_cell_never_meets_the_library(cell: Cell) -> None:
    strict = Cell(cell.spec, cell.arch, cell.problem, repeatable=True)
    selections, device = run(strict, lambda point, name, fresh: 1.0)
    assert not device.duels
    assert {selection.library for selection in selections} == {None}


def run(cell: Cell, peer_us: Duel, kernel_us: float = 40.0) -> tuple[list[Selection], MadeUpDevice]:
    finder = DuplicateFinder()
    known = [finder.screen(sound(cell.representative(binary))) for binary in cell.binaries]
    default = cell.defaults[cell.points[0]]
    device = MadeUpDevice(lambda c: 50.0 if c == default else kernel_us)
    device.peer_us = peer_us
    return measure(cell, known, select(cell, known), device, 3), device


def large_m(point: Problem, name: str, fresh: bool) -> float:
    """Faster than the kernels' 40 where m is large; `odd` never."""
    is_fast = point.nearest_axes()["m"] == 1024 and name == "library:plain"
    return 30.0 if is_fast else 45.0


def test_the_library_wins_where_it_is_faster_and_there_only(cell: Cell) -> None:
    (small, large), device = run(cell, large_m)
    assert small.library is None
    assert small.reports
    assert "library odd gave 0." in small.reason or "library plain gave 0." in small.reason
    assert large.library == "plain"
    assert (large.time_us, large.default_us) == pytest.approx((30.0, 50.0), rel=0.02)
    assert large.provenance is Provenance.MEASURED
    assert large.timing is not None
    assert large.timing.conditions is not None
    assert large.timing.conditions.confirmed_us == pytest.approx(30.0, rel=0.02)
    assert not large.reports
    assert large.config != cell.defaults[cell.points[1]], "the fastest kernel of all"
    assert "the library: plain gave 1.3" in large.reason
    for point, configs, peers in device.duels:
        assert configs[0] != cell.defaults[point] == configs[1]
        assert peers == ("library:plain", "library:odd")


@pytest.mark.parametrize(
    ("peer_us", "words"),
    [
        (lambda point, name, fresh: 60.0, "gave 0.6"),
        (lambda point, name, fresh: 40.0, "gave "),
        (lambda point, name, fresh: 40.0 if fresh else 30.0, "in a fresh process"),
        (lambda point, name, fresh: None if fresh else 30.0, "failed in a fresh process"),
        (lambda point, name, fresh: None, "not timed (plain: no; odd: no)"),
    ],
    ids=["slower", "even", "not-again", "dies-again", "dies"],
)
def test_a_library_that_is_not_faster_leaves_the_kernel(
    cell: Cell, peer_us: Duel, words: str
) -> None:
    for selection in run(cell, peer_us)[0]:
        assert selection.library is None
        assert selection.time_us == pytest.approx(40.0, rel=0.02)
        assert selection.reports
        assert words in selection.reason


def test_a_default_that_is_the_fastest_kernel_meets_the_library_alone(cell: Cell) -> None:
    (small, large), device = run(cell, large_m, kernel_us=70.0)
    assert [len(configs) for _, configs, _ in device.duels] == [1, 1]
    assert small.library in ("plain", "odd"), "45 against 50"
    assert large.library == "plain"
    assert large.gain == pytest.approx(50 / 30, rel=0.03)


def test_on_a_simulated_gpu_in_a_real_worker(tmp_path: Path) -> None:
    spec = load_kernel("fused_mlp")
    cell = Cell(spec, lookup("h200"), spec.problem_type.parse(GATE_UP))
    known = [sound_mlp(cell, binary) for binary in (*cell.seeds(2), cell.binaries[7])]
    log = tmp_path / "races.jsonl"
    traits = "h200?library=0.6&library_from=1024&hidden=0"
    with simulated(traits, TemplateFolder(templates_dir()), tmp_path, RaceLog(log)) as gpu:
        found = measure(cell, known, select(cell, known), gpu, 2)
        standings = compare_with_peers(cell, found[-1:], gpu, ("fused_mlp/cublas",))
    assert [s.library is not None for s in found] == [False, False, False, False, True, True]
    for selection in found[-2:]:
        assert selection.library in ROUTINES["fused_mlp"]
        assert selection.gain == pytest.approx(1 / 0.6, rel=0.05)
    assert standings[0].ratio is not None
    assert standings[0].ratio.ratio == pytest.approx(1.1 / 0.6, rel=0.05), "against the library"
    raced = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(PREFIX + "compiled" in entry.get("peers", ()) for entry in raced)


def sound_mlp(cell: Cell, binary: Any) -> Evaluation:
    config = cell.representative(binary)
    return Evaluation(config, Status.OK, reports=(mlp_report(sha(str(binary))),))


def mlp_report(binary_sha: str) -> CompileReport:
    return make_report(entry="fused_mlp_gate_up", binary_sha=binary_sha)


def mlp_selections(*libraries: str | None, kernel: str = "fused_mlp") -> list[Selection]:
    """Measured selections at m of 1, 1024, 4096: kernels, or routines."""
    spec, arch = load_kernel(kernel), lookup("a100")
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
                reports=() if library is not None else (mlp_report(sha("main")),),
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
