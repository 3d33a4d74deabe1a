"""`autotune export`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from autotune.arch import GPUS, lookup
from autotune.cli.output import print_json
from autotune.errors import UsageError
from autotune.export import FORMATS, exporter
from autotune.files import write_atomically
from autotune.kernels import KERNELS, load_kernel
from autotune.paths import results_dirs
from autotune.results import CellResult, ResultsStore

EXAMPLES = """examples:
  autotune export --gpu a100 --format json --out exported
  autotune export --gpu h100 --format t4 --kernel dequant_gemm --out exported
  autotune export --gpu mi300x --format vllm --kernel fused_mlp --out exported"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--gpu", required=True, help=", ".join(GPUS))
    parser.add_argument("--format", required=True, help=", ".join(FORMATS))
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write to")
    parser.add_argument("--kernel", action="append", help="only this kernel; repeatable")
    parser.add_argument("--results", metavar="DIR", help="results folder to read")
    parser.add_argument("--json", action="store_true", help="print JSON")


def handle(options: argparse.Namespace) -> int:
    """Write the files, and say what the format has no words for."""
    arch, export = lookup(options.gpu), exporter(options.format)
    written: list[str] = []
    left_out: list[str] = []
    for name in options.kernel or KERNELS:
        load_kernel(name)
        cells = _cells(options.results, arch.name, name)
        if not cells:
            continue
        document = export(arch, name, cells)
        left_out += document.left_out
        for file, content in document.files.items():
            path = options.out / file
            write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
            written.append(str(path))
    if not written and not left_out:
        raise UsageError(f"nothing is stored for {arch.name}: run autotune run --gpu {arch.name}")
    if options.json:
        print_json({"written": written, "left_out": left_out})
        return 0
    for line in left_out:
        print(f"left out  {line}")
    print(f"{len(written)} files in {options.out}, {len(left_out)} selections left out")
    return 0


def _cells(override: str | None, gpu: str, kernel: str) -> list[CellResult]:
    """Cells of all results folders; the first folder that has one wins."""
    found: dict[str, CellResult] = {}
    for folder in results_dirs(override):
        for cell in ResultsStore(folder).read(gpu, kernel):
            found.setdefault(cell.key, cell)
    return list(found.values())
