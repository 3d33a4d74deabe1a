"""Stage: what a structural idea is worth, all else free: best with it against best without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evidence.points import ATTENTION, DECODE, PREFILL, ROWS
from evidence.workplace import Workplace

from autotune.cell import Cell
from autotune.prior import guess_all_us
from autotune.problem import Problem
from autotune.race import speedup
from autotune.space import Config, KnobValue

IDEAS: tuple[tuple[str, str, str, Sequence[dict[str, int]], str, KnobValue, KnobValue], ...] = (
    ("page-id prefetch, decode", "paged_attention_decode", f"{ATTENTION},group=4,block_size=16",
     DECODE, "prefetch", False, True),
    ("page-id prefetch, prefill", "paged_attention_prefill", f"{ATTENTION},group=4,block_size=16",
     PREFILL, "prefetch", False, True),
    ("scalar page lookup, decode", "paged_attention_decode", f"{ATTENTION},group=4,block_size=64",
     DECODE, "lookup", "gather", "scalar"),
    ("swapped operands, gate-up", "fused_mlp", "part=gate_up,n=14336,k=4096",
     ROWS[:4], "swap_ab", False, True),
    ("swapped operands, W4", "dequant_gemm", "bits=4,group_size=128,zero_point=True,n=28672,k=4096",
     ROWS[:4], "swap_ab", False, True),
    ("byte_split against the GPTQ layout", "dequant_gemm",
     "bits=4,group_size=128,zero_point=True,n=28672,k=4096", ROWS[:4],
     "layout", "gptq", "byte_split"),
)  # fmt: skip
"""Name, kernel, exact axes, sizes, knob, value without the idea, value with it."""

_FAVOURITES, _REHEARSAL_FAVOURITES = 8, 1


def structural_ideas(place: Workplace) -> dict[str, Any]:
    """page-id prefetch, swapped operands, weight layout: best with against best without"""
    rows: list[dict[str, Any]] = []
    for number, (name, kernel, axes, sizes, knob, without, having) in enumerate(IDEAS):
        cell = place.cell(kernel, axes, *(sizes[:1] if place.rehearsal else sizes))
        known = {known.name: known.values for known in cell.space.knobs}
        if without not in known.get(knob, ()) or having not in known.get(knob, ()):
            rows.append({"idea": name, "skipped": f"{kernel} has no {knob}={without}|{having}"})
            print(f"{name}: skipped, there is no such knob")
            continue
        share = place.deadline.share(len(IDEAS) - number)
        for point in cell.points:
            if share.passed:
                rows.append({"idea": name, "point": point.label(), "skipped": "no time"})
                continue
            row = _race_sides(place, cell, point, knob, (without, having))
            rows.append({"idea": name, "point": point.label(), **row})
            print(f"{name}, {point.label('nearest')}: {row.get('gain')}", flush=True)
    return {"ideas": rows}


def _race_sides(
    place: Workplace, cell: Cell, point: Problem, knob: str, sides: tuple[KnobValue, KnobValue]
) -> dict[str, Any]:
    count = _REHEARSAL_FAVOURITES if place.rehearsal else _FAVOURITES
    wanted = [config for side in sides for config in _favourites(cell, point, knob, side, count)]
    evaluations = place.builder.evaluate(cell.spec, cell.problem, wanted)
    sound: list[Config] = []
    rejected: list[str] = []
    for config, evaluation in zip(wanted, evaluations, strict=True):
        fault = evaluation.reason or place.device.wrong(cell, config)
        if fault is None:
            sound.append(config)
        else:
            rejected.append(f"{config}: {fault}")
    if not sound:
        return {"skipped": "nothing ran", "rejected": rejected}
    run = place.device.race(cell, point, sound)
    best: list[int] = []
    for side in sides:
        timed = [n for n, c in enumerate(sound) if c[knob] == side and run.samples_us[n]]
        if not timed:
            return {"skipped": f"nothing with {knob}={side} ran", "rejected": rejected}
        best.append(min(timed, key=lambda n: run.timing(n).median_us))
    gain = speedup(run.samples_us[best[0]], run.samples_us[best[1]])
    return {
        "without_us": run.timing(best[0]).median_us,
        "with_us": run.timing(best[1]).median_us,
        "gain": round(gain.ratio, 4),
        "interval": [gain.low, gain.high],
        "without": dict(sound[best[0]]),
        "with": dict(sound[best[1]]),
        "timed": len(sound),
        "rejected": rejected,
    }


def _favourites(
    cell: Cell, point: Problem, knob: str, value: KnobValue, count: int
) -> list[Config]:
    configs = [config for config in cell.space.legal if config[knob] == value]
    works = [(cell.spec.work(point, config, cell.arch), config) for config in configs]
    times = guess_all_us(cell.arch, works)
    return [configs[index] for index in times.argsort()[:count]]
