"""What an engine runs on and why: for `--explain`, and for the log at the start."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from runtime.engine_plan import EnginePlan
from runtime.kernel_row import KernelRow

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Explanation:
    """An engine in words and numbers; fit for JSON."""

    model: str
    architecture: str
    num_layers: int
    device: str
    gpu: str | None
    gpu_note: str | None
    ops: str
    dtype: str
    block_size: int
    block_size_reason: str
    num_blocks: int
    """KV blocks, block 0 included."""
    weights: str | None
    """How linears are quantised; None of plain ones."""
    linear_bytes: int | None
    """Of quantised linears, all layers."""
    saved_bytes: int | None
    """What plain numbers of the checkpoint's type would take beyond."""
    kv_bytes: int
    kv_dtype: str
    """Of a number in the KV cache."""
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    can_capture: bool
    """Whether steps of decodes may become CUDA graphs."""
    kernels: tuple[KernelRow, ...]
    refused: tuple[str, ...]
    """Results files that could not be trusted, with the reason."""

    @property
    def fallbacks(self) -> tuple[KernelRow, ...]:
        """Operations that torch does, and why."""
        return tuple(row for row in self.kernels if row.reason is not None)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)


def explain(plan: EnginePlan) -> Explanation:
    """Describe an engine's plan."""
    report = plan.ops.report()
    limits = plan.limits
    linears = plan.linears
    return Explanation(
        model=str(plan.config.model),
        architecture=plan.model.architecture,
        num_layers=plan.model.num_layers,
        device=str(plan.device),
        gpu=report.gpu,
        gpu_note=report.gpu_note,
        ops=plan.ops.name,
        dtype=plan.dtype_name,
        block_size=plan.block_size.size,
        block_size_reason=plan.block_size.reason,
        num_blocks=limits.num_blocks,
        weights=None if linears is None else linears.words,
        linear_bytes=None if linears is None else linears.quantised,
        saved_bytes=None if linears is None else linears.saved,
        kv_bytes=limits.num_blocks * plan.bytes_per_block,
        kv_dtype=plan.kv.words,
        max_model_len=limits.max_model_len,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        can_capture=plan.ops.can_capture,
        kernels=report.rows,
        refused=report.refused,
    )


def summary(explanation: Explanation) -> Iterator[tuple[str, str]]:
    """Everything but the kernels, as names and values."""
    e = explanation
    yield "model", f"{e.model} ({e.architecture}, {e.num_layers} layers)"
    yield "device", e.device if e.gpu_note is None else f"{e.device}: {e.gpu_note}"
    yield "operations", f"{e.ops}, {e.dtype}"
    yield "block size", f"{e.block_size} tokens: {e.block_size_reason}"
    if e.weights is not None and e.linear_bytes is not None and e.saved_bytes is not None:
        linears, saved = e.linear_bytes / _MIB, e.saved_bytes / _MIB
        yield "weights", f"{e.weights}: linears {linears:.1f} MiB, {saved:.1f} MiB saved"
    yield "KV cache", f"{e.num_blocks} blocks, {e.kv_bytes / _MIB:.1f} MiB, {e.kv_dtype}"
    yield (
        "limits",
        f"{e.max_num_seqs} sequences of {e.max_model_len} tokens, "
        f"{e.max_num_batched_tokens} tokens a step",
    )
    for reason in e.refused:
        yield "refused", f"{reason}; not used"


def render(explanation: Explanation) -> RenderableType:
    """Lay it out for a terminal."""
    facts = Table(box=None, show_header=False, pad_edge=False)
    for name, value in summary(explanation):
        facts.add_row(Text(name, style="bold"), Text(value))
    kernels = Table(box=None, pad_edge=False, title_justify="left")
    for column in ("operation", "sizes", "kernel", "tier", "time", "why"):
        kernels.add_column(column, overflow="fold")
    for row in explanation.kernels:
        cells = (row.operation, row.sizes, row.kernel, row.tier or "", timing(row), why(row))
        kernels.add_row(*map(Text, cells))
    return Group(facts, Text(""), kernels)


def lines(explanation: Explanation) -> Iterator[str]:
    """One line per fact and kernel, for the log."""
    for name, value in summary(explanation):
        yield f"{name}: {value}"
    for row in explanation.kernels:
        parts = (f"{row.operation} [{row.sizes}]: {row.kernel}", timing(row), why(row))
        yield "; ".join(filter(None, parts))


def timing(row: KernelRow) -> str:
    """Time and gain, with what they are worth."""
    if row.time_us is None:
        return ""
    gain = "" if row.gain is None else f", {row.gain:.2f} x default"
    return f"{row.provenance} {row.time_us:.1f} us{gain}"


def why(row: KernelRow) -> str:
    """Where it comes from, or why torch."""
    if row.config is None:
        return row.reason or row.source or ""
    config = " ".join(f"{name}={value}" for name, value in row.config.items())
    return f"{row.source}: {config}"
