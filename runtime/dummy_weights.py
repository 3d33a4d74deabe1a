"""Random weights in a model's shapes, made where they are used: no checkpoint is read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from runtime.errors import InvalidParameterError
from runtime.model_config import ModelConfig
from runtime.model_sizes import ModelSizes
from runtime.weight_format import WeightFormat
from runtime.weights import Weights

_STD = 0.02
"""Of matrices, as most families are initialised."""
_SEED_BYTES = 7


class DummyWeights(Weights):
    """Has every tensor that it is asked for: matrices are normal, norms' weights one, biases zero.

    A tensor depends on the seed, its name, its type and the kind of device alone; the parts of a
    packed layer are one tensor. As vLLM's `--load-format dummy`.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
        prefix: str = "",
        *,
        linears: WeightFormat | None = None,
    ) -> None:
        """Make tensors of a model whose config.json is in `folder`, rounded as `linears` says."""
        self.dtype = dtype
        self.device = device
        self._folder = folder
        self._seed = seed
        self._prefix = prefix
        self._linears = linears

    def scope(self, name: str) -> DummyWeights:
        """The tensors whose names start with this prefix and `name`."""
        prefix = f"{self._prefix}{name}."
        return DummyWeights(
            self._folder, self._seed, self.dtype, self.device, prefix, linears=self._linears
        )

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name: any."""
        return True

    def tensor(
        self, name: str, shape: Sequence[int], dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Make one tensor, in the model's type or in `dtype`."""
        made = torch.empty(tuple(shape), dtype=dtype or self.dtype, device=self.device)
        if len(made.shape) == 1:
            return made.fill_(float(name.endswith("weight")))
        digest = hashlib.sha256(f"{self._seed}/{self._prefix}{name}".encode()).digest()
        source = torch.Generator(self.device)
        source.manual_seed(int.from_bytes(digest[:_SEED_BYTES]))
        return made.normal_(0.0, _STD, generator=source)

    def check_all_taken(self, *, but: Sequence[str] = ()) -> None:
        """Nothing can be left over."""


def check_load_format(load_format: str, model: ModelSizes) -> None:
    """Refuse to make up what has more to it than shapes.

    Raises:
        InvalidParameterError: random weights are wanted of a packed checkpoint, or of a model that
            transformers' code computes.
    """
    if load_format != "dummy":
        return
    if not isinstance(model, ModelConfig):
        raise InvalidParameterError(
            "load_format",
            load_format,
            f"auto for {model.architecture}, which transformers' code computes and loads",
        )
    if model.linears is not None and not model.linears.is_rounding:
        raise InvalidParameterError(
            "load_format",
            load_format,
            f"auto for a {model.linears.method} checkpoint: random words are no levels and scales; "
            "take quantization_config out of config.json, and give --quantization int8 or int4",
        )
