"""What templates need to know of paged attention's variants: quantised KV, ALiBi, sinks.

All of them are structure: where a variant is off, the rendered module has no trace of it.
"""

from __future__ import annotations

from typing import Any

from autotune.arch import GpuArch
from autotune.config import Config
from autotune.kernels.paged_attention import PagedAttentionProblem
from autotune.knob import Constraint, Knob

_TORCH_NAMES = {"int8": "int8", "fp8": "float8_e4m3fn"}
_SCALE_STRIDES = ("stride_scale_page", "stride_scale_token", "stride_scale_head")


def decode_knobs(problem: PagedAttentionProblem) -> tuple[Knob, ...]:
    """How fp8 becomes what the matrix unit multiplies; no knob for other caches."""
    if problem.kv_dtype != "fp8":
        return ()
    return (
        Knob(
            "fp8_decode",
            ("bits", "cast"),
            "integer operations on the bits, or the target's conversion",
            ordered=False,
        ),
    )


def decode_constraints(problem: PagedAttentionProblem, arch: GpuArch) -> tuple[Constraint, ...]:
    """Which GPUs convert e4m3fn: Ada and later. gfx942 has another fp8 (e4m3fnuz)."""
    if problem.kv_dtype != "fp8":
        return ()
    converts = arch.vendor == "nvidia" and arch.capability >= 89
    return (
        Constraint(
            "this GPU has no conversion from e4m3fn",
            ("fp8_decode",),
            lambda decode: decode == "bits" or converts,
        ),
    )


def default_decode(problem: PagedAttentionProblem, arch: GpuArch) -> dict[str, str]:
    """The conversion where there is one; nothing for other caches."""
    if problem.kv_dtype != "fp8":
        return {}
    converts = arch.vendor == "nvidia" and arch.capability >= 89
    return {"fp8_decode": "cast" if converts else "bits"}


def variant_values(problem: PagedAttentionProblem, config: Config) -> dict[str, Any]:
    """Names that the templates derive from the variants."""
    quantised = problem.kv_dtype != "auto"
    token_scales = quantised and problem.kv_scale == "token"
    fp8_bits = problem.kv_dtype == "fp8" and config["fp8_decode"] == "bits"
    # bf16 and fp32 weights have the range to be multiplied by any scale.
    running_unit = token_scales and problem.dtype == "fp16"
    cache_type = {"auto": problem.dtype, "int8": "i8", "fp8": "u8" if fp8_bits else "fp8e4nv"}

    tile_arguments: list[str] = []
    signature: dict[str, str] = {}
    launch: list[str] = []
    if quantised:
        signature |= {"k_scale_ptr": "*fp32", "v_scale_ptr": "*fp32"}
        launch += ["k_scale", "v_scale"]
    if token_scales:
        tile_arguments += ["k_scale_ptr", "v_scale_ptr", *_SCALE_STRIDES[:2]]
        signature |= dict.fromkeys(_SCALE_STRIDES, "i32")
        launch.append("*k_scale.stride()")
    per_head = [
        name for name, on in (("alibi_slopes", problem.alibi), ("sinks", problem.sinks)) if on
    ]
    if problem.alibi:
        tile_arguments.append("slopes_log2")
    return {
        "quantised": quantised,
        "token_scales": token_scales,
        "fp8_bits": fp8_bits,
        "running_unit": running_unit,
        "cache_type": cache_type[problem.kv_dtype],
        "cache_dtype": _TORCH_NAMES.get(problem.kv_dtype, ""),
        "value_factors": [
            *(["v_scale"] if quantised and not token_scales else []),
            *(["unit"] if running_unit else []),
            *(["256.0"] if fp8_bits else []),
        ],
        "tile_arguments": tile_arguments,
        "variant_signature": signature
        | dict.fromkeys([f"{name}_ptr" for name in per_head], "*fp32"),
        "launch_arguments": launch + per_head,
        "per_head_arguments": per_head,
        "scale_strides": list(_SCALE_STRIDES) if token_scales else [],
    }
