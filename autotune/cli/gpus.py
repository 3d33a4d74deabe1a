"""`autotune gpus`."""

from __future__ import annotations

import argparse
import dataclasses

from autotune.arch import GPUS, GpuArch
from autotune.cli.output import print_json, print_table
from autotune.device import local_devices

EXAMPLES = """examples:
  autotune gpus             the table, and what is in this machine
  autotune gpus --sources   where each figure comes from
  autotune gpus --json      all figures"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--sources", action="store_true", help="print where the figures come from")
    parser.add_argument("--json", action="store_true", help="print JSON")


def handle(options: argparse.Namespace) -> int:
    """Print the table of GPUs."""
    devices = local_devices()
    if options.json:
        print_json(
            {
                "gpus": [dataclasses.asdict(arch) for arch in GPUS.values()],
                "local": [
                    {"name": d.name, "uuid": d.uuid, "gpu": d.arch.name if d.arch else None}
                    for d in devices
                ],
            }
        )
        return 0
    if options.sources:
        print_table("", ("gpu", "source"), [(a.name, a.source) for a in GPUS.values()])
        return 0
    columns = (
        "gpu", "target", ">SMs", ">MHz", ">smem/block", ">L2 MiB", ">GiB", ">GB/s",
        ">bf16 TF/s", ">fp8 TF/s", ">int8 TOP/s", "product",
    )  # fmt: skip
    print_table("GPUs that can be tuned for", columns, [_row(arch) for arch in GPUS.values()])
    print()
    if not devices:
        print("No GPU in this machine: `autotune run` predicts from the compiler's facts.")
    for device in devices:
        known = f"tuned as {device.arch.name}" if device.arch else "not in the table"
        print(f"GPU {device.index}: {device.name} ({known})")
    return 0


def _row(arch: GpuArch) -> tuple[str, ...]:
    def rate(dtype: str) -> str:
        return f"{arch.peak_tflops[dtype]:.0f}" if arch.supports(dtype) else "-"

    return (
        arch.name,
        arch.target,
        str(arch.sm_count),
        str(arch.clock_mhz),
        f"{arch.shared_bytes_per_block / 1024:.0f} KiB",
        f"{arch.l2_bytes / 2**20:.0f}",
        f"{arch.dram_bytes / 2**30:.0f}",
        f"{arch.dram_gbs:.0f}",
        rate("bf16"),
        rate("fp8"),
        rate("int8"),
        arch.title,
    )
