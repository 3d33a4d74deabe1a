"""The hottest loop of an assembly text and what its instructions are for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

INSTRUCTION_CLASSES = (
    "mma",
    "load_global",
    "store_global",
    "async_copy",
    "load_shared",
    "store_shared",
    "shuffle",
    "special",
    "float",
    "integer",
    "barrier",
    "other",
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one assembly language writes labels, branches and instruction classes."""

    label: re.Pattern[str]
    branch: re.Pattern[str]
    """Group 1 is the label that is jumped to."""
    never_on: re.Pattern[str]
    """What the next line is not reached from: jumps without a condition, and ends."""
    classes: tuple[tuple[str, re.Pattern[str]], ...]
    """Class and pattern of the opcode at the start of a line, tried in order."""
    mma_shape: re.Pattern[str]
    """Groups m, n, k of a matrix instruction."""
    ignored: re.Pattern[str]


PTX = Dialect(
    label=re.compile(r"^(\$L__BB\w+):"),
    branch=re.compile(r"\bbra(?:\.uni)?\s+(\$L__BB\w+);"),
    never_on=re.compile(r"^(bra|brx|ret|exit)\b"),
    classes=(
        ("mma", re.compile(r"(wgmma\.mma_async|tcgen05\.mma|mma\.sync)")),
        ("async_copy", re.compile(r"cp\.async\.(cg|ca|bulk)")),
        ("barrier", re.compile(r"(bar\.|barrier|mbarrier|cp\.async\.|wgmma\.|tcgen05\.|fence)")),
        ("load_global", re.compile(r"ld\.global")),
        ("store_global", re.compile(r"(st\.global|red\.|atom\.)")),
        ("load_shared", re.compile(r"(ld\.shared|ldmatrix)")),
        ("store_shared", re.compile(r"(st\.shared|stmatrix)")),
        ("shuffle", re.compile(r"(shfl|redux)\.")),
        ("special", re.compile(r"(ex2|lg2|rcp|rsqrt|sqrt|tanh|sin|cos|div)\.")),
        ("float", re.compile(r"(fma|add|sub|mul|max|min|neg|abs|cvt)\.[\w.]*(f16|bf16|f32|f64)")),
        ("integer", re.compile(r"(add|sub|mul|mad|and|or|xor|not|shl|shr|bfe|bfi|shf|prmt|lop3"
                               r"|setp|selp|min|max|cvt|rem|div|abs|neg)[.]")),
    ),
    mma_shape=re.compile(r"\.m(\d+)n(\d+)k(\d+)"),
    ignored=re.compile(r"^(//|\.|\{|\}|$|mov\.|bra|\)|call|ret|\$L__tmp)"),
)  # fmt: skip

AMDGCN = Dialect(
    label=re.compile(r"^(\.LBB\w+):"),
    branch=re.compile(r"\bs_(?:c?branch\w*)\s+(\.LBB\w+)"),
    never_on=re.compile(r"^s_(branch|endpgm|setpc)\b"),
    classes=(
        ("mma", re.compile(r"v_mfma_")),
        ("async_copy", re.compile(r"(buffer|global)_load_\w*lds")),
        ("barrier", re.compile(r"(s_barrier|s_waitcnt)")),
        ("load_global", re.compile(r"(global|buffer|flat)_load")),
        ("store_global", re.compile(r"(global|buffer|flat)_(store|atomic)")),
        ("shuffle", re.compile(r"(ds_(b?permute|swizzle)|v_\w+_dpp|v_permlane|v_readlane)")),
        ("load_shared", re.compile(r"ds_(read|load)")),
        ("store_shared", re.compile(r"ds_(write|store)")),
        ("special", re.compile(r"v_(exp|log|rcp|rsq|sqrt|sin|cos)_")),
        ("float", re.compile(r"v_\w*_(f16|bf16|f32|f64)")),
        ("integer", re.compile(r"(v_|s_)(?!endpgm|nop|branch|cbranch)")),
    ),
    mma_shape=re.compile(r"_(\d+)x(\d+)x(\d+)"),
    ignored=re.compile(r"^(;|\.|$|s_c?branch|s_nop)"),
)


