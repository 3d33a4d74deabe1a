"""Stage: what a structural idea is worth, all else free: best with it against best without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evidence.points import ATTENTION, DECODE, PREFILL, ROWS
from evidence.workplace import Workplace

from autotune.cell import Cell
from autotune.config import Config, KnobValue
from autotune.deadline import Deadline
from autotune.kernels import load_kernel
from autotune.prior import guess_all_us
from autotune.race import speedup, timing

_GATE_UP = "part=gate_up,n=14336,k=4096"
_DOWN = "part=down,activation=none,n=4096,k=14336"
_W4 = "bits=4,group_size=128,zero_point=True,n=28672,k=4096"

IDEAS: tuple[tuple[str, str, str, Sequence[dict[str, int]], str, KnobValue, KnobValue], ...] = (
    # First what is on AMD GPUs alone: elsewhere it is skipped, and takes no one's time.
    ("two waves per SIMD, decode", "paged_attention_decode", f"{ATTENTION},group=4,block_size=16",
     DECODE, "waves_per_eu", 0, 2),
    ("two waves per SIMD, gate-up", "fused_mlp", _GATE_UP, ROWS[2:], "waves_per_eu", 0, 2),
    ("16 rows of a matrix instruction, gate-up", "fused_mlp", _GATE_UP, ROWS[2:],
     "matrix_instr_nonkdim", 0, 16),
    ("operands read two at a time, gate-up", "fused_mlp", _GATE_UP, ROWS[2:], "kpack", 1, 2),
    ("page-id prefetch, decode", "paged_attention_decode", f"{ATTENTION},group=4,block_size=16",
     DECODE, "prefetch", False, True),
    ("page-id prefetch, prefill", "paged_attention_prefill", f"{ATTENTION},group=4,block_size=16",
     PREFILL, "prefetch", False, True),
    ("scalar page lookup, decode", "paged_attention_decode", f"{ATTENTION},group=4,block_size=64",
     DECODE, "lookup", "gather", "scalar"),
    ("swapped operands, gate-up", "fused_mlp", _GATE_UP, ROWS[:4], "swap_ab", False, True),
    ("swapped operands, W4", "dequant_gemm", _W4, ROWS[:4], "swap_ab", False, True),
    ("byte_split against the GPTQ layout", "dequant_gemm", _W4, ROWS[:4],
     "layout", "gptq_i32", "byte_split"),
    ("descriptors, gate-up", "fused_mlp", _GATE_UP, ROWS[2:], "load", "pointer", "descriptor"),
    ("one loop over tiles and K, gate-up", "fused_mlp", _GATE_UP, ROWS[3:], "flatten", False, True),
    ("atomic sums, W4", "dequant_gemm", _W4, ROWS[:3], "reduction", "workspace", "atomic"),
    ("atomic sums, down", "fused_mlp", _DOWN, ROWS[:3], "reduction", "workspace", "atomic"),
)  # fmt: skip
"""Name, kernel, exact axes, sizes, knob or exact axis, value without the idea, value with it."""

_TOGETHER: Mapping[str, Mapping[str, KnobValue]] = {"flatten": {"load": "descriptor"}}
"""What both sides of a variant need; all other variants are plain."""

_FAVOURITES, _REHEARSAL_FAVOURITES = 8, 2
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 12
"""Of races in turns where the sides take different inputs."""
_MOST_TRIED = 40
"""Favourites of a side that are compiled before it is given up: the model's estimates know neither
spills nor the last bytes of shared memory, and what it likes best has most of both."""


@dataclass(frozen=True, slots=True)
class _Side:
    """Configurations with the idea, or without it."""

    cell: Cell
    configs: Sequence[Config]


def structural_ideas(place: Workplace) -> dict[str, Any]:
    """page-id prefetch, swapped operands, weight layout, ...: best with against best without"""
    rows: list[dict[str, Any]] = []
    for number, (name, kernel, axes, sizes, knob, *values) in enumerate(IDEAS):
        chosen = sizes[:1] if place.rehearsal else sizes
        sides = [_side(place, kernel, axes, chosen, knob, value) for value in values]
        if not all(side.configs for side in sides):
            what = f"{kernel} has no {knob}={values[0]}|{values[1]} on {place.arch.name}"
            rows.append({"idea": name, "skipped": what})
            print(f"{name}: skipped, {what}")
            continue
        share = place.deadline.share(len(IDEAS) - number)
        for size, point in zip(chosen, sides[1].cell.points, strict=True):
            if share.passed:
                rows.append({"idea": name, "point": point.label(), "skipped": "no time"})
                print(f"{name}, {point.label('nearest')}: no time")
                continue
            row = _race_sides(place, sides, size, knob, share)
            rows.append({"idea": name, "point": point.label(), **row})
            print(f"{name}, {point.label('nearest')}: {row.get('gain')}", flush=True)
    return {"ideas": rows}


def _side(
    place: Workplace,
    kernel: str,
    axes: str,
    sizes: Sequence[dict[str, int]],
    knob: str,
    value: KnobValue,
) -> _Side:
    """Legal configurations with that value, variants otherwise plain."""
    if knob in load_kernel(kernel).problem_type.axis_names("exact"):
        cell = place.cell(kernel, f"{axes},{knob}={value}", *sizes)
        return _Side(cell, cell.space.legal)
    cell = place.cell(kernel, axes, *sizes, variants=True)
    wanted = {**cell.space.plain, **_TOGETHER.get(knob, {}), knob: value}.items()
    return _Side(cell, [c for c in cell.space.legal if wanted <= dict(c).items()])


def _race_sides(
    place: Workplace, sides: Sequence[_Side], size: dict[str, int], knob: str, share: Deadline
) -> dict[str, Any]:
    rejected: list[str] = []
    sound = [_sound(place, side, size, rejected, share) for side in sides]
    if not all(sound):
        return {"skipped": "a side has nothing that runs", "rejected": rejected}
    without, having = (side.cell for side in sides)
    together = without.problem == having.problem
    if together:  # in turns, in one race
        run = place.device.race(without, without.problem.at(**size), sound[0] + sound[1])
        samples = [run.samples_us[: len(sound[0])], run.samples_us[len(sound[0]) :]]
    else:  # other inputs, so each side's best is found apart
        samples = [
            _samples(place, side, size, configs) for side, configs in zip(sides, sound, strict=True)
        ]
    best: list[int] = []
    for columns in samples:
        timed = [n for n, column in enumerate(columns) if column]
        if not timed:
            return {"skipped": f"one side of {knob} did not run", "rejected": rejected}
        best.append(min(timed, key=lambda n: timing(columns[n]).median_us))
    if together:
        old, new = (columns[n] for columns, n in zip(samples, best, strict=True))
    else:
        chosen = [configs[n] for configs, n in zip(sound, best, strict=True)]
        old, new = _races_in_turns(place, sides, size, chosen, share)
        if not (old and new):
            return {"skipped": f"one side of {knob} did not run again", "rejected": rejected}
    gain = speedup(old, new)
    return {
        "without_us": timing(old).median_us,
        "with_us": timing(new).median_us,
        "gain": round(gain.ratio, 4),
        "interval": [gain.low, gain.high],
        "in_turns": "samples" if together else "races",
        "without": dict(sound[0][best[0]]),
        "with": dict(sound[1][best[1]]),
        "timed": sum(map(len, sound)),
        "rejected": rejected,
    }


def _samples(
    place: Workplace, side: _Side, size: dict[str, int], configs: Sequence[Config]
) -> Sequence[Sequence[float]]:
    """Times of these configurations, in a race of their own."""
    return place.device.race(side.cell, side.cell.problem.at(**size), configs).samples_us


def _races_in_turns(
    place: Workplace,
    sides: Sequence[_Side],
    size: dict[str, int],
    configs: Sequence[Config],
    share: Deadline,
) -> tuple[list[float], list[float]]:
    """Medians of short races of either side, which takes its own inputs, one after the other.

    Who begins changes from round to round, so that a clock that falls or rises favours nobody.
    Nothing if a race fails.
    """
    medians: tuple[list[float], list[float]] = ([], [])
    for number in range(_MOST_ROUNDS):
        if number >= _LEAST_ROUNDS and (share.passed or place.rehearsal):
            break
        for at in (0, 1) if number % 2 == 0 else (1, 0):
            (column,) = _samples(place, sides[at], size, [configs[at]])
            if not column:
                return [], []
            medians[at].append(timing(column).median_us)
    return medians


def _sound(
    place: Workplace,
    side: _Side,
    size: dict[str, int],
    rejected: list[str],
    share: Deadline,
) -> list[Config]:
    """The default's nearest and the model's favourites, less what fails; the next where all do.

    The default's nearest comes first: it compiles soon, and nearly always to something sound.
    """
    cell = side.cell
    works = [
        (cell.spec.work(cell.problem.at(**size), config, cell.arch), config)
        for config in side.configs
    ]
    times = guess_all_us(cell.arch, works)
    count = _REHEARSAL_FAVOURITES if place.rehearsal else _FAVOURITES
    found: list[Config] = []
    faulty: set[Config] = set()
    usual = cell.spec.default_config(cell.problem.at(**size), cell.arch)
    likely = sorted(side.configs, key=lambda config: cell.space.steps_between(config, usual))
    favourites = [side.configs[index] for index in times.argsort()[:_MOST_TRIED]]
    ordered = list(dict.fromkeys([likely[0], *favourites]))
    if place.rehearsal:  # any pair will do, soon
        ordered = likely[:_MOST_TRIED]
    for start in range(0, len(ordered), count):
        wanted = ordered[start : start + count]
        # What differs in its launch alone has the same faults.
        fresh = [config for config in wanted if cell.space.binary_of(config) not in faulty]
        for config, evaluation in zip(
            fresh, place.builder.evaluate(cell.spec, cell.problem, fresh), strict=True
        ):
            fault = evaluation.reason or place.device.wrong(cell, config)
            if fault is None:
                found.append(config)
            else:
                faulty.add(cell.space.binary_of(config))
                rejected.append(f"{config}: {fault}")
        if found or share.passed:
            break
    return found
