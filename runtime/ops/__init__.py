"""Operation sets: one row each; a set is imported when it is chosen."""

from __future__ import annotations

from collections.abc import Mapping

OPERATION_SETS: Mapping[str, str] = {
    "torch": "runtime.ops.torch_ops:TorchOps",
}
"""Name -> class, for `EngineConfig.ops`."""
