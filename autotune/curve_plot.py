"""Search curves as a picture: one panel per space, one line with its interval per sampler."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autotune.curves import TARGET, estimate
from autotune.errors import UsageError
from autotune.files import write_bytes_atomically
from autotune.replay import Replay

FORMATS = ("svg", "html", "png", "pdf")


def plot(replays: Sequence[Replay], path: Path) -> None:
    """Draw best-so-far over evaluations into `path`; the ending chooses the format.

    Raises:
        UsageError: another ending, or matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    ending = path.suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise UsageError(f"--plot {path}: the file must end in .{', .'.join(FORMATS)}")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("--plot needs matplotlib: pip install 'pagetune[report]'") from error

    spaces = list(dict.fromkeys(one.space.name for one in replays))
    # Equal curves give equal bytes: no date, and ids that do not depend on the process.
    with matplotlib.rc_context({"svg.hashsalt": "pagetune", "svg.fonttype": "none"}):
        figure = Figure(figsize=(4.6 * len(spaces), 3.6), layout="constrained")
        panels = figure.subplots(1, len(spaces), squeeze=False)[0]
        for panel, name in zip(panels, spaces, strict=True):
            for one in (replay for replay in replays if replay.space.name == name):
                evals = np.arange(1, one.best.shape[1] + 1)
                points = [estimate(column) for column in one.best.T]
                label = one.sampler + (f" + {one.warm_starts} warm" if one.warm_starts else "")
                (line,) = panel.plot(evals, [point.mean for point in points], label=label)
                low, high = [point.low for point in points], [point.high for point in points]
                panel.fill_between(evals, low, high, color=line.get_color(), alpha=0.15, lw=0)
            panel.axhline(TARGET, color="grey", lw=0.8, ls=":")
            panel.set(title=name, xlabel="evaluations", ylim=(0.3, 1.01))
            panel.legend(loc="lower right", frameon=False)
        figure.axes[0].set_ylabel("best so far / optimum (mean, 95 % interval)")
        buffer = io.BytesIO()
        kind = "svg" if ending == "html" else ending
        figure.savefig(buffer, format=kind, metadata=None if kind == "png" else {_DATE[kind]: None})
    content = buffer.getvalue()
    if ending == "html":
        title = html.escape("Search curves: " + ", ".join(spaces))
        head = f'<!doctype html><meta charset="utf-8"><title>{title}</title>\n'
        content = head.encode() + content[content.index(b"<svg") :]
    write_bytes_atomically(path, content)


_DATE = {"svg": "Date", "pdf": "CreationDate"}
"""The field of each format that would hold the time of drawing."""
