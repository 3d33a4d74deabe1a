"""The tuned kernels on this machine's GPU; collected only where there is one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from autotune.arch import GpuArch, lookup
from autotune.canary import canaries
from autotune.device import local_devices
from autotune.kernels import KERNELS, load_kernel
from autotune.paths import data_dir, templates_dir
from autotune.registry import TunedKernels
from autotune.render import TemplateFolder, import_file

LAUNCHES = 20
"""Per sample: one wait for the device is shared by so many."""


def _arch() -> GpuArch:
    known = [device.arch for device in local_devices() if device.arch is not None]
    return known[0] if known else lookup("a100")


def _time(benchmark: BenchmarkFixture, launch: Callable[[], object]) -> None:
    def launches() -> None:
        for _ in range(LAUNCHES):
            launch()
        torch.cuda.synchronize()

    benchmark.pedantic(launches, rounds=50, warmup_rounds=5)


@pytest.mark.parametrize("name", ["copy", "gemm"])
def bench_gpu_canary(benchmark: BenchmarkFixture, name: str) -> None:
    """What no template can change."""
    _time(benchmark, canaries("cuda")[name])


@pytest.mark.parametrize("kernel", KERNELS)
def bench_kernel(benchmark: BenchmarkFixture, cache: Path, kernel: str) -> None:
    """The selection for the kernel's usual problem."""
    spec, arch = load_kernel(kernel), _arch()
    problem = spec.problem_type()
    tuned = TunedKernels(arch, [data_dir("results")], templates_dir(), cache)
    config = tuned.resolve(kernel, problem).config
    module = import_file(TemplateFolder(templates_dir()).render(spec, problem, config).write(cache))
    inputs = spec.bench_inputs(problem, 0, "cuda")
    _time(benchmark, partial(spec.run, module, problem, inputs))
