"""What an operation set is made for: a model's operations, and a device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from runtime.model_config import ModelConfig
from runtime.model_sizes import ModelSizes
from runtime.ops.base import AttentionSpec

if TYPE_CHECKING:
    from runtime.generic.config import GenericConfig


@dataclass(frozen=True, slots=True)
class MlpShape:
    """Gate and up with their activation: [num_tokens, k] -> [num_tokens, n]."""

    n: int
    k: int
    activation: str
    has_bias: bool


@dataclass(frozen=True, slots=True)
class Demands:
    """Operations of a model that kernels are tuned for."""

    attention: Mapping[AttentionSpec, int]
    """Kinds of attention, with the number of layers that have each."""
    mlp: MlpShape | None
    """None where the model's own code multiplies."""

    @classmethod
    def of(cls, model: ModelSizes) -> Demands:
        """Read them off a model's config."""
        if not isinstance(model, ModelConfig):
            # By name only: its module loads transformers.
            calls = cast("GenericConfig", model).calls
            return cls(Counter(call.spec for call in calls), None)
        kinds = Counter(
            AttentionSpec(
                num_heads=model.num_heads,
                num_kv_heads=model.num_kv_heads,
                head_dim=model.head_dim,
                scale=model.attention_scale,
                window=window,
                softcap=model.attention_softcap,
            )
            for window in model.windows
        )
        mlp = MlpShape(model.intermediate_size, model.hidden_size, model.activation, model.mlp_bias)
        return cls(kinds, mlp)


@dataclass(frozen=True, slots=True)
class OpsRequest:
    """What `make` of an operation set takes."""

    demands: Demands
    device: torch.device
    results: Path | None = None
    """Folder of tuned results in place of the usual ones."""
    gpu: str | None = None
    """Plan for this GPU of the table, which may be absent: nothing will be run."""
