"""Tables of scores, as text columns, Markdown and JSON types."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from autotune.winners.folder import WinnersFile
from autotune.winners.score import Summary

COLUMNS = (
    "family", "gpu", ">records", ">percentile", ">quartiles", ">regret", ">quartiles",
    ">time off by", "goal",
)  # fmt: skip
BEST_SHARE = 0.10
"""Goal: the median winner is in this share of the legal configurations."""
LEAST_REGRET = 0.10
MOST_FOLD = 1.5


def row(line: Summary) -> tuple[str, ...]:
    """Cells of one line, in the order of `COLUMNS`."""
    return (
        line.family,
        line.gpu,
        str(line.records),
        f"{line.percentile[1]:.1%}",
        f"{line.percentile[0]:.1%} .. {line.percentile[2]:.1%}",
        f"{line.regret[1]:.1%}",
        f"{line.regret[0]:.1%} .. {line.regret[2]:.1%}",
        "-" if line.fold is None else f"{line.fold[1]:.2f}x",
        "met" if meets_goal(line) else "missed",
    )


def meets_goal(line: Summary) -> bool:
    """Median winner among the best tenth, median regret and time error within theirs."""
    near = line.fold is None or line.fold[1] <= MOST_FOLD
    return line.percentile[1] <= BEST_SHARE and line.regret[1] <= LEAST_REGRET and near


def markdown(title: str, lines: Sequence[Summary]) -> str:
    """A Markdown table."""
    heads = [column.removeprefix(">") for column in COLUMNS]
    rules = ["--:" if column.startswith(">") else "---" for column in COLUMNS]
    table = [heads, rules, *(list(row(line)) for line in lines)]
    return f"{title}\n\n" + "\n".join("| " + " | ".join(cells) + " |" for cells in table) + "\n"


def document(files: Sequence[WinnersFile], lines: Sequence[Summary]) -> dict[str, Any]:
    """JSON types: what was read, and the scores."""
    return {
        "files": [
            {
                "file": file.path.name,
                "kernel": file.kernel,
                "gpu": file.gpu,
                "records": file.records,
                "mapped": mapped(file),
                "skipped": file.skipped,
            }
            for file in files
        ],
        "goal_met": all(meets_goal(line) for line in lines),
        "scores": [{**dataclasses.asdict(line), "goal_met": meets_goal(line)} for line in lines],
    }


def mapped(file: WinnersFile) -> int:
    """Records of a file that are among the legal candidates of their problem."""
    return sum(len(case.winners) for case in file.cases)
