"""Which prefix blocks running sequences are about to fill, so that others can wait for them."""

from __future__ import annotations

from runtime.block_hash import BlockHash
from runtime.sequence import Sequence


class PrefixPromises:
    """Digest -> the sequence that computes the block; kept, or dropped with the sequence's blocks.

    A promise is as good as the sequence's place on the device: one that is preempted or ends drops
    what it has not filled, and whoever waited for it goes on alone.
    """

    def __init__(self) -> None:
        self._makers: dict[BlockHash, Sequence] = {}

    def __contains__(self, digest: BlockHash) -> bool:
        return digest in self._makers

    def __bool__(self) -> bool:
        return bool(self._makers)

    def make(self, sequence: Sequence, first: int, end: int) -> None:
        """Promise blocks `first` to `end` of a sequence that starts, but for those of others."""
        for digest in sequence.block_hashes[first:end]:
            self._makers.setdefault(digest, sequence)

    def settle(self, sequence: Sequence, first: int, end: int | None = None) -> None:
        """Blocks `first` to `end` are findable now, or will never be by this sequence."""
        for digest in sequence.block_hashes[first:end]:
            if self._makers.get(digest) is sequence:
                del self._makers[digest]

    def check_integrity(self) -> None:
        """Assert that every promise is that of a sequence which will still fill the block."""
        for digest, sequence in self._makers.items():
            assert sequence.row is not None, f"{sequence} promises a block without a seat"
            unfilled = sequence.block_hashes[sequence.num_registered_blocks :]
            assert digest in unfilled, f"{sequence} promises a block that it has filled"
