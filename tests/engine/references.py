"""What a checkpoint's engine is held against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUM_TOKENS = 24
PROMPT_LENGTHS = (3, 37, 18, 70, 1)


@dataclass(frozen=True)
class Reference:
    """A checkpoint, prompts, and their greedy continuations by Hugging Face in fp32."""

    folder: Path
    model: Any
    prompts: list[list[int]]
    outputs: list[list[int]]
