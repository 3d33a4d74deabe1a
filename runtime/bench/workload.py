"""Fixed sets of requests, made from a seed or read from a file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import InvalidParameterError


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

    def part(self, start: int, end: int) -> Workload:
        """Return the same with requests `start` to `end` - 1 only."""
        return Workload(self.name, self.prompts[start:end], self.output_lens[start:end])

    def first(self, count: int) -> Workload:
        """Return the same with its first requests only."""
        return self.part(0, count)

    def cut(self, num_tokens: int | None) -> Workload:
        """Return the same with at most so many output tokens each; None changes nothing."""
        if num_tokens is None:
            return self
        shorter = tuple(min(count, num_tokens) for count in self.output_lens)
        return Workload(self.name, self.prompts, shorter)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        return {"name": self.name, "prompts": self.prompts, "output_lens": self.output_lens}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Workload:
        """Make it of what `to_json` gave."""
        prompts = tuple(map(tuple, values["prompts"]))
        return cls(values["name"], prompts, tuple(values["output_lens"]))


def _mixed(vocab_size: int, seed: int) -> Workload:
    source = random.Random(seed)
    prompts = tuple(_tokens(source, source.randint(16, 256), vocab_size) for _ in range(32))
    return Workload("mixed", prompts, tuple(source.randint(16, 128) for _ in range(32)))


def _shared_prefix(vocab_size: int, seed: int) -> Workload:
    source = random.Random(seed)
    prefix = _tokens(source, 512, vocab_size)
    prompts = tuple(prefix + _tokens(source, source.randint(16, 64), vocab_size) for _ in range(32))
    return Workload("shared-prefix", prompts, (32,) * 32)


def _long(vocab_size: int, seed: int) -> Workload:
    prompt = _tokens(random.Random(seed), 32_752, vocab_size)
    return Workload("long", (prompt,), (16,))


def _uniform(vocab_size: int, seed: int) -> Workload:
    source = random.Random(seed)
    prompts = tuple(_tokens(source, source.randint(100, 1024), vocab_size) for _ in range(256))
    return Workload("uniform", prompts, tuple(source.randint(100, 1024) for _ in range(256)))


def _tokens(source: random.Random, count: int, vocab_size: int) -> tuple[int, ...]:
    return tuple(source.randrange(vocab_size) for _ in range(count))


WORKLOADS: Mapping[str, Callable[[int, int], Workload]] = {
    "mixed": _mixed,
    "shared-prefix": _shared_prefix,
    "long": _long,
    "uniform": _uniform,
}
"""Name -> made from (vocabulary size, seed): 32 requests of 16 to 256 tokens, or of 16 to 64 tokens
after the same 512; one request that ends with 32,768 tokens; 256 requests with 100 to 1,024 tokens
in and as many out, which is for GPUs, and what small engines are mostly compared on."""


def read_workload(path: Path, encode: Callable[[str], list[int]]) -> Workload:
    """Read JSON lines: {"prompt_token_ids": [...]} or {"prompt": "..."}, with "max_tokens".

    Args:
        path: the file.
        encode: text to token ids; called for lines with a "prompt" alone.

    Raises:
        InvalidParameterError: the file cannot be read, or a line is something else; names it.
    """
    prompts, output_lens = [], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameterError("workload", str(path), f"a readable file: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            prompt, count = _read_line(line, f"{path}:{number}")
            prompts.append(tuple(encode(prompt) if isinstance(prompt, str) else prompt))
            output_lens.append(count)
    if not prompts:
        raise InvalidParameterError("workload", str(path), "a file with at least one request")
    return Workload(path.name, tuple(prompts), tuple(output_lens))


def _read_line(line: str, where: str) -> tuple[str | list[int], int]:
    problem = (
        '{"prompt_token_ids": [token ids], "max_tokens": N} or {"prompt": text, "max_tokens": N}'
    )
    try:
        values: Any = json.loads(line)
    except ValueError as error:
        raise InvalidParameterError("workload", where, problem) from error
    if isinstance(values, dict) and values.keys() in (
        {"prompt", "max_tokens"},
        {"prompt_token_ids", "max_tokens"},
    ):
        count, text, ids = (
            values["max_tokens"],
            values.get("prompt"),
            values.get("prompt_token_ids"),
        )
        if _is_count(count) and count > 0:
            if isinstance(text, str) and text:
                return text, count
            if isinstance(ids, list) and ids and all(map(_is_count, ids)):
                return ids, count
    raise InvalidParameterError("workload", where, problem)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
