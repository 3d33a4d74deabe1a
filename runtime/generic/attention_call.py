"""One place in a model that attends: what `probe` found, and what `paged_attention` relies on."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.ops.base import AttentionSpec


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """An attention module and how it calls the interface."""

    module: str
    """Its name within the model."""
    spec: AttentionSpec
    """`head_dim` is the larger one of keys and values; the smaller ones are padded with zeros."""
    key_dim: int
    value_dim: int
