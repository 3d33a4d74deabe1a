"""Names of blocks: no two prefixes, salts or adapters share one."""

from __future__ import annotations

import pytest

from runtime.block_hash import block_hash, extend_chain, root_hash
from runtime.sequence import Request


def test_a_salt_and_an_adapter_of_the_same_name_are_told_apart() -> None:
    salted = Request("a", (1,), cache_salt="x").root_hash()
    adapted = Request("b", (1,), lora_name="x").root_hash()
    both = Request("c", (1,), lora_name="x", cache_salt="x").root_hash()
    assert len({salted, adapted, both, root_hash()}) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("a", "bc")], [("ab", "c")]),
        ([("a", "")], []),
        ([("a", "b"), ("c", "d")], [("a", "bcd")]),
        ([("a", "x")], [("b", "x")]),
    ],
)
def test_extra_keys_that_read_alike_do_not_collide(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    assert root_hash(one) != root_hash(other)


def test_the_order_of_extra_keys_does_not_matter() -> None:
    assert root_hash([("a", "1"), ("b", "2")]) == root_hash([("b", "2"), ("a", "1")])


def test_a_block_is_named_by_its_whole_prefix() -> None:
    root = root_hash()
    first, second = block_hash(root, [1, 2]), block_hash(root, [3, 4])
    assert block_hash(first, [3, 4]) != block_hash(second, [3, 4])
    assert block_hash(root, [1, 256]) != block_hash(root, [257, 0])
    chain: list[bytes] = []
    extend_chain(chain, root, [1, 2, 3, 4, 5], block_size=2, num_blocks=1)
    extend_chain(chain, root, [1, 2, 3, 4, 5], block_size=2, num_blocks=2)
    assert chain == [first, block_hash(first, [3, 4])]


def test_a_block_is_hashed_only_when_full() -> None:
    with pytest.raises(AssertionError, match="before it is full"):
        extend_chain([], root_hash(), [1, 2, 3], block_size=2, num_blocks=2)
