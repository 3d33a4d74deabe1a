"""Finding local GPUs: a fake NVML and a fake sysfs, with the failures real ones have."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from autotune.arch import lookup
from autotune.device import (
    LocalDevice,
    amd_devices,
    find_local,
    local_devices,
    nvidia_devices,
)


class FakeNvmlError(Exception):
    pass


class FakeNvml:
    """NVML as `pynvml` shows it: names as text, and an exception where a query is not supported."""

    NVMLError = FakeNvmlError
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(
        self,
        *names: str,
        mig: tuple[int, ...] = (),
        lost: tuple[int, ...] = (),
        shared_memory: tuple[int, ...] = (),
        fails_at: str = "",
    ) -> None:
        self.names = names
        self.mig = mig
        self.lost = lost
        self.shared_memory = shared_memory
        self.fails_at = fails_at
        self.open = 0

    def _check(self, call: str) -> None:
        if self.fails_at == call:
            raise FakeNvmlError(call)

    def nvmlInit(self) -> None:  # noqa: N802
        self._check("init")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        self._check("driver")
        return "580.65.06"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index in self.lost:
            raise FakeNvmlError("GPU is lost")
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return self.names[handle]

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        if handle in self.shared_memory:
            raise FakeNvmlError("not supported")
        return SimpleNamespace(total=143_771 << 20, free=1, used=2)

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:  # noqa: N802
        if "GeForce" in self.names[handle]:
            raise FakeNvmlError("not supported")
        return [int(handle in self.mig), 0]


def test_known_and_unknown_products() -> None:
    nvml = FakeNvml("NVIDIA H200", "NVIDIA GeForce RTX 4090", "NVIDIA GeForce GTX 1080")
    h200, ada, old = nvidia_devices(nvml)
    assert h200 == LocalDevice(
        index=0,
        name="NVIDIA H200",
        uuid="GPU-0",
        driver="580.65.06",
        total_bytes=143_771 << 20,
        partitioned=False,
        arch=lookup("h200"),
    )
    assert ada.arch is lookup("rtx4090")
    assert (old.index, old.arch) == (2, None)
    assert nvml.open == 0


@pytest.mark.parametrize("call", ["init", "driver"])
def test_a_driver_that_does_not_answer_means_no_devices(call: str) -> None:
    nvml = FakeNvml("NVIDIA H200", fails_at=call)
    assert nvidia_devices(nvml) == ()
    assert nvml.open == 0


def test_a_lost_gpu_is_left_out_and_the_others_keep_their_index() -> None:
    devices = nvidia_devices(FakeNvml("NVIDIA H200", "NVIDIA H200", "NVIDIA H200", lost=(1,)))
    assert [device.index for device in devices] == [0, 2]


def test_a_gpu_cut_into_slices_is_not_the_whole_product() -> None:
    sliced, whole = nvidia_devices(
        FakeNvml("NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB", mig=(0,))
    )
    assert (sliced.partitioned, sliced.arch) == (True, None)
    assert (whole.partitioned, whole.arch) == (False, lookup("a100"))


def test_memory_shared_with_the_host_has_no_size() -> None:
    (device,) = nvidia_devices(FakeNvml("NVIDIA GB10", shared_memory=(0,)))
    assert device.total_bytes is None


def test_errors_of_other_kinds_are_not_swallowed() -> None:
    class BrokenNvml(FakeNvml):
        def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
            raise ZeroDivisionError

    nvml = BrokenNvml("NVIDIA H200")
    with pytest.raises(ZeroDivisionError):
        nvidia_devices(nvml)
    assert nvml.open == 0


def test_find_local_takes_the_first_of_the_right_product() -> None:
    devices = nvidia_devices(FakeNvml("NVIDIA L4", "NVIDIA H200", "NVIDIA H200"))
    found = find_local(lookup("h200"), devices)
    assert found is devices[1]
    assert find_local(lookup("a100"), devices) is None
    assert find_local(lookup("a100"), ()) is None
    assert find_local(replace(lookup("h200"), sm_count=1), devices) is devices[1]


def amd_card(sysfs: Path, card: int, **files: str) -> None:
    folder = sysfs / "devices" / f"0000:{card:02x}:00.0"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content + "\n")
    drm = sysfs / "class" / "drm" / f"card{card}"
    drm.mkdir(parents=True)
    (drm / "device").symlink_to(folder)


def test_amd_cards(tmp_path: Path) -> None:
    version = tmp_path / "module" / "amdgpu" / "version"
    version.parent.mkdir(parents=True)
    version.write_text("6.12.12\n")
    amd_card(
        tmp_path,
        10,
        vendor="0x1002",
        device="0x74a1",
        product_name="",
        unique_id="5a1b",
        mem_info_vram_total=str(192 << 30),
        current_compute_partition="SPX",
    )
    amd_card(tmp_path, 2, vendor="0x1002", device="0x1638", mem_info_vram_total="oops")
    amd_card(tmp_path, 3, vendor="0x10de", device="0x2335")
    amd_card(tmp_path, 11, vendor="0x1002", device="0x74a1", current_compute_partition="CPX")
    amd_card(tmp_path, 12, vendor="0x1002", product_name="AMD Instinct MI300X OAM")
    (tmp_path / "class" / "drm" / "card10-DP-1").mkdir()
    (tmp_path / "class" / "drm" / "renderD128").mkdir()

    integrated, whole, sliced, named = amd_devices(tmp_path)
    assert integrated == LocalDevice(
        index=0,
        name="AMD GPU 0x1638",
        uuid="0000:02:00.0",
        driver="6.12.12",
        total_bytes=None,
        partitioned=False,
        arch=None,
    )
    assert whole == LocalDevice(
        index=1,
        name="AMD Instinct MI300X",
        uuid="5a1b",
        driver="6.12.12",
        total_bytes=192 << 30,
        partitioned=False,
        arch=lookup("mi300x"),
    )
    assert (sliced.partitioned, sliced.arch) == (True, None)
    assert (named.name, named.arch) == ("AMD Instinct MI300X OAM", lookup("mi300x"))


def test_no_sysfs_means_no_amd_cards(tmp_path: Path) -> None:
    assert amd_devices(tmp_path) == ()


def test_the_real_machine_answers_without_loading_torch() -> None:
    code = (
        "import sys; from autotune.device import local_devices; found = local_devices();"
        "assert isinstance(found, tuple); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    for device in local_devices():
        assert device.name
        assert device.uuid
