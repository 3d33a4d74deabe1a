"""`autotune verify` as a command: cases made on the way, and what it prints when it ends early."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autotune.arch import lookup
from autotune.cli import main
from autotune.cli import verify as command
from autotune.kernels import load_kernel
from autotune.paths import templates_dir
from autotune.pool import Outcome, Reply, Request, WorkerPool
from autotune.records import Status
from autotune.render import TemplateFolder
from autotune.verify import Case, Verdict, cases, small_problems, verify_in


class OneAtATime(WorkerPool):
    """Answers without a process, counting what was asked for."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked = 0

    def run(self, requests: Iterable[Request], timeout_s: float) -> Iterator[tuple[int, Reply]]:
        for index, _request in enumerate(requests):
            self.asked += 1
            answer = {"status": "ok", "relative": 0.0, "elementwise": 0.0, "seconds": 0.1}
            yield index, Reply(Outcome.ANSWERED, answer)


def test_a_case_is_made_when_a_process_is_free_for_it(tmp_path: Path) -> None:
    spec, arch = load_kernel("rms_norm"), lookup("a100")
    made: list[Case] = []

    def wanted() -> Iterator[Case]:
        for case in cases([spec], arch, 3, 0, lambda s: s.hard_problems()):
            made.append(case)
            yield case

    pool = OneAtATime()
    verdicts = verify_in(pool, wanted(), TemplateFolder(templates_dir()), tmp_path, 0, "cpu")
    assert next(verdicts).case is made[0]
    assert next(verdicts).case is made[1]
    assert (len(made), pool.asked) == (2, 2)
    assert len(list((tmp_path / "kernels").iterdir())) <= 2


def plan(monkeypatch: pytest.MonkeyPatch, count: int, then: BaseException | None) -> None:
    """Let the command get so many good verdicts, one case each, and then that exception."""

    def checked(wanted: Iterable[Case], *_: Any) -> Iterator[Verdict]:
        for case in itertools.islice(wanted, count):
            yield Verdict(case, Status.OK, None, 1e-4, 2e-4, 0.1)
        if then is not None:
            raise then

    monkeypatch.setattr(command, "verify", checked)


def test_interrupted_it_prints_what_was_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(monkeypatch, 5, KeyboardInterrupt())
    assert main(["verify", "--kernel", "rms_norm", "--json"]) == 130
    document = json.loads(capsys.readouterr().out)
    assert document["stopped_by"] == "interrupt"
    assert sum(row["checked"] for row in document["summary"]) == 5


def test_a_budget_ends_it_between_cases(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(monkeypatch, 5, None)
    assert main(["verify", "--kernel", "rms_norm", "--budget", "1e-9"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^1 candidates in \d+ s, 0 failed, stopped early by budget$", out, re.M)


def test_a_failure_is_the_exit_code_of_a_whole_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(wanted: Iterable[Case], *_: Any) -> Iterator[Verdict]:
        good, bad = (Verdict(c, Status.OK, None, 0.0, 0.0, 0.1) for c in list(wanted)[:2])
        yield good
        yield dataclasses.replace(bad, status=Status.WRONG_RESULT, reason="far off")

    monkeypatch.setattr(command, "verify", wrong)
    assert main(["verify", "--kernel", "rms_norm"]) == 1
    captured = capsys.readouterr()
    assert re.search(r"^2 candidates in \d+ s, 1 failed$", captured.out, re.M)
    most = (1 + 3) * len(load_kernel("rms_norm").hard_problems())
    assert captured.err.startswith(f"verifying up to {most} candidates (interpreter)")
    assert "FAILED rms_norm [wrong_result] far off" in captured.err


def test_a_named_problem_takes_the_rest_from_the_hard_list() -> None:
    spec = load_kernel("fused_mlp")
    found = small_problems(spec, "part=down,n=50", ("bf16", "fp32"))
    assert [p.exact_axes()["dtype"] for p in found] == ["bf16", "fp32"]
    for problem in found:
        axes = {**problem.exact_axes(), **problem.nearest_axes()}
        assert (axes["part"], axes["n"], axes["activation"]) == ("down", 50, "none")
        assert any(axes["k"] == hard.exact_axes()["k"] for hard in spec.hard_problems())
    (named,) = small_problems(spec, "dtype=fp16,m=3", ("bf16", "fp32"))
    assert (named.exact_axes()["dtype"], named.nearest_axes()["m"]) == ("fp16", 3)


def test_a_dtype_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["verify", "--kernel", "fused_mlp", "--problem", "dtype=fp16", "--dtype", "bf16"]
    assert main(words) == 2
    assert "leave out --dtype" in capsys.readouterr().err
