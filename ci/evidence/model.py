"""Stage: the cost model, as shipped and refitted, against the spaces recorded by this run."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import Any

from evidence.workplace import Workplace

from autotune.binary_facts import facts_beside, read_facts
from autotune.coefficients import shipped
from autotune.model_case import make_model_case
from autotune.model_report import document, judge, markdown
from autotune.recorded_files import read_space


def model(place: Workplace) -> dict[str, Any]:
    """Spearman, regret and recall of the cost model on what `spaces` recorded; no GPU is used"""
    archive = place.out / "spaces.tar.gz"
    if not archive.is_file():
        return {"failed": f"{archive} is not there: run the stage spaces first"}
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as files:
            files.extractall(folder, filter="data")
        told, text = judged_spaces(Path(folder))
    place.folder.mkdir(parents=True, exist_ok=True)
    (place.folder / "model.md").write_text(text)
    print(text)
    return told


def judged_spaces(folder: Path) -> tuple[dict[str, Any], str]:
    """Judge the shipped constants on all spaces in a folder: a JSON document, and Markdown."""
    cases = []
    for path in sorted(folder.rglob("*.space.json.gz")):
        beside = facts_beside(path)
        facts = None if beside is None else read_facts(beside)
        cases.append(make_model_case(read_space(path), facts))
    judged = judge(cases, shipped())
    return document(judged), markdown(judged)
