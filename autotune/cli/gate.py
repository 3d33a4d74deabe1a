"""`autotune gate`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.text import Text

from autotune.arch import GpuArch, lookup
from autotune.build import Builder
from autotune.cli.output import console, print_json, print_table
from autotune.cli.types import positive_float, positive_int
from autotune.device import local_devices
from autotune.errors import NoDeviceError, UnknownChoiceError, UsageError
from autotune.files import write_atomically
from autotune.gate.fact_change import FACTS
from autotune.gate.finding import Finding
from autotune.gate.noise import LEAST_CHANGE
from autotune.gate.pin import pin
from autotune.gate.recorded import RECORDED_LEAST_CHANGE, Recording, compare_recordings
from autotune.gate.report import passed, to_json, to_junit, to_markdown
from autotune.gate.static import StaticGate
from autotune.gate.timed import GpuTrack, TimedGate
from autotune.gate.tree import Tree
from autotune.gate.verdict import Verdict
from autotune.kernels import KERNELS, load_kernel
from autotune.paths import cache_dir, templates_dir
from autotune.pool import WorkerPool
from autotune.progress import choose_reporter
from autotune.render import TemplateFolder

EXAMPLES = """examples:
  autotune gate base . --static-only             facts of two checkouts, no GPU needed
  autotune gate results . --static-only          templates here still compile to the pinned facts
  autotune gate results . --pin                  write the facts that moved, and print the diff
  autotune gate base . --markdown gate.md --junit gate.xml      static, then timed on this GPU
  autotune gate before.json after.json           two recordings of pytest --benchmark-save-data

