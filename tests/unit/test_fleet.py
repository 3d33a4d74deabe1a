"""Workers that share whole searches: the same results as one process, whoever dies."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from own_folders import Folders
from toy_kernel import FakeBuilder, ToyKernel, ToyProblem, sound, write_templates

from autotune.arch import GpuArch, lookup
from autotune.cell import Cell
from autotune.cli import main
from autotune.config import Config
from autotune.deadline import Deadline
from autotune.errors import UsageError
from autotune.fleet import Pace, requested, work
from autotune.kernels import KERNELS, load_kernel
from autotune.model_shape import load
from autotune.progress import Silent
from autotune.records import Evaluation
from autotune.render import TemplateFolder
from autotune.results import ResultsStore
from autotune.search.shared import SharedStorage
from autotune.shared_search import Task
from autotune.study import SearchOptions
from autotune.tune import Tuned, tune

ROOT = Path(__file__).resolve().parents[2]
A100 = lookup("a100")
OPTIONS = SearchOptions(trials=24, sampler="random")


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TemplateFolder:
    monkeypatch.setitem(KERNELS, "toy", "toy_kernel:ToyKernel")
    return write_templates(tmp_path / "templates")


def toy_cell(width: int = 64) -> Cell:
    return Cell(ToyKernel(), A100, ToyProblem(width=width))


def no_sleep(seconds: float) -> None:
    raise AssertionError("there is nobody to wait for")


def work_alone(
    folder: Path, builder: FakeBuilder, results: Path, options: SearchOptions = OPTIONS
) -> list[Tuned]:
    """One worker on one cell; whatever others left must be free."""
    return work(
        [Task(toy_cell(), dataclasses.replace(options, resume=True))],
        {"a100": builder},
        {},
        SharedStorage.open(f"journal:{folder}"),
        ResultsStore(results),
        Pace(trials_at_once=3, patience_s=1e6),
        Deadline(None),
        Silent(),
        no_sleep,
    )


def tuned_alone(
    folders: Folders,
    templates: TemplateFolder,
    results: Path,
    options: SearchOptions = OPTIONS,
) -> FakeBuilder:
    """The same by `autotune run`."""
    builder = FakeBuilder(A100, templates)
    store = ResultsStore(results)
    tune([toy_cell()], builder, store, folders.studies, options, Deadline(None), Silent())
    return builder


@pytest.mark.parametrize(
    ("url", "sampler", "cells", "trials", "kills"),
    [("journal:{}", "classifier", 2, 24, 5), ("sqlite:///{}/studies.db", "random", 1, 8, 2)],
)
def test_killed_workers_lose_nothing_and_do_nothing_twice(
    tmp_path: Path, url: str, sampler: str, cells: int, trials: int, kills: int
) -> None:
    storage = url.format(tmp_path / "shared")
    plan = ["--workers", "3", "--cells", cells, "--trials", trials, "--kills", kills]
    words = ["--storage", storage, "--sampler", sampler, *plan]
    done = subprocess.run(
        [sys.executable, "ci/fleet_trial.py", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kills} killed" in done.stdout
    assert "none lost, none twice, the same as one process" in done.stdout


def test_an_interrupted_worker_leaves_nothing_locked(
    folders: Folders, templates: TemplateFolder, tmp_path: Path
) -> None:
    class Interrupted(FakeBuilder):
        def evaluate(self, *words: Any) -> list[Evaluation]:
            if len(self.asked) >= 5:
                raise KeyboardInterrupt
            return super().evaluate(*words)

    shared = tmp_path / "shared"
    first = Interrupted(A100, templates)
    with pytest.raises(KeyboardInterrupt):
        work_alone(shared, first, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    second = FakeBuilder(A100, templates)
    work_alone(shared, second, tmp_path / "shared-results")
    alone = tuned_alone(folders, templates, tmp_path / "alone-results")
    assert sorted(map(str, first.asked + second.asked)) == sorted(map(str, alone.asked))
    one, two = (
        (tmp_path / name / "a100" / "toy.json").read_bytes()
        for name in ("shared-results", "alone-results")
    )
    assert one == two


def test_a_finished_search_is_written_by_whoever_asks(
    templates: TemplateFolder, tmp_path: Path
) -> None:
    work_alone(tmp_path / "shared", FakeBuilder(A100, templates), tmp_path / "one")
    late = FakeBuilder(A100, templates)
    (tuned,) = work_alone(tmp_path / "shared", late, tmp_path / "two")
    assert late.asked == []
    one, two = ((tmp_path / name / "a100" / "toy.json").read_bytes() for name in ("one", "two"))
    assert one == two
    assert tuned.result in ResultsStore(tmp_path / "two").read("a100", "toy")


def test_a_worker_goes_on_with_what_a_run_began(
    folders: Folders, templates: TemplateFolder, tmp_path: Path
) -> None:
    def run(budget_s: float | None) -> None:
        store, deadline = ResultsStore(folders.results), Deadline(budget_s)
        builder = FakeBuilder(A100, templates)
        tune([toy_cell()], builder, store, folders.studies, OPTIONS, deadline, Silent())

    run(1e-9)
    work_alone(folders.studies, FakeBuilder(A100, templates), tmp_path / "worker")
    run(None)
    run_wrote = (folders.results / "a100" / "toy.json").read_bytes()
    assert (tmp_path / "worker" / "a100" / "toy.json").read_bytes() == run_wrote


@pytest.mark.parametrize("trials", [24, None])
@pytest.mark.parametrize("sampler", ["random", "classifier"])
def test_exhaustive_workers_go_through_the_list_of_a_run(
    folders: Folders, templates: TemplateFolder, tmp_path: Path, trials: int | None, sampler: str
) -> None:
    options = SearchOptions("exhaustive", trials, sampler)
    shared = FakeBuilder(A100, templates)
    work_alone(tmp_path / "shared", shared, tmp_path / "worker", options)
    alone = tuned_alone(folders, templates, tmp_path / "run", options)
    assert list(map(str, shared.asked)) == list(map(str, alone.asked))
    assert len(alone.asked) == (trials or 54)
    one, two = ((tmp_path / name / "a100" / "toy.json").read_bytes() for name in ("worker", "run"))
    assert one == two


def test_an_exhaustive_worker_refuses_what_a_sampler_began(
    folders: Folders, templates: TemplateFolder, tmp_path: Path
) -> None:
    tuned_alone(folders, templates, tmp_path / "run")
    options = dataclasses.replace(OPTIONS, effort="exhaustive")
    with pytest.raises(UsageError, match=r"sampler 'random' \(here 'none \(exhaustive\)'\)"):
        work_alone(folders.studies, FakeBuilder(A100, templates), tmp_path / "worker", options)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"seed": 7}, r"seed 0 \(here 7\)"),
        ({"effort": "full"}, r"effort 'predict' \(here 'full'\)"),
    ],
)
def test_workers_that_want_something_else_are_refused(
    templates: TemplateFolder, tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    work_alone(tmp_path / "shared", FakeBuilder(A100, templates), tmp_path / "results")
    other = dataclasses.replace(OPTIONS, **change)
    with pytest.raises(UsageError, match=complaint):
        work_alone(tmp_path / "shared", FakeBuilder(A100, templates), tmp_path / "other", other)


@pytest.mark.parametrize("kernel", [name for name in KERNELS if name != "toy"])
def test_a_request_names_the_cell_in_full(kernel: str) -> None:
    spec = load_kernel(kernel)
    for problem in spec.problems(load("qwen3-8b"), "bf16", (16,))[:2]:
        task = Task(Cell(spec, A100, problem), OPTIONS)
        again = Task.from_request(json.loads(json.dumps(task.request)))
        assert again.request == task.request
        assert again.cell.name == task.cell.name
        assert again.cell.points == task.cell.points


class Fake(FakeBuilder):
    """Made as the command makes its builder."""

    interrupt = False

    def __init__(self, arch: GpuArch, templates: TemplateFolder, cache: Path, pool: Any) -> None:
        super().__init__(arch, templates, self.judge)

    def judge(self, config: Config) -> Evaluation:
        if self.interrupt:
            raise KeyboardInterrupt
        return sound(config)


@pytest.fixture
def command(
    templates: TemplateFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """`autotune worker` on the toy kernel."""
    monkeypatch.setattr("autotune.cli.worker.Builder", Fake)
    monkeypatch.setattr("autotune.cli.worker.templates_dir", lambda: tmp_path / "templates")
    monkeypatch.setattr("autotune.cli.cells.local_devices", lambda: ())
    return ["worker", "--storage", f"journal:{tmp_path / 'shared'}"]


TOY = ["--gpu", "a100,h100", "--kernel", "toy", "--trials", "16", "--sampler", "random"]


def test_the_command_searches_joins_and_prints(
    command: list[str], folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *TOY]) == 0
    shown = capsys.readouterr().out
    assert "toy on a100 (predicted)" in shown
    assert "toy on h100 (predicted)" in shown
    assert len(requested(SharedStorage.open(f"journal:{tmp_path / 'shared'}"))) == 2
    assert main([*command, "--json", "--results", str(tmp_path / "late")]) == 0
    documents = json.loads(capsys.readouterr().out)
    assert {document["gpu"] for document in documents} == {"a100", "h100"}
    for gpu in ("a100", "h100"):
        late, first = tmp_path / "late" / gpu, folders.results / gpu
        assert (late / "toy.json").read_bytes() == (first / "toy.json").read_bytes()


def test_ctrl_c_exits_130(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Fake, "interrupt", True)
        assert main([*command, *TOY]) == 130
    assert "free again" in capsys.readouterr().err
    assert main([*command, *TOY]) == 0


def test_a_worker_out_of_time_says_what_is_left(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *TOY, "--budget", "1e-9"]) == 0
    assert "2 of 2 cells not searched yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "no worker has begun a search in this storage yet"),
        (["--gpu", "a100", "--study", "x"], "--study joins searches"),
        (["--gpu", "a100,a1000"], "unknown GPU 'a1000'"),
        (["--storage", "redis://host"], "Accepted: postgresql://"),
    ],
)
def test_misuse_exits_2(
    command: list[str], words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *words]) == 2
    assert complaint in capsys.readouterr().err


def test_an_unknown_study_lists_the_known(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *TOY]) == 0
    assert main([*command, "--study", "a100-toi"]) == 2
    assert "Choices: a100-toy-" in capsys.readouterr().err
