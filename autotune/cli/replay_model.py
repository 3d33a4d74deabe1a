"""`autotune replay --model`: the cost model against spaces that were measured in full."""

from __future__ import annotations

import argparse
import sys

from autotune.binary_facts import facts_beside, read_facts
from autotune.cli.output import print_json, print_table
from autotune.coefficients import load_table, shipped
from autotune.errors import UsageError
from autotune.files import write_atomically
from autotune.recorded_files import read_space

EXAMPLES = """cost model:
  autotune replay --model h200-*.space.json.gz           its order against measured times"""


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that go with `--model`."""
    add = parser.add_argument_group("cost model").add_argument
    add(
        "--model",
        action="store_true",
        help="judge the cost model on each SPACE of our kernels instead of searching it, with the "
        "compiler's facts where they lie beside it (*.facts.json.gz)",
    )
    add("--no-fit", action="store_true", help="leave out fits to the other sizes (seconds)")


def handle_model(options: argparse.Namespace) -> int:
    """Print Spearman, regret and recall per space, and what a pick by the model is worth."""
    from autotune.model_case import make_model_case
    from autotune.model_report import COLUMNS, document, judge, markdown, rows

    cases = []
    for path in options.spaces:
        beside = facts_beside(path)
        try:
            facts = None if beside is None else read_facts(beside)
            cases.append(make_model_case(read_space(path), facts))
        except UsageError as error:
            print(f"left out: {error}", file=sys.stderr)
    if not cases:
        raise UsageError("none of the spaces is one that the cost model can be judged on")
    table = shipped() if options.table is None else load_table(options.table)
    judged = judge(cases, table, fits=not options.no_fit)
    if options.markdown is not None:
        write_atomically(options.markdown, markdown(judged))
    if options.json:
        print_json(document(judged))
    else:
        print_table("the cost model on recorded spaces", COLUMNS, rows(judged))
    return 0
