"""No tensor of a step grows with the context beyond what the path promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from references import Reference
from tiny_models import make_prompts
from torch.utils._python_dispatch import TorchDispatchMode

from runtime.config import EngineConfig
from runtime.engine import LLMEngine
from runtime.ops import torch_attention
from runtime.ops.torch_build import VARIABLE
from runtime.sampling_params import SamplingParams

BUDGET = 16
SHORT, LONG = 60, 240
SCRATCH = 65_536
"""Elements of the rows that a product keeps in the cache."""


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.num_elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.is_view or func._schema.name.endswith("_"):
            return result
        for found in result if isinstance(result, tuple | list) else [result]:
            if isinstance(found, torch.Tensor):
                self.num_elements = max(self.num_elements, found.numel())
        return result


def largest_tensor(found: Reference, length: int) -> int:
    """Most elements of a tensor while a prompt of `length` tokens is read in chunks of 16."""
    config = EngineConfig(
        found.folder,
        dtype="fp32",
        skip_tokenizer=True,
        max_num_seqs=1,
        max_num_batched_tokens=BUDGET,
        num_blocks=80,
    )
    engine = LLMEngine(config)
    engine.add_request("a", make_prompts([length])[0], SamplingParams(max_tokens=2))
    with LargestTensor() as largest:
        while engine.has_unfinished:
            engine.step()
    return largest.num_elements


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_with_kernels_no_tensor_depends_on_the_context(
    reference: Callable[[str], Reference], name: str
) -> None:
    found = reference(name)
    assert largest_tensor(found, LONG) == largest_tensor(found, SHORT) <= SCRATCH


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_without_kernels_scores_come_in_tiles(
    reference: Callable[[str], Reference], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    monkeypatch.setattr(torch_attention, "_MASKED_ELEMENTS", 1)
    monkeypatch.setattr(torch_attention, "_FEWEST_ROWS", 2)
    found = reference(name)
    heads, kv_heads, head_dim = 4, 2, 16
    context = (LONG + 8) * kv_heads * head_dim  # gathered where its blocks are scattered
    assert largest_tensor(found, LONG) <= max(2 * heads * LONG, context)
