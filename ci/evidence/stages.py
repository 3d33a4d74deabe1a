"""The stages, in order; each takes a workplace and returns a JSON document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evidence.ab import structural_ideas
from evidence.engine.checked import checked
from evidence.engine.measured import STAGES as MEASURED
from evidence.model import model
from evidence.sanitize import sanitize
from evidence.spaces import spaces
from evidence.verified import verified
from evidence.winners import winners
from evidence.workplace import Workplace


def ceilings(place: Workplace) -> dict[str, Any]:
    """Copy bandwidth and matrix rate of this very GPU"""
    found = dict(place.device.ceilings())
    if not found:
        return {"failed": "neither could be measured; the raw file says why"}
    figures = {name: round(found[name], 1) for name in ("copy_gbs", "gemm_tflops")}
    arch = place.arch
    print(f"copy {figures['copy_gbs']} GB/s of {arch.dram_gbs}, product {figures['gemm_tflops']}")
    return {**figures, "datasheet_gbs": arch.dram_gbs, "datasheet_tflops": dict(arch.peak_tflops)}


STAGES: dict[str, Callable[[Workplace], dict[str, Any]]] = {
    "ceilings": ceilings,
    "verify": verified,
    "sanitize": sanitize,
    "spaces": spaces,
    "model": model,
    "winners": winners,
    "ab": structural_ideas,
    "engine-check": checked,
    **MEASURED,
}

GROUPS = {"engine": tuple(name for name in STAGES if name.startswith("engine-"))}
"""Names that stand for several stages."""
