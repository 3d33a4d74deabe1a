"""Hands a checkpoint's tensors to the layers that ask for them, by name, shape checked.

Layers ask for packed weights (qkv, gate and up in one); a checkpoint may hold them packed or in
parts: `PACKED` says which parts they are made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from autotune.registry import AutotuneError, QuantisedLayer
from runtime.checkpoint import Checkpoint
from runtime.errors import WeightError
from runtime.quantised_tensors import WORDS, read_layer, round_weight, tensor_names
from runtime.weight_format import WeightFormat
from runtime.weight_matrix import Matrix, join

PACKED: Mapping[str, tuple[str, ...]] = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
"""Packed name -> names of its parts, in the order of their rows."""

_LEFT_OVER_IS_FINE = (".rotary_emb.inv_freq",)
"""Buffers that old checkpoints hold, and that are computed."""


class Weights:
    """The tensors below one prefix of the checkpoint; `scope` goes a level down."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        device: torch.device,
        prefix: str = "",
        taken: set[str] | None = None,
        *,
        linears: WeightFormat | None = None,
    ) -> None:
        """Read from a checkpoint whose linear layers are, or are to be, quantised as `linears`."""
        self.dtype = dtype
        self.device = device
        self._checkpoint = checkpoint
        self._linears = linears
        self._prefix = prefix
        self._taken: set[str] = set() if taken is None else taken

    def scope(self, name: str) -> Weights:
        """The tensors whose names start with this prefix and `name`."""
        prefix = f"{self._prefix}{name}."
        return Weights(
            self._checkpoint, self.dtype, self.device, prefix, self._taken, linears=self._linears
        )

    def has(self, name: str) -> bool:
        """Whether the checkpoint has a tensor of this name."""
        return self._prefix + name in self._checkpoint

    def tensor(
        self, name: str, shape: Sequence[int], dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Read one tensor, converted to the model's type or to `dtype`.

        Raises:
            WeightError: it is missing, or of another shape.
        """
        full = self._prefix + name
        where = self._checkpoint.folder
        if full not in self._checkpoint:
            words = full.removesuffix("weight") + WORDS
            hint = ""
            if words in self._checkpoint:
                hint = f", which has {words!r}: config.json lacks a quantization_config"
            raise WeightError(f"{where}: tensor {full!r} is missing{hint}")
        found = self._checkpoint.shape(full)
        if found != tuple(shape):
            raise WeightError(
                f"{where}: tensor {full!r} has shape {list(found)}, but config.json makes it "
                f"{list(shape)}"
            )
        self._taken.add(full)
        return self._checkpoint.read(full).to(device=self.device, dtype=dtype or self.dtype)

    def linear(
        self,
        name: str,
        rows: Sequence[int],
        columns: int,
        *,
        bias: bool,
        is_head: bool = False,
    ) -> tuple[Matrix, torch.Tensor | None]:
        """Read weight and bias of a linear layer, packed from its parts if need be.

        Args:
            name: of the layer; where the checkpoint lacks it, `PACKED` names its parts.
            rows: outputs of each part.
            columns: inputs.
            bias: whether the layer has one.
            is_head: whether it gives the logits, which is never rounded here.

        Returns:
            [sum of rows, columns], and [sum of rows] or None.

        Raises:
            WeightError: a tensor is missing, or of another shape.
        """
        parts = PACKED.get(name, ())
        if not parts or self.has(f"{name}.weight") or self.has(f"{name}.{WORDS}"):
            parts, rows = (name,), (sum(rows),)
        assert len(parts) == len(rows), f"{name} has {len(parts)} parts"
        pairs = list(zip(parts, rows, strict=True))
        weight = join([self._matrix(part, (n, columns), is_head) for part, n in pairs])
        if not bias:
            return weight, None
        return weight, _joined([self.tensor(f"{part}.bias", (n,)) for part, n in pairs])

    def _matrix(
        self, name: str, shape: tuple[int, int], is_head: bool
    ) -> torch.Tensor | QuantisedLayer:
        """Read one matrix, quantised or to be rounded where the format says so."""
        wanted = self._linears
        if wanted is not None and not wanted.is_rounding and self.has(f"{name}.{WORDS}"):
            full = self._prefix + name
            layer = read_layer(self._checkpoint, full, shape, wanted, self.dtype, self.device)
            self._taken.update(tensor_names(self._checkpoint, full))
            self._skip_zero_bias(full)
            return layer
        weight = self.tensor(f"{name}.weight", shape)
        if wanted is None or not wanted.is_rounding or is_head:
            return weight
        try:
            return round_weight(weight, wanted)
        except AutotuneError as error:
            file = self._checkpoint.path(f"{self._prefix}{name}.weight")
            raise WeightError(f"{file}: tensor '{self._prefix}{name}.weight': {error}") from error

    def _skip_zero_bias(self, layer: str) -> None:
        """Take the bias of zeros that writers give to quantised layers of models without any."""
        name = f"{layer}.bias"
        if name in self._checkpoint and not bool(self._checkpoint.read(name).any()):
            self._taken.add(name)

    def check_all_taken(self, *, but: Sequence[str] = ()) -> None:
        """Refuse tensors that no layer has asked for: the model would not be what was trained.

        Args:
            but: names that may be left over.

        Raises:
            WeightError: names up to three of them.
        """
        left = [
            name
            for name in self._checkpoint
            if name not in self._taken and name not in but and not name.endswith(_LEFT_OVER_IS_FINE)
        ]
        if left:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            raise WeightError(
                f"{self._checkpoint.folder}: no layer of this architecture takes the tensors "
                f"{', '.join(sorted(left)[:3])}{more}"
            )


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
