"""Real compilations, without a GPU: every kernel's default, for every target, is sound."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from autotune.arch import GPUS, GpuArch, lookup
from autotune.build import Builder
from autotune.config import Config
from autotune.kernels import KERNELS, load_kernel
from autotune.paths import templates_dir
from autotune.pool import WorkerPool
from autotune.problem import Problem, exact
from autotune.records import Evaluation, Status
from autotune.render import HEADER_LINES, TemplateFolder

TARGETS = {arch.target: arch.name for arch in GPUS.values()}
"""Compiler target → a GPU of it."""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compile")


@pytest.fixture(scope="session")
def pool(cache: Path) -> Iterator[WorkerPool]:
    with WorkerPool(2, {**os.environ, "TRITON_CACHE_DIR": str(cache / "triton")}) as found:
        yield found


@dataclass(frozen=True, slots=True)
class Compiler:
    """Templates, and where to compile them."""

    templates: TemplateFolder
    cache: Path
    pool: WorkerPool

    def builder(self, gpu: str) -> Builder:
        return Builder(lookup(gpu), self.templates, self.cache, self.pool)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_default_is_sound(cache: Path, pool: WorkerPool, kernel: str, target: str) -> None:
    compiler = Compiler(TemplateFolder(templates_dir()), cache, pool)
    builder = compiler.builder(TARGETS[target])
    spec = load_kernel(kernel)
    problem = spec.problem_type()
    config = spec.default_config(problem, builder.arch)
    (evaluation,) = builder.evaluate(spec, problem, [config])
    assert (evaluation.status, evaluation.reason) == (Status.OK, None)
    works = spec.work(problem, config, builder.arch)
    assert [report.entry for report in evaluation.reports] == [work.entry for work in works]
    main = evaluation.reports[0]
    assert main.mma == spec.expected_mma(problem, config, builder.arch)
    assert 16 <= main.registers <= builder.arch.max_registers_per_thread
    if main.mma is not None:
        assert main.loop.get("mma", 0) > 0, "the main loop is the one with the matrix work"
    assert main.binary_bytes > 1000


_ALL = "kv_dtype=fp8,kv_scale=token,alibi=true,sinks=true"


@pytest.mark.parametrize(
    ("kernel", "gpu", "variant"),
    [
        ("paged_attention_decode", "a100", _ALL),
        ("paged_attention_decode", "rtx4090", "kv_dtype=int8,kv_scale=token"),
        ("paged_attention_decode", "h100", _ALL),
        ("paged_attention_decode", "mi300x", "kv_dtype=fp8,sinks=true"),
        ("paged_attention_decode", "mi300x", _ALL),
        ("paged_attention_prefill", "a100", "kv_dtype=int8"),
        ("paged_attention_prefill", "h100", _ALL),
        ("paged_attention_prefill", "b200", "kv_dtype=int8,kv_scale=token"),
        ("paged_attention_prefill", "rtx5090", _ALL),
        ("paged_attention_prefill", "mi300x", _ALL),
    ],
)
def test_variants_of_attention_are_sound(
    cache: Path, pool: WorkerPool, kernel: str, gpu: str, variant: str
) -> None:
    builder = Compiler(TemplateFolder(templates_dir()), cache, pool).builder(gpu)
    spec = load_kernel(kernel)
    problem = spec.problem_type.parse(variant)
    config = spec.default_config(problem, builder.arch)
    (evaluation,) = builder.evaluate(spec, problem, [config])
    assert (evaluation.status, evaluation.reason) == (Status.OK, None)
    main = evaluation.reports[0]
    assert main.mma == spec.expected_mma(problem, config, builder.arch)
    loaded = main.loop.get("load_global", 0) + main.loop.get("async_copy", 0)
    assert loaded >= 2, "the main loop is the one that loads keys and values"


@dataclass(frozen=True)
class CopyProblem(Problem):
    kernel: ClassVar[str] = "copy"

    dtype: str = exact("fp32", "dtype", ("fp32",))


class CopyKernel:
    """As much of a kernel as compiling takes; the template is the test's."""

    name: ClassVar[str] = "copy"
    template: ClassVar[str] = "copy.py.jinja"
    problem_type = CopyProblem

    def template_values(self, problem: CopyProblem, config: Config) -> dict[str, Any]:
        return {}

    def expected_mma(self, problem: CopyProblem, config: Config, arch: GpuArch) -> str | None:
        return "mma" if config["mma"] else None


TEMPLATE = """import triton
import triton.language as tl

TILE = tl.constexpr({{ tile }})


@triton.jit
def _positions():
    # Two lines of
    # comment.
    return tl.arange(0, TILE)


@triton.jit
def copy(to_ptr, from_ptr, count):
    offsets = tl.program_id(0) * TILE + _positions()
    values = tl.load(from_ptr + offsets, mask=offsets < count)
    tl.store(to_ptr + offsets, values, mask=offsets < count)


ENTRY_POINTS = {
    "copy": {
        "signature": {"to_ptr": "*fp32", "from_ptr": "*fp32", "count": "i32"},
        "unaligned": ("count",),
        "num_warps": 4,
        "num_stages": 1,
        "options": {"maxnreg": {{ registers }}},
    },
}
"""
GOOD = Config({"tile": 1024, "registers": 255, "mma": False})


@pytest.fixture
def copies(tmp_path: Path, pool: WorkerPool) -> Compiler:
    """A compiler of a template of our own, with a cache of its own."""
    (tmp_path / "copy.py.jinja").write_text(TEMPLATE)
    return Compiler(TemplateFolder(tmp_path), tmp_path, pool)


def compile_copy(compiler: Compiler, *configs: Config) -> list[Evaluation]:
    spec: Any = CopyKernel()
    return compiler.builder("a100").evaluate(spec, CopyProblem(), configs)


def test_a_compilation_error_names_file_line_and_cause(copies: Compiler) -> None:
    (evaluation,) = compile_copy(copies, GOOD.replace(tile=1000))
    assert evaluation.status is Status.COMPILE_ERROR
    assert evaluation.reason is not None
    path, line, cause = evaluation.reason.split(":", 2)
    assert Path(path).is_relative_to(copies.cache / "kernels")
    assert int(line) == 1 + HEADER_LINES + TEMPLATE.splitlines().index(
        "    return tl.arange(0, TILE)"
    )
    assert "power of 2" in cause


def test_faults_are_found_in_real_facts(copies: Compiler) -> None:
    plain, no_mma, spilling = compile_copy(
        copies, GOOD, GOOD.replace(mma=True), GOOD.replace(tile=8_192, registers=32)
    )
    assert plain.status is Status.OK
    assert no_mma.status is Status.WRONG_MMA
    assert spilling.status is Status.SPILLS


def test_a_source_is_compiled_once(copies: Compiler) -> None:
    builder, again = copies.builder("a100"), copies.builder("a100")
    spec: Any = CopyKernel()
    done: list[int] = []
    first = builder.evaluate(spec, CopyProblem(), [GOOD], lambda: done.append(1))
    second = again.evaluate(spec, CopyProblem(), [GOOD], lambda: done.append(2))
    assert second == first
    assert (builder.compiled, again.compiled) == (1, 0)
    assert done == [1, 2]


def test_compiling_twice_gives_the_same_code(copies: Compiler, tmp_path: Path) -> None:
    other = Compiler(copies.templates, tmp_path / "elsewhere", copies.pool)
    assert compile_copy(copies, GOOD) == compile_copy(other, GOOD)
