"""Option types: what argparse turns words into, or refuses with a reason."""

from __future__ import annotations

import argparse


def positive_int(word: str) -> int:
    """A whole number of at least 1."""
    try:
        number = int(word)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a positive whole number")
    return number


def positive_float(word: str) -> float:
    """A finite number above 0."""
    try:
        number = float(word)
    except ValueError:
        number = 0.0
    if not 0.0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{word!r} is not a positive number")
    return number


def block_sizes(word: str) -> tuple[int, ...]:
    """Comma-separated multiples of 16 from 16 to 256."""
    sizes = []
    for part in word.split(","):
        size = int(part) if part.strip().isdigit() else 0
        if size % 16 or not 16 <= size <= 256:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not a KV block size; multiples of 16 from 16 to 256 are"
            )
        sizes.append(size)
    return tuple(dict.fromkeys(sizes))
