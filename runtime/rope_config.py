"""Which rotary embedding a model was trained with: the parameters, not the angles."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runtime.config_fields import ConfigFields


class RopeKind(StrEnum):
    """How the angles are stretched beyond the context of the first training."""

    DEFAULT = "default"
    LINEAR = "linear"
    LLAMA3 = "llama3"
    YARN = "yarn"
    LONGROPE = "longrope"


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Parameters by the names that Hugging Face configs give them."""

    kind: RopeKind
    theta: float
    rotary_dim: int
    """Leading dimensions of a head that are rotated; the rest passes through."""
    factor: float = 1.0
    original_max_position: int | None = None
    """Context of the first training."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    attention_factor: float | None = None
    """Factor on cosines and sines; None where the method derives it."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()


def read_rope_config(fields: ConfigFields, head_dim: int, max_position: int) -> RopeConfig:
    """Read `rope_parameters`, or the older `rope_theta` with `rope_scaling`.

    Raises:
        ConfigFieldError: a parameter is missing or wrong, or the method is not supported.
    """
    parameters = fields.nested("rope_parameters") or fields.nested("rope_scaling")
    if parameters is None:
        parameters = ConfigFields({}, fields.where)
    if any(isinstance(value, dict) for value in parameters.values.values()):
        raise fields.error("rope_parameters", "differs by layer type, which is not supported")
    theta = parameters.optional_number("rope_theta") or fields.number("rope_theta", 10_000.0)
    partial = parameters.optional_number("partial_rotary_factor") or fields.number(
        "partial_rotary_factor", 1.0
    )
    rotary_dim = int(head_dim * partial)
    if rotary_dim % 2 or not 2 <= rotary_dim <= head_dim:
        raise fields.error("partial_rotary_factor", f"gives {rotary_dim} of {head_dim} dimensions")
    kind = _kind(parameters)
    if kind is RopeKind.DEFAULT:
        return RopeConfig(kind, theta, rotary_dim)
    # Phi-3 states it beside the parameters, and means that where both do.
    original = fields.optional_count("original_max_position_embeddings") or parameters.count(
        "original_max_position_embeddings", max_position
    )
    if kind is RopeKind.LONGROPE:
        return RopeConfig(
            kind,
            theta,
            rotary_dim,
            factor=parameters.number("factor", max_position / original),
            original_max_position=original,
            attention_factor=parameters.optional_number("attention_factor"),
            short_factor=parameters.numbers("short_factor", rotary_dim // 2),
            long_factor=parameters.numbers("long_factor", rotary_dim // 2),
        )
    if kind is RopeKind.YARN:
        return RopeConfig(
            kind,
            theta,
            rotary_dim,
            factor=parameters.number("factor", max_position / original),
            original_max_position=original,
            attention_factor=parameters.optional_number("attention_factor"),
            beta_fast=parameters.number("beta_fast", 32.0),
            beta_slow=parameters.number("beta_slow", 1.0),
            mscale=parameters.optional_number("mscale"),
            mscale_all_dim=parameters.optional_number("mscale_all_dim"),
            truncate=parameters.flag("truncate", default=True),
        )
    factor = parameters.number("factor")
    if kind is RopeKind.LINEAR:
        return RopeConfig(kind, theta, rotary_dim, factor=factor)
    return RopeConfig(
        kind,
        theta,
        rotary_dim,
        factor=factor,
        original_max_position=original,
        low_freq_factor=parameters.number("low_freq_factor"),
        high_freq_factor=parameters.number("high_freq_factor"),
    )


def _kind(parameters: ConfigFields) -> RopeKind:
    field = "rope_type" if "rope_type" in parameters.values else "type"
    name = parameters.text(field, "default")
    if name == "su":
        name = "longrope"  # its name in the first Phi-3 checkpoints
    if name not in list(RopeKind):
        known = ", ".join(RopeKind)
        raise parameters.error(field, f"is {name!r}, which is not supported; one of {known} is")
    return RopeKind(name)
