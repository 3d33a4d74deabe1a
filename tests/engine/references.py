"""What a checkpoint's engine is held against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_models import hf_greedy, make_prompts

NUM_TOKENS = 24
PROMPT_LENGTHS = (3, 37, 18, 70, 1)


@dataclass(frozen=True)
class Reference:
    """A checkpoint, prompts, and their greedy continuations by Hugging Face in fp32."""

    folder: Path
    model: Any
    prompts: list[list[int]]
    outputs: list[list[int]]


def make_reference(folder: Path, model: Any) -> Reference:
    """Prompts, and what Hugging Face's model makes of them."""
    prompts = make_prompts(PROMPT_LENGTHS)
    outputs = [hf_greedy(model, prompt, NUM_TOKENS) for prompt in prompts]
    return Reference(folder, model, prompts, outputs)
