"""From a model folder to a model in memory."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from runtime.checkpoint import Checkpoint, OnRead
from runtime.dummy_weights import DummyWeights
from runtime.errors import InvalidParameterError
from runtime.model_config import ModelConfig
from runtime.model_sizes import ModelSizes
from runtime.models import FAMILIES
from runtime.ops import OPERATION_SETS
from runtime.ops.base import OperationSet
from runtime.ops.request import OpsRequest
from runtime.weights import Weights

DTYPES: dict[str, Any] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""torch's types by our names."""


def load_model(
    folder: Path,
    config: ModelSizes,
    ops: OperationSet,
    dtype: torch.dtype,
    device: torch.device,
    max_len: int,
    on_read: OnRead | None = None,
    *,
    dummy_seed: int | None = None,
) -> Any:
    """Read the checkpoint into the model, converted to `dtype`; returns a `model_runner.Model`.

    `on_read` is told how many bytes have been read; not where transformers' code reads them.
    With a `dummy_seed` nothing is read: weights are random, and the folder has a config.json only.

    Raises:
        CheckpointError, WeightError: the weights are not there, or not those of this config.
        UnsupportedModelError: transformers' code for it gives something else with paged attention.
    """
    if not isinstance(config, ModelConfig):
        backend = importlib.import_module("runtime.models.transformers_backend")
        with Checkpoint(folder) as checkpoint:
            return backend.build(config, checkpoint, ops, dtype, device, max_len)
    family = importlib.import_module(FAMILIES[config.architecture].module)
    if dummy_seed is not None:
        made = DummyWeights(folder, dummy_seed, dtype, device, linears=config.linears)
        return family.build(config, made, ops, max_len)
    with Checkpoint(folder, on_read) as checkpoint:
        weights = Weights(checkpoint, dtype, device, linears=config.linears)
        return family.build(config, weights, ops, max_len)


def make_ops(name: str, request: OpsRequest) -> OperationSet:
    """Import an operation set, and make it for a model and a device.

    Raises:
        InvalidParameterError: there is none of this name; lists those that exist.
        DeviceError: it cannot run here.
        KernelError: its kernels cannot be had.
    """
    if name not in OPERATION_SETS:
        raise InvalidParameterError("ops", name, f"one of {', '.join(OPERATION_SETS)}")
    module, _, attribute = OPERATION_SETS[name].partition(":")
    ops: OperationSet = getattr(importlib.import_module(module), attribute)(request)
    return ops
