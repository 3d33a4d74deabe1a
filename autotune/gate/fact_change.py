"""What moved between two compilations of the same kernel, fact by fact."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from autotune.arch import GpuArch
from autotune.compiler.mix import INSTRUCTION_CLASSES
from autotune.occupancy import occupancy
from autotune.records import CompileReport

Fact = int | str | None

_LESS_IS_BETTER = ("registers", "shared_bytes", "binary_bytes")
_LOOP_NEUTRAL = ("mma",)
"""Fewer matrix instructions may be larger ones; the operations are what counts."""
_TOLD_PER_DIRECTION = 3
FACTS = (
    "stack_bytes",
    "mma",
    "occupancy",
    *_LESS_IS_BETTER,
    "num_warps",
    "num_stages",
    "entry point",
    "loop.mma_flops",
    *(f"loop.{kind}" for kind in INSTRUCTION_CLASSES),
    "binary_sha",
)
"""All facts that can move, by the names that reports and `--accept` use."""


class Direction(IntEnum):
    """What a changed fact means; the largest of several stands for all."""

    BETTER = 0
    NEUTRAL = 1
    WORSE = 2
    UNSOUND = 3


@dataclass(frozen=True, slots=True)
class FactChange:
    """One fact that moved."""

    entry: str
    fact: str
    before: Fact
    after: Fact
    direction: Direction

    @property
    def moved(self) -> str:
        """The fact with its values before and after."""
        before = "none" if self.before is None else self.before
        after = "none" if self.after is None else self.after
        return f"{self.fact} {before} → {after}"

    def __str__(self) -> str:
        return f"{self.entry}: {self.moved}"


def compare_reports(
    before: Sequence[CompileReport], after: Sequence[CompileReport], arch: GpuArch
) -> list[FactChange]:
    """List what moved, entry point by entry point; empty if code and facts are the same.

    The same machine code with other facts was read in another way, or its pin was edited: it is
    neither better nor worse, and one of the two is wrong.
    """
    found: list[FactChange] = []
    old, new = ({report.entry: report for report in reports} for reports in (before, after))
    for entry in dict.fromkeys((*old, *new)):
        if entry in old and entry in new:
            moved = _changes(old[entry], new[entry], arch)
            if old[entry].binary_sha == new[entry].binary_sha:
                moved = (dataclasses.replace(c, direction=Direction.NEUTRAL) for c in moved)
            found += moved
        else:
            was, now = ("there", None) if entry in old else (None, "there")
            found.append(FactChange(entry, "entry point", was, now, Direction.NEUTRAL))
    return found


def _changes(old: CompileReport, new: CompileReport, arch: GpuArch) -> Iterator[FactChange]:
    def change(fact: str, before: Fact, after: Fact, direction: Direction) -> FactChange:
        return FactChange(new.entry, fact, before, after, direction)

    def number(fact: str, before: int, after: int, worse: Direction) -> Iterator[FactChange]:
        if before != after:
            yield change(fact, before, after, Direction.BETTER if after < before else worse)

    # Stack is what spilled registers need: with none, nothing stores to or loads from local memory.
    yield from number("stack_bytes", old.stack_bytes, new.stack_bytes, Direction.UNSOUND)
    if old.mma != new.mma:
        lost = old.mma is not None
        yield change("mma", old.mma, new.mma, Direction.UNSOUND if lost else Direction.NEUTRAL)
    blocks = occupancy(old, arch).blocks, occupancy(new, arch).blocks
    # More is better here, so the signs are turned around.
    if blocks[0] != blocks[1]:
        drop = blocks[1] < blocks[0]
        yield change("occupancy", *blocks, Direction.UNSOUND if drop else Direction.BETTER)
    for fact in _LESS_IS_BETTER:
        yield from number(fact, getattr(old, fact), getattr(new, fact), Direction.WORSE)
    for fact in ("num_warps", "num_stages"):
        before, after = getattr(old, fact), getattr(new, fact)
        if before != after:
            yield change(fact, before, after, Direction.NEUTRAL)
    if old.loop_mma_flops != new.loop_mma_flops:
        lost = new.loop_mma_flops == 0 and new.mma is None
        direction = Direction.UNSOUND if lost else Direction.NEUTRAL
        yield change("loop.mma_flops", old.loop_mma_flops, new.loop_mma_flops, direction)
    for kind in dict.fromkeys((*old.loop, *new.loop)):
        before, after = old.loop.get(kind, 0), new.loop.get(kind, 0)
        if before != after:
            better = Direction.BETTER if after < before else Direction.WORSE
            direction = Direction.NEUTRAL if kind in _LOOP_NEUTRAL else better
            yield change(f"loop.{kind}", before, after, direction)
    if old.binary_sha != new.binary_sha:
        # Same facts, other code (an immediate, an order): still not what was pinned.
        yield change("binary_sha", old.binary_sha, new.binary_sha, Direction.NEUTRAL)


def summarize(changes: Sequence[FactChange]) -> str:
    """The changes that matter most, on one line: per entry point what is worse, then better."""
    told = [change for change in changes if change.fact != "binary_sha"]
    if not told:
        return "other machine code, with the same facts"
    parts: list[str] = []
    left = 0
    for entry in dict.fromkeys(change.entry for change in told):
        groups: list[str] = []
        for direction in reversed(Direction):
            facts = [c.moved for c in told if c.entry == entry and c.direction is direction]
            left += max(0, len(facts) - _TOLD_PER_DIRECTION)
            if facts:
                word = direction.name.lower() if direction is not Direction.NEUTRAL else "changed"
                groups.append(f"{word}: {', '.join(facts[:_TOLD_PER_DIRECTION])}")
        parts.append(f"{entry}: {'; '.join(groups)}")
    return " | ".join(parts) + (f"; {left} more in the JSON report" if left else "")
