"""The numbers that an engine's quantised weights stand for, as a checkpoint for transformers."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from autotune.registry import QuantisedLayer
from runtime.checkpoint import Checkpoint
from runtime.quantised_tensors import WORDS, read_layer, round_weight, tensor_names
from runtime.weight_format import WeightFormat

_ROUNDED = re.compile(r".*\.layers\.\d+\..*_proj\.weight")
"""What the engine rounds: linears of layers, of every family."""


def dequantised(folder: Path, linears: WeightFormat, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Read a checkpoint with plain numbers in the place of levels, in fp32.

    Args:
        folder: of the model.
        linears: how the engine has its linears.
        dtype: that the engine computes in, and that its scales have.

    Raises:
        CheckpointError, WeightError: as the engine itself would.
    """
    found: dict[str, torch.Tensor] = {}
    with Checkpoint(folder) as checkpoint:
        if linears.is_rounding:
            for name in checkpoint:
                tensor = checkpoint.read(name)
                if _ROUNDED.fullmatch(name):
                    tensor = round_weight(tensor.to(dtype), linears).dense().float()
                found[name] = tensor
            return found
        layers = [name.removesuffix(f".{WORDS}") for name in checkpoint if name.endswith(WORDS)]
        taken = {name for layer in layers for name in tensor_names(checkpoint, layer)}
        found = {name: checkpoint.read(name) for name in checkpoint if name not in taken}
        for layer in layers:
            read = _read(checkpoint, layer, linears, dtype)
            found[f"{layer}.weight"] = read.dense().float()
    return found


def _read(
    checkpoint: Checkpoint, layer: str, linears: WeightFormat, dtype: torch.dtype
) -> QuantisedLayer:
    rows, columns = checkpoint.shape(f"{layer}.{WORDS}")
    fields = 32 // linears.bits
    shape = (columns * fields, rows) if linears.method == "awq" else (columns, rows * fields)
    return read_layer(checkpoint, layer, shape, linears, dtype, torch.device("cpu"))
