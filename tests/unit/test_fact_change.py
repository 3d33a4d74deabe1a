"""What counts as better, worse or unsound when a compiler's facts move."""

from __future__ import annotations

from typing import Any

import pytest
from record_cases import make_report, sha

from autotune.arch import lookup
from autotune.gate.fact_change import FACTS, Direction, FactChange, compare_reports, summarize

A100 = lookup("a100")


def moved(**changes: Any) -> dict[str, FactChange]:
    """Changes by fact, the hash aside, between a usual report and one with other facts."""
    after = make_report(**changes, binary_sha=sha("other"))
    found = compare_reports([make_report()], [after], A100)
    assert found[-1].fact == "binary_sha"
    return {change.fact: change for change in found[:-1]}


def test_the_same_machine_code_has_not_moved() -> None:
    assert compare_reports([make_report()], [make_report()], A100) == []


def test_the_same_machine_code_told_differently_has_moved_neither_way() -> None:
    told = make_report(registers=97, stack_bytes=8, loop={"mma": 32})
    found = {change.fact: change for change in compare_reports([make_report()], [told], A100)}
    assert {"registers", "stack_bytes", "loop.async_copy"} <= set(found)
    assert "binary_sha" not in found
    assert {change.direction for change in found.values()} == {Direction.NEUTRAL}
    assert "changed: " in summarize(list(found.values()))


@pytest.mark.parametrize(
    ("changes", "fact", "direction"),
    [
        ({"registers": 97}, "registers", Direction.WORSE),
        ({"registers": 95}, "registers", Direction.BETTER),
        ({"stack_bytes": 8}, "stack_bytes", Direction.UNSOUND),
        ({"mma": None}, "mma", Direction.UNSOUND),
        ({"registers": 255}, "occupancy", Direction.UNSOUND),
        ({"registers": 40, "shared_bytes": 8192}, "occupancy", Direction.BETTER),
        ({"shared_bytes": 32 * 1024 + 64}, "shared_bytes", Direction.WORSE),
        ({"binary_bytes": 8999}, "binary_bytes", Direction.BETTER),
        ({"loop": {"mma": 32, "integer": 61}}, "loop.integer", Direction.WORSE),
        ({"loop": {"mma": 32}}, "loop.async_copy", Direction.BETTER),
        ({"loop": {"mma": 16}}, "loop.mma", Direction.NEUTRAL),
        ({"loop_mma_flops": 0, "mma": None}, "loop.mma_flops", Direction.UNSOUND),
        ({"num_stages": 4}, "num_stages", Direction.NEUTRAL),
    ],
)
def test_directions(changes: dict[str, Any], fact: str, direction: Direction) -> None:
    assert moved(**changes)[fact].direction is direction


def test_only_what_differs_is_named() -> None:
    assert set(moved(registers=95)) == {"registers"}
    assert moved() == {}


def test_entry_points_come_and_go() -> None:
    found = compare_reports([make_report()], [make_report(entry="other")], A100)
    assert [(c.entry, c.fact, c.before, c.after) for c in found] == [
        ("main", "entry point", "there", None),
        ("other", "entry point", None, "there"),
    ]
    assert str(found[0]) == "main: entry point there → none"


def test_a_summary_says_what_is_worse_before_what_is_better() -> None:
    loop = make_report().loop
    after = make_report(
        registers=97, num_stages=4, loop={**loop, "integer": 50}, binary_sha=sha("other")
    )
    changes = compare_reports([make_report()], [after], A100)
    text = summarize(changes)
    assert text.startswith("main: worse: registers 96 → 97; changed: num_stages 3 → 4; better: ")
    assert "loop.integer 60 → 50" in text
    assert text.count("main") == 1
    assert {change.fact for change in changes} <= set(FACTS)
    only_code = compare_reports([make_report()], [make_report(binary_sha=sha("other"))], A100)
    assert "same facts" in summarize(only_code)


def test_a_summary_of_many_counts_what_it_leaves_out() -> None:
    many = [FactChange("main", f"loop.{n}", 1, 2, Direction.WORSE) for n in range(9)]
    assert "; 6 more" in summarize(many)