BASELINE and CANDIDATE are checkouts (results/, templates/ or both inside), or results folders.
exit codes: 0 nothing got worse, 1 something did, 2 usage, 3 no GPU to time on, 4 bad file"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("baseline", type=Path, metavar="BASELINE")
    parser.add_argument("candidate", type=Path, metavar="CANDIDATE")
    parser.add_argument(
        "--static-only", action="store_true", help="compare compiler facts, time nothing"
    )
    parser.add_argument("--gpu", action="append", help="only this GPU; repeatable")
    parser.add_argument("--kernel", action="append", help="only this kernel; repeatable")
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="FACT",
        help="a fact (occupancy, registers, ...) whose fall is wanted, once pinned; repeatable",
    )
    parser.add_argument(
        "--pin", action="store_true", help="write the facts as they are into CANDIDATE's results"
    )
    parser.add_argument(
        "--least-change",
        type=positive_float,
        metavar="PERCENT",
        help=f"timed change that counts (default {LEAST_CHANGE * 100:.0f}; "
        f"recordings {RECORDED_LEAST_CHANGE * 100:.0f})",
    )
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a comment or summary")
    parser.add_argument("--jobs", type=positive_int, default=2, help="processes (default 2)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def handle(options: argparse.Namespace) -> int:
    """Compare, print, write the reports, return 1 if anything got worse."""
    _check(options)
    if options.baseline.is_file() and options.candidate.is_file():
        return _finish(options, list(_recorded(options)))
    baseline, candidate = Tree.open(options.baseline), Tree.open(options.candidate)
    if baseline.results is None:
        raise UsageError(f"{options.baseline} has no results to compare with")
    for name in options.kernel or ():
        load_kernel(name)
    archs = _archs(options.gpu, baseline, candidate)
    kernels = options.kernel or list(KERNELS)
    if options.pin:
        return _pin(options, candidate, archs, kernels)
    here = None if options.static_only else _gpu_here(archs)
    findings: list[Finding] = []
    reporter = choose_reporter(options.json, sys.stderr)
    reporter.start("comparing compiler facts", len(archs) * len(kernels))
    try:
        with WorkerPool(options.jobs) as pool:
            for arch in archs:
                gate = _static(options, arch, baseline, candidate, pool)
                for kernel in kernels:
                    reporter.cell(f"{arch.name} {kernel}")
                    for finding in gate.compare(kernel):
                        findings.append(finding)
                        if finding.fails:
                            reporter.line(f"{finding.verdict.value.upper()} {finding.name}")
                    reporter.advance(1)
    finally:
        reporter.stop()
    if here is not None:
        findings += _timed(options, baseline, candidate, here, kernels)
    if not findings:
        raise UsageError(
            f"nothing to compare: neither side has results for {', '.join(kernels)} on "
            f"{', '.join(arch.name for arch in archs)}"
        )
    return _finish(options, findings)


def _check(options: argparse.Namespace) -> None:
    """Refuse now what would fail after minutes of compiling.

    Raises:
        UsageError: a report cannot be written where it should go.
        UnknownChoiceError: no such fact.
    """
    for fact in options.accept:
        if fact not in FACTS:
            raise UnknownChoiceError("fact", fact, FACTS)
    for path in (options.markdown, options.junit):
        if path is None:
            continue
        if path.is_dir():
            raise UsageError(f"{path} is a folder; give the name of a file to write the report to")
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise UsageError(f"cannot write {path}: {above} is no folder that you can write to")


def _archs(names: Sequence[str] | None, *trees: Tree) -> list[GpuArch]:
    """GPUs to compare: those named, else all that a side has results for.

    Raises:
        UsageError: no side has any.
        UnknownChoiceError: no such GPU in the table.
    """
    if names:
        return [lookup(name) for name in names]
    found = {
        path.parent.name for tree in trees if tree.results for path in tree.results.glob("*/*.json")
    }
    if not found:
        raise UsageError("neither side has any results: there is nothing to compare")
    return [lookup(name) for name in sorted(found)]


def _static(
    options: argparse.Namespace, arch: GpuArch, baseline: Tree, candidate: Tree, pool: WorkerPool
) -> StaticGate:
    cache = cache_dir()
    after = Builder(arch, TemplateFolder(candidate.templates), cache, pool)
    before = None
    if baseline.own_templates is not None and baseline.folder != candidate.folder:
        before = Builder(arch, TemplateFolder(baseline.own_templates), cache, pool)
    return StaticGate(arch, baseline, candidate, after, before, options.accept)


def _gpu_here(archs: Sequence[GpuArch]) -> GpuArch:
    here = next((device.arch for device in local_devices() if device.arch in archs), None)
    if here is None:
        names = ", ".join(arch.name for arch in archs)
        raise NoDeviceError(f"none of {names} is here, so nothing can be timed; add --static-only")
    return here


def _timed(
    options: argparse.Namespace,
    baseline: Tree,
    candidate: Tree,
    here: GpuArch,
    kernels: Sequence[str],
) -> Iterator[Finding]:
    least = (options.least_change or LEAST_CHANGE * 100) / 100
    with WorkerPool(1) as pool:
        gate = TimedGate(here, baseline, candidate, GpuTrack(pool, cache_dir()), least)
        for kernel in kernels:
            yield from gate.compare(kernel)


def _recorded(options: argparse.Namespace) -> Iterator[Finding]:
    least = (options.least_change or RECORDED_LEAST_CHANGE * 100) / 100
    return compare_recordings(
        Recording.read(options.baseline), Recording.read(options.candidate), least
    )


def _pin(
    options: argparse.Namespace, candidate: Tree, archs: Sequence[GpuArch], kernels: Sequence[str]
) -> int:
    if candidate.results is None:
        raise UsageError(f"{options.candidate} has no results to pin facts in")
    templates = TemplateFolder(candidate.own_templates or templates_dir())
    store, refused, written = candidate.store(), 0, 0
    with WorkerPool(options.jobs) as pool:
        for arch in archs:
            builder = Builder(arch, templates, cache_dir(), pool)
            for kernel in kernels:
                for cell in pin(store, load_kernel(kernel), builder):
                    print(f"{cell.path} ({cell.where})")
                    for change in cell.changes:
                        print(f"  {change}")
                    for reason in cell.refused:
                        print(f"  NOT pinned, it is unsound: {reason}")
                    refused += len(cell.refused)
                    written += not cell.refused
    print(f"{written} cells pinned anew, {refused} binaries refused")
    return 1 if refused else 0


def _finish(options: argparse.Namespace, findings: Sequence[Finding]) -> int:
    if options.json:
        print_json(to_json(findings))
    else:
        _print(options, findings)
    if options.markdown is not None:
        write_atomically(options.markdown, to_markdown(findings))
    if options.junit is not None:
        write_atomically(options.junit, to_junit(findings))
    return 0 if passed(findings) else 1


def _print(options: argparse.Namespace, findings: Sequence[Finding]) -> None:
    rows = [f for f in findings if f.verdict is not Verdict.SAME]
    rows.sort(key=lambda finding: (not finding.fails, finding.name))
    if rows:
        cells = [[f.verdict.value, f.gpu, f.kernel, f.where, f.detail] for f in rows]
        print_table("what differs", ("verdict", "gpu", "kernel", "where", "what"), cells)
    counts = [f"{number} {name}" for name, number in to_json(findings)["counts"].items()]
    word = "passed" if passed(findings) else "FAILED"
    console().print(Text(f"gate {word}: {', '.join(counts) or 'nothing to compare'}"))
    found = {finding.verdict for finding in findings}
    if Verdict.UNSOUND in found:
        print("What is unsound cannot be pinned: mend it, or choose again with autotune run.")
    if found & {Verdict.IMPROVED, Verdict.MOVED, Verdict.WORSE, Verdict.TOOLCHAIN}:
        words = ["autotune", "gate", str(options.baseline), str(options.candidate), "--pin"]
        words += [word for name in options.gpu or () for word in ("--gpu", name)]
        words += [word for name in options.kernel or () for word in ("--kernel", name)]
        print(f"If the change is wanted: {shlex.join(words)}, and commit the diff.")
