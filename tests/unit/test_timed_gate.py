"""The timed gate on a made-up GPU: quiet where nothing changed, loud where something did."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from autotune.arch import lookup
from autotune.gate.finding import Finding
from autotune.gate.noise import judge_paired, judge_unpaired
from autotune.gate.timed import TimedGate
from autotune.gate.tree import Tree
from autotune.gate.verdict import Verdict
from autotune.paths import data_dir
from autotune.problem import Problem
from autotune.render import RenderedKernel

ROUNDS = 60
KERNEL = "paged_attention_decode"
GPU = "a100"


def noisy(rng: np.random.Generator, time_us: Sequence[float], rounds: int = ROUNDS) -> np.ndarray:
    """Samples [entrants, rounds] as a busy GPU gives them.

    1.5 % of independent noise with a long tail, a slow drift and a clock step of up to 3 % that all
    entrants of a round share, and one sample in fifty that something else got in the way of.
    """
    entrants = len(time_us)
    drift = np.cumsum(rng.normal(0.0, 0.002, rounds))
    step = np.where(np.arange(rounds) > rng.integers(rounds), rng.uniform(-0.03, 0.03), 0.0)
    own = rng.lognormal(0.0, 0.015, (entrants, rounds))
    disturbed = np.where(rng.random((entrants, rounds)) < 0.02, rng.uniform(1.2, 3.0), 1.0)
    return np.asarray(time_us)[:, None] * np.exp(drift + step) * own * disturbed


def verdicts(slowdown: float, runs: int = 200) -> list[Verdict]:
    """One benchmark, judged as the gate does it: what is ambiguous gets a second race."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(runs):
        samples = noisy(rng, (50.0, 50.0 * slowdown, 50.0))
        if judge_paired(*samples).verdict is Verdict.AMBIGUOUS:
            again = noisy(rng, (50.0, 50.0 * slowdown, 50.0))
            samples = np.concatenate((samples, again), axis=1)
        found.append(judge_paired(*samples).verdict)
    return found


def test_equal_code_gives_no_false_alarm_in_200_runs() -> None:
    found = verdicts(1.0)
    assert sum(v in (Verdict.SLOWER, Verdict.FASTER) for v in found) <= 2
    assert sum(v is Verdict.SAME for v in found) >= 190


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.05, Verdict.SLOWER), (1 / 1.05, Verdict.FASTER)]
)
def test_five_percent_are_seen_in_200_runs(factor: float, expected: Verdict) -> None:
    assert sum(v is expected for v in verdicts(factor)) >= 190


def test_a_noisy_run_raises_its_own_threshold() -> None:
    rng = np.random.default_rng(2)
    base, candidate, again = (list(50.0 * rng.lognormal(0.0, 0.3, 30)) for _ in range(3))
    told = judge_paired(base, candidate, again)
    assert told.threshold > 0.03
    assert told.verdict in (Verdict.SAME, Verdict.AMBIGUOUS)


def test_samples_must_be_paired() -> None:
    with pytest.raises(ValueError, match="not taken in turns"):
        judge_paired([1.0, 2.0], [1.0], [1.0, 2.0])


def test_unpaired_runs_are_compared_by_their_medians() -> None:
    rng = np.random.default_rng(3)
    base = list(rng.lognormal(0.0, 0.05, 50))
    assert judge_unpaired(base, [x * 1.5 for x in base], 0.1).verdict is Verdict.SLOWER
    assert judge_unpaired(base, [x * 0.5 for x in base], 0.1).verdict is Verdict.FASTER
    assert judge_unpaired(base, [x * 1.01 for x in base], 0.1).verdict is Verdict.SAME


class MadeUpTrack:
    """Times rendered kernels by a function of their source."""

    def __init__(
        self,
        time_us: Callable[[str], float],
        canary_us: Callable[[int], float] = lambda number: 10.0,
        noise: float = 0.01,
        broken: bool = False,
    ) -> None:
        self._time_us = time_us
        self._canary_us = canary_us
        self._noise = noise
        self._broken = broken
        self._rng = np.random.default_rng(1)
        self.races = 0
        self.looks = 0

    def race(
        self, kernel: str, point: Problem, entrants: Sequence[RenderedKernel]
    ) -> list[list[float]]:
        self.races += 1
        if self._broken:
            return []
        return [
            list(self._time_us(e.source) * self._rng.lognormal(0.0, self._noise, ROUNDS))
            for e in entrants
        ]

    def canaries(self) -> Mapping[str, float]:
        self.looks += 1
        return {"copy": self._canary_us(self.looks), "gemm": 20.0}


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Tree, Tree]:
    """Two checkouts; the candidate's decode template has one line more."""
    for name in ("base", "after"):
        shutil.copytree(data_dir("templates"), tmp_path / name / "templates")
        shutil.copytree(data_dir("results") / GPU, tmp_path / name / "results" / GPU)
    template = tmp_path / "after" / "templates" / f"{KERNEL}.py.jinja"
    template.write_text(template.read_text() + "\nEDITED = True\n")
    return Tree.open(tmp_path / "base"), Tree.open(tmp_path / "after")


def compare(trees: tuple[Tree, Tree], track: MadeUpTrack, kernel: str = KERNEL) -> list[Finding]:
    return list(TimedGate(lookup(GPU), *trees, track).compare(kernel))


def edited(factor: float) -> Callable[[str], float]:
    return lambda source: 50.0 * (factor if "EDITED" in source else 1.0)


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.0, Verdict.SAME), (1.1, Verdict.SLOWER), (0.9, Verdict.FASTER)]
)
def test_what_changed_is_raced_at_every_point(
    trees: tuple[Tree, Tree], factor: float, expected: Verdict
) -> None:
    track = MadeUpTrack(edited(factor))
    found = compare(trees, track)
    assert {finding.verdict for finding in found} == {expected}
    assert track.races == len(found) > 10
    assert all(finding.ratio is not None for finding in found)
    assert [finding.fails for finding in found] == [expected is Verdict.SLOWER] * len(found)


def test_what_did_not_change_is_not_raced(trees: tuple[Tree, Tree]) -> None:
    track = MadeUpTrack(edited(1.0))
    found = compare(trees, track, "fused_mlp")
    assert {finding.verdict for finding in found} == {Verdict.SAME}
    assert track.races == 0


def test_a_machine_that_changes_speed_is_no_verdict_on_the_kernel(
    trees: tuple[Tree, Tree],
) -> None:
    track = MadeUpTrack(edited(1.2), canary_us=lambda number: 10.0 * 1.1 ** (number % 2))
    found = compare(trees, track)
    assert {finding.verdict for finding in found} == {Verdict.INCOMPARABLE}
    assert "canary copy" in found[0].detail
    assert track.races == 2 * len(found), "one more try each"


def test_a_side_that_does_not_run_is_unsound(trees: tuple[Tree, Tree]) -> None:
    found = compare(trees, MadeUpTrack(edited(1.0), broken=True))
    assert {finding.verdict for finding in found} == {Verdict.UNSOUND}


def test_what_is_near_the_threshold_gets_a_second_try(trees: tuple[Tree, Tree]) -> None:
    track = MadeUpTrack(edited(1.03), noise=0.02)
    found = compare(trees, track)
    assert track.races > len(found)
    assert any(finding.verdict is Verdict.AMBIGUOUS for finding in found)
    assert not any(f.fails for f in found if f.verdict is Verdict.AMBIGUOUS)
