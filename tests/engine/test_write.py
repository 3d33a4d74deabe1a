"""Keys and values go to their slots, rotated or as they are."""

from __future__ import annotations

import pytest
import torch

from runtime.kv_cache import KVCache
from runtime.model_input import ModelInput
from runtime.ops.torch_ops import TorchOps

STEP = ModelInput(
    token_ids=torch.tensor([5, 6, 7]),
    positions=torch.tensor([0, 1, 9]),
    slot_mapping=torch.tensor([4, 5, 11]),  # blocks of 4: the start of block 1, the end of 2
    block_tables=((1,), (5, 3, 2)),
    query_lens=(2, 1),
    context_lens=(2, 10),
    num_decodes=0,
    sample_rows=torch.tensor([1, 2]),
    block_size=4,
    tables=None,
)


def make_cache() -> KVCache:
    return KVCache(1, 6, 0, 4, 2, 8, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("is_strided", [False, True])
def test_write_changes_its_slots_only(is_strided: bool) -> None:
    packed = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
    key, value = packed.split(2, dim=1)  # [num_tokens, num_kv_heads, head_dim]
    if not is_strided:
        key, value = key.contiguous(), value.contiguous()
    ops, kv = TorchOps(), make_cache().layers[0]
    ops.write(key, value, kv, ops.plan(STEP, None))
    for pool, written in ((kv.key, key), (kv.value, value)):
        slots = pool.flatten(0, 1)
        assert torch.equal(slots[[4, 5, 11]], written)
        others = [slot for slot in range(24) if slot not in (4, 5, 11)]
        assert not slots[others].any()


def test_rotating_by_nothing_is_writing() -> None:
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(3, n, 8, generator=generator) for n in (4, 2, 2))
    still = torch.tensor([1.0, 0.0])[None, :, None].expand(10, 2, 4).contiguous()  # cosines, sines
    ops = TorchOps()
    written, rotated = make_cache().layers[0], make_cache().layers[0]
    ops.write(key, value, written, ops.plan(STEP, None))
    assert torch.equal(
        ops.rotate_and_write(query, key, value, rotated, ops.plan(STEP, still)), query
    )
    assert torch.equal(written.key, rotated.key)
    assert torch.equal(written.value, rotated.value)
