"""The report as one HTML file: no scripts, nothing loaded from elsewhere, fit to be printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from autotune.arch import GpuArch
from autotune.report import figures
from autotune.report.material import KernelMaterial, Row, geometric_mean
from autotune.search.trials import StudyRecord

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{margin-top:2.5rem;border-bottom:1px solid #ddd}h3{margin-bottom:.2rem}
table{border-collapse:collapse;font-size:13px;margin:.6rem 0}
th,td{padding:.2rem .6rem;text-align:left;border-bottom:1px solid #eee;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.row{display:flex;flex-wrap:wrap;gap:1.2rem;align-items:flex-start}
.note{color:#555;font-size:13px;max-width:46rem}.p{color:#3b6fb6}.m{color:#0b6e4f}
figure{margin:0}figcaption{font-size:12px;color:#555;max-width:24rem}svg{max-width:100%;height:auto}
details{margin:.5rem 0}summary{cursor:pointer}
@media print{body{max-width:none;margin:0;font-size:11px}details>*{display:block}
figure,tr{break-inside:avoid}}
"""


def page(
    reports: Sequence[tuple[GpuArch, Sequence[KernelMaterial]]], studies: Sequence[StudyRecord]
) -> str:
    """Write the page.

    Args:
        reports: a GPU and its kernels' selections, each.
        studies: searches to show, of any GPU; those of other cells are left aside.

    Raises:
        UsageError: the library for plots is not installed.
    """
    title = "Kernel tuning: " + ", ".join(arch.title for arch, _ in reports)
    body = "".join(part for arch, kernels in reports for part in _gpu(arch, kernels, studies))
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style>\n<h1>{escape(title)}</h1>\n"
        f"{_LEGEND}{body}</html>\n"
    )


_LEGEND = (
    "<p class=note>For each kernel and problem size, the configuration that was chosen. "
    "<b class=p>Predicted</b> times come from the compiler's facts and a cost model: nothing was "
    "run. <b class=m>Measured</b> times are medians on the GPU. The <b>default</b> is what an "
    "untuned library ships; a <b>gain</b> of 1.20x means that the default takes 20 % longer. The "
    "<b>floor</b> is the least time that the hardware allows: bytes over bandwidth, or operations "
    "over peak, whichever is larger.</p>\n"
)


def _gpu(
    arch: GpuArch, kernels: Sequence[KernelMaterial], studies: Sequence[StudyRecord]
) -> Iterator[str]:
    yield f"<h2>{escape(arch.title)}</h2>\n"
    yield _table(
        ("kernel", "+points", "from", "+gain (mean)", "+largest gain", "+of the floor (mean)"),
        [_summary(kernel) for kernel in kernels],
    )
    yield "<div class=row>"
    yield _figure(
        figures.roofline(arch, kernels),
        "Each dot is a chosen configuration at one size. On the slope memory is the limit, under "
        "the flat part the matrix units are.",
    )
    yield "</div>\n"
    for kernel in kernels:
        yield from _kernel(arch, kernel, studies)


def _summary(kernel: KernelMaterial) -> tuple[str, ...]:
    shares = [row.of_floor for row in kernel.rows if row.of_floor is not None]
    mean_share = geometric_mean(shares)
    return (
        kernel.kernel,
        str(len(kernel.rows)),
        _provenance(kernel.rows),
        "-" if kernel.mean_gain is None else f"{kernel.mean_gain:.2f}x",
        f"{max(kernel.gains):.2f}x" if kernel.gains else "-",
        "-" if mean_share is None else f"{mean_share:.0%}",
    )


def _provenance(rows: Sequence[Row]) -> str:
    kinds = dict.fromkeys(row.selection.provenance.value for row in rows)
    return ", ".join(kinds)


def _kernel(arch: GpuArch, kernel: KernelMaterial, studies: Sequence[StudyRecord]) -> Iterator[str]:
    yield f"<h3 id='{arch.name}-{kernel.kernel}'>{escape(kernel.kernel)}</h3>\n"
    yield f"<p class=note>{escape(_search_sentence(kernel))}</p>\n<div class=row>"
    if kernel.gains:
        yield _figure(figures.gains(kernel), "How often tuning gains how much.")
    measured = [row for row in kernel.rows if row.is_measured and row.predicted_us]
    if measured:
        caption = "The model against the clock: dots on the line were predicted exactly."
        yield _figure(figures.predicted_and_measured(measured), caption)
    yield from _block_sizes(kernel)
    yield from _by_batch_and_context(kernel)
    yield "</div>\n"
    yield from _studies(arch, kernel, studies)
    yield _winners(kernel)


