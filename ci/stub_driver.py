"""A stub in place of a GPU's driver: Triton compiles for it, and its launches do nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from autotune.arch import GpuArch


class StubUtils:
    """Of a driver: loads nothing, and says that it did."""

    def get_device_properties(self, device: int) -> dict[str, int]:
        """Enough shared memory for anything."""
        return {"max_shared_mem": 1 << 20}

    def load_binary(self, *arguments: Any) -> tuple[object, int, int, int, int]:
        """Module, function, registers, spills, most threads."""
        return object(), 1, 32, 0, 1024


class StubLauncher:
    """Takes a launch's arguments and drops them."""

    def __init__(self, source: Any, metadata: Any) -> None:
        """Keep nothing."""

    def __call__(self, *arguments: Any) -> None:
        """Do nothing."""


class StubDriver(DriverBase):  # type: ignore[misc]
    """A device that is not there, for Triton."""

    launcher_cls = StubLauncher

    def __init__(self, arch: GpuArch) -> None:
        """A device of this architecture."""
        self.utils = StubUtils()
        self._target = GPUTarget("cuda", arch.capability, arch.warp_size)

    def activate(self) -> None:
        """Make this Triton's device, for the rest of the process."""
        triton.runtime.driver.set_active(self)

    @classmethod
    def is_active(cls) -> bool:
        """Never found by itself."""
        return False

    def map_python_to_cpp_type(self, ty: str) -> str:
        """Nothing is compiled in C++."""
        return ty

    def get_current_target(self) -> GPUTarget:
        """What to compile for."""
        return self._target

    def get_active_torch_device(self) -> torch.device:
        """Where tensors are."""
        return torch.device("cpu")

    def get_benchmarker(self) -> Callable[..., Any]:
        """Nothing is timed by Triton."""
        raise AssertionError("nothing here has Triton time anything")

    def get_current_device(self) -> int:
        """The only one."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """The only one."""
        return 0
