"""How much of a GPU's memory is left for KV blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from runtime.checkpoint import weight_files
from runtime.errors import InvalidParameterError
from runtime.gpu import named_gpu

_LOGIT_COPIES = 2
"""Of a whole step's logits in fp32: themselves, and their log-probabilities."""
_FP32_BYTES = 4


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Of one device, in bytes."""

    total: int
    free: int
    """Now; others may use the rest."""

    @classmethod
    def of(cls, device: torch.device) -> GpuMemory:
        """Ask the driver."""
        free, total = torch.cuda.mem_get_info(device)
        return cls(total, free)

    @classmethod
    def of_absent(cls, gpu: str) -> GpuMemory:
        """Of a GPU of the table, all of it free.

        Raises:
            InvalidParameterError: there is none of this name.
        """
        size = named_gpu(gpu).arch.dram_bytes
        return cls(size, size)

    def kv_bytes(
        self, utilization: float, weight_bytes: int, max_num_batched_tokens: int, vocab_size: int
    ) -> int:
        """What KV blocks may take of the share `utilization` of all memory.

        Weights and a step's logits are taken off, and what is in use already. A step's other
        tensors, graphs and the library's own memory come out of the part that is not used.

        Raises:
            InvalidParameterError: nothing is left.
        """
        steps = _LOGIT_COPIES * _FP32_BYTES * max_num_batched_tokens * vocab_size
        room = int(utilization * self.total) - (self.total - self.free) - weight_bytes - steps
        if room <= 0:
            gib = 1 << 30
            raise InvalidParameterError(
                "gpu_memory_utilization",
                utilization,
                f"more than what is taken already: of {self.total / gib:.1f} GiB, "
                f"{(self.total - self.free) / gib:.1f} are in use, weights take "
                f"{weight_bytes / gib:.1f}, a step of {max_num_batched_tokens} tokens "
                f"{steps / gib:.1f}",
            )
        return room


def weight_bytes(folder: Path, stored_bytes: int, element_bytes: int) -> int:
    """Of a checkpoint in memory.

    Args:
        folder: of the model.
        stored_bytes: of one number in its files.
        element_bytes: of one number in memory.

    Raises:
        CheckpointError: there are no weights.
    """
    stored = sum(path.stat().st_size for path in weight_files(folder))
    return stored * element_bytes // stored_bytes