def _search_sentence(kernel: KernelMaterial) -> str:
    tried = sum(kernel.outcomes.values())
    text = f"{tried} candidates were tried"
    if kernel.spaces:
        legal = sum(space["legal"] for space in kernel.spaces)
        cartesian = sum(space["cartesian"] for space in kernel.spaces)
        text += f" of {legal} legal configurations ({cartesian} in the cartesian product)"
    rejected = {k: v for k, v in kernel.outcomes.items() if k != "ok"}
    reasons = ", ".join(f"{count} {_REASONS.get(why, why)}" for why, count in rejected.items())
    return f"{text}. Rejected: {reasons or 'none'}."


_REASONS = {
    "spills": "spill registers",
    "over_limit": "need more shared memory or registers than the GPU has",
    "duplicate": "compile to the same machine code as another",
    "wrong_mma": "miss the matrix instructions",
    "compile_error": "do not compile",
    "compile_timeout": "take too long to compile",
    "wrong_result": "give wrong results",
}


def _block_sizes(kernel: KernelMaterial) -> Iterator[str]:
    """How much does the KV block size matter? Time over that of the best size."""
    table = figures.block_size_table(kernel.rows)
    if len({size for _, size in table}) > 1:
        worst = max(table.values())
        yield _figure(
            figures.heat_map(
                "time over the best KV block size", table, "context", "KV block size",
                lambda v: f"{v:.2f}", (1.0, max(1.2, worst)),
            ),
            f"How much does the block size matter? 1.00 is the best size for a context; the worst "
            f"cell costs {worst - 1:.0%}. Mean over batch sizes.",
        )  # fmt: skip


def _by_batch_and_context(kernel: KernelMaterial) -> Iterator[str]:
    """Fraction of the floor and gain over (batch, context), best block size at each."""
    shares: dict[tuple[int, int], list[float]] = {}
    gains: dict[tuple[int, int], list[float]] = {}
    for row in kernel.rows:
        sizes = row.selection.nearest
        if "context_len" not in sizes or row.of_floor is None:
            continue
        key = (sizes["num_seqs"], sizes["context_len"])
        shares.setdefault(key, []).append(row.of_floor)
        if row.selection.gain is not None:
            gains.setdefault(key, []).append(row.selection.gain)
    if shares:
        yield _figure(
            figures.heat_map(
                "floor over time", {k: max(v) for k, v in shares.items()}, "sequences", "context",
                lambda v: f"{v:.0%}", (0.0, 1.0),
            ),
            "How near to the hardware's limit, at the best block size.",
        )  # fmt: skip
    if gains:
        mean = {key: geometric_mean(values) or 1.0 for key, values in gains.items()}
        yield _figure(
            figures.heat_map(
                "gain over the default", mean, "sequences", "context", lambda v: f"{v:.2f}",
                (1.0, max(1.5, *mean.values())),
            ),
            "Where tuning pays; mean over cells.",
        )  # fmt: skip


def _studies(
    arch: GpuArch, kernel: KernelMaterial, studies: Sequence[StudyRecord]
) -> Iterator[str]:
    own = [s for s in studies if s.cell.startswith(f"{kernel.kernel}/{arch.name}/")]
    if not own:
        return
    yield f"<details><summary>{len(own)} searches, trial by trial</summary>"
    for study in own:
        if any(value is not None for value in study.values_us):
            yield f"<p class=note>{escape(study.cell)}</p><div class=row>"
            yield _figure(
                figures.search_curve(study.values_us),
                "Dots: trials; line: best so far; red ticks: rejected by the compiler's facts.",
            )
            if study.importance:
                yield _figure(figures.importance(study.importance), "Which knobs matter (fANOVA).")
            yield "</div>"
    yield "</details>\n"


def _winners(kernel: KernelMaterial) -> str:
    rows = [
        (
            row.point.label("exact"),
            row.point.label("nearest"),
            row.selection.choice,
            row.selection.provenance.value,
            _number(row.selection.time_us),
            _number(row.selection.floor_us),
            "-" if row.selection.gain is None else f"{row.selection.gain:.2f}x",
            row.selection.reason,
        )
        for row in kernel.rows
    ]
    columns = ("cell", "point", "configuration", "from", "+µs", "+floor", "+gain", "why")
    return f"<details><summary>{len(rows)} selections</summary>{_table(columns, rows)}</details>\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; columns that start with "+" hold numbers."""
    kinds = [" class=n" if column.startswith("+") else "" for column in columns]
    head = "".join(
        f"<th{kind}>{escape(column.removeprefix('+'))}</th>"
        for kind, column in zip(kinds, columns, strict=True)
    )
    lines = (
        "<tr>"
        + "".join(f"<td{k}>{escape(cell)}</td>" for k, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>\n" + "\n".join(lines) + "</table>\n"
