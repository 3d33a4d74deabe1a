"""Codes and scales of a quantised KV cache: what is written, and what attention reads of it."""

from __future__ import annotations

import pytest
import torch
from paged_steps import numbers, paged_step, random, reference_attention, with_codes

from runtime.check.rounded_cache import rounded
from runtime.kv_cache import KVCache, LayerKV
from runtime.kv_codes import CODE_DTYPES, dequantise, quantise
from runtime.ops.base import AttentionSpec
from runtime.ops.torch_attention import AttentionPlan, attend
from runtime.ops.torch_library import CpuKernels
from runtime.ops.torch_ops import TorchOps

INT8, FP8 = CODE_DTYPES.values()
SPECS = [
    AttentionSpec(12, 4, 64, 0.125),
    AttentionSpec(4, 4, 12, 0.3, window=9),
    AttentionSpec(8, 2, 80, 0.1, window=70, softcap=5.0),
    AttentionSpec(13, 1, 20, 0.2),
]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def load(dtype: torch.dtype = torch.float32) -> CpuKernels:
    found = CpuKernels.load(dtype)
    assert found is not None, "the tests need a C compiler"
    return found


def hard_heads(head_dim: int) -> torch.Tensor:
    """Zeros, ties, tiny beside large, what is not finite: [num_tokens, 2, head_dim]."""
    x = torch.randn(9, 2, head_dim)
    x[0] = 0
    x[1, 0, 0] = torch.nan
    x[2, 1, 3] = torch.inf
    x[3, 0, 1] = -torch.inf
    x[4] *= 1e-38
    x[5] *= 1e38
    x[6] = torch.arange(-head_dim, head_dim).view(2, head_dim) + 0.5
    x[6, :, 0] = 127.0
    x[7, 0] = 448 * 2.0 ** -torch.arange(head_dim).float()
    x[7, 1] = torch.tensor([448.0, 17.0, 18.0, 19.0]).repeat(head_dim)[:head_dim] / 2**13
    return x


def test_int8_by_hand() -> None:
    x = torch.tensor([127.0, 0.5, 1.5, -2.5, -127.0, 0.49, 126.5, 3.2]).view(1, 1, 8)
    codes, scales = quantise(x, INT8)
    assert scales.tolist() == [[1.0]]
    assert codes.flatten().tolist() == [127, 0, 2, -2, -127, 0, 126, 3]
    assert torch.equal(rounded(x, "int8"), codes.float())


def test_fp8_by_hand() -> None:
    x = torch.tensor([448.0, 17.0, 19.0, -432.0, 2.0**-9, 2.0**-10, 3 * 2.0**-10, 0.3])
    codes, scales = quantise(x.view(1, 1, 8), FP8)
    assert scales.tolist() == [[1.0]]
    expected = [448.0, 16.0, 20.0, -448.0, 2.0**-9, 0.0, 2 * 2.0**-9, 0.3125]
    assert codes.float().flatten().tolist() == expected
    assert rounded(x, "fp8").tolist() == expected


@pytest.mark.parametrize("kv_dtype", CODE_DTYPES)
def test_numbers_come_back_as_by_definition(kv_dtype: str) -> None:
    x = hard_heads(16)[[0, 4, 5, 6, 7, 8]]
    found = dequantise(*quantise(x, CODE_DTYPES[kv_dtype]), torch.float32)
    assert torch.equal(found[0], torch.zeros(2, 16))
    assert torch.allclose(found[2:], rounded(x[2:], kv_dtype), rtol=1e-6, atol=0)
    largest = x.abs().amax(-1, keepdim=True)
    step = largest / (254 if kv_dtype == "int8" else 27)  # half of one at the largest number
    assert ((found[2:] - x[2:]).abs() <= step[2:]).all()


