"""Every fault that the compiler's facts can show, and binaries that came out twice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from record_cases import make_report, sha

from autotune.arch import lookup
from autotune.config import Config
from autotune.judge import DuplicateFinder, find_fault
from autotune.records import CompileReport, Evaluation, Status

A100, H100 = lookup("a100"), lookup("h100")
MERGE = make_report(entry="merge", mma=None, loop={}, binary_sha=sha("merge"))


@pytest.mark.parametrize(
    ("reports", "status", "words"),
    [
        ([make_report(shared_bytes=A100.shared_bytes_per_block + 1)], Status.OVER_LIMIT, "shared"),
        ([make_report(stack_bytes=8)], Status.SPILLS, "8 B of stack per thread at 96 registers"),
        ([make_report(registers=255, num_warps=16)], Status.OVER_LIMIT, "16 warps of 255"),
        ([make_report(mma=None)], Status.WRONG_MMA, "no matrix instruction; mma is what a100"),
        ([make_report(mma="wgmma")], Status.WRONG_MMA, "compiled to wgmma"),
        # The second entry point may not spill either, yet needs no matrix instructions.
        ([make_report(), make_report(entry="merge", stack_bytes=4)], Status.SPILLS, "merge spills"),
    ],
)
def test_faults(reports: Sequence[CompileReport], status: Status, words: str) -> None:
    fault = find_fault(reports, A100, "mma")
    assert fault is not None
    assert fault[0] is status
    assert words in fault[1]
    assert fault[1].startswith(reports[-1].entry)


@pytest.mark.parametrize("expected", ["mma", None])
def test_sound_binaries(expected: str | None) -> None:
    assert find_fault([make_report(), MERGE], A100, expected) is None


def test_the_limit_itself_is_allowed() -> None:
    full = make_report(shared_bytes=A100.shared_bytes_per_block)
    assert find_fault([full], A100, "mma") is None
    assert find_fault([make_report(shared_bytes=200 * 1024)], H100, "mma") is None


def test_any_class_will_do_where_none_is_expected() -> None:
    assert find_fault([make_report(mma="wgmma")], H100, None) is None


def evaluation(tile: int, *codes: str) -> Evaluation:
    reports = tuple(make_report(entry=code, binary_sha=sha(code)) for code in codes)
    return Evaluation(Config({"tile": tile}), Status.OK, reports=reports)


def test_the_second_of_two_equal_binaries_is_a_duplicate() -> None:
    finder = DuplicateFinder()
    first, second = evaluation(16, "x", "y"), evaluation(32, "x", "y")
    assert finder.screen(first) is first
    twin = finder.screen(second)
    assert twin.status is Status.DUPLICATE
    assert twin.twin == first.config
    assert twin.config == second.config
    assert twin.reports == second.reports
    assert twin.reason is not None
    assert str(first.config) in twin.reason


@pytest.mark.parametrize("codes", [("x",), ("y", "x"), ("x", "z"), ("x", "y", "y")])
def test_all_entry_points_have_to_agree(codes: tuple[str, ...]) -> None:
    finder = DuplicateFinder()
    finder.screen(evaluation(16, "x", "y"))
    other = evaluation(32, *codes)
    assert finder.screen(other) is other


def test_the_first_stays_the_first_when_seen_again() -> None:
    finder = DuplicateFinder()
    first = evaluation(16, "x")
    finder.screen(first)
    assert finder.screen(evaluation(16, "x")).status is Status.OK


def test_failures_pass_through_and_are_not_remembered() -> None:
    finder = DuplicateFinder()
    spilled = Evaluation(Config({"tile": 16}), Status.SPILLS, "spills", (make_report(),))
    assert finder.screen(spilled) is spilled
    sound = Evaluation(Config({"tile": 32}), Status.OK, reports=(make_report(),))
    assert finder.screen(sound) is sound
