"""The page on which all that one GPU gave can be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FACTS = ("device", "driver", "torch", "triton", "assembler", "python", "cpus", "commit")


def write_page(
    path: Path, documents: Mapping[str, Mapping[str, Any]], unpacked: Path, sums: Mapping[str, str]
) -> Path:
    """Write it and return its path.

    Args:
        path: of the page.
        documents: stage → what it wrote.
        unpacked: folder of the unpacked archives, one folder per stage.
        sums: archive of raw samples → its sha256.
    """
    parts = [f"# Measured on {_device(documents)}\n", _stages(documents)]
    for name, section in (("ceilings", _ceilings), ("verify", _verify), ("sanitize", _sanitize)):
        if name in documents and "failed" not in documents[name]:
            parts.append(section(documents[name]))
        elif name in documents:
            parts.append(f"## {name}\n\nFailed: {documents[name]['failed']}\n")
    for title, file in (
        ("What the KV block size is worth", "winners/block-size.md"),
        ("Winners against default, floor and peers", "winners/winners.md"),
        ("The cost model on recorded spaces", "model/model.md"),
    ):
        if (unpacked / file).is_file():
            parts.append(f"## {title}\n\n{(unpacked / file).read_text(encoding='utf-8')}")
    if "spaces" in documents:
        parts.append(_spaces(documents["spaces"]))
    if "ab" in documents:
        parts.append(_ideas(documents["ab"]))
    lines = "".join(f"- `{name}`: `{value}`\n" for name, value in sorted(sums.items()))
    parts.append(f"## Raw samples\n\nNot in the repository; sha256:\n\n{lines}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def _device(documents: Mapping[str, Mapping[str, Any]]) -> str:
    for document in documents.values():
        if "environment" in document:
            return str(document["environment"]["device"])
    return "an unknown device"


def _stages(documents: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [["stage", "seconds", "command", "environment"], ["---", "--:", "---", "---"]]
    for name, document in documents.items():
        told = document.get("environment", {})
        facts = ", ".join(f"{fact} {told[fact]}" for fact in _FACTS if told.get(fact) is not None)
        rows.append([name, str(document.get("seconds")), f"`{document['command']}`", facts])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _ceilings(document: Mapping[str, Any]) -> str:
    return (
        f"## Ceilings\n\nA copy of 2 GiB moved {document['copy_gbs']} GB/s, read and written "
        f"({document['datasheet_gbs']} on the data sheet); a bf16 product of 8192 cubed ran at "
        f"{document['gemm_tflops']} TFLOP/s.\n"
    )


def _verify(document: Mapping[str, Any]) -> str:
    rows = "".join(
        f"| {group} | {error:.2e} |\n"
        for group, error in sorted(document["worst_relative"].items())
    )
    return (
        f"## Correctness\n\n{document['checked']} of {document['wanted']} candidates checked, "
        f"{len(document['failures'])} failed.\n\n| kernel, type | worst relative error |\n"
        f"| --- | --: |\n{rows}"
    )


def _sanitize(document: Mapping[str, Any]) -> str:
    if "skipped" in document:
        return f"## Memory errors and races\n\nNot checked: {document['skipped']}.\n"
    rows = "".join(
        f"| {run['check']} | {run.get('answered', 0)} | {run.get('errors', '')} | "
        f"{run.get('skipped', '')} |\n"
        for run in document["runs"]
    )
    head = "| check | runs | errors | skipped |\n| --- | --: | --: | --- |\n"
    return f"## Memory errors and races\n\n{head}{rows}"


def _spaces(document: Mapping[str, Any]) -> str:
    rows = "".join(
        f"| `{one['file']}` | {one['configs']} | {one['failed']} | {one['best_us']} | "
        f"{'yes' if one['complete'] else 'no'} |\n"
        for one in document.get("spaces", ())
    )
    head = "| file | configurations | failed | best us | complete |\n|---|--:|--:|--:|---|\n"
    return f"## Recorded spaces\n\n{head}{rows}"


def _ideas(document: Mapping[str, Any]) -> str:
    rows = "".join(
        f"| {one['idea']} | {one.get('point', '')} | {_gain(one)} |\n"
        for one in document.get("ideas", ())
    )
    return f"## Structural ideas\n\n| idea | point | gain |\n| --- | --- | --: |\n{rows}"


def _gain(one: Mapping[str, Any]) -> str:
    if "gain" not in one:
        return f"none: {one.get('skipped', json.dumps(dict(one)))[:80]}"
    low, high = one["interval"]
    return f"{one['gain']:.3f} [{low:.3f}, {high:.3f}]"
