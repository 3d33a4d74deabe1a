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
from record_cases import make_report, sha
from toy_kernel import ToyKernel, ToyProblem, sound

from autotune.arch import lookup
from autotune.cell import Cell
from autotune.correctness import complaint, errors_of
from autotune.errors import UnknownChoiceError
from autotune.gpu import simulated
from autotune.judge import DuplicateFinder
from autotune.kernels import KERNELS, load_kernel
from autotune.library import PREFIX, ROUTINES, WITHOUT, load_routine, routines_for
from autotune.library.routine import Routine
from autotune.measure import measure
from autotune.paths import templates_dir
from autotune.problem import Problem
from autotune.race_log import RaceLog
from autotune.records import (
    Evaluation,
    Provenance,
    Selection,
    Status,
)
from autotune.render import TemplateFolder
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
    report = make_report(entry="fused_mlp_gate_up", binary_sha=sha(str(binary)))
    return Evaluation(config, Status.OK, reports=(report,))
