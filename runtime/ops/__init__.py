"""Operation sets: one row each; a set is imported when it is chosen."""

from __future__ import annotations

from collections.abc import Mapping

OPERATION_SETS: Mapping[str, str] = {
    "torch": "runtime.ops.torch_ops:make",
    "triton": "runtime.ops.triton_ops:make",
    "interpreter": "runtime.ops.interpreter_ops:make",
}
"""Name -> function of an `OpsRequest`, for `EngineConfig.ops`."""
