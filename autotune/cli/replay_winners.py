"""`autotune replay --winners`: others' measured winners against the cost model."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from autotune.cli.output import print_json, print_table
from autotune.coefficients import CoefficientTable, dump_table, load_table, shipped
from autotune.errors import UsageError
from autotune.files import write_atomically
from autotune.winners.case import Case
from autotune.winners.folder import WinnersFile, read_folder
from autotune.winners.report import COLUMNS, document, mapped, markdown, row
from autotune.winners.score import Score, Summary, score, summarise

EXAMPLES = """winners:
  autotune replay --winners FOLDER                       the shipped constants, on unseen problems
  autotune replay --winners FOLDER --fit new.json        fit constants to the other half
  autotune replay --winners FOLDER --leave-out gpu       each GPU judged by a fit without it"""

SPLITS = ("unseen", "fitted", "all")


def add_winners_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that go with `--winners`."""
    add = parser.add_argument_group("measured winners").add_argument
    add("--winners", type=Path, metavar="FOLDER", help="judge the cost model by measured winners")
    add(
        "--split",
        choices=SPLITS,
        default="unseen",
        help="problems to judge on: half of them, by hash, serve fits (default: the other half)",
    )
    add("--table", type=Path, metavar="FILE", help="constants to judge (default: the shipped ones)")
    add("--fit", type=Path, metavar="FILE", help="fit constants first, and write them there")
    add(
        "--leave-out",
        choices=("gpu", "family"),
        help="judge each GPU, or family, by constants fitted without it (minutes)",
    )
    add("--markdown", type=Path, metavar="FILE", help="write the table there, too")


def handle_winners(options: argparse.Namespace) -> int:
    """Rank every recorded winner among the legal configurations and print where it stands."""
    if options.fit is not None and options.leave_out is not None:
        raise UsageError("--fit and --leave-out exclude each other")
    files = read_folder(options.winners)
    cases = [case for file in files for case in file.cases]
    if not cases:
        reasons = "; ".join(f"{file.path.name}: {file.skipped}" for file in files)
        raise UsageError(f"nothing in {options.winners} can be mapped: {reasons}")
    if options.leave_out is not None:
        lines, title = _left_out(cases, options.leave_out, options.split)
    else:
        table = _table(cases, options)
        lines = _judge(cases, table, options.split)
        title = f"measured winners in the cost model, {options.split} problems"
    if options.markdown is not None:
        write_atomically(options.markdown, markdown(f"**{title}**", lines))
    if options.json:
        print_json(document(files, lines))
    else:
        _print(files, title, lines)
    return 0


def _table(cases: Sequence[Case], options: argparse.Namespace) -> CoefficientTable:
    if options.fit is None:
        return shipped() if options.table is None else load_table(options.table)
    from autotune.winners.fit import fit

    print("fitting, which takes minutes ...", file=sys.stderr)
    table = fit(cases, f"autotune replay --winners {options.winners.name} --fit")
    write_atomically(options.fit, dump_table(table))
    return load_table(options.fit)


def _judge(cases: Sequence[Case], table: CoefficientTable, split: str) -> list[Summary]:
    chosen = [case for case in cases if split == "all" or case.held_out == (split == "unseen")]
    scores = list(score(chosen, table))
    return sorted(summarise(scores) + summarise(_totals(scores)), key=_order)


def _totals(scores: Sequence[Score]) -> list[Score]:
    """The same scores as of one family for each maker who has several."""
    makers: dict[str, set[str]] = defaultdict(set)
    for one in scores:
        makers[_maker(one.family)].add(one.family)
    return [
        dataclasses.replace(one, family=f"{_maker(one.family)} (all)")
        for one in scores
        if len(makers[_maker(one.family)]) > 1
    ]


def _maker(family: str) -> str:
    return family.partition(" ")[0]


def _order(line: Summary) -> tuple[str, str]:
    return line.family, line.gpu


def _left_out(cases: Sequence[Case], what: str, split: str) -> tuple[list[Summary], str]:
    from autotune.winners.fit import fit_without

    lines: list[Summary] = []
    for name in sorted({getattr(case, what) for case in cases}):
        print(f"fitting without {name} ...", file=sys.stderr)
        table = fit_without(cases, what, name)
        lines += _judge([case for case in cases if getattr(case, what) == name], table, split)
    return sorted(
        lines, key=_order
    ), f"measured winners, each {what} judged by constants fitted without it"


def _print(files: Sequence[WinnersFile], title: str, lines: Sequence[Summary]) -> None:
    for file in files:
        note = file.skipped or f"{mapped(file)} of {file.records} records mapped"
        print(f"{file.path.name}: {note}")
    print()
    print_table(title, COLUMNS, [row(line) for line in lines])
    print(
        "\npercentile: share of the legal configurations that are predicted faster than the "
        "winner; regret: predicted time of the winner over the predicted best, less one; medians"
    )