@pytest.mark.parametrize("kv_dtype", CODE_DTYPES)
def test_what_is_not_finite_stays_in_its_head(kv_dtype: str) -> None:
    codes, scales = quantise(hard_heads(16), CODE_DTYPES[kv_dtype])
    bad = {(1, 0), (2, 1), (3, 0)}
    assert {tuple(place) for place in scales.isnan().nonzero().tolist()} == bad
    for token, head in bad:
        assert not codes[token, head].float().any()
    assert (scales[~scales.isnan()] > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("head_dim", [12, 64])
@pytest.mark.parametrize("kv_dtype", CODE_DTYPES)
def test_c_kernels_write_the_same_bits(kv_dtype: str, head_dim: int, dtype: torch.dtype) -> None:
    still = torch.tensor([1.0, 0.0])[None, :, None].expand(16, 2, head_dim // 2).contiguous()
    key, value = hard_heads(head_dim).to(dtype), hard_heads(head_dim).flip(0).to(dtype)
    query = random(9, 4, head_dim, dtype=dtype)
    step, _ = paged_step((4, 5), (12, 5), AttentionSpec(4, 2, head_dim, 1.0), dtype, block_size=4)
    ours, plain = (
        KVCache(1, 8, 0, 4, 2, head_dim, dtype, torch.device("cpu"), kv_dtype) for _ in range(2)
    )
    kv = ours.layers[0]
    assert torch.equal(
        load(dtype).rotate_and_write(query.clone(), key, value, kv, still.to(dtype), step), query
    )
    ops = TorchOps(use_kernels=False)
    ops.write(key, value, plain.layers[0], ops.plan(step, None))
    for found, expected in zip(ours.tensors, plain.tensors, strict=True):
        assert torch.equal(found.device.view(torch.uint8), expected.device.view(torch.uint8))
    untouched = torch.ones(32, dtype=torch.bool)
    untouched[step.slot_mapping] = False
    assert not kv.key.view(torch.uint8).flatten(0, 1)[untouched].any()
    assert not kv.scales[0].flatten(0, 1)[untouched].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kv_dtype", CODE_DTYPES)
def test_attention_over_codes(spec: AttentionSpec, kv_dtype: str, dtype: torch.dtype) -> None:
    lens = ((1, 5, 33, 1), (70, 5, 129, 200))
    step, plain = paged_step(*lens, spec, dtype, block_size=7)
    kv = with_codes(plain, CODE_DTYPES[kv_dtype])
    query = random(40, spec.num_heads + 3, spec.head_dim, dtype=dtype)[:, : spec.num_heads]
    expected = reference_attention(query, kv, step, spec)
    largest = max(pool[pool.isfinite()].abs().amax().item() for pool in numbers(kv))
    epsilon = 2.0**-24 if dtype == torch.float32 else 2.0**-8
    found = load(dtype).attention(query, kv, step, spec)
    assert torch.allclose(
        found.double(), expected, atol=(4 * epsilon + 4e-6) * largest, rtol=2 * epsilon
    )
    if dtype == torch.float32:  # elsewhere PyTorch's attention rounds what it reads
        found = attend(query, kv, AttentionPlan(step, None), spec)
        assert torch.allclose(found.double(), expected, atol=2e-5 * largest, rtol=1e-5)


def test_a_layer_knows_what_it_holds() -> None:
    cpu = torch.device("cpu")
    for kv_dtype, number_bytes in (("auto", 2), ("int8", 1), ("fp8", 1)):
        cache = KVCache(3, 5, 2, 4, 2, 8, torch.bfloat16, cpu, kv_dtype)
        scale_bytes = 0 if kv_dtype == "auto" else 4
        assert cache.bytes_per_block == 3 * 2 * 4 * 2 * (8 * number_bytes + scale_bytes)
        assert len(cache.layers) == 3
        for kv in cache.layers:
            assert isinstance(kv, LayerKV)
            assert kv.is_quantised == (kv_dtype != "auto")
            assert kv.key.dtype == CODE_DTYPES.get(kv_dtype, torch.bfloat16)
            assert all(scales.shape == kv.key.shape[:3] for scales in kv.scales)
