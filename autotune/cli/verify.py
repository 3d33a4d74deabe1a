"""`autotune verify`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from autotune.arch import lookup
from autotune.cli.exit_codes import INTERRUPTED
from autotune.cli.output import print_json, print_table
from autotune.cli.types import positive_float, positive_int
from autotune.deadline import Deadline
from autotune.device import local_devices
from autotune.errors import NoDeviceError, UsageError
from autotune.kernels import KERNELS, load_kernel
from autotune.kernels.dtypes import FLOAT_DTYPES
from autotune.kernels.spec import KernelSpec
from autotune.paths import cache_dir, templates_dir
from autotune.problem import Problem
from autotune.progress import choose_reporter
from autotune.records import Status
from autotune.render import TemplateFolder
from autotune.verify import Verdict, cases, in_dtypes, small_problems, verify

GPU_DTYPES = ("bf16", "fp16")
"""What a GPU is for."""

EXAMPLES = """examples:
  autotune verify                                   every kernel, in Triton's interpreter
  autotune verify --kernel fused_mlp --samples 25
  autotune verify --kernel paged_attention_decode --problem head_dim=80,group=5,dtype=fp16
  autotune verify --kernel paged_attention_decode --problem kv_dtype=int8,kv_scale=token,dtype=fp16
  autotune verify --backend gpu --jobs 8            on the GPU of this machine, bf16 and fp16"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--kernel", action="append", help=f"kernel, repeatable: {', '.join(KERNELS)}"
    )
    parser.add_argument(
        "--problem",
        help="axis=value,...: this problem instead of the hard list; other axes as in one like it",
    )
    parser.add_argument(
        "--dtype",
        action="append",
        choices=FLOAT_DTYPES,
        help="repeatable (default: the hard list as it is, a --problem in all types; on a GPU both "
        "in bf16 and fp16)",
    )
    parser.add_argument("--backend", choices=("interpreter", "gpu"), default="interpreter")
    parser.add_argument("--gpu", default="a100", help="whose space to draw from (default a100)")
    parser.add_argument(
        "--samples", type=positive_int, default=3, help="random configs per problem (default 3)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--budget",
        type=positive_float,
        metavar="S",
        help="stop after so many seconds and report what was checked",
    )
    parser.add_argument("--jobs", type=positive_int, default=2, help="processes (default 2)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def handle(options: argparse.Namespace) -> int:
    """Check, report the worst errors, return 1 on any failure, 130 if interrupted."""
    specs = [load_kernel(name) for name in options.kernel or KERNELS]
    if options.problem is not None and len(specs) != 1:
        raise UsageError("--problem needs exactly one --kernel")
    named = specs[0].problem_type.read_axes(options.problem or "")
    if "dtype" in named and options.dtype:
        raise UsageError("--problem names a dtype: leave out --dtype")
    arch, device, dtypes = lookup(options.gpu), "cpu", options.dtype or ()
    if options.backend == "gpu":
        known = next((found for found in local_devices() if found.arch is not None), None)
        if known is None or known.arch is None:
            raise NoDeviceError(
                "--backend gpu needs a GPU of the table in this machine; see `autotune gpus`, or "
                "use --backend interpreter"
            )
        arch, device, dtypes = known.arch, "cuda", options.dtype or GPU_DTYPES

    def problems(spec: KernelSpec[Any]) -> Sequence[Problem]:
        if options.problem is not None:
            return small_problems(spec, options.problem, dtypes or FLOAT_DTYPES)
        return in_dtypes(spec.hard_problems(), dtypes)

    # Listing what is legal takes seconds for some kernels, so it is done on the way; where few
    # configurations are legal there are fewer candidates than this.
    most = (1 + options.samples) * sum(len(problems(spec)) for spec in specs)
    wanted = cases(specs, arch, options.samples, options.seed, problems)
    reporter = choose_reporter(options.json, sys.stderr)
    reporter.start(f"verifying up to {most} candidates ({options.backend})", most)
    started = time.monotonic()
    deadline = Deadline(options.budget)
    verdicts: list[Verdict] = []
    templates = TemplateFolder(templates_dir())
    stopped_by: str | None = None
    try:
        for verdict in verify(wanted, templates, cache_dir(), options.seed, options.jobs, device):
            verdicts.append(verdict)
            reporter.cell(verdict.case.spec.name)
            reporter.advance(1)
            if verdict.status is not Status.OK:
                reporter.line(_failure(verdict))
            if deadline.passed:
                stopped_by = "budget"
                break
    except KeyboardInterrupt:
        stopped_by = "interrupt"
    finally:
        reporter.stop()
    failed = _report(verdicts, time.monotonic() - started, stopped_by, options.json)
    if stopped_by == "interrupt":
        return INTERRUPTED
    return 1 if failed else 0


def _failure(verdict: Verdict) -> str:
    case = verdict.case
    return (
        f"FAILED {case.spec.name} [{verdict.status}] {verdict.reason}\n"
        f"  problem {case.problem.label()}\n  config  {case.config}"
    )


def _report(
    verdicts: Sequence[Verdict], seconds: float, stopped_by: str | None, as_json: bool
) -> int:
    """Print what was checked and return how many failed."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        axes = verdict.case.problem.named_axes()
        dtype = "/".join(str(axes[name]) for name in ("dtype", "kv_dtype") if name in axes)
        groups.setdefault((verdict.case.spec.name, dtype), []).append(verdict)
    summary = [_summary(kernel, dtype, groups[kernel, dtype]) for kernel, dtype in sorted(groups)]
    failed = sum(int(row["failed"]) for row in summary)
    if as_json:
        failures = [
            {
                "kernel": v.case.spec.name,
                "problem": v.case.problem.label(),
                "config": dict(v.case.config),
                "status": v.status.value,
                "reason": v.reason,
            }
            for v in verdicts
            if v.status is not Status.OK
        ]
        print_json(
            {
                "summary": summary,
                "failures": failures,
                "stopped_by": stopped_by,
                "seconds": round(seconds, 1),
            }
        )
    else:
        columns = ("kernel", "dtype", ">checked", ">failed", ">worst relative", ">allowed",
                   ">worst element", ">allowed")  # fmt: skip
        rows = [[_cell(value) for value in row.values()] for row in summary]
        print_table("errors against the fp64 reference", columns, rows)
        early = f", stopped early by {stopped_by}" if stopped_by else ""
        print(f"{len(verdicts)} candidates in {seconds:.0f} s, {failed} failed{early}")
    return failed


def _summary(kernel: str, dtype: str, members: Sequence[Verdict]) -> dict[str, Any]:
    # A soft cap, say, is allowed more: the widest of the group stands in the table.
    allowed = [v.case.spec.tolerance(v.case.problem) for v in members]
    relative = [v.relative for v in members if v.relative is not None]
    elementwise = [v.elementwise for v in members if v.elementwise is not None]
    return {
        "kernel": kernel,
        "dtype": dtype,
        "checked": len(members),
        "failed": sum(v.status is not Status.OK for v in members),
        "worst_relative": max(relative, default=None),
        "allowed_relative": max(t.relative for t in allowed),
        "worst_element": max(elementwise, default=None),
        "allowed_element": max(t.elementwise for t in allowed),
    }


def _cell(value: object) -> str:
    return f"{value:.1e}" if isinstance(value, float) else "-" if value is None else str(value)
