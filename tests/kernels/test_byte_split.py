import pytest
import torch

from autotune.errors import UsageError
from autotune.kernels.byte_split import (
    QuantisedWeights,
    dequantise,
    num_cells,
    num_groups,
    pack,
    quantise,
    unpack,
)


def random_levels(n: int, k: int, bits: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n * 1000 + k)
    return torch.randint(0, 1 << bits, (n, k), generator=generator, dtype=torch.uint8)


def test_byte_j_pairs_weights_j_and_j_plus_16() -> None:
    # Column 0 counts 0..15 twice, column 1 counts down: every nibble differs from its neighbours.
    up = torch.arange(16, dtype=torch.uint8)
    levels = torch.stack((torch.cat((up, up.flip(0))), torch.cat((up.flip(0), up))))
    packed = pack(levels, 4)
    assert packed.shape == (1, 2, 16)
    assert packed[0, 0].tolist() == [j | (15 - j) << 4 for j in range(16)]
    assert packed[0, 1].tolist() == [(15 - j) | j << 4 for j in range(16)]


def test_cells_of_eight_bits_are_sixteen_weights_in_order() -> None:
    levels = torch.arange(96, dtype=torch.uint8).reshape(2, 48)
    packed = pack(levels, 8)
    assert packed.shape == (4, 2, 16)  # K is padded from 48 to 64
    assert packed[1, 1].tolist() == list(range(64, 80))
    assert not packed[3].any()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 32), (5, 33), (16, 130), (7, 256)])
def test_unpack_inverts_pack(bits: int, n: int, k: int) -> None:
    levels = random_levels(n, k, bits)
    packed = pack(levels, bits)
    assert packed.shape == (num_cells(k, bits), n, 16)
    assert packed.is_contiguous()
    assert torch.equal(unpack(packed, bits, k), levels)


@pytest.mark.parametrize("bits", [4, 8])
def test_padding_is_zero(bits: int) -> None:
    packed = pack(torch.full((2, 40), (1 << bits) - 1, dtype=torch.uint8), bits)
    assert int(unpack(packed, bits, 64)[:, 40:].max()) == 0


def test_pack_refuses_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="value 16 does not fit 4 bits"):
        pack(torch.full((1, 32), 16, dtype=torch.uint8), 4)
    with pytest.raises(UsageError, match="4 or 8 bits"):
        pack(torch.zeros((1, 32), dtype=torch.uint8), 3)


@pytest.mark.parametrize("zero_point", [False, True])
@pytest.mark.parametrize("group_size", [0, 32, 128])
@pytest.mark.parametrize("bits", [4, 8])
def test_quantising_is_off_by_half_a_step_at_most(
    bits: int, group_size: int, zero_point: bool
) -> None:
    generator = torch.Generator().manual_seed(bits + group_size)
    weights = torch.randn((6, 200), generator=generator) + 0.3
    stored = quantise(weights, bits, group_size, zero_point)
    group_of = torch.arange(200) // (group_size or 200)
    steps = stored.scales.double().T[:, group_of]
    # With a zero point the ends of the range may fall half a step outside of the levels.
    assert bool(((dequantise(stored) - weights).abs() <= 0.501 * (1 + zero_point) * steps).all())
    assert (stored.zeros is not None) == zero_point
    assert stored.scales.shape == (num_groups(200, group_size), 6)


def test_one_sided_groups_use_zeros_0_and_15() -> None:
    positive = torch.linspace(0.0, 1.5, 32)
    stored = quantise(torch.stack((positive, -positive)), 4, 32, zero_point=True)
    assert stored.zeros is not None
    assert stored.zeros[0].tolist() == [0.0, 15.0]
    levels = unpack(stored.packed, 4, 32)
    assert (int(levels[0].min()), int(levels[0].max())) == (0, 15)
    assert (int(levels[1].min()), int(levels[1].max())) == (0, 15)


def test_zero_weights_stay_zero() -> None:
    weights = torch.zeros((2, 64), dtype=torch.float16)
    weights[1, 5] = 0.5
    for zero_point in (False, True):
        back = dequantise(quantise(weights, 4, 32, zero_point))
        assert torch.equal(back == 0, weights == 0)


def test_one_hot_inputs_recover_every_weight() -> None:
    levels = random_levels(8, 96, 4)
    scales = torch.rand((3, 8), generator=torch.Generator().manual_seed(1)).double()
    zeros = torch.arange(24, dtype=torch.float64).reshape(3, 8) % 16  # 0 and 15 among them
    stored = QuantisedWeights(pack(levels, 4), scales, zeros, 4, 32, 8, 96)
    columns = torch.eye(96, dtype=torch.float64) @ dequantise(stored).T  # [96, 8]
    for k in range(96):
        for n in range(8):
            expected = (int(levels[n, k]) - float(zeros[k // 32, n])) * float(scales[k // 32, n])
            assert float(columns[k, n]) == expected


def test_symmetric_weights_are_centred() -> None:
    levels = torch.arange(16, dtype=torch.uint8).repeat(2)[None, :]
    stored = QuantisedWeights(pack(levels, 4), torch.ones((1, 1)), None, 4, 0, 1, 32)
    assert dequantise(stored)[0, :16].tolist() == [float(q - 8) for q in range(16)]


def test_shapes_must_agree() -> None:
    packed = pack(random_levels(4, 64, 4), 4)
    with pytest.raises(UsageError, match=r"scales has shape \(2, 4\), not \(1, 4\)"):
        QuantisedWeights(packed, torch.ones((2, 4)), None, 4, 64, 4, 64)


def test_only_finite_weights_are_quantised() -> None:
    with pytest.raises(UsageError, match="finite"):
        quantise(torch.tensor([[float("inf")] * 32]), 4, 32, zero_point=False)
