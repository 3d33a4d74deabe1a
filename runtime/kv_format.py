"""What a token takes in a KV cache."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.errors import InvalidParameterError
from runtime.model_sizes import ModelSizes
from runtime.models import FAMILIES

_SCALE_BYTES = 4
"""A float32, for each token and KV head, of its key and another of its value."""


@dataclass(frozen=True, slots=True)
class KVFormat:
    """How keys and values are stored: as they were computed, or as codes with scales."""

    dtype_name: str
    """Of a number: "bf16", "int8"."""
    number_bytes: int
    is_quantised: bool

    @classmethod
    def of(cls, kv_cache_dtype: str, dtype_name: str, dtype_bytes: int) -> KVFormat:
        """Take `kv_cache_dtype` of a configuration, and the type that is computed in."""
        if kv_cache_dtype == "auto":
            return cls(dtype_name, dtype_bytes, is_quantised=False)
        return cls(kv_cache_dtype, 1, is_quantised=True)

    @property
    def words(self) -> str:
        """For people."""
        return (
            f"{self.dtype_name} scaled by token and head" if self.is_quantised else self.dtype_name
        )

    def token_bytes(self, model: ModelSizes) -> int:
        """Of a token's key and value in all layers, scales included."""
        scale = _SCALE_BYTES if self.is_quantised else 0
        head = model.head_dim * self.number_bytes + scale
        return 2 * model.num_layers * model.num_kv_heads * head


def check_kv_cache_dtype(wanted: str, model: ModelSizes) -> None:
    """Refuse codes where transformers' code computes the model.

    Its paged path is held against its own attention when it is loaded, and that knows no codes.

    Raises:
        InvalidParameterError: `wanted` is not "auto", and the model is such a one.
    """
    if wanted != "auto" and model.impl != "native":
        raise InvalidParameterError(
            "kv_cache_dtype",
            wanted,
            f"auto for {model.architecture}, which transformers' code computes and checks itself "
            f"against; int8 and fp8 go with the native {', '.join(FAMILIES)}",
        )
