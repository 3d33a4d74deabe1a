"""Whole runs with a compiler that makes its facts up: what is selected, written, and repeated."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from own_folders import Folders
from record_cases import make_report, make_work, sha
from toy_kernel import FakeBuilder, ToyKernel, ToyProblem, Verdict, sound, write_templates

from autotune.arch import GpuArch, lookup
from autotune.cell import Cell
from autotune.config import Config
from autotune.deadline import Deadline
from autotune.errors import AutotuneError
from autotune.kernels import KERNELS
from autotune.kernels.spec import Work
from autotune.knob import Constraint
from autotune.progress import Silent
from autotune.records import Evaluation, Provenance, Status
from autotune.render import TemplateFolder
from autotune.results import CellResult, ResultsStore
from autotune.search.ledger import BATCH_SIZE
from autotune.space import SearchSpace
from autotune.study import SearchOptions
from autotune.tune import tune

A100 = lookup("a100")
NARROW, WIDE = ToyProblem(), ToyProblem(width=128)
NUM_BINARIES = 54
QUICK = SearchOptions(trials=24, sampler="random")


class ScaledKernel(ToyKernel):
    """Moves 1 GB, times what `mode` says: nothing else matters."""

    def __init__(self, scale: Mapping[str, float]) -> None:
        self.scale = scale

    def work(self, problem: ToyProblem, config: Config, arch: GpuArch) -> tuple[Work, ...]:
        return (make_work(flops=0.0, dram_bytes=1e9 * self.scale[str(config["mode"])]),)


def same_facts(config: Config) -> Evaluation:
    """Sound, alike but for the machine code."""
    report = make_report(binary_sha=sha(str(config.replace(splits=1))))
    return Evaluation(config, Status.OK, reports=(report,))


class Counting(Silent):
    """Adds up what is reported."""

    def __init__(self) -> None:
        self.trials = 0
        self.cells: list[str] = []
        self.last: tuple[float | None, dict[str, int]] = (None, {})

    def cell(self, name: str) -> None:
        self.cells.append(name)

    def advance(self, trials: int) -> None:
        self.trials += trials

    def state(self, best_us: float | None, rejected: dict[str, int]) -> None:
        self.last = (best_us, rejected)


class Runs:
    """Runs of the toy kernel in one test's folders."""

    def __init__(self, folders: Folders, templates: TemplateFolder) -> None:
        self.folders = folders
        self.templates = templates
        self.reporter = Counting()
        self.builder = FakeBuilder(A100, templates)

    def run(
        self,
        *problems: ToyProblem,
        kernel: ToyKernel | None = None,
        verdict: Verdict = sound,
        budget_s: float | None = None,
        results: Path | None = None,
        options: SearchOptions | None = None,
    ) -> list[CellResult]:
        """Search some cells and return what was written for them."""
        spec = kernel or ToyKernel()
        self.builder = FakeBuilder(A100, self.templates, verdict)
        self.reporter = Counting()
        done = tune(
            [Cell(spec, A100, problem) for problem in problems or (NARROW,)],
            self.builder,
            ResultsStore(results or self.folders.results),
            self.folders.studies,
            options or QUICK,
            Deadline(budget_s),
            self.reporter,
        )
        return [tuned.result for tuned in done]


