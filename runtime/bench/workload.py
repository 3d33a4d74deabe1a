"""Fixed sets of requests, made from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Workload:
    """Prompts, and how many tokens to write after each; none ends early."""

    name: str
    prompts: tuple[tuple[int, ...], ...]
    output_lens: tuple[int, ...]

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens to read."""
        return sum(map(len, self.prompts))

    @property
    def num_output_tokens(self) -> int:
        """Tokens to write."""
        return sum(self.output_lens)

    @property
    def max_len(self) -> int:
        """Most tokens that a request has in the end."""
        return max(len(p) + n for p, n in zip(self.prompts, self.output_lens, strict=True))

    def first(self, count: int) -> Workload:
        """Return the same with its first requests only."""
        return Workload(self.name, self.prompts[:count], self.output_lens[:count])


def _mixed(vocab_size: int, seed: int) -> Workload:
    source = random.Random(seed)
    prompts = tuple(_tokens(source, source.randint(16, 256), vocab_size) for _ in range(32))
    return Workload("mixed", prompts, tuple(source.randint(16, 128) for _ in range(32)))


def _shared_prefix(vocab_size: int, seed: int) -> Workload:
    source = random.Random(seed)
    prefix = _tokens(source, 512, vocab_size)
    prompts = tuple(prefix + _tokens(source, source.randint(16, 64), vocab_size) for _ in range(32))
    return Workload("shared-prefix", prompts, (32,) * 32)


def _tokens(source: random.Random, count: int, vocab_size: int) -> tuple[int, ...]:
    return tuple(source.randrange(vocab_size) for _ in range(count))


WORKLOADS: Mapping[str, Callable[[int, int], Workload]] = {
    "mixed": _mixed,
    "shared-prefix": _shared_prefix,
}
"""Name -> made from (vocabulary size, seed): 32 requests of 16 to 256 tokens, or of 16 to 64 tokens
after the same 512."""
