"""The hottest loop of an assembly text and what its instructions are for."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.compiler.loops import innermost_loops

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

    What is in a loop follows from where control goes, not from where a block stands: LLVM also
    jumps back to blocks that it has put out of the way, and to the end.
    """
    lines = [line.strip() for line in text.splitlines()]
    blocks = _blocks(lines, dialect)
    loops = innermost_loops(_successors(lines, dialect, blocks))
    mixes = [
        _count([line for block in loop for line in lines[blocks[block].start : blocks[block].stop]],
               dialect)
        for loop in loops
    ]  # fmt: skip
    return max(mixes, key=_heat, default=LoopMix({}, 0))


def _blocks(lines: Sequence[str], dialect: Dialect) -> list[range]:
    """Stretches that control enters at the first line and leaves at the last."""
    starts = {0}
    for number, line in enumerate(lines):
        if dialect.label.match(line):
            starts.add(number)
        elif dialect.branch.search(line) or dialect.never_on.match(line):
            starts.add(number + 1)
    ordered = sorted(starts | {len(lines)})
    return [range(start, stop) for start, stop in itertools.pairwise(ordered)]


def _successors(lines: Sequence[str], dialect: Dialect, blocks: Sequence[range]) -> list[list[int]]:
    """Blocks that control can get to from the end of each block."""
    at_label = {
        found.group(1): number
        for number, block in enumerate(blocks)
        if (found := dialect.label.match(lines[block.start]))
    }
    successors: list[list[int]] = []
    for number, block in enumerate(blocks):
        last = lines[block.stop - 1]
        jump = dialect.branch.search(last)
        following = [at_label[jump.group(1)]] if jump and jump.group(1) in at_label else []
        if not dialect.never_on.match(last) and number + 1 < len(blocks):
            following.append(number + 1)
        successors.append(following)
    return successors


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