@dataclass(frozen=True, slots=True)
class LoopMix:
    """Instruction classes of one warp in the hottest loop, and its matrix operations."""

    counts: dict[str, int]
    mma_flops: int


def hottest_loop(text: str, dialect: Dialect) -> LoopMix:
    """Find the innermost loop with most matrix work (else most instructions) and count its body.

    A loop is the stretch from a label to the last branch back to it; innermost means that no other
    such stretch lies inside. LLVM also jumps back to blocks that it has put out of the way, and to
    the end: where what was found multiplies and loads nothing, only stretches are loops in which
    control gets from the label to the branch. (Everywhere, as is right, that would change facts of
    four committed MI300X binaries: to be done with the next change that regenerates results.)
    """
    lines = [line.strip() for line in text.splitlines()]
    at_label: dict[str, int] = {}
    back_to: dict[int, list[int]] = {}  # line of a label to lines of branches back to it
    for number, line in enumerate(lines):
        if found := dialect.label.match(line):
            at_label[found.group(1)] = number
        elif (jump := dialect.branch.search(line)) and jump.group(1) in at_label:
            back_to.setdefault(at_label[jump.group(1)], []).append(number)
    by_place = _hottest(lines, dialect, {start: each[-1] for start, each in back_to.items()})
    kinds = by_place.counts.keys()
    if "mma" not in kinds or kinds & {"load_global", "async_copy"}:
        return by_place
    by_control = _hottest(
        lines,
        dialect,
        {
            start: stop
            for start, branches in back_to.items()
            if (stop := _last_reached(lines, dialect, at_label, start, branches)) is not None
        },
    )
    return by_control if by_control.counts else by_place


def _hottest(lines: Sequence[str], dialect: Dialect, stop_of: Mapping[int, int]) -> LoopMix:
    """The hottest innermost stretch from a line to another; nothing for no stretch."""
    innermost = [
        (start, stop)
        for start, stop in stop_of.items()
        if not any(start < s and e <= stop for s, e in stop_of.items())
    ]
    mixes = [_count(lines[start : stop + 1], dialect) for start, stop in innermost]
    return max(mixes, key=_heat, default=LoopMix({}, 0))


def _last_reached(
    lines: Sequence[str],
    dialect: Dialect,
    at_label: Mapping[str, int],
    start: int,
    branches: Sequence[int],
) -> int | None:
    """The last of the branches that control gets to between `start` and them; None for none."""
    stop = branches[-1]
    reached: set[int] = set()
    pending = [start]
    while pending:
        number = pending.pop()
        while number <= stop and number not in reached:
            reached.add(number)
            jump = dialect.branch.search(lines[number])
            if jump and start < at_label.get(jump.group(1), -1) <= stop:
                pending.append(at_label[jump.group(1)])
            if dialect.never_on.match(lines[number]):
                break
            number += 1
    return max(reached.intersection(branches), default=None)


def _heat(mix: LoopMix) -> tuple[int, int, int]:
    """Matrix work first; `tcgen05.mma` does not say its shape, so instructions count, too."""
    return mix.mma_flops, mix.counts.get("mma", 0), sum(mix.counts.values())


def _count(lines: Sequence[str], dialect: Dialect) -> LoopMix:
    counts: Counter[str] = Counter()
    flops = 0
    for line in lines:
        code = re.sub(r"^@!?%?\w+\s+", "", line)
        if dialect.label.match(code) or dialect.ignored.match(code):
            continue
        kind = next((name for name, opcode in dialect.classes if opcode.match(code)), "other")
        counts[kind] += 1
        if kind == "mma" and (shape := dialect.mma_shape.search(code)):
            m, n, k = map(int, shape.groups())
            warps = 4 if code.startswith("wgmma") else 1
            flops += 2 * m * n * k // warps
    return LoopMix({name: counts[name] for name in INSTRUCTION_CLASSES if counts[name]}, flops)