@pytest.fixture
def runs(folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setitem(KERNELS, "toy", "toy_kernel:ToyKernel")
    return Runs(folders, write_templates(tmp_path / "templates"))


def test_results_are_written_and_valid(runs: Runs, folders: Folders) -> None:
    (result,) = runs.run()
    (stored,) = ResultsStore(folders.results).read("a100", "toy")
    assert stored.exact == result.exact == NARROW.exact_axes()
    assert stored.template_sha == runs.templates.sha("toy.py.jinja")
    assert stored.search == result.search
    assert [s.nearest for s in stored.selections] == [{"m": 16}, {"m": 1024}]
    for selection in stored.selections:
        assert selection.provenance is Provenance.PREDICTED
        assert selection.time_us is not None
        assert selection.time_us >= selection.floor_us > 0
        assert selection.gain is not None
        assert selection.gain >= 1.0
    assert sum(result.search["outcomes"].values()) == 24
    assert result.search["stopped_by"] == "trials"


def test_every_binary_is_asked_for_once(runs: Runs) -> None:
    (result,) = runs.run(options=SearchOptions(effort="exhaustive", sampler="random"))
    assert len(runs.builder.asked) == NUM_BINARIES
    assert len(set(runs.builder.asked)) == NUM_BINARIES
    assert result.search["space"] == {"cartesian": 216, "legal": 162, "binaries": NUM_BINARIES}


def test_the_default_is_compiled_first(runs: Runs) -> None:
    runs.run()
    default = ToyKernel().default_config(NARROW, A100)
    assert runs.builder.asked[0].replace(splits=1) == default


@pytest.mark.parametrize(("scale", "winner"), [(0.995, "a"), (1.0, "a"), (1.2, "a"), (0.9, "b")])
def test_the_default_stays_unless_beaten_by_a_percent(
    runs: Runs, scale: float, winner: str
) -> None:
    kernel = ScaledKernel({"a": 1.0, "b": scale, "c": 1.1})
    options = SearchOptions(effort="exhaustive", sampler="random")
    (result,) = runs.run(kernel=kernel, verdict=same_facts, options=options)
    default = kernel.default_config(NARROW, A100)
    for selection in result.selections:
        assert selection.config["mode"] == winner
        if winner == "a":
            assert selection.config == default
            assert selection.gain == 1.0
            assert selection.reason.startswith("the default")
        else:
            assert selection.gain == pytest.approx(1 / scale, rel=0.01)
            assert "mode a→b" in selection.reason


def failing(*wanted: Callable[[Config], bool]) -> Verdict:
    """Spills wherever one of the conditions holds."""

    def verdict(config: Config) -> Evaluation:
        if any(condition(config) for condition in wanted):
            return Evaluation(config, Status.SPILLS, "8 B of stack", (make_report(stack_bytes=8),))
        return sound(config)

    return verdict


def is_default(config: Config) -> bool:
    return config.replace(splits=1) == ToyKernel().default_config(NARROW, A100)


def test_a_default_that_does_not_compile_is_replaced(runs: Runs) -> None:
    (result,) = runs.run(verdict=failing(is_default))
    for selection in result.selections:
        assert not is_default(selection.config)
        assert selection.default_us is None
        assert selection.gain is None
        assert "the default does not compile" in selection.reason
    assert result.search["outcomes"]["spills"] == 1


def test_without_any_sound_binary_the_default_is_stored_untested(runs: Runs) -> None:
    (result,) = runs.run(verdict=failing(lambda config: True))
    for selection in result.selections:
        assert selection.provenance is Provenance.DEFAULT
        assert is_default(selection.config)
        assert selection.time_us is None
    assert result.search["outcomes"] == {"spills": 24}
    assert runs.reporter.last == (None, {"spills": 24})


def test_equal_machine_code_is_judged_once(runs: Runs) -> None:
    def verdict(config: Config) -> Evaluation:
        return sound(config, binary_sha=sha(str(config.replace(num_stages=1, splits=1))))

    (result,) = runs.run(
        verdict=verdict, options=SearchOptions(effort="exhaustive", sampler="random")
    )
    outcomes = result.search["outcomes"]
    assert outcomes == {"duplicate": NUM_BINARIES // 2, "ok": NUM_BINARIES // 2}


def test_a_default_with_a_twin_still_competes(runs: Runs) -> None:
    (result,) = runs.run(
        verdict=lambda config: sound(config, binary_sha=sha("all alike")),
        options=SearchOptions(effort="exhaustive", sampler="random"),
    )
    assert result.search["outcomes"] == {"duplicate": NUM_BINARIES - 1, "ok": 1}
    assert all(selection.default_us is not None for selection in result.selections)


def test_the_same_seed_writes_the_same_bytes(runs: Runs, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        options = SearchOptions(trials=24, seed=seed)
        runs.run(NARROW, WIDE, results=tmp_path / name, options=options)
    one, two, other = (
        (tmp_path / name / "a100" / "toy.json").read_bytes() for name in ("one", "two", "other")
    )
    assert one == two
    assert one != other


class StopError(Exception):
    """Ends a run in the middle, as an interrupt does."""


@pytest.mark.parametrize(
    ("sampler", "compiled"),
    [("random", 0), ("random", 1), ("random", 8), ("random", 23), ("classifier", 20)],
)
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    runs: Runs, tmp_path: Path, sampler: str, compiled: int
) -> None:
    options = SearchOptions(trials=24, sampler=sampler)
    (whole,) = runs.run(results=tmp_path / "whole", options=options)
    count = itertools.count()

    def stopping(config: Config) -> Evaluation:
        if next(count) == compiled:
            raise StopError
        return sound(config)

    with pytest.raises(StopError):
        runs.run(verdict=stopping, results=tmp_path / "again", options=options)
    assert not (tmp_path / "again").exists()
    options = dataclasses.replace(options, resume=True)
    (resumed,) = runs.run(results=tmp_path / "again", options=options)
    assert resumed == whole
    assert runs.reporter.trials == 24
    one, two = (tmp_path / name / "a100" / "toy.json" for name in ("whole", "again"))
    assert one.read_bytes() == two.read_bytes()


def test_a_deadline_stops_after_a_batch(runs: Runs) -> None:
    narrow, wide = runs.run(NARROW, WIDE, budget_s=1e-9)
    for result in (narrow, wide):
        assert result.search["stopped_by"] == "budget"
        assert sum(result.search["outcomes"].values()) == BATCH_SIZE
        assert all(s.provenance is Provenance.PREDICTED for s in result.selections)
    assert runs.reporter.trials == 2 * 24, "the bar is full at the end"


def test_a_run_that_ran_out_of_time_can_be_resumed(runs: Runs, tmp_path: Path) -> None:
    (whole,) = runs.run(results=tmp_path / "whole")
    runs.run(budget_s=1e-9)
    (resumed,) = runs.run(options=dataclasses.replace(QUICK, resume=True))
    assert resumed == whole


def test_progress_adds_up(runs: Runs) -> None:
    results = runs.run(NARROW, WIDE, verdict=failing(lambda config: config["mode"] == "c"))
    assert runs.reporter.trials == 48
    assert runs.reporter.cells == ["toy", "toy"]
    best, rejected = runs.reporter.last
    assert best is not None
    assert Counter(rejected)["spills"] == results[1].search["outcomes"].get("spills", 0)


def test_an_empty_space_says_what_forbids_it() -> None:
    class Impossible(ToyKernel):
        def space(self, problem: ToyProblem, arch: GpuArch) -> SearchSpace:
            rule = Constraint("never on a weekday", (), lambda: False)
            return SearchSpace(super().space(problem, arch).knobs, (rule,))

    with pytest.raises(AutotuneError, match="never on a weekday"):
        Cell(Impossible(), A100, NARROW)


@pytest.mark.parametrize(
    ("effort", "trials", "expected"),
    [("predict", None, 24), ("exhaustive", None, 54), ("full", None, 54), ("full", 3, 3)],
)
def test_efforts_and_trials(effort: str, trials: int | None, expected: int) -> None:
    options = SearchOptions(effort=effort, trials=trials)
    assert options.trials_for(Cell(ToyKernel(), A100, NARROW)) == expected
