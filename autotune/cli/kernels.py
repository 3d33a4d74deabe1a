"""`autotune kernels`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from autotune.arch import GPUS, lookup
from autotune.cli.output import print_json, print_table
from autotune.kernels import KERNELS, load_kernel
from autotune.knob import Knob
from autotune.library import ROUTINES, WITHOUT

EXAMPLES = """examples:
  autotune kernels                                axes, knobs and sizes of every kernel
  autotune kernels --kernel dequant_gemm --gpu mi300x"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--kernel", help="one kernel only")
    parser.add_argument("--gpu", default="a100", help=f"space for this GPU: {', '.join(GPUS)}")
    parser.add_argument("--json", action="store_true", help="print JSON")


def handle(options: argparse.Namespace) -> int:
    """Print every kernel's axes and knobs."""
    arch = lookup(options.gpu)
    specs = [load_kernel(name) for name in ([options.kernel] if options.kernel else KERNELS)]
    documents = []
    for spec in specs:
        problem = spec.problem_type()
        space = spec.space(problem, arch)
        axes = [
            (axis.name, axis.metadata["kind"], str(axis.default), _meaning(axis.metadata))
            for axis in dataclasses.fields(problem)
        ]
        if options.json:
            documents.append(
                {
                    "kernel": spec.name,
                    "template": spec.template,
                    "axes": [
                        dict(zip(("name", "kind", "default", "meaning"), axis, strict=True))
                        for axis in axes
                    ],
                    "knobs": [_knob_json(knob) for knob in space.knobs],
                    "variants": [_knob_json(knob) for knob in space.variants],
                    "space": {
                        "cartesian": space.cartesian_size,
                        "legal": len(space.legal),
                        "binaries": len(space.binaries),
                    },
                    "library": list(ROUTINES.get(spec.name, ())),
                    "why_no_library": WITHOUT.get(spec.name),
                }
            )
            continue
        print_table(f"{spec.name} ({spec.template})", ("axis", "kind", "default", "meaning"), axes)
        print_table("", ("knob", "values", "meaning"), [_knob_row(knob) for knob in space.knobs])
        if space.variants:
            rows = [_knob_row(knob) for knob in space.variants]
            print_table("", ("variant", "values, plain first", "meaning"), rows)
        names = ", ".join(ROUTINES.get(spec.name, ()))
        print(f"library: {names or f'none: {WITHOUT[spec.name]}'}")
        print(
            f"on {arch.name} at the defaults: {space.cartesian_size} combinations, "
            f"{len(space.legal)} legal, {len(space.binaries)} binaries\n"
        )
    if options.json:
        print_json(documents)
    return 0


def _knob_json(knob: Knob) -> dict[str, Any]:
    return {
        "name": knob.name,
        "values": knob.values,
        "host": knob.host,
        "meaning": knob.meaning,
    }


def _meaning(axis: Mapping[str, Any]) -> str:
    choices = ", ".join(map(str, axis["choices"]))
    return f"{axis['meaning']} ({choices})" if choices else str(axis["meaning"])


def _knob_row(knob: Knob) -> tuple[str, str, str]:
    where = " (host: shares the binary)" if knob.host else ""
    return knob.name, " ".join(map(str, knob.values)), knob.meaning + where
