"""The tuner on a CPU: rendering, look-ups, and how fast each target compiles."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from autotune.arch import lookup
from autotune.compiler.cross import cross_compile
from autotune.kernels import load_kernel
from autotune.paths import data_dir, templates_dir
from autotune.registry import TunedKernels
from autotune.render import TemplateFolder, import_file

KERNEL = "paged_attention_decode"
GPUS = ("a100", "h100", "b200", "mi300x")
"""One of each code generator; the other targets share theirs."""


def bench_render(benchmark: BenchmarkFixture) -> None:
    """The default of the decode template to a whole module."""
    spec, arch = load_kernel(KERNEL), lookup("a100")
    problem = spec.problem_type()
    config = spec.default_config(problem, arch)
    templates = TemplateFolder(templates_dir())
    rendered = benchmark.pedantic(
        templates.render, (spec, problem, config), rounds=100, warmup_rounds=5
    )
    assert "@triton.jit" in rendered.source


def bench_resolve(benchmark: BenchmarkFixture, cache: Path) -> None:
    """A selection by problem, at sizes between the tuned ones."""
    tuned = TunedKernels(lookup("a100"), [data_dir("results")], templates_dir(), cache)
    problem = load_kernel(KERNEL).problem_type().at(num_seqs=24, context_len=3000)
    resolved = benchmark.pedantic(tuned.resolve, (KERNEL, problem), rounds=100, warmup_rounds=5)
    assert resolved.config["tile"]


@pytest.mark.parametrize("gpu", GPUS)
def bench_compile(benchmark: BenchmarkFixture, cache: Path, gpu: str) -> None:
    """Triton's and the assembler's work for one small kernel; nothing is taken from a cache."""
    import triton

    spec, arch = load_kernel("dequant_gemm"), lookup(gpu)
    problem = spec.problem_type()
    small = min(spec.space(problem, arch).legal, key=lambda config: str(config["kind"]) != "gemv")
    rendered = TemplateFolder(templates_dir()).render(spec, problem, small)
    module = import_file(rendered.write(cache))
    with triton.knobs.compilation.scope(), triton.knobs.cache.scope():
        triton.knobs.compilation.always_compile = True
        triton.knobs.cache.dir = str(cache / "triton")
        binaries = benchmark.pedantic(cross_compile, (module, arch), rounds=5, warmup_rounds=1)
    assert binaries
