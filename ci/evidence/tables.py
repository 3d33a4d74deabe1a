"""Markdown of what `winners` found: one table per family, and one over KV block sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evidence.families import BLOCK_SIZES

_WITHIN = 1.01
"""Of block sizes that are as good as each other the smallest wastes least memory."""


def write_tables(document: Mapping[str, Any], folder: Path) -> None:
    """Write `winners.md` and, where several block sizes were timed, `block-size.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    families = dict.fromkeys(point["family"] for point in document["points"])
    text = "\n".join(_family(name, document) for name in families)
    left = "; ".join(document["left_out_for_time"]) or "nothing"
    (folder / "winners.md").write_text(f"{text}\nLeft out for time: {left}.\n")
    sizes = block_size_tables(document["points"])
    if sizes:
        (folder / "block-size.md").write_text(sizes)


def _family(name: str, document: Mapping[str, Any]) -> str:
    points = [point for point in document["points"] if point["family"] == name]
    standings = [one for one in document["peers"] if one["family"] == name]
    peers = list(dict.fromkeys(one["peer"] for one in standings))
    known = {(one["point"], one["peer"]): one for one in standings}
    heads = ["sizes", "us", "default us", "gain", "floor us", "of floor"]
    heads += [f"x {peer.partition('/')[2]}" for peer in peers] + ["chosen"]
    lines = [heads, ["---"] + ["--:"] * (len(heads) - 2) + ["---"]]
    for point in points:
        lines.append(
            [
                _sizes(point["sizes"]),
                _number(point["time_us"], ".1f"),
                _number(point["default_us"], ".1f"),
                _number(point["gain"], ".3f"),
                _number(point["floor_us"], ".1f"),
                _number(point["of_floor"], ".0%"),
                *(_ratio(known.get((point["point"], peer))) for peer in peers),
                f"{point['provenance']}: {point['choice']}",
            ]
        )
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"### {name}\n\n{text}\n"


def block_size_tables(points: Sequence[Mapping[str, Any]]) -> str:
    """Time of the winner at each KV block size over the best of them, per phase and group."""
    groups: dict[tuple[str, int], dict[str, dict[int, float]]] = {}
    for point in points:
        exact = point["exact"]
        if "block_size" in exact and point["time_us"] is not None:
            rows = groups.setdefault((point["kernel"], exact["group"]), {})
            rows.setdefault(_sizes(point["sizes"]), {})[exact["block_size"]] = point["time_us"]
    found = []
    for (kernel, group), rows in groups.items():
        sizes = [size for size in BLOCK_SIZES if any(size in row for row in rows.values())]
        whole = {label: row for label, row in rows.items() if len(row) == len(sizes)}
        if len(sizes) < 2 or not whole:
            continue
        lines = [["sizes", "best us", *map(str, sizes)], ["---", *["--:"] * (len(sizes) + 1)]]
        logs = dict.fromkeys(sizes, 0.0)
        for label, row in whole.items():
            best = min(row.values())
            lines.append([label, f"{best:.1f}", *(f"{row[size] / best:.3f}" for size in sizes)])
            for size in sizes:
                logs[size] += math.log(row[size] / best) / len(whole)
        means = {size: math.exp(log) for size, log in logs.items()}
        lines.append(["geometric mean", "", *(f"{means[size]:.3f}" for size in sizes)])
        choice = next(s for s in sizes if means[s] <= _WITHIN * min(means.values()))
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        found.append(
            f"### {kernel}, {group} query heads per KV head\n\n{text}\n\n"
            f"The worst block size costs {max(means.values()) / min(means.values()):.2f} x the "
            f"best; the smallest within 1 % of the best is {choice}.\n"
        )
    return "\n".join(found)


def _sizes(sizes: Mapping[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in sizes.items())


def _ratio(standing: Mapping[str, Any] | None) -> str:
    if standing is None:
        return ""
    if standing["ratio"] is None:
        return "none"
    ratio, low, high = standing["ratio"]
    return f"{ratio:.2f} [{low:.2f}, {high:.2f}]"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
