"""Ranges that split decode attention cuts a context into: so many, or chunks of a fixed length.

So many (Flash-Decoding) suits one length of context. Chunks suit all: a sequence is cut by its own
length alone, short ones stay whole, and long ones spread over the GPU, whatever the batch. So one
choice can serve every size where sums have to come in one order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from autotune.config import Config
from autotune.knob import Constraint, Knob

VARIANT = Knob(
    "variant",
    ("unsplit", "split"),
    "one pass, or ranges merged by a second kernel",
    steady="split",
)
NUM_SPLITS = Knob(
    "num_splits",
    (1, 2, 4, 8, 16, 32, 64),
    "ranges of the context; of chunks the most there are",
    host=True,
    steady=32,
)
CHUNK_KNOBS = (
    Knob(
        "cut",
        ("number", "chunks"),
        "contexts become num_splits ranges each, or chunks by their own length",
        ordered=False,
        steady="chunks",
    ),
    Knob(
        "chunk_tokens",
        (0, 128, 256, 512, 1024, 2048, 4096),
        "tokens of a chunk; of longer ones where there would be more than num_splits",
        host=True,
        steady=256,
    ),
)
"""Variants: `cut` changes the binary, `chunk_tokens` the launch alone."""

RANGE_CONSTRAINTS = (
    Constraint(
        "one range is the unsplit variant",
        ("variant", "num_splits"),
        lambda variant, splits: (variant == "unsplit") == (splits == 1),
    ),
    Constraint(
        "only the split variant cuts contexts",
        ("variant", "cut"),
        lambda variant, cut: variant == "split" or cut == "number",
    ),
    Constraint(
        "cut=chunks and chunk_tokens go together",
        ("cut", "chunk_tokens"),
        lambda cut, tokens: (cut == "chunks") == (tokens > 0),
    ),
    Constraint(
        "so few chunks at most leave long contexts to few programs",
        ("num_splits", "cut"),
        lambda splits, cut: cut == "number" or splits >= 16,
    ),
)


@dataclass(frozen=True, slots=True)
class Ranges:
    """What a context of some number of tiles is cut into."""

    count: int
    """Programs of a sequence and KV head; with a number of splits some may be empty."""
    longest: int
    """Tiles of the longest range."""
    are_merged: bool
    """Whether they leave partial results to a second kernel."""


def ranges_of(config: Config, tiles: int) -> Ranges:
    """How a configuration cuts a context, as the template does; a block table no longer than it."""
    splits = config.number("num_splits")
    even = math.ceil(tiles / splits)
    if not is_chunked(config):
        return Ranges(splits, even, are_merged=splits > 1)
    longest = max(even, config.number("chunk_tokens") // config.number("tile"))
    return Ranges(max(1, math.ceil(tiles / longest)), min(longest, tiles), are_merged=True)


def is_chunked(config: Config) -> bool:
    """Whether ranges are chunks."""
    return config.get("cut", "number") == "chunks"


def range_values(config: Config) -> dict[str, Any]:
    """Names that the template derives from how contexts are cut."""
    return {"chunked": is_chunked(config)}
