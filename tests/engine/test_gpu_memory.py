"""How many KV blocks a GPU's memory gives, told by a stand-in for the driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from references import Reference
from tiny_models import VOCAB_SIZE

from autotune.arch import GPUS
from runtime.checkpoint import Checkpoint
from runtime.config import EngineConfig
from runtime.engine_plan import plan_engine
from runtime.errors import InvalidParameterError
from runtime.gpu_memory import GpuMemory, weight_bytes

GIB = 1 << 30


def test_what_is_left_goes_to_the_blocks() -> None:
    memory = GpuMemory(total=80 * GIB, free=79 * GIB)
    # 72 GiB of 80, one of them in use, 16 for weights; 2 x 4 bytes x 2^11 x 2^17 for logits.
    assert memory.kv_bytes(0.9, 16 * GIB, 1 << 11, 1 << 17) == (72 - 1 - 16 - 2) * GIB


@pytest.mark.parametrize("share", [0.2, 1e-9])
def test_too_small_a_share_says_what_takes_it(share: float) -> None:
    with pytest.raises(InvalidParameterError, match=r"of 80.0 GiB, 1.0 are in use, weights take"):
        GpuMemory(80 * GIB, 79 * GIB).kv_bytes(share, 16 * GIB, 1 << 11, 1 << 17)


@pytest.mark.parametrize("share", [0, -0.5, 1.01, float("nan")])
def test_a_share_is_one(share: float) -> None:
    with pytest.raises(InvalidParameterError, match="gpu_memory_utilization"):
        EngineConfig(Path("m"), gpu_memory_utilization=share)


def test_weights_are_counted_in_the_type_they_will_have(
    reference: Callable[[str], Reference],
) -> None:
    folder = reference("llama").folder
    with Checkpoint(folder) as checkpoint:
        exact = sum(checkpoint.read(name).nbytes for name in checkpoint)
    assert exact <= weight_bytes(folder, 4, 4) < exact + 20_000  # the files' own tables
    assert weight_bytes(folder, 4, 2) == weight_bytes(folder, 4, 4) // 2


@pytest.mark.parametrize("share", [None, 0.5, 1.0])
def test_a_plan_for_a_gpu_takes_its_share(
    reference: Callable[[str], Reference], monkeypatch: pytest.MonkeyPatch, share: float | None
) -> None:
    small = GpuMemory(total=800 << 20, free=700 << 20)
    monkeypatch.setattr(GpuMemory, "of_absent", lambda gpu: small)
    folder, num_tokens = reference("llama").folder, 1 << 14
    config = EngineConfig(
        folder,
        gpu_memory_utilization=share,
        kv_cache_bytes=50 << 20,
        max_num_seqs=num_tokens,
        max_num_batched_tokens=num_tokens,
    )
    plan = plan_engine(config, gpu="a100")
    room = 50 << 20
    if share is not None:
        stored = plan.dtype.itemsize
        room = small.kv_bytes(share, weight_bytes(folder, stored, stored), num_tokens, VOCAB_SIZE)
    assert plan.limits.num_blocks == room // plan.bytes_per_block


def test_a_cpu_has_no_share(reference: Callable[[str], Reference]) -> None:
    folder = reference("llama").folder
    given, plain = (
        plan_engine(EngineConfig(folder, gpu_memory_utilization=share)).limits
        for share in (0.9, None)
    )
    assert given == plain


def test_absent_gpus_are_those_of_the_table() -> None:
    assert GpuMemory.of_absent("h200").total == GPUS["h200"].dram_bytes


def test_the_driver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 9))
    assert GpuMemory.of(torch.device("cuda")) == GpuMemory(total=9, free=5)
