"""The GPUs in this machine, read from NVML and from sysfs; what they can do is in `arch`.

Neither source starts a CUDA or HIP context, so looking costs no device memory and may happen before
a process forks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.arch import GpuArch, match_device_name

# PCI device ids of the pci.ids database: the product name on the board is absent from some
# firmware, and in virtual machines.
_AMD_PRODUCTS = {
    "0x74a1": "AMD Instinct MI300X",
    "0x74a5": "AMD Instinct MI325X",
    "0x74b5": "AMD Instinct MI300X VF",
    "0x74b9": "AMD Instinct MI325X VF",
}


@dataclass(frozen=True, slots=True)
class LocalDevice:
    """One GPU of this machine."""

    index: int
    """Position among the GPUs of its vendor in bus order. It ignores CUDA_VISIBLE_DEVICES and may
    differ from the CUDA ordinal; `uuid` tells which device is which."""
    name: str
    uuid: str
    """NVML's UUID; on AMD the board's serial number, or the PCI address where it has none."""
    driver: str | None
    """Driver version, None where the driver is part of the kernel."""
    total_bytes: int | None
    """Device memory; None where it is shared with the host and has no size of its own."""
    partitioned: bool
    """Whether the GPU is cut into slices (MIG, or an AMD compute partition other than SPX)."""
    arch: GpuArch | None
    """Row of the GPU table; None for unknown products, and for slices, which are no whole GPU."""


def local_devices() -> tuple[LocalDevice, ...]:
    """List the GPUs of this machine, NVIDIA first; empty without GPU, driver or NVML."""
    try:
        import pynvml
    except ImportError:
        return amd_devices()
    return nvidia_devices(pynvml) + amd_devices()


def find_local(arch: GpuArch, devices: Sequence[LocalDevice] | None = None) -> LocalDevice | None:
    """Return the first GPU of this machine (or of `devices`) that is an `arch`; None without."""
    for device in local_devices() if devices is None else devices:
        if device.arch is not None and device.arch.name == arch.name:
            return device
    return None


def nvidia_devices(nvml: Any) -> tuple[LocalDevice, ...]:
    """List the NVIDIA GPUs through `nvml`, the `pynvml` module or one with the same functions.

    A GPU that does not answer (fallen off the bus, no permission) is left out.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        return tuple(_nvidia_devices(nvml))
    except nvml.NVMLError:
        return ()
    finally:
        nvml.nvmlShutdown()


def _nvidia_devices(nvml: Any) -> Iterator[LocalDevice]:
    driver = nvml.nvmlSystemGetDriverVersion()
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            name = nvml.nvmlDeviceGetName(handle)
            uuid = nvml.nvmlDeviceGetUUID(handle)
        except nvml.NVMLError:
            continue
        partitioned = _mig_enabled(nvml, handle)
        yield LocalDevice(
            index=index,
            name=name,
            uuid=uuid,
            driver=driver,
            total_bytes=_nvidia_bytes(nvml, handle),
            partitioned=partitioned,
            arch=None if partitioned else match_device_name(name),
        )


def _mig_enabled(nvml: Any, handle: object) -> bool:
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:  # products without MIG say "not supported"
        return False
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _nvidia_bytes(nvml: Any, handle: object) -> int | None:
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:  # integrated GPUs say "not supported"
        return None


def amd_devices(sysfs: Path = Path("/sys")) -> tuple[LocalDevice, ...]:
    """List the GPUs bound to the amdgpu kernel driver, from its files under `sysfs`."""
    driver = _text(sysfs / "module" / "amdgpu" / "version")
    found: list[LocalDevice] = []
    for folder in _amd_folders(sysfs):
        pci_id = _text(folder / "device") or "of unknown model"
        product = _AMD_PRODUCTS.get(pci_id) or _text(folder / "product_name")
        name = product or f"AMD GPU {pci_id}"
        total = _text(folder / "mem_info_vram_total") or ""
        partitioned = (_text(folder / "current_compute_partition") or "SPX") != "SPX"
        found.append(
            LocalDevice(
                index=len(found),
                name=name,
                uuid=_text(folder / "unique_id") or folder.resolve().name,
                driver=driver,
                total_bytes=int(total) if total.isdecimal() else None,
                partitioned=partitioned,
                arch=None if partitioned else match_device_name(name),
            )
        )
    return tuple(found)


def _amd_folders(sysfs: Path) -> list[Path]:
    """PCI folders of the display class whose vendor is AMD, in card order, each once."""
    cards = [
        (int(match[1]), card / "device")
        for card in sysfs.glob("class/drm/card*")
        if (match := re.fullmatch(r"card(\d+)", card.name))  # not card0-DP-1, a connector
    ]
    return [folder for _, folder in sorted(cards) if _text(folder / "vendor") == "0x1002"]


def _text(path: Path) -> str | None:
    """Stripped content of a sysfs file; None when it is absent, unreadable or empty."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
