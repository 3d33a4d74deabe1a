"""The kernels of one model, imported when they are first needed, and kept."""

from __future__ import annotations

from autotune.registry import AutotuneError, QuantisedLayer, TunedKernels
from runtime.errors import KernelError
from runtime.gpu import FoundGpu
from runtime.kernel_set import Fallback, KernelSet
from runtime.kernel_table import KernelTable, LaunchTable
from runtime.ops.base import AttentionSpec
from runtime.ops.request import CacheWrite, NormShape, OpsRequest, QuantisedShape
from runtime.ops.triton_plan import AttentionKernels


class TritonKernels:
    """What a `KernelSet` resolved, as host functions by size; None where torch has to do it."""

    def __init__(self, known: KernelSet) -> None:
        self.known = known
        self._attention: dict[int, dict[AttentionSpec, AttentionKernels]] = {}
        """Block size -> layers' kind of attention -> kernels."""
        self._companions: dict[NormShape | CacheWrite, LaunchTable | None] = {}

    def companion(self, wanted: NormShape | CacheWrite) -> LaunchTable | None:
        """Kernels of a norm or a cache write."""
        if wanted not in self._companions:
            known = self.known
            served = known.norm(wanted) if isinstance(wanted, NormShape) else known.write(wanted)
            self._companions[wanted] = None if isinstance(served, Fallback) else self.bind(served)
        return self._companions[wanted]

    def quantised(self, layer: QuantisedLayer) -> LaunchTable | None:
        """Kernels of a linear over levels."""
        weights = layer.weights
        shape = QuantisedShape(
            weights.n, weights.k, weights.bits, weights.group_size, weights.zeros is not None
        )
        served = self.known.quantised(shape)
        return None if isinstance(served, Fallback) else self.bind(served)

    def attention(self, spec: AttentionSpec, block_size: int) -> AttentionKernels:
        """Kernels of one kind of attention."""
        by_spec = self._attention.setdefault(block_size, {})
        if spec not in by_spec:
            tables = (self.known.decode(spec, block_size), self.known.prefill(spec, block_size))
            decode, prefill = (
                None if isinstance(served, Fallback) else self.bind(served) for served in tables
            )
            by_spec[spec] = AttentionKernels(decode, prefill)
        return by_spec[spec]

    def bind(self, table: KernelTable) -> LaunchTable:
        """Import what a table names.

        Raises:
            KernelError: a template does not render or import, or the cache cannot be written.
        """
        try:
            return self.known.bind(table)
        except AutotuneError as error:
            raise KernelError(f"{table.operation}: {error}") from error


def load_kernels(gpu: FoundGpu, request: OpsRequest) -> TunedKernels:
    """Read what was tuned for a GPU.

    Raises:
        KernelError: the folder for generated code is unusable.
    """
    try:
        return TunedKernels.load(gpu.arch.name, request.results)
    except AutotuneError as error:
        raise KernelError(str(error)) from error
