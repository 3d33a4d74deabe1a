"""The requests of a run: random tokens, or conversations and prompts from a file."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runtime.bench.serve.settings import Dataset
from runtime.errors import InvalidParameterError

_RANDOM_OUTPUT_LEN, _CUSTOM_OUTPUT_LEN = 128, 256

_SAMPLE = (
    "The quick brown fox jumps over the lazy dog, and 1234567890 other things happen: rain falls, "
    "trains leave, people write letters, water boils at 100 degrees, a door opens. Why? Because "
    "every story needs words, numbers, and some (not many) signs; that is all there is to it!"
)
"""Its tokens are what random prompts are drawn from: ordinary ones, whatever the vocabulary."""

# What vllm bench serve leaves out of ShareGPT, so that figures stay comparable.
_MIN_LEN, _MAX_PROMPT_LEN, _MAX_LEN = 4, 1024, 2048


@dataclass(frozen=True, slots=True)
class Planned:
    """A request to be sent."""

    prompt: str | tuple[int, ...]
    prompt_len: int
    """Tokens, as far as known before the server has counted them."""
    output_len: int


class TextCoder(Protocol):
    """Tokens of a text, and the other way round."""

    async def encode(self, text: str) -> list[int]:
        """Token ids, special ones left out."""
        ...

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Text."""
        ...


async def plan_requests(dataset: Dataset, coder: TextCoder, *, as_text: bool) -> list[Planned]:
    """Make the requests of a run; the same for the same seed and tokenizer.

    Args:
        dataset: which.
        coder: of the model that is asked.
        as_text: whether prompts must be text, as in conversations.

    Raises:
        InvalidParameterError: the file cannot be read, or has no usable request.
    """
    makers: dict[str, Callable[..., Awaitable[list[Planned]]]] = {
        "random": _random,
        "sharegpt": _sharegpt,
        "custom": _custom,
    }
    return await makers[dataset.name](dataset, coder, as_text)


async def _random(dataset: Dataset, coder: TextCoder, as_text: bool) -> list[Planned]:
    source = random.Random(dataset.seed)
    pool = sorted(set(await coder.encode(_SAMPLE)))
    output_len = dataset.output_len or _RANDOM_OUTPUT_LEN
    prefix = source.choices(pool, k=dataset.prefix_len)

    def length(wanted: int) -> int:
        low, high = wanted * (1 - dataset.range_ratio), wanted * (1 + dataset.range_ratio)
        return max(1, source.randint(int(low), int(high)))

    found = []
    for _ in range(dataset.num_prompts):
        ids = (*prefix, *source.choices(pool, k=length(dataset.input_len)))
        prompt = await coder.decode(ids) if as_text else ids
        found.append(Planned(prompt, len(ids), length(output_len)))
    return found


async def _sharegpt(dataset: Dataset, coder: TextCoder, _: bool) -> list[Planned]:
    assert dataset.path is not None
    pairs = list(_first_turns(_read(dataset.path, json.loads), dataset.path))
    random.Random(dataset.seed).shuffle(pairs)
    found: list[Planned] = []
    for question, answer in pairs:
        if len(found) == dataset.num_prompts:
            break
        prompt_len = len(await coder.encode(question))
        output_len = dataset.output_len or len(await coder.encode(answer))
        is_usable = prompt_len >= _MIN_LEN and output_len >= _MIN_LEN
        if is_usable and prompt_len <= _MAX_PROMPT_LEN and prompt_len + output_len <= _MAX_LEN:
            found.append(Planned(question, prompt_len, output_len))
    return _repeat(found, dataset)


def _first_turns(values: Any, path: Path) -> Iterator[tuple[str, str]]:
    for value in values if isinstance(values, list) else ():
        turns = value.get("conversations") if isinstance(value, dict) else None
        if isinstance(turns, list) and len(turns) >= 2:
            texts = [turn.get("value") for turn in turns[:2] if isinstance(turn, dict)]
            match texts:
                case [str(question), str(answer)]:
                    yield question, answer


async def _custom(dataset: Dataset, coder: TextCoder, _: bool) -> list[Planned]:
    path = dataset.path
    assert path is not None
    found: list[Planned] = []
    for number, line in enumerate(_read(path, str.splitlines), start=1):
        if line.strip() and len(found) < dataset.num_prompts:
            prompt, count = _custom_line(line, f"{path}:{number}")
            output_len = dataset.output_len or count or _CUSTOM_OUTPUT_LEN
            found.append(Planned(prompt, len(await coder.encode(prompt)), output_len))
    return _repeat(found, dataset)


def _custom_line(line: str, where: str) -> tuple[str, int | None]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if isinstance(value, dict) and isinstance(value.get("prompt"), str):
        count = value.get("output_tokens")
        if count is None or (isinstance(count, int) and count >= 1):
            return value["prompt"], count
    accepts = '{"prompt": text}, and maybe "output_tokens": N'
    raise InvalidParameterError("dataset_path", where, accepts)


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidParameterError("dataset_path", str(path), f"a file: {error}") from error


def _repeat(found: list[Planned], dataset: Dataset) -> list[Planned]:
    """From the beginning again, until there are as many as asked for."""
    if not found:
        raise InvalidParameterError(
            "dataset_path", str(dataset.path), "a file with at least one usable request"
        )
    return [found[index % len(found)] for index in range(dataset.num_prompts)]
