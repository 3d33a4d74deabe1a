"""Mistral (Jiang et al., 2023): Llama whose layers may look back on a window only."""

from __future__ import annotations

from runtime.models.llama import build

__all__ = ["build"]
