"""Structural variants cross-compiled for every kind of target, and what they do to the facts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.arch import lookup
from autotune.build import Builder
from autotune.config import KnobValue
from autotune.kernels import load_kernel
from autotune.paths import templates_dir
from autotune.pool import WorkerPool
from autotune.problem import Problem
from autotune.records import CompileReport, Status
from autotune.render import TemplateFolder

W4 = "group_size=128,n=28672,k=4096"
GATE_UP = "part=gate_up,n=14336,k=4096"
DOWN = "part=down,activation=none,n=4096,k=14336"
DECODE = "group=4,block_size=16"
KERNELS = {
    W4: "dequant_gemm",
    GATE_UP: "fused_mlp",
    DOWN: "fused_mlp",
    DECODE: "paged_attention_decode",
}

PLAIN: dict[str, dict[str, KnobValue]] = {
    W4: {"kind": "gemm", "block_m": 16, "block_n": 64, "block_k": 128, "swap_ab": False,
         "dequant": "sub_mul", "num_warps": 4, "num_stages": 3, "weight_eviction": "",
         "split_k": 1},
    GATE_UP: {"block_m": 64, "block_n": 64, "block_k": 64, "num_warps": 4, "num_stages": 3,
              "swap_ab": False, "group_m": 8, "schedule": "tiles", "gate_layout": "two_dots"},
    DOWN: {"block_m": 16, "block_n": 64, "block_k": 64, "num_warps": 4, "num_stages": 3,
           "swap_ab": False, "group_m": 1, "schedule": "tiles", "variant": "split_k",
           "num_splits": 4},
    DECODE: {"variant": "split", "tile": 32, "lookup": "pages", "prefetch": True,
             "tail": "split_loop", "num_warps": 4, "num_stages": 3, "num_splits": 32},
}  # fmt: skip


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerPool]:
    cache = tmp_path_factory.mktemp("variants") / "triton"
    with WorkerPool(2, {**os.environ, "TRITON_CACHE_DIR": str(cache)}) as found:
        yield found


class Facts:
    """Compiles variants of a few usual configurations for one GPU."""

    def __init__(self, gpu: str, pool: WorkerPool, cache: Path) -> None:
        self.arch = lookup(gpu)
        self.builder = Builder(self.arch, TemplateFolder(templates_dir()), cache, pool)

    def of(self, axes: str, *variants: dict[str, KnobValue], also: str = "") -> list[CompileReport]:
        """Facts of the main entry points; each must be sound, its matrix class the expected."""
        spec = load_kernel(KERNELS[axes])
        problem: Problem = spec.problem_type.parse(axes + also)
        space = spec.space(problem, self.arch)
        configs = [space.config(**{**PLAIN[axes], **variant}) for variant in variants]
        found = self.builder.evaluate(spec, problem, configs)
        for config, evaluation in zip(configs, found, strict=True):
            assert (evaluation.status, evaluation.reason) == (Status.OK, None), config
            works = spec.work(problem, config, self.arch)
            assert [r.entry for r in evaluation.reports] == [work.entry for work in works]
        return [evaluation.reports[0] for evaluation in found]


@pytest.mark.parametrize("gpu", ["a100", "l4", "h100", "b200", "rtx5090", "mi300x"])
def test_variants_compile(gpu: str, pool: WorkerPool, tmp_path: Path) -> None:
    facts = Facts(gpu, pool, tmp_path)
    target = facts.arch.target
    half = ",dtype=fp16" if target in ("sm_80", "sm_89") else ""  # their atomic sums
    wide = {"sm_90": "wgmma", "sm_100": "tcgen05", "gfx942": "mfma"}.get(target, "mma")
    narrow = "mfma" if target == "gfx942" else "mma"
    atomic: dict[str, KnobValue] = {"reduction": "atomic"}

    split: dict[str, KnobValue] = {"kind": "split_k", "split_k": 4}
    plain, swapped, _ = facts.of(W4, {}, {"swap_ab": True}, {**split, **atomic}, also=half)
    assert (plain.mma, swapped.mma) == (narrow, wide)
    short: dict[str, KnobValue] = {"block_k": 64}
    (cells,) = facts.of(W4, short, also=half)
    (words,) = facts.of(W4, short, also=f"{half},layout=gptq_i32")
    if facts.arch.vendor == "nvidia":  # elsewhere the next tile waits in registers
        assert words.shared_bytes > 3 * cells.shared_bytes, "a word for every weight"
    facts.of(DOWN, atomic, also=half)


@pytest.mark.parametrize("gpu", ["h100", "b200", "rtx5090"])
def test_descriptors_copy_a_tile_at_once(gpu: str, pool: WorkerPool, tmp_path: Path) -> None:
    facts = Facts(gpu, pool, tmp_path)
    described: dict[str, KnobValue] = {"load": "descriptor"}
    loop: dict[str, KnobValue] = {**described, "schedule": "persistent", "num_stages": 2}
    pointer, tiles, flat = facts.of(GATE_UP, {}, described, {**loop, "flatten": True})
    assert pointer.loop["async_copy"] > 3
    assert (tiles.loop["async_copy"], flat.loop["async_copy"]) == (3, 3), "x, gate and up"
    assert "store_global" not in tiles.loop
    assert flat.loop["store_global"] > 0, "the epilogue is in the one loop"
    (down,) = facts.of(DOWN, {**described, "reduction": "atomic"})
    assert down.loop["async_copy"] == 2


def test_amd_options_change_the_binary(pool: WorkerPool, tmp_path: Path) -> None:
    facts = Facts("mi300x", pool, tmp_path)
    options: list[dict[str, KnobValue]] = [
        {}, {"waves_per_eu": 2}, {"matrix_instr_nonkdim": 16}, {"kpack": 2}
    ]  # fmt: skip
    large: dict[str, KnobValue] = {"block_m": 128, "num_stages": 2}
    plain, waves, shape, packed = facts.of(GATE_UP, *({**large, **o} for o in options))
    assert shape.loop["mma"] == 2 * plain.loop["mma"], "16 rows each, not 32"
    assert waves.registers <= 256, "512 registers of a lane, two waves"
    assert len({r.binary_sha for r in (plain, waves, shape, packed)}) == 4


@pytest.mark.parametrize("gpu", ["a100", "h100", "rtx5090", "mi300x"])
def test_chunks_compile(gpu: str, pool: WorkerPool, tmp_path: Path) -> None:
    facts = Facts(gpu, pool, tmp_path)
    (chunked,) = facts.of(DECODE, {"cut": "chunks", "chunk_tokens": 256})
    assert chunked.stack_bytes == 0
    assert chunked.registers <= 128, "four warps, 32 keys"
    assert chunked.loop["mma"] > 0
