"""Plots as SVG text: readable on paper, no scripts, the same bytes for the same data."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autotune.arch import GpuArch
from autotune.errors import UsageError
from autotune.report.material import KernelMaterial, Row, geometric_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pagetune",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 100,
}
_MEASURED, _PREDICTED = "#0b6e4f", "#3b6fb6"


def _draw(width: float, height: float, paint: Callable[[Any], None]) -> str:
    """Paint on a fresh figure and return its SVG element; sizes in inches.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "a report needs matplotlib; run: pip install 'pagetune[report]'"
        ) from error
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def roofline(arch: GpuArch, kernels: Sequence[KernelMaterial]) -> str:
    """Achieved operations per second over operations per byte, under the hardware's roof."""

    def paint(figure: Any) -> None:
        axes: Axes = figure.subplots()
        peak = max(arch.peak_tflops.values())
        bf16 = arch.peak_tflops.get("bf16", peak)
        intensity = [2.0**power for power in range(-2, 13)]
        roof = [min(bf16, arch.dram_gbs * x / 1000.0) for x in intensity]
        axes.plot(intensity, roof, color="black", lw=1.2, label="roof (bf16, device memory)")
        for kernel, marker in zip(kernels, "osD^vP", strict=False):
            points = [row for row in kernel.rows if row.selection.time_us and row.flops]
            if points:
                axes.plot(
                    [row.flops / row.least_bytes for row in points],
                    [row.flops / (row.selection.time_us or 1.0) / 1e6 for row in points],
                    marker, ms=4, alpha=0.6, label=kernel.kernel,
                )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="operations per byte of device memory",
                 ylabel="10¹² operations per second")  # fmt: skip
        axes.legend(frameon=False, fontsize=8)

    return _draw(6.4, 3.6, paint)


def gains(kernel: KernelMaterial) -> str:
    """How often which gain over the default."""

    def paint(figure: Any) -> None:
        axes: Axes = figure.subplots()
        values = sorted(kernel.gains)
        share = [(index + 1) / len(values) for index in range(len(values))]
        axes.step(values, share, where="post", color=_PREDICTED)
        axes.axvline(1.0, color="black", lw=0.8, ls=":")
        axes.set(xscale="log", xlabel="gain over the default", ylabel="share of points at or below")
        ticks = [1, 1.25, 1.5, 2, 3] if values[-1] < 3 else [1, 1.5, 2, 3, 5, 8]
        axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlim(0.95, max(1.6, 1.05 * max(values)))

    return _draw(3.6, 2.6, paint)


def heat_map(
    title: str,
    table: Mapping[tuple[int, int], float],
    rows: str,
    columns: str,
    label: Callable[[float], str],
    limits: tuple[float, float],
) -> str:
    """Numbers over two sizes: (row, column) → value."""
    row_sizes = sorted({row for row, _ in table})
    column_sizes = sorted({column for _, column in table})

    def paint(figure: Any) -> None:
        axes: Axes = figure.subplots()
        grid = [
            [table.get((row, column), math.nan) for column in column_sizes] for row in row_sizes
        ]
        mesh = axes.pcolormesh(grid, cmap="YlGnBu", vmin=limits[0], vmax=limits[1])
        for y, row in enumerate(row_sizes):
            for x, column in enumerate(column_sizes):
                value = table.get((row, column))
                if value is not None:
                    rgba = mesh.to_rgba(np.array([value]))[0]
                    dark = 0.3 * rgba[0] + 0.6 * rgba[1] + 0.1 * rgba[2] < 0.5
                    axes.text(x + 0.5, y + 0.5, label(value), ha="center", va="center", fontsize=8,
                              color="white" if dark else "black")  # fmt: skip
        for ticks, sizes in ((axes.set_xticks, column_sizes), (axes.set_yticks, row_sizes)):
            ticks([index + 0.5 for index in range(len(sizes))], [_short(size) for size in sizes])
        axes.invert_yaxis()
        axes.set(xlabel=columns, ylabel=rows)
        axes.set_title(title, fontsize=9, loc="left")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)

    height = 1.0 + 0.3 * len(row_sizes)
    return _draw(1.4 + 0.62 * len(column_sizes), height, paint)


def search_curve(values_us: Sequence[float | None]) -> str:
    """Best objective so far, trial by trial; rejected trials as ticks at the bottom."""

    def paint(figure: Any) -> None:
        axes: Axes = figure.subplots()
        best: list[float] = []
        for value in values_us:
            known = [item for item in (value, best[-1] if best else None) if item is not None]
            best.append(min(known) if known else math.nan)
        trials = range(1, len(values_us) + 1)
        axes.plot(
            [n for n, v in zip(trials, values_us, strict=True) if v is not None],
            [v for v in values_us if v is not None],
            ".", color="0.6", ms=4,
        )  # fmt: skip
        axes.step(trials, best, where="post", color=_PREDICTED)
        rejected = [n for n, v in zip(trials, values_us, strict=True) if v is None]
        axes.plot(rejected, [0.02] * len(rejected), "|", color="firebrick",
                  transform=axes.get_xaxis_transform())  # fmt: skip
        axes.set(xlabel="trial", ylabel="objective, µs", yscale="log")

    return _draw(3.6, 2.2, paint)


def importance(shares: Sequence[tuple[str, float]]) -> str:
    """Knobs by their share of the variation."""

    def paint(figure: Any) -> None:
        axes: Axes = figure.subplots()
        names = [name for name, _ in shares][::-1]
        axes.barh(names, [share for _, share in shares][::-1], color=_PREDICTED)
        axes.set(xlabel="share of the objective's variation", xlim=(0, 1))

    return _draw(3.6, 0.9 + 0.22 * len(shares), paint)


def predicted_and_measured(rows: Sequence[Row]) -> str:
    """The model's time against the clock's."""

    def paint(figure: Any) -> None:
        axes: Axes = figure.subplots()
        measured = [row.selection.time_us or 0.0 for row in rows]
        predicted = [row.predicted_us or 0.0 for row in rows]
        low, high = min(measured + predicted) / 1.3, max(measured + predicted) * 1.3
        axes.plot([low, high], [low, high], color="black", lw=0.8)
        axes.plot(measured, predicted, "o", ms=4, color=_MEASURED, alpha=0.7)
        axes.set(xscale="log", yscale="log", xlabel="measured, µs", ylabel="predicted, µs")

    return _draw(3.6, 3.0, paint)


def block_size_table(rows: Sequence[Row]) -> dict[tuple[int, int], float]:
    """(context length, KV block size) → time over that of the best block size, mean of batches."""
    times: dict[tuple[Any, int, int], float] = {}
    for row in rows:
        exact, sizes = row.selection.exact, row.selection.nearest
        if row.selection.time_us is None or "block_size" not in exact:
            continue
        rest = tuple(
            (name, value)
            for name, value in (*exact.items(), *sizes.items())
            if name not in ("block_size", "context_len")
        )
        times[rest, sizes["context_len"], exact["block_size"]] = row.selection.time_us
    ratios: dict[tuple[int, int], list[float]] = {}
    for (rest, context, size), time_us in times.items():
        best = min(t for (r, c, _), t in times.items() if (r, c) == (rest, context))
        ratios.setdefault((context, size), []).append(time_us / best)
    return {key: geometric_mean(values) or 1.0 for key, values in ratios.items()}


def _short(size: int) -> str:
    return f"{size // 1024}k" if size >= 1024 and size % 1024 == 0 else str(size)
