"""The tuned kernels of an engine: resolved and bound at its start, never looked up in a step."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autotune.registry import (
    AutotuneError,
    Config,
    Problem,
    Resolved,
    Tier,
    TunedKernels,
    kernel_spec,
)
from runtime.attention_axes import attention_axes, why_not
from runtime.errors import KernelError
from runtime.kernel_row import TORCH, KernelRow
from runtime.kernel_table import KernelTable, Launch, LaunchTable, powers_of_two, tabulate
from runtime.one_order import in_one_order
from runtime.ops.base import AttentionSpec
from runtime.ops.limits import StepLimits
from runtime.ops.request import CacheWrite, MlpShape, NormShape, QuantisedShape

_log = logging.getLogger("runtime.kernels")

DECODE = "paged_attention_decode"
PREFILL = "paged_attention_prefill"
MLP = "fused_mlp"
DEQUANT = "dequant_gemm"
NORM = "rms_norm"
WRITE = "rope_kv_write"
_SHORTEST_CONTEXT = 512
"""Tokens: what kernels are tuned from."""
_MIXED_CONTEXT = 2048
"""Tokens in the cache of a sequence whose prompt is computed in short pieces."""
_FEWEST_QUERIES = 16


@dataclass(frozen=True, slots=True)
class Fallback:
    """An operation that torch does in place of a kernel."""

    operation: str
    reason: str

    def rows(self) -> tuple[KernelRow, ...]:
        """Describe it."""
        return (KernelRow(self.operation, "all", TORCH, reason=self.reason),)


Served = KernelTable | Fallback


class KernelSet:
    """Kernels for one model on one GPU, each resolved when it is first asked for, and kept."""

    def __init__(
        self,
        tuned: TunedKernels,
        dtype: str,
        limits: StepLimits,
        *,
        kv_dtype: str = "auto",
        is_stand_in: bool = False,
        deterministic: bool = False,
    ) -> None:
        """Take selections from `tuned`.

        Args:
            tuned: for the GPU.
            dtype: of weights and activations: "bf16", "fp16" or "fp32".
            limits: largest steps.
            kv_dtype: of the KV cache: "auto" for `dtype`, "int8" or "fp8".
            is_stand_in: whether `tuned` is for another GPU of the same compiler target, so that
                what was measured on it is not exact.
            deterministic: each operation sums in one order at all sizes, and none is torch's.
        """
        self.served: list[Served] = []
        """What was asked for, in order."""
        self._tuned = tuned
        self._dtype = dtype
        self._kv_dtype = kv_dtype
        self._over = "" if kv_dtype == "auto" else f" over {kv_dtype}"
        self._limits = limits
        self._is_stand_in = is_stand_in
        self._deterministic = deterministic
        self._known: dict[tuple[object, ...], Served] = {}
        self._imported: dict[tuple[str, str, Config | str], Launch] = {}

    def decode(self, spec: AttentionSpec, block_size: int) -> Served:
        """One query token per sequence; sizes are numbers of sequences."""
        limits = self._limits

        def problem(num_seqs: int) -> Problem:
            context_len = limits.typical_context(num_seqs, _SHORTEST_CONTEXT)
            axes = {"num_seqs": num_seqs, "context_len": context_len}
            return _problem(DECODE, self._axes(spec, block_size) | axes)

        operation = f"decode attention{self._over}, {spec.words}"
        sizes = powers_of_two(limits.max_num_seqs)
        key = (DECODE, spec, block_size)
        return self._serve(key, operation, "sequences", sizes, problem, why_not(spec))

    def prefill(self, spec: AttentionSpec, block_size: int) -> Served:
        """Any number of query tokens per sequence; sizes are their mean."""
        limits = self._limits

        def problem(query_len: int) -> Problem:
            context_len = max(query_len, min(limits.max_model_len, _MIXED_CONTEXT))
            num_seqs = max(1, min(limits.max_num_seqs, limits.max_num_tokens // query_len))
            axes = {"num_seqs": num_seqs, "query_len": query_len, "context_len": context_len}
            return _problem(PREFILL, self._axes(spec, block_size) | axes)

        operation = f"prefill attention{self._over}, {spec.words}"
        sizes = powers_of_two(limits.max_num_tokens, least=_FEWEST_QUERIES)
        key = (PREFILL, spec, block_size)
        return self._serve(key, operation, "query tokens each", sizes, problem, why_not(spec))

    def gate_up(self, shape: MlpShape) -> Served:
        """Gate and up with their activation; sizes are numbers of tokens."""

        def problem(m: int) -> Problem:
            axes = {"dtype": self._dtype, "part": "gate_up", "activation": shape.activation}
            return _problem(MLP, axes | {"n": shape.n, "k": shape.k, "m": m})

        reason = None
        if shape.has_bias:
            reason = "the product has a bias, which the kernel does not add"
        operation = f"gate-up with {shape.activation}, {shape.n} x {shape.k}"
        sizes = powers_of_two(self._limits.max_num_tokens)
        return self._serve((MLP, shape), operation, "tokens", sizes, problem, reason)

    def linear(self, n: int, k: int) -> Served:
        """A product as the MLP's way down is; sizes are numbers of tokens."""

        def problem(m: int) -> Problem:
            axes = {
                "dtype": self._dtype,
                "part": "down",
                "activation": "none",
                "n": n,
                "k": k,
                "m": m,
            }
            return _problem(MLP, axes)

        sizes = powers_of_two(self._limits.max_num_tokens)
        return self._serve((MLP, n, k), f"linear, {n} x {k}", "tokens", sizes, problem, None)

    def quantised(self, shape: QuantisedShape) -> Served:
        """A linear over levels; sizes are numbers of tokens."""

        def problem(m: int) -> Problem:
            axes = {"dtype": self._dtype, **dataclasses.asdict(shape)}
            return _problem(DEQUANT, axes | {"m": m})

        groups = f"groups of {shape.group_size}" if shape.group_size else "a scale per output"
        zeros = " with zeros" if shape.zero_point else ""
        operation = f"linear of {shape.bits} bits, {groups}{zeros}, {shape.n} x {shape.k}"
        sizes = powers_of_two(self._limits.max_num_tokens)
        return self._serve((DEQUANT, shape), operation, "tokens", sizes, problem, None)

    def norm(self, shape: NormShape) -> Served:
        """A norm with or without a residual; sizes are numbers of rows."""

        def problem(rows: int) -> Problem:
            axes = {"dtype": self._dtype, "columns": shape.columns, "rows": rows}
            return _problem(
                NORM, axes | {"residual": shape.has_residual, "wide_weight": shape.is_wide}
            )

        with_residual = " of the sum with the residual" if shape.has_residual else ""
        operation = f"norm{with_residual}, {shape.columns}"
        sizes = powers_of_two(self._limits.max_num_tokens * shape.rows_per_token)
        return self._serve((NORM, shape), operation, "rows", sizes, problem, None)

    def write(self, write: CacheWrite) -> Served:
        """Rotation and cache write, or the latter alone; sizes are numbers of tokens."""

        def problem(num_tokens: int) -> Problem:
            axes = {
                "dtype": self._dtype,
                "style": "half" if write.rotary_dim else "none",
                "head_dim": write.head_dim,
                "unrotated": write.head_dim - write.rotary_dim if write.rotary_dim else 0,
                "num_heads": write.num_heads,
                "num_kv_heads": write.num_kv_heads,
            }
            if self._kv_dtype != "auto":
                axes |= {"kv_dtype": self._kv_dtype, "kv_scale": "token"}
            return _problem(WRITE, axes | {"num_tokens": num_tokens})

        what = "rotation and cache write" if write.rotary_dim else "cache write"
        if self._kv_dtype != "auto":
            what = f"{what} as {self._kv_dtype}"
        operation = f"{what}, {write.num_heads}/{write.num_kv_heads} heads of {write.head_dim}"
        sizes = powers_of_two(self._limits.max_num_tokens)
        return self._serve((WRITE, write), operation, "tokens", sizes, problem, None)

    def bind(self, table: KernelTable) -> LaunchTable:
        """Render and import what a table names; equal kernels once.

        Raises:
            AutotuneError: a template does not render or import, or the cache cannot be written.
        """
        return LaunchTable(table.bounds, tuple(map(self._launch, table.entries)))

    def _launch(self, entry: Resolved) -> Launch:
        served = entry.config if entry.library is None else entry.library
        key = (entry.kernel, entry.problem.label("exact"), served)
        if key not in self._imported:
            self._imported[key] = self._tuned.bind_resolved(entry).launch
        return self._imported[key]

    def _serve(
        self,
        key: tuple[object, ...],
        operation: str,
        unit: str,
        sizes: tuple[int, ...],
        problem: Callable[[int], Problem],
        reason: str | None,
    ) -> Served:
        if key not in self._known:
            self._known[key] = served = self._resolve(operation, unit, sizes, problem, reason)
            self.served.append(served)
            if isinstance(served, Fallback) and self._deterministic:
                raise KernelError(
                    f"{operation}: torch would do it, and its sums depend on the batch, but "
                    f"--deterministic was asked for: {served.reason}"
                )
            if isinstance(served, Fallback):
                _log.warning("%s: torch instead of a kernel: %s", operation, served.reason)
        return self._known[key]

    def _resolve(
        self,
        operation: str,
        unit: str,
        sizes: tuple[int, ...],
        problem: Callable[[int], Problem],
        reason: str | None,
    ) -> Served:
        if reason is not None:
            return Fallback(operation, reason)

        def resolve(size: int) -> Resolved:
            asked = problem(size)
            found = self._tuned.resolve(asked.kernel, asked, repeatable=self._deterministic)
            return self._honest(found)

        try:
            entries = {size: resolve(size) for size in sizes}
            if self._deterministic:
                entries = in_one_order(self._tuned, entries)
            return tabulate(operation, unit, sizes, entries.__getitem__)
        except AutotuneError as error:
            # No axis of that value, or nothing legal on this GPU: the message says which.
            return Fallback(operation, str(error))

    def _axes(self, spec: AttentionSpec, block_size: int) -> dict[str, Any]:
        max_model_len = self._limits.max_model_len
        axes = attention_axes(self._dtype, self._kv_dtype, spec, block_size, max_model_len)
        return axes | {"num_kv_heads": spec.num_kv_heads}

    def _honest(self, entry: Resolved) -> Resolved:
        if not self._is_stand_in or entry.tier not in (Tier.EXACT, Tier.NEAREST):
            return entry
        tier = Tier.SAME_ARCHITECTURE
        source = entry.source.replace(f"(tier {entry.tier})", f"(tier {tier})")
        return dataclasses.replace(entry, tier=tier, source=source)


def _problem(kernel: str, axes: dict[str, Any]) -> Problem:
    problem: Problem = kernel_spec(kernel).problem_type.from_axes(axes)
    return problem
