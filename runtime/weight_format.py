"""How the weights of a model's linear layers are stored: what its config.json or a user says."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.config_fields import ConfigFields

ROUNDED = ("int8", "int4")
"""Formats that any checkpoint is rounded to when it is loaded."""
METHODS = ("gptq", "awq")
"""Values of `quant_method` that are read."""
_FIELD = "quantization_config"
_GPTQ_FORMATS = ("gptq", "gptq_v2")
_GROUPS = (128, 64, 32)
"""Sizes that kernels are tuned for, those that cost least memory first."""


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """Small integers with a scale, and mostly a zero, for each group of inputs."""

    method: str
    """One of `ROUNDED` or `METHODS`."""
    bits: int
    """4 or 8."""
    group_size: int
    """Inputs that share a scale; 0 for all. Of int4 the most."""
    zero_point: bool
    """Whether zeros are to be expected that are not the middle level."""
    checkpoint_format: str = "gptq"
    """How GPTQ stores zeros."""

    @classmethod
    def rounding(cls, name: str) -> WeightFormat:
        """To the nearest level: int8 by output, int4 by group, which may lie off zero."""
        assert name in ROUNDED
        return cls("int8", 8, 0, False) if name == "int8" else cls("int4", 4, _GROUPS[0], True)

    @property
    def is_rounding(self) -> bool:
        """Whether the checkpoint's own numbers are rounded when they are loaded."""
        return self.method in ROUNDED

    def group_of(self, k: int) -> int:
        """Group size in a layer of `k` inputs; int4 takes one that divides them, if any does."""
        if self.method != "int4":
            return self.group_size
        return next((size for size in _GROUPS if k % size == 0), _GROUPS[-1])

    def num_bytes(self, n: int, k: int, element_bytes: int) -> int:
        """Of a layer in memory; scales and zeros are numbers of `element_bytes`."""
        groups = -(-k // (self.group_of(k) or k))
        tables = 2 if self.zero_point else 1
        return n * k * self.bits // 8 + tables * groups * n * element_bytes

    @property
    def words(self) -> str:
        """For people."""
        groups = f"in groups of {self.group_size}" if self.group_size else "a scale per output"
        if self.method == "int4":
            groups = f"in groups of up to {self.group_size}"
        how = ", rounded to nearest" if self.is_rounding else f" of {self.bits} bits"
        return f"{self.method}{how}, {groups}"


def read_weight_format(fields: ConfigFields) -> WeightFormat | None:
    """Read the `quantization_config` of a config.json; None where it has none.

    Raises:
        ConfigFieldError: it asks for what is not supported; lists what is.
    """
    found = fields.nested(_FIELD)
    if found is None:
        return None
    method = found.text("quant_method")
    if method not in METHODS:
        raise found.error("quant_method", f"is {method!r}; supported are {', '.join(METHODS)}")
    return _gptq(found) if method == "gptq" else _awq(found)


def _gptq(fields: ConfigFields) -> WeightFormat:
    bits = fields.count("bits")
    if bits not in (4, 8):
        raise fields.error("bits", f"is {bits}; supported of gptq are 4 and 8")
    name = fields.text("checkpoint_format", "gptq")
    if name not in _GPTQ_FORMATS or fields.flag("is_marlin_format"):
        name = "marlin" if name in _GPTQ_FORMATS else name
        supported = ", ".join(_GPTQ_FORMATS)
        raise fields.error("checkpoint_format", f"is {name!r}; supported are {supported}")
    if fields.values.get("dynamic"):
        raise fields.error("dynamic", "is set: one format must hold for all layers")
    symmetric = fields.flag("sym", default=True)
    return WeightFormat("gptq", bits, _group_size(fields, "group_size"), not symmetric, name)


def _awq(fields: ConfigFields) -> WeightFormat:
    # AutoAWQ's own file has the second names.
    has_own = "w_bit" in fields.values and "bits" not in fields.values
    bits_name, group_name = ("w_bit", "q_group_size") if has_own else ("bits", "group_size")
    bits = fields.count(bits_name, 4)
    if bits != 4:
        raise fields.error(bits_name, f"is {bits}; supported of awq is 4")
    version = fields.text("version", "gemm")
    if version.lower() != "gemm":
        raise fields.error("version", f"is {version!r}; supported is gemm")
    return WeightFormat("awq", bits, _group_size(fields, group_name), True)


def _group_size(fields: ConfigFields, name: str) -> int:
    """128 where it is left out, as by those who write such files; 0 for -1, all inputs."""
    value = fields.values.get(name)
    if value == -1 and not isinstance(value, bool):
        return 0
    return fields.count(name, 128)
