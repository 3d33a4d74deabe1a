"""T4, the results format that Kernel Tuner and other autotuners share.

Source: the schema `results-schema.json`, version 1.0.0, of Hellsten et al., "Towards a Benchmark
Suite for Autotuners" (AutoTuningAssociation), as Kernel Tuner ships it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.arch import GpuArch
from autotune.export.document import Document
from autotune.records import Provenance, Selection
from autotune.results import CellResult

_VERSION = "1.0.0"


def export(arch: GpuArch, kernel: str, cells: Sequence[CellResult]) -> Document:
    """One file per point: a result with the chosen configuration and one with nothing else.

    A prediction is called `predicted_time`: nothing in the file says that it was measured.
    """
    files: dict[str, Any] = {}
    left_out: list[str] = []
    for cell in cells:
        for selection in cell.selections:
            sizes = {**selection.exact, **selection.nearest}
            label = ",".join(f"{name}={value}" for name, value in sizes.items())
            if selection.time_us is None:
                left_out.append(f"{label}: an untested default has no time")
                continue
            if selection.library is not None:
                left_out.append(f"{label}: {selection.choice} was faster than any configuration")
                continue
            name = f"{arch.name}-{kernel}-{label.replace(',', '_')}.json"
            files[name] = {"schema_version": _VERSION, "results": [_result(selection)]}
    return Document(files, tuple(left_out))


def _result(selection: Selection) -> dict[str, Any]:
    assert selection.time_us is not None
    measured = selection.provenance is Provenance.MEASURED
    name = "time" if measured else "predicted_time"
    time_ms = selection.time_us / 1000.0
    return {
        "configuration": dict(selection.config),
        "objectives": [name],
        "times": {"runtimes": [time_ms] if measured else []},
        "invalidity": "correct",
        "correctness": 1,
        "measurements": [{"name": name, "value": time_ms, "unit": "ms"}],
    }
