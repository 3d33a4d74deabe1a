"""`autotune report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from autotune.arch import GPUS, lookup
from autotune.cli.output import print_json
from autotune.errors import UsageError
from autotune.files import write_atomically
from autotune.kernels import KERNELS, load_kernel
from autotune.paths import results_dirs, studies_dir
from autotune.report.material import KernelMaterial, gather
from autotune.report.page import page
from autotune.results import CellResult, ResultsStore
from autotune.search.trials import read_studies

EXAMPLES = """examples:
  autotune report --out report.html                     every GPU that has results
  autotune report --gpu h100 --gpu a100 --out report.html
  autotune report --gpu a100 --results out/demo --studies ~/.cache/pagetune/studies --out r.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="page to write")
    parser.add_argument("--gpu", action="append", help=f"repeatable: {', '.join(GPUS)}")
    parser.add_argument("--results", metavar="DIR", help="results folder to read")
    parser.add_argument(
        "--studies", metavar="DIR", help="folder of search journals (default: where run keeps them)"
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def handle(options: argparse.Namespace) -> int:
    """Gather, draw, write one self-contained page."""
    folders = results_dirs(options.results)
    found = {path.parent.name for folder in folders for path in folder.glob("*/*.json")}
    gpus = [lookup(name) for name in options.gpu or sorted(found)]
    reports = []
    for arch in gpus:
        kernels: list[KernelMaterial] = []
        for name in KERNELS:
            cells: dict[str, CellResult] = {}
            for folder in folders:
                for cell in ResultsStore(folder).read(arch.name, name):
                    cells.setdefault(cell.key, cell)
            if cells:
                kernels.append(gather(load_kernel(name), arch, list(cells.values())))
        if kernels:
            reports.append((arch, kernels))
    if not reports:
        raise UsageError("nothing to report: no results for these GPUs; try autotune run")
    studies = list(read_studies(studies_dir(options.studies)))
    write_atomically(options.out, page(reports, studies))
    points = sum(len(kernel.rows) for _, kernels in reports for kernel in kernels)
    if options.json:
        gpus_told = [arch.name for arch, _ in reports]
        print_json({"out": str(options.out), "gpus": gpus_told, "selections": points,
                    "searches": len(studies)})  # fmt: skip
        return 0
    print(f"{options.out}: {len(reports)} GPUs, {points} selections, {len(studies)} searches")
    return 0
