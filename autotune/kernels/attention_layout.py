"""How Triton lays out an attention loop on a target: what warps share, and what it must hold."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.arch import GpuArch
from autotune.kernels.dtypes import DTYPE_BYTES, next_power_of_2

_REGISTER_SHARE = {"nvidia": 0.7, "amd": 0.6}
"""Of a thread's registers, what the loop's state may take; addresses and operands need the rest.
Found by compiling for sm_80, sm_90 and gfx942: most above it spills, most below it does not."""


@dataclass(frozen=True, slots=True)
class AttentionLayout:
    """Softmax(q k^T) v over tiles of keys, for query tiles of `rows` >= 16 rows.

    What is said of compilers holds for Triton 3.6 and 3.7, read off their output.
    """

    arch: GpuArch
    dtype: str
    head_dim: int
    kv_bytes: int | None = None
    """Bytes of a number of the cache; None for those of `dtype`, which take no converting."""

    @property
    def padded(self) -> int:
        """Head dim as tensors in the kernel have it."""
        return next_power_of_2(self.head_dim)

    def warp_group(self, rows: int, warps: int) -> bool:
        """Whether the products are a warp group's instructions: wgmma, tcgen05."""
        half = self.dtype != "fp32"
        return half and self.arch.capability in (90, 100) and rows >= 64 and warps >= 4

    def warps_fit(self, rows: int, tile: int, warps: int) -> bool:
        """Whether no two warps compute the same thing.

        Sixteen rows per warp always fit. Beyond that, warp-level instructions are spread over keys
        where the rows are fewer than the head dims; warp groups and AMD repeat rows instead.
        """
        if self.dtype == "fp32" or 16 * warps <= rows:
            return True
        if self.arch.vendor == "amd":
            return rows == 16 and warps == 2  # else so few rows could not be had at all
        spread = rows < self.padded and tile >= 8 * warps
        return spread and not self.warp_group(rows, warps)

    def value_parts(self, rows: int, warps: int) -> tuple[int, ...]:
        """Numbers of slices of the head dim, with an accumulator each, that are worth trying.

        Warp-level products are laid out by the shape of the second one: over rows if it has at
        least as many rows as columns, else over columns, where the softmax has to exchange between
        warps and its weights go through shared memory. Slices no wider than the rows get the
        former: for 64 rows of 128 head dims on sm_80, 179 registers rather than 241.
        """
        if self.dtype == "fp32" or self.arch.vendor == "amd" or 16 * warps > rows:
            return (1,)
        if self.warp_group(rows, warps):
            return (1,)
        widest = min(rows, self.padded)
        return tuple(sorted({self.padded // widest, self.padded // min(widest, 64)}))

    def shared_bytes(self, rows: int, tile: int, prefetch: bool, warps: int, stages: int) -> int:
        """Shared memory for queries and for as many key and value tiles as the pipeliner keeps.

        A lower bound. Without `prefetch` (of page ids) it keeps fewer: the load of the page ids
        heads the chain of addresses and takes a stage of its own.
        """
        row_bytes = self.padded * DTYPE_BYTES[self.dtype]
        kv_row_bytes = self.padded * (self.kv_bytes or DTYPE_BYTES[self.dtype])
        if self.arch.vendor == "amd":  # queries stay in registers; warps exchange through the rest
            depth = stages - 1 if prefetch else stages // 2
            return 2 * depth * tile * kv_row_bytes + 64 * warps
        depth = stages - 1 if prefetch else min(stages - 1, 1)
        buffers = depth + 1 if self.warp_group(rows, warps) else max(1, depth)
        # A warp group reads what was converted from shared memory again.
        converted = self.kv_bytes not in (None, DTYPE_BYTES[self.dtype])
        again = tile * row_bytes if converted and self.warp_group(rows, warps) else 0
        return rows * row_bytes + 2 * buffers * tile * kv_row_bytes + again

    def registers_fit(self, rows: int, tile: int, warps: int) -> bool:
        """Whether accumulator, scores, weights and queries leave a thread enough registers.

        Queries do not count for warp groups, which read them from shared memory, and where warps
        share rows, for then each would have to hold all of them. On AMD each warp loads a whole
        tile of keys, then of values, into registers before it multiplies.
        """
        operand = DTYPE_BYTES[self.dtype] / 4  # registers per element
        columns = self.padded + (1 + operand) * tile
        if 16 * warps <= rows and not self.warp_group(rows, warps):
            columns += operand * self.padded
        threads = warps * self.arch.warp_size
        held = rows * columns / threads
        if self.arch.vendor == "amd":
            held += operand * tile * self.padded / self.arch.warp_size
        most = min(self.arch.max_registers_per_thread, self.arch.registers_per_sm // threads)
        return held <= _REGISTER_SHARE[self.arch.vendor] * most
