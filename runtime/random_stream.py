"""Random numbers that depend on (seed, sequence, token index) and on nothing else.

No generator is kept: a number is a hash of its coordinates. So neither the neighbours in a batch,
nor chunking, nor preemption can change what a request samples. A sequence's key is a sha256 digest,
made once; its numbers follow from key and token index by SplitMix64 (Steele, Lea and Flood, 2014),
for all rows of a step at once.
"""

from __future__ import annotations

import struct
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

_DOMAIN = b"pagetune random stream 2\0"
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def stream_seed(engine_seed: int, request_id: str) -> int:
    """Seed of a request that brings none."""
    digest = sha256(_DOMAIN + struct.pack("<q", engine_seed) + request_id.encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def stream_key(seed: int, sequence_index: int) -> int:
    """Return the 64-bit name of one sequence's numbers."""
    digest = sha256(_DOMAIN + struct.pack("<qq", seed, sequence_index)).digest()
    return int.from_bytes(digest[:8], "little")


def uniforms(keys: NDArray[np.uint64], token_indices: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers in [0, 1), one per key and index, the same on every machine."""
    x = keys + (token_indices + np.uint64(1)) * _GOLDEN  # modulo 2 ** 64
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    x = x ^ (x >> np.uint64(31))
    numbers: NDArray[np.float64] = (x >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers
