"""Names of KV blocks by content: a sha256 chain over token ids that starts at a tagged root.

The digest of a block covers its parent's digest, so equal digests mean equal whole prefixes. What
else the KV values depend on (an adapter, a tenant's salt) enters the root with its tag and its
length, so that an adapter's name can never pass for a salt. sha256, because an attacker who can
make two prefixes collide reads another's cache.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from hashlib import sha256

BlockHash = bytes

_DOMAIN = b"pagetune kv block 1\0"


def root_hash(extra_keys: Sequence[tuple[str, str]] = ()) -> BlockHash:
    """Digest that stands before the first block.

    Args:
        extra_keys: (tag, value) pairs; their order does not matter, a tag occurs once.
    """
    tags = [tag for tag, _ in extra_keys]
    assert len(set(tags)) == len(tags), f"a tag is given twice: {tags}"
    digest = sha256(_DOMAIN)
    for tag, value in sorted(extra_keys):
        for text in (tag, value):
            encoded = text.encode()
            digest.update(struct.pack("<Q", len(encoded)))
            digest.update(encoded)
    return digest.digest()


def block_hash(parent: BlockHash, token_ids: Sequence[int]) -> BlockHash:
    """Digest of one full block after `parent`; each token id takes 8 bytes."""
    return sha256(parent + array("q", token_ids).tobytes()).digest()


def extend_chain(
    chain: list[BlockHash],
    root: BlockHash,
    token_ids: Sequence[int],
    block_size: int,
    num_blocks: int,
) -> None:
    """Append to `chain` the digests of the blocks that it lacks, up to `num_blocks`."""
    assert num_blocks * block_size <= len(token_ids), "a block is hashed before it is full"
    for index in range(len(chain), num_blocks):
        parent = chain[-1] if chain else root
        chain.append(block_hash(parent, token_ids[index * block_size : (index + 1) * block_size]))
