"""Tiny models whose linears are quantised, saved as GPTQ and AWQ checkpoints are.

Levels, zeros and scales are chosen here with plain arithmetic; Hugging Face's model is given the
numbers that they stand for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from checkpoints import Layer, awq_tensors, gptq_tensors
from safetensors.torch import load_file, save_file
from tiny_models import save_model

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Case:
    """A family of `tiny_models.CONFIGS` and how its linears are quantised."""

    family: str
    method: str
    bits: int = 4
    group_size: int = 16
    version: int = 1
    symmetric: bool = False
    act_order: bool = False
    own_orders: tuple[str, ...] = ()
    """Endings of layers whose order is no other's."""
    plain: tuple[str, ...] = ()
    """Endings of layers that are left as they are."""
    head: bool = False
    """Whether the head is quantised, too."""

    @property
    def config(self) -> dict[str, Any]:
        """As in config.json."""
        found: dict[str, Any] = {"quant_method": self.method, "bits": self.bits}
        found["group_size"] = self.group_size
        if self.method == "awq":
            return {**found, "version": "gemm", "zero_point": True}
        form = "gptq" if self.version == 1 else "gptq_v2"
        more = {"sym": self.symmetric, "desc_act": self.act_order, "checkpoint_format": form}
        return found | more


CASES: Mapping[str, Case] = {
    "gptq": Case("llama", "gptq"),
    "gptq-act-order": Case(
        "llama3",
        "gptq",
        version=2,
        group_size=32,
        act_order=True,
        own_orders=("up_proj",),
        plain=("0.mlp.down_proj",),
    ),
    "gptq-8-by-output": Case("gemma2", "gptq", bits=8, group_size=-1, symmetric=True),
    "gptq-8-by-group": Case("phi3", "gptq", bits=8, group_size=8, version=2, head=True),
    "awq": Case("qwen2", "awq"),
}


def quantise(weight: torch.Tensor, case: Case, order_seed: int) -> Layer:
    """To the nearest of the levels between a group's extremes; scales are fp16."""
    n, k = weight.shape
    size = k if case.group_size == -1 else case.group_size
    group_of = torch.arange(k) // size
    if case.act_order:
        group_of = group_of[torch.randperm(k, generator=torch.Generator().manual_seed(order_seed))]
    top = 2**case.bits - 1
    groups = -(-k // size)
    scales, zeros = torch.empty((groups, n)).half(), torch.empty((groups, n)).long()
    for group in range(groups):
        part = weight[:, group_of == group]
        low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
        if case.symmetric:
            scales[group] = torch.maximum(-low, high) / (top // 2)
            zeros[group] = (top + 1) // 2
        else:
            scales[group] = (high - low) / top
            zeros[group] = (-low / scales[group].float()).round().clamp(0, top).long()
    steps = weight / scales.float()[group_of].T + zeros[group_of].T
    return Layer(steps.round().clamp(0, top).long(), zeros, scales, group_of)


def save_quantised(case: Case, folder: Path) -> Any:
    """Save a checkpoint; returns Hugging Face's model of the numbers that it stands for."""
    model = save_model(case.family, folder)
    tensors = load_file(folder / WEIGHTS)
    for name, parameter in model.named_parameters():
        layer = name.removesuffix(".weight")
        is_head = case.head and layer == "lm_head"
        if not (layer.endswith("_proj") or is_head) or layer.endswith(case.plain or "?"):
            continue
        # Layers of the same inputs have one order, as where they were quantised together.
        is_own = layer.endswith(case.own_orders or "?")
        seed = len(layer) if is_own else parameter.shape[1]
        found = quantise(parameter.data, case, seed)
        del tensors[name]
        made = (
            awq_tensors(found)
            if case.method == "awq"
            else gptq_tensors(found, case.bits, case.version)
        )
        if case.method == "gptq" and f"{layer}.bias" not in tensors:
            made["bias"] = torch.zeros(len(parameter))  # as AutoGPTQ writes them
        tensors |= {f"{layer}.{end}": tensor for end, tensor in made.items()}
        parameter.data.copy_(found.weights())
    save_file(tensors, folder / WEIGHTS)
    edit_config(folder, quantization_config=case.config)
    return model


def edit_config(folder: Path, **fields: Any) -> None:
    """Replace fields of config.json; None takes one out."""
    path = folder / "config.json"
    values = json.loads(path.read_text(encoding="utf-8")) | fields
    kept = {name: value for name, value in values.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")
