"""The C kernels beside float64, on inputs whose unused memory is NaN."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from paged_steps import paged_step, random, reference_attention

from autotune.registry import QuantisedLayer
from runtime.ops.base import AttentionSpec
from runtime.ops.torch_build import VARIABLE, load_library
from runtime.ops.torch_library import CpuKernels
from runtime.ops.torch_ops import TorchOps
from runtime.ops.torch_pack import Activation, CpuLinear
from runtime.ops.torch_quantised import QuantisedCpuLinear

EPSILON = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}
ACTIVATIONS: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    Activation.SILU: torch.nn.functional.silu,
    Activation.GELU_TANH: lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
}
LAYOUTS = [
    # query_lens, context_lens: decodes, whole prompts, chunks behind a prefix
    ((1, 1, 1), (1, 64, 200)),
    ((1, 5, 33), (70, 5, 129)),
    ((130,), (130,)),
    ((2, 1, 64, 3), (2, 65, 190, 64)),
]
SPECS = [
    AttentionSpec(12, 4, 64, 0.125),
    AttentionSpec(4, 4, 12, 0.3, window=9),
    AttentionSpec(4, 1, 16, 0.25, softcap=2.0),
    AttentionSpec(8, 2, 80, 0.1, window=70, softcap=5.0),
    AttentionSpec(13, 1, 20, 0.2),
    AttentionSpec(2, 1, 256, 0.06),
]


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[request.param]


@pytest.fixture
def kernels() -> CpuKernels:
    return load(torch.float32)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def load(dtype: torch.dtype) -> CpuKernels:
    found = CpuKernels.load(dtype)
    assert found is not None, "the tests need a C compiler"
    return found


@pytest.mark.parametrize("shape", [(1, 1), (37, 70), (64, 256), (5, 300), (100, 769)])
@pytest.mark.parametrize("is_narrow", [False, True])
def test_linear(kernels: CpuKernels, shape: tuple[int, int], is_narrow: bool) -> None:
    weight, bias = random(*shape), random(shape[0])
    if is_narrow:
        weight = weight.bfloat16().float()
    linear = CpuLinear(kernels, weight, bias)
    assert (linear._panels.dtype == torch.bfloat16) == is_narrow
    for rows in (1, 2, 6, 7, 13, 97, 200):
        x = random(rows, shape[1])
        exact = x.double() @ weight.double().T + bias.double()
        scale = x.double().abs() @ weight.double().abs().T + bias.double().abs()
        error = (linear(x).double() - exact).abs()
        assert (error <= EPSILON[torch.float32] * shape[1] ** 0.5 * 2 * scale).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("has_bias", [False, True])
def test_gated_linear(kernels: CpuKernels, activation: Activation, has_bias: bool) -> None:
    for n, k in ((40, 33), (16, 300), (7, 48)):
        weight = random(2 * n, k) / k**0.5
        bias = random(2 * n) if has_bias else None
        linear = CpuLinear(kernels, weight, bias, activation)
        for rows in (1, 5, 101):
            x = random(rows, k)
            both = x.double() @ weight.double().T
            gate, up = (both if bias is None else both + bias.double()).chunk(2, dim=1)
            exact = ACTIVATIONS[activation](gate) * up
            assert torch.allclose(linear(x).double(), exact, rtol=1e-5, atol=2e-6)


def test_a_row_does_not_depend_on_its_neighbours(kernels: CpuKernels, two_threads: None) -> None:
    linear = CpuLinear(kernels, random(70, 600), random(70))
    x = random(150, 600)
    whole = linear(x)
    for low, high in ((0, 1), (3, 8), (10, 43), (149, 150)):
        assert torch.equal(linear(x[low:high]), whole[low:high])


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_attention(
    spec: AttentionSpec, layout: tuple[tuple[int, ...], ...], dtype: torch.dtype
) -> None:
    query_lens, context_lens = layout
    step, kv = paged_step(query_lens, context_lens, spec, dtype, block_size=7)
    query = random(sum(query_lens), spec.num_heads + 3, spec.head_dim, dtype=dtype)
    query = query[:, : spec.num_heads]  # tokens lie apart, as in a packed product
    found = load(dtype).attention(query, kv, step, spec)
    assert torch.allclose(
        found.double(),
        reference_attention(query, kv, step, spec),
        atol=4 * EPSILON[dtype] + 4e-6,
        rtol=2 * EPSILON[dtype],
    )


def test_attention_is_the_same_on_two_threads(two_threads: None) -> None:
    spec = SPECS[0]
    step, kv = paged_step((1, 40, 1, 9), (300, 90, 17, 9), spec, torch.float32, block_size=16)
    query = random(51, spec.num_heads, spec.head_dim)
    both = load(torch.float32).attention(query, kv, step, spec)
    torch.set_num_threads(1)
    assert torch.equal(load(torch.float32).attention(query, kv, step, spec), both)


@pytest.mark.parametrize("weight_dtype", [torch.float32, None])
@pytest.mark.parametrize("size", [3, 64, 77])
def test_rms_norm(dtype: torch.dtype, weight_dtype: torch.dtype | None, size: int) -> None:
    kernels = load(dtype)
    x, residual = random(5, size, dtype=dtype), random(5, size, dtype=dtype)
    weight = random(size, dtype=weight_dtype or dtype)
    tolerance = {"rtol": 4 * EPSILON[dtype], "atol": 1e-6}
    normed, same = kernels.rms_norm(x, None, weight, 1e-5)
    assert same is x
    assert torch.allclose(normed.double(), reference_norm(x, weight, 1e-5), **tolerance)
    normed, total = kernels.rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(total, x + residual)
    assert torch.allclose(normed.double(), reference_norm(total, weight, 1e-5), **tolerance)
    heads = random(4, 6, size, dtype=dtype)[:, 1:4]  # heads of a packed product
    normed, _ = kernels.rms_norm(heads, None, weight, 1e-5)
    assert normed.is_contiguous()
    assert torch.allclose(normed.double(), reference_norm(heads, weight, 1e-5), **tolerance)


@pytest.mark.parametrize("rotary_dim", [4, 10])
def test_rotate_and_write(dtype: torch.dtype, rotary_dim: int) -> None:
    spec = AttentionSpec(3, 2, 10, 1.0)
    step, kv = paged_step((2, 1), (12, 5), spec, dtype, block_size=4)
    packed = random(3, 7, 10, dtype=dtype)
    query, key, value = packed.clone().split((3, 2, 2), dim=1)
    angles = torch.rand(20, rotary_dim // 2, dtype=torch.float64) * 6
    table = torch.stack((angles.cos(), angles.sin()), dim=1).to(dtype)
    rotated = load(dtype).rotate_and_write(query, key, value, kv, table, step)
    tolerance = {"rtol": 2 * EPSILON[dtype], "atol": 2 * EPSILON[dtype]}
    expected = [reference_rotation(x, table[step.positions]) for x in packed.split((3, 2, 2), 1)]
    assert torch.allclose(rotated.double(), expected[0], **tolerance)
    keys, values = (x.flatten(0, 1)[step.slot_mapping] for x in (kv.key, kv.value))
    assert torch.allclose(keys.double(), expected[1], **tolerance)
    assert torch.equal(values, packed[:, 5:])


def test_kernels_can_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    assert CpuKernels.load(torch.float32) is None
    linear = TorchOps().linear(torch.ones(2, 3), None)
    assert linear(torch.ones(1, 3)).tolist() == [[3.0, 3.0]]


def test_a_compiler_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "empty"))
    monkeypatch.setenv("CC", "false")
    with caplog.at_level(logging.WARNING):
        assert load_library("fp32") is None
    assert "false cannot build them" in caplog.text
    monkeypatch.setenv("CC", "no-such-compiler")
    assert load_library("fp32") is None
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    monkeypatch.delenv("CC")
    monkeypatch.setenv(VARIABLE, str(open_to_all))
    assert load_library("fp32") is None
    assert "chmod 700" in caplog.text


def test_types_without_kernels() -> None:
    assert CpuKernels.load(torch.float16) is None


def reference_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    wide = x.double()
    return wide / (wide.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight.double()


def reference_rotation(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotate pairs as complex numbers."""
    half = angles.shape[-1]
    wide = x.double()
    pairs = torch.complex(wide[..., :half].contiguous(), wide[..., half : 2 * half].contiguous())
    turned = pairs * torch.complex(angles[:, 0].double(), angles[:, 1].double())[:, None]
    return torch.cat((turned.real, turned.imag, wide[..., 2 * half :]), dim=-1)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zero_point", [False, True])
def test_a_row_of_levels_has_the_same_bits_alone(
    kernels: CpuKernels, bits: int, zero_point: bool
) -> None:
    weight, x = random(70, 300), random(40, 300)
    layer = QuantisedLayer.rounded(weight, bits=bits, group_size=128, zero_point=zero_point)
    linear = QuantisedCpuLinear(kernels, layer, None)
    together = linear(x)
    assert torch.equal(together[:5], torch.cat([linear(x[i : i + 1]) for i in range(5)]))
    exact = x.double() @ layer.dense().T
    scale = x.double().abs() @ layer.dense().abs().T
    assert ((together.double() - exact).abs() <= 2.0**-19 * scale).all()
