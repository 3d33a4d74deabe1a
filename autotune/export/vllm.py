"""Tiles of a matrix product by batch size, as vLLM keeps them: `N=..,K=..,device_name=..,...json`.

The files hold what a plain tiled Triton product knows: BLOCK_SIZE_M, _N, _K, GROUP_SIZE_M, warps
and stages. Swapped operands, ranges of K and persistent grids have no words there: left out.
Source: the naming in vLLM's `fused_moe` and block-scaled fp8 configuration folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.arch import GpuArch
from autotune.export.document import Document
from autotune.records import Selection
from autotune.results import CellResult

_DEVICE_NAMES = {
    "a100": "NVIDIA_A100-SXM4-80GB",
    "h100": "NVIDIA_H100_80GB_HBM3",
    "h200": "NVIDIA_H200",
    "b200": "NVIDIA_B200",
    "l4": "NVIDIA_L4",
    "l40s": "NVIDIA_L40S",
    "rtx4090": "NVIDIA_GeForce_RTX_4090",
    "rtx5090": "NVIDIA_GeForce_RTX_5090",
    "mi300x": "AMD_Instinct_MI300X",
}
"""What the driver calls the device, blanks as underscores: part of the file's name."""
_TILES = {
    "block_m": "BLOCK_SIZE_M",
    "block_n": "BLOCK_SIZE_N",
    "block_k": "BLOCK_SIZE_K",
    "group_m": "GROUP_SIZE_M",
    "num_warps": "num_warps",
    "num_stages": "num_stages",
}


def export(arch: GpuArch, kernel: str, cells: Sequence[CellResult]) -> Document:
    """One file per matrix shape: batch size → tile."""
    files: dict[str, Any] = {}
    left_out: list[str] = []
    if any("n" not in cell.exact for cell in cells):
        return Document({}, (f"{kernel}: not a matrix product, and the format has no other",))
    for cell in cells:
        by_rows: dict[str, Any] = {}
        for selection in sorted(cell.selections, key=lambda s: s.nearest["m"]):
            reason = _why_not(selection)
            if reason is None:
                tile = {_TILES[name]: selection.config.get(name, 1) for name in _TILES}
                by_rows[str(selection.nearest["m"])] = tile
            else:
                left_out.append(f"{_name(arch, cell.exact)}, m={selection.nearest['m']}: {reason}")
        if by_rows:
            files[_name(arch, cell.exact)] = {
                "triton_version": cell.environment.triton,
                **by_rows,
            }
    return Document(files, tuple(left_out))


def _name(arch: GpuArch, exact: Mapping[str, Any]) -> str:
    device = _DEVICE_NAMES.get(arch.name, arch.title.replace(" ", "_"))
    kind = f"int{exact['bits']}_w{exact['bits']}a16" if "bits" in exact else exact["dtype"]
    part = f",part={exact['part']}" if "part" in exact else ""
    return f"N={exact['n']},K={exact['k']},device_name={device},dtype={kind}{part}.json"


def _why_not(selection: Selection) -> str | None:
    config = selection.config
    if selection.library is not None:
        return f"{selection.choice} was faster"
    if config.get("swap_ab"):
        return "swapped operands"
    if config.get("schedule") == "persistent":
        return "a persistent grid"
    if config.get("num_splits", config.get("split_k", 1)) != 1:
        return "ranges of K"
    if config.get("kind") == "gemv":
        return "a matrix-vector kernel"
    return None
