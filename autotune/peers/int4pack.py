"""The 4-bit product inside torch, `aten._weight_int4pack_mm` (tinygemm), over our weights.

It computes x · ((q − 8) · scale + zero); with our q − z that is zero = (8 − z) · scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autotune.kernels.byte_split import unpack
from autotune.kernels.spec import Inputs
from autotune.peers.refusal import PeerError
from autotune.problem import Problem

if TYPE_CHECKING:
    pass

_INNER_K_TILES = 8
_MIDDLE = 8


def int4pack(problem: Problem, inputs: Inputs) -> Callable[[], Any]:
    """Pack ahead, multiply in the launch; bf16, 4 bits and groups only.

    Raises:
        PeerError: another type, width or size.
    """
    import torch

    axes = problem.exact_axes()
    n, k, group = int(axes["n"]), int(axes["k"]), int(axes["group_size"])
    if axes["dtype"] != "bf16" or axes["bits"] != 4 or group not in (32, 64, 128, 256):
        raise PeerError("bf16, 4 bits, groups of 32 to 256 only")
    if n % 8 or k % (16 * _INNER_K_TILES):
        raise PeerError(f"n={n}, k={k}: multiples of 8 and {16 * _INNER_K_TILES} only")
    levels = unpack(inputs["packed"], 4, k)  # uint8 [n, k]
    scales = inputs["scales"]  # [groups, n]
    zeros = inputs.get("zeros")
    shift = torch.zeros_like(scales) if zeros is None else (_MIDDLE - zeros) * scales
    tables = torch.stack((scales, shift), dim=-1).contiguous()  # [groups, n, 2]
    x = inputs["x"]
    if x.device.type == "cpu":
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels.int(), _INNER_K_TILES)
        return lambda: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, group, tables)
    pairs = (levels[:, ::2] << 4 | levels[:, 1::2]).contiguous()  # uint8 [n, k / 2]
    packed = torch.ops.aten._convert_weight_to_int4pack(pairs, _INNER_K_TILES)
    return lambda: torch.ops.aten._weight_int4pack_mm(x, packed, group, tables)
