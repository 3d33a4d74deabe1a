"""Candidates that hang, die, eat memory or are wrong: each has a status, and the run goes on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from own_folders import Folders
from record_cases import make_work
from toy_kernel import ToyKernel, ToyProblem

from autotune import build, verify
from autotune.arch import GpuArch, lookup
from autotune.build import Builder
from autotune.cell import Cell
from autotune.config import Config
from autotune.deadline import Deadline
from autotune.kernels import KERNELS, load_kernel
from autotune.kernels.spec import Work
from autotune.knob import Constraint, Knob
from autotune.paths import templates_dir
from autotune.pool import WorkerPool
from autotune.progress import Silent
from autotune.records import Status
from autotune.render import TemplateFolder
from autotune.results import ResultsStore
from autotune.search.ledger import open_storage
from autotune.space import SearchSpace
from autotune.study import SearchOptions
from autotune.tune import tune

A100 = lookup("a100")
PATIENCE_S = 12.0
"""For what never ends; what is healthy takes a second, and a busy machine some more."""

COPY = """import os, signal, time
import triton
import triton.language as tl

{% if fault == "hangs" %}
time.sleep(600)
{% elif fault == "aborts" %}
os.abort()
{% elif fault == "killed" %}
os.kill(os.getpid(), signal.SIGKILL)
{% elif fault == "memory" %}
HUGE = bytearray(1 << 60)
{% elif fault == "raises" %}
raise LookupError("no such thing")
{% elif fault == "killed_once" %}
MARK = __file__ + ".mark"
if not os.path.exists(MARK):
    open(MARK, "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
{% endif %}
TILE = tl.constexpr({{ tile }})


@triton.jit
def copy(to_ptr, from_ptr, count):
    offsets = tl.program_id(0) * TILE + tl.arange(0, TILE)
    values = tl.load(from_ptr + offsets, mask=offsets < count)
    tl.store(to_ptr + offsets, values, mask=offsets < count)


ENTRY_POINTS = {
    "copy": {
        "signature": {"to_ptr": "*fp32", "from_ptr": "*fp32", "count": "i32"},
        "unaligned": ("count",),
        "num_warps": 4,
        "num_stages": 1,
    },
}
"""


class FaultyKernel(ToyKernel):
    """Copies; the knob `fault` says what goes wrong on the way."""

    def space(self, problem: ToyProblem, arch: GpuArch) -> SearchSpace:
        faults = ("none", "hangs", "aborts", "killed", "killed_once", "memory", "raises")
        tiles = Knob("tile", (512, 1024, 2048), "elements per program")
        alone = lambda fault, tile: fault == "none" or tile == 1024  # noqa: E731
        return SearchSpace(
            (Knob("fault", faults, "what goes wrong", ordered=False), tiles),
            (Constraint("one fault at a time", ("fault", "tile"), alone),),
        )

    def default_config(self, problem: ToyProblem, arch: GpuArch) -> Config:
        return self.space(problem, arch).config(fault="none", tile=1024)

    def template_values(self, problem: ToyProblem, config: Config) -> Mapping[str, Any]:
        return {}

    def reduction_order(self, problem: ToyProblem, config: Config, arch: GpuArch) -> Config:
        return Config({})

    def work(self, problem: ToyProblem, config: Config, arch: GpuArch) -> tuple[Work, ...]:
        return (make_work(entry="copy"),)

    def expected_mma(self, problem: ToyProblem, config: Config, arch: GpuArch) -> None:
        return None


def test_a_run_survives_what_its_candidates_do(
    tmp_path: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KERNELS, "toy", "test_bad_candidates:FaultyKernel")
    monkeypatch.setattr(build, "COMPILE_TIMEOUT_S", PATIENCE_S)
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "toy.py.jinja").write_text(COPY)
    folders.cache.mkdir(mode=0o700)
    cell = Cell(FaultyKernel(), A100, ToyProblem())
    store = ResultsStore(folders.results)
    with WorkerPool(2) as pool:
        builder = Builder(A100, TemplateFolder(tmp_path / "templates"), folders.cache, pool)
        options = SearchOptions(effort="predict", trials=9, sampler="random")
        (done,) = tune([cell], builder, store, folders.studies, options, Deadline(None), Silent())
        outcomes = done.result.search["outcomes"]
        assert sum(outcomes.values()) == 9
        assert outcomes[Status.COMPILE_TIMEOUT] == 1
        assert outcomes[Status.CRASHED] == 2
        assert outcomes[Status.COMPILE_ERROR] == 2
        # A worker that was killed once is no candidate's fault: it gave the default's machine code.
        assert (outcomes[Status.OK], outcomes[Status.DUPLICATE]) == (3, 1)
    (journal,) = folders.studies.glob("*.journal")
    storage = open_storage(None, journal, fresh=False)
    (study,) = storage.get_all_studies()
    reasons = {
        trial.params["fault"]: trial.user_attrs["reason"]
        for trial in storage.get_all_trials(study._study_id)
        if trial.user_attrs.get("reason")
    }
    assert "no answer within 12 s" in reasons["hangs"]
    assert "died" in reasons["aborts"]
    assert "exit status -9" in reasons["killed"]
    assert "MemoryError" in reasons["memory"]
    assert "no such thing" in reasons["raises"]


LAUNCH = """import os, time


def launch(out, **inputs):
    fault = FAULTS[{{ num_stages }}]
    if fault == "hangs":
        time.sleep(600)
    elif fault == "aborts":
        os.abort()
    elif fault == "memory":
        bytearray(1 << 60)
    else:
        out.fill_({"nan": float("nan"), "wrong": 1e3}[fault])
"""


def test_what_is_wrong_on_the_device_is_told_from_what_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "CHECK_TIMEOUT_S", PATIENCE_S)
    spec = load_kernel("paged_attention_decode")
    problem = spec.hard_problems()[0]
    space = spec.space(problem, A100)
    names = ("hangs", "aborts", "memory", "nan", "wrong")
    configs = {config.number("num_stages"): config for config in space.legal}
    faults = dict(zip(sorted(configs), names, strict=True))
    faulty = shutil.copytree(templates_dir(), tmp_path / "templates")
    (faulty / spec.template).write_text(f"FAULTS = {faults!r}\n{LAUNCH}")
    cases = [verify.Case(spec, problem, configs[stages]) for stages in faults]
    found = {
        faults[verdict.case.config.number("num_stages")]: verdict
        for verdict in verify.verify(cases, TemplateFolder(faulty), tmp_path, 0, 2, "cpu")
    }
    assert {name: verdict.status for name, verdict in found.items()} == {
        "hangs": Status.BENCH_TIMEOUT,
        "aborts": Status.CRASHED,
        "memory": Status.LAUNCH_ERROR,
        "nan": Status.WRONG_RESULT,
        "wrong": Status.WRONG_RESULT,
    }
    reasons = {name: verdict.reason or "" for name, verdict in found.items()}
    assert all(reasons.values())
    assert "not finite" in reasons["nan"]
    assert "allowed" in reasons["wrong"]
