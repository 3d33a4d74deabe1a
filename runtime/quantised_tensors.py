"""Reads the tensors that a GPTQ or AWQ checkpoint has of one linear layer, and checks them.

Every refusal names the file and the tensor: such checkpoints are often converted by hand.
"""

from __future__ import annotations

import torch

from autotune.registry import AutotuneError, QuantisedLayer
from runtime.checkpoint import Checkpoint
from runtime.errors import WeightError
from runtime.weight_format import WeightFormat

WORDS = "qweight"
"""Ends the name of the tensor that every quantised layer has."""
_WORD_BITS = 32


def tensor_names(checkpoint: Checkpoint, layer: str) -> list[str]:
    """Names of what a checkpoint has of a quantised layer, but a bias."""
    names = [f"{layer}.{end}" for end in (WORDS, "qzeros", "scales", "g_idx")]
    return [name for name in names if name in checkpoint]


def read_layer(
    checkpoint: Checkpoint,
    layer: str,
    shape: tuple[int, int],
    wanted: WeightFormat,
    dtype: torch.dtype,
    device: torch.device,
) -> QuantisedLayer:
    """Read a layer and turn it into the layout of the kernels.

    Args:
        checkpoint: that has its `qweight`.
        layer: full name.
        shape: n and k.
        wanted: what config.json says.
        dtype: of its scales; only this conversion may round.
        device: to put it on.

    Raises:
        WeightError: a tensor is missing, of another shape, or holds what no such layer does.
    """
    n, k = shape
    path = checkpoint.path(f"{layer}.{WORDS}")
    fields = _WORD_BITS // wanted.bits
    along = n if wanted.method == "awq" else k
    if along % fields:
        raise WeightError(
            f"{path}: {layer} has {along} columns, which words of {fields} do not hold"
        )
    groups = -(-k // (wanted.group_size or k))
    zeros = (groups, -(-n // fields))
    words = (k, n // fields) if wanted.method == "awq" else (k // fields, n)

    def read(end: str, shape: tuple[int, ...]) -> torch.Tensor:
        name = f"{layer}.{end}"
        if name not in checkpoint:
            raise WeightError(
                f"{path}: tensor {name!r} is missing beside {WORDS}: the checkpoint is not "
                f"complete as {wanted.method}; get it again, or export it again"
            )
        found = checkpoint.shape(name)
        if found != shape:
            raise WeightError(
                f"{checkpoint.path(name)}: tensor {name!r} has shape {list(found)}, but "
                f"config.json makes it {list(shape)} ({wanted.bits} bits, group_size "
                f"{wanted.group_size or -1}){_hint(end, found, groups, k)}"
            )
        return checkpoint.read(name).to(device)

    try:
        tensors = read(WORDS, words), read("qzeros", zeros), read("scales", (groups, n))
        if wanted.method == "awq":
            return QuantisedLayer.from_awq(*tensors, group_size=wanted.group_size, dtype=dtype)
        has_order = f"{layer}.g_idx" in checkpoint
        return QuantisedLayer.from_gptq(
            *tensors,
            read("g_idx", (k,)) if has_order else None,
            group_size=wanted.group_size,
            bits=wanted.bits,
            checkpoint_format=wanted.checkpoint_format,
            dtype=dtype,
        )
    except AutotuneError as error:
        raise WeightError(f"{path}: {layer}: {error}") from error


def round_weight(weight: torch.Tensor, wanted: WeightFormat) -> QuantisedLayer:
    """Round a plain weight [n, k] to the nearest levels; scales have its type.

    Raises:
        AutotuneError: a number is not finite.
    """
    assert wanted.is_rounding
    return QuantisedLayer.rounded(
        weight,
        bits=wanted.bits,
        group_size=wanted.group_of(weight.shape[1]),
        zero_point=wanted.zero_point,
    )


def _hint(end: str, found: tuple[int, ...], groups: int, k: int) -> str:
    """What to do about a wrong number of groups, where that is what is wrong."""
    if end == WORDS or len(found) != 2 or found[0] in (0, groups):
        return ""
    size = -1 if found[0] == 1 else -(-k // found[0])
    return f": its {found[0]} rows are groups of {size}; set group_size in quantization_config"
