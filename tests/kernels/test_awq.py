import pytest
import torch
from checkpoints import awq_tensors, random_layer

from autotune.errors import UsageError
from autotune.kernels.awq import import_awq
from autotune.kernels.byte_split import dequantise, unpack


def test_nibbles_hold_columns_0_2_4_6_1_3_5_7() -> None:
    # Row 0: nibble i is i. Row 1: nibble i is 15 - i, and the word is negative.
    qweight = torch.tensor([[0x76543210], [-0x76543211]], dtype=torch.int32)
    found = import_awq(
        qweight,
        torch.tensor([[0x76543210]], dtype=torch.int32),
        torch.ones((1, 8), dtype=torch.float16),
        group_size=32,
    )
    assert unpack(found.packed, 4, 2).T.tolist() == [
        [0, 4, 1, 5, 2, 6, 3, 7],
        [15, 11, 14, 10, 13, 9, 12, 8],
    ]
    assert found.zeros is not None
    assert found.zeros.tolist() == [[0, 4, 1, 5, 2, 6, 3, 7]], "no offset"


def test_zeros_of_0_and_15() -> None:
    for word, zero in ((0, 0), (-1, 15)):
        found = import_awq(
            torch.zeros((32, 1), dtype=torch.int32),
            torch.tensor([[word]], dtype=torch.int32),
            torch.ones((1, 8), dtype=torch.float16),
            group_size=32,
        )
        assert found.zeros is not None
        assert found.zeros.tolist() == [[zero] * 8]


@pytest.mark.parametrize(
    ("n", "k", "group_size"), [(8, 64, 32), (24, 200, 128), (16, 37, -1), (8, 1, 64)]
)
def test_one_hot_inputs_recover_every_weight(n: int, k: int, group_size: int) -> None:
    layer = random_layer(n, k, 4, group_size, seed=k)
    found = import_awq(**awq_tensors(layer), group_size=group_size)
    one_hot = torch.eye(k, dtype=torch.float64)
    assert torch.equal(one_hot @ dequantise(found).T, layer.weights().T)


def test_weights_without_a_zero_point_are_symmetric() -> None:
    layer = random_layer(8, 32, 4, 32, seed=0)
    tensors = awq_tensors(layer)
    tensors["qzeros"] = torch.full((1, 1), -0x77777778, dtype=torch.int32)  # 0x88888888
    assert import_awq(**tensors, group_size=32).zeros is None


def test_other_versions_are_refused() -> None:
    layer = random_layer(16, 64, 4, 32, seed=2)
    tensors = awq_tensors(layer)
    gemv = {**tensors, "qweight": torch.zeros((16, 8), dtype=torch.int32)}
    with pytest.raises(UsageError, match='only version "gemm"'):
        import_awq(**gemv, group_size=32)
    loud = {**tensors, "scales": torch.full((2, 16), float("inf"))}
    with pytest.raises(UsageError, match="finite"):
        import_awq(**loud, group_size=32)
