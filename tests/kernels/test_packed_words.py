import pytest
import torch
from checkpoints import words

from autotune.errors import UsageError
from autotune.kernels.packed_words import pack_words, unpack_words


def test_fields_of_a_negative_word_are_masked() -> None:
    # int32 shifts drag the sign along: the highest nibbles of this word would be -2, -1.
    word = torch.tensor([[-0x01234568]], dtype=torch.int32)  # 0xFEDCBA98
    assert unpack_words(word, 4).tolist() == [[8, 9, 10, 11, 12, 13, 14, 15]]
    assert unpack_words(word, 8).tolist() == [[0x98, 0xBA, 0xDC, 0xFE]]


def test_an_order_says_where_each_field_belongs() -> None:
    word = torch.tensor([[0x76543210]], dtype=torch.int32)
    found = unpack_words(word, 4, (0, 2, 4, 6, 1, 3, 5, 7))
    assert found.tolist() == [[0, 4, 1, 5, 2, 6, 3, 7]]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [1, 8, 13, 64])
def test_packing_agrees_with_python_s_integers(bits: int, columns: int) -> None:
    draw = torch.Generator().manual_seed(columns)
    levels = torch.randint(0, 1 << bits, (5, columns), generator=draw, dtype=torch.uint8)
    packed = pack_words(levels, bits)
    assert torch.equal(packed, words(levels.tolist(), bits))
    assert torch.equal(unpack_words(packed, bits)[:, :columns], levels)


def test_only_int32_and_4_or_8_bits() -> None:
    with pytest.raises(UsageError, match=r"int32 \[rows, words\], not int64 \(1, 1\)"):
        unpack_words(torch.zeros((1, 1), dtype=torch.int64), 4)
    with pytest.raises(UsageError, match="4 or 8 bits"):
        unpack_words(torch.zeros((1, 1), dtype=torch.int32), 3)
