import dataclasses

import pytest
import torch
from checkpoints import Layer, gptq_tensors, random_layer, words

from autotune.errors import UnknownChoiceError, UsageError
from autotune.kernels.byte_split import dequantise, unpack
from autotune.kernels.gptq import GptqWeights, import_gptq


def imported(layer: Layer, group_size: int, bits: int = 4, version: int = 1) -> GptqWeights:
    name = "gptq" if version == 1 else "gptq_v2"
    tensors = gptq_tensors(layer, bits, version)
    return import_gptq(**tensors, group_size=group_size, bits=bits, checkpoint_format=name)


def test_nibble_i_of_a_word_is_row_8_r_plus_i() -> None:
    # Column 0 holds 0..15, column 1 counts down: all nibbles of a word differ.
    qweight = torch.tensor(
        [[0x76543210, -0x76543211], [-0x01234568, 0x01234567]], dtype=torch.int32
    )  # 0x76543210, 0x89ABCDEF; 0xFEDCBA98, 0x01234567
    found = import_gptq(
        qweight,
        torch.tensor([[0x77777777]], dtype=torch.int32),
        torch.ones((1, 2), dtype=torch.float16),
        group_size=-1,
    )
    levels = unpack(found.weights.packed, 4, 16)
    assert levels[0].tolist() == list(range(16))
    assert levels[1].tolist() == list(range(15, -1, -1))
    assert found.weights.zeros is None, "all zeros are 8"
    assert found.order is None


def test_zeros_of_0_and_15_in_both_formats() -> None:
    zeros = [0, 15, 8, 0, 0, 1, 15, 7]
    exact = words([zeros], 4)
    one_less = torch.tensor([[int(exact) - 0x11111111]], dtype=torch.int32)
    for stored, name in ((one_less, "gptq"), (exact, "gptq_v2")):
        found = import_gptq(
            torch.zeros((4, 8), dtype=torch.int32),
            stored,
            torch.ones((1, 8), dtype=torch.float16),
            group_size=32,
            checkpoint_format=name,
        )
        assert found.weights.zeros is not None
        assert found.weights.zeros.tolist() == [zeros], name


def test_the_first_format_stores_one_less() -> None:
    stored = torch.tensor([[0x6543210E]], dtype=torch.int32)  # no field overflows
    found = import_gptq(
        torch.zeros((4, 8), dtype=torch.int32),
        stored,
        torch.ones((1, 8), dtype=torch.float16),
        group_size=32,
    )
    assert found.weights.zeros is not None
    assert found.weights.zeros.tolist() == [[15, 1, 2, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(
    ("bits", "n", "k", "group_size"),
    [(4, 8, 64, 32), (4, 24, 200, 128), (4, 16, 40, -1), (8, 4, 96, 32), (8, 12, 68, 64)],
)
def test_one_hot_inputs_recover_every_weight(
    bits: int, n: int, k: int, group_size: int, act_order: bool, version: int
) -> None:
    layer = random_layer(n, k, bits, group_size, seed=k, act_order=act_order)
    found = imported(layer, group_size, bits, version)
    one_hot = torch.eye(k, dtype=torch.float64)
    if found.order is not None:
        one_hot = one_hot[:, found.order]
    assert torch.equal(one_hot @ dequantise(found.weights).T, layer.weights().T)
    assert (found.order is not None) == (act_order and group_size > 0)


def test_rows_of_a_group_keep_their_order() -> None:
    layer = random_layer(8, 96, 4, 32, seed=3, act_order=True)
    order = imported(layer, 32).order
    assert order is not None
    assert order.tolist() == sorted(range(96), key=lambda k: (int(layer.group_of[k]), k))


def test_scales_become_those_of_the_activations() -> None:
    layer = random_layer(8, 64, 4, 32, seed=5)
    tensors = gptq_tensors(layer, 4, 1)
    found = import_gptq(**tensors, group_size=32, dtype=torch.bfloat16)
    assert found.weights.scales.dtype == torch.bfloat16
    assert torch.equal(found.weights.scales, layer.scales.bfloat16())
    assert found.weights.zeros is not None
    assert torch.equal(found.weights.zeros.long(), layer.zeros)


def test_what_contradicts_itself_is_refused() -> None:
    layer = random_layer(8, 64, 4, 32, seed=1)
    tensors = gptq_tensors(layer, 4, 1)
    with pytest.raises(UnknownChoiceError, match="gptq_v2"):
        import_gptq(**tensors, group_size=32, checkpoint_format="v3")
    with pytest.raises(UsageError, match=r"takes scales \(1, 8\) and qzeros \(1, 1\)"):
        import_gptq(**tensors, group_size=64)
    with pytest.raises(UsageError, match="4 or 8 bits"):
        import_gptq(**tensors, group_size=32, bits=3)
    shard = {**tensors, "g_idx": torch.zeros(64, dtype=torch.int32)}
    with pytest.raises(UsageError, match="does not split 64 rows into groups of 32"):
        import_gptq(**shard, group_size=32)
    with pytest.raises(UsageError, match=r"g_idx has shape \(63,\)"):
        import_gptq(**{**tensors, "g_idx": torch.zeros(63)}, group_size=32)
    loud = dataclasses.replace(layer, scales=torch.full((2, 8), 1e5))
    with pytest.raises(UsageError, match="finite"):
        import_gptq(**gptq_tensors(loud, 4, 1), group_size=32, dtype=torch.float16)
