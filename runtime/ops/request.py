"""What an operation set is made for: a model's operations, and a device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from runtime.model_config import ModelConfig
from runtime.model_sizes import ModelSizes
from runtime.models import FAMILIES
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
class QuantisedShape:
    """A linear layer over levels: [num_tokens, k] -> [num_tokens, n]."""

    n: int
    k: int
    bits: int
    group_size: int
    """Inputs that share a scale; 0 for all."""
    zero_point: bool


@dataclass(frozen=True, slots=True)
class NormShape:
    """A root mean square norm over rows of `columns`, `rows_per_token` of them for each token."""

    columns: int
    has_residual: bool = False
    """Whether x + residual is normed, and that sum returned, too."""
    is_wide: bool = False
    """Whether the weight is in float32, and the product taken in it."""
    rows_per_token: int = 1


@dataclass(frozen=True, slots=True)
class CacheWrite:
    """Keys and values into their slots, rotated on the way with the queries, or as they are."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotary_dim: int
    """Leading dimensions that turn, in pairs (i, i + half); 0 where the model has done it."""


@dataclass(frozen=True, slots=True)
class Demands:
    """Operations of a model that kernels are tuned for."""

    attention: Mapping[AttentionSpec, int]
    """Kinds of attention, with the number of layers that have each."""
    mlp: MlpShape | None
    """None where the model's own code multiplies, or the weights are quantised."""
    quantised: tuple[QuantisedShape, ...] = ()
    """Linears over levels, as config.json makes expect."""
    norms: tuple[NormShape, ...] = ()
    """None where the model's own code norms."""
    writes: tuple[CacheWrite, ...] = ()

    @classmethod
    def of(cls, model: ModelSizes) -> Demands:
        """Read them off a model's config."""
        if not isinstance(model, ModelConfig):
            # By name only: its module loads transformers.
            calls = cast("GenericConfig", model).calls
            kinds = Counter(call.spec for call in calls)
            return cls(kinds, None, writes=_writes(kinds, 0))
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
        mlp: MlpShape | None = None
        if model.linears is None:
            mlp = MlpShape(
                model.intermediate_size, model.hidden_size, model.activation, model.mlp_bias
            )
        family = FAMILIES[model.architecture]
        hidden, is_wide = model.hidden_size, family.has_wide_norms
        norms = [NormShape(hidden, residual, is_wide) for residual in (False, True)]
        if family.has_head_norms:
            norms.append(NormShape(model.head_dim, rows_per_token=model.num_heads))
        return cls(
            kinds,
            mlp,
            _quantised(model),
            tuple(norms),
            _writes(kinds, model.rope.rotary_dim),
        )


def _quantised(model: ModelConfig) -> tuple[QuantisedShape, ...]:
    linears = model.linears
    if linears is None:
        return ()
    shapes = (
        QuantisedShape(n, k, linears.bits, linears.group_of(k), linears.zero_point)
        for n, k in model.linear_shapes
    )
    return tuple(dict.fromkeys(shapes))


def _writes(kinds: Iterable[AttentionSpec], rotary_dim: int) -> tuple[CacheWrite, ...]:
    shapes = ((kind.num_heads, kind.num_kv_heads, kind.head_dim) for kind in kinds)
    return tuple(dict.fromkeys(CacheWrite(*shape, rotary_dim) for shape in shapes))


@dataclass(frozen=True, slots=True)
class OpsRequest:
    """What `make` of an operation set takes."""

    demands: Demands
    device: torch.device
    results: Path | None = None
    """Folder of tuned results in place of the usual ones."""
    gpu: str | None = None
    """Plan for this GPU of the table, which may be absent: nothing will be run."""
    deterministic: bool = False
    """Sum in one order whatever the batch."""
