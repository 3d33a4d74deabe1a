"""Random numbers that depend on (seed, sequence, token index) and on nothing else.

No generator is kept: a number is a hash of its coordinates. So neither the neighbours in a batch,
nor chunking, nor preemption can change what a request samples.
"""

from __future__ import annotations

import struct
from hashlib import sha256

_DOMAIN = b"pagetune random stream 1\0"


def stream_seed(engine_seed: int, request_id: str) -> int:
    """Seed of a request that brings none."""
    digest = sha256(_DOMAIN + struct.pack("<q", engine_seed) + request_id.encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def uniform(seed: int, sequence_index: int, token_index: int) -> float:
    """A number in [0, 1), the same on every machine."""
    key = struct.pack("<qqq", seed, sequence_index, token_index)
    digest = sha256(_DOMAIN + key).digest()
    return (int.from_bytes(digest[:8], "little") >> 11) * 2.0**-53
