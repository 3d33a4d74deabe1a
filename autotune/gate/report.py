"""A gate's findings as JSON, Markdown and JUnit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from autotune.gate.finding import Finding

_MARKDOWN_BYTES = 64 * 1024
"""What a comment on a pull request may hold."""


def passed(findings: Sequence[Finding]) -> bool:
    """Whether nothing fails the gate."""
    return not any(finding.fails for finding in findings)


def to_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "schema": 1,
        "passed": passed(findings),
        "counts": _counts(findings),
        "findings": [finding.to_json() for finding in findings],
    }


def to_markdown(findings: Sequence[Finding]) -> str:
    """A job summary or comment of at most 64 KB: failures first, what is the same only counted."""
    word = "passed" if passed(findings) else "**failed**"
    counts = ", ".join(f"{number} {name}" for name, number in _counts(findings).items())
    text = f"### Kernel performance gate: {word}\n\n{counts or 'nothing to compare'}\n"
    rows = sorted(
        (f for f in findings if f.verdict.value != "same"), key=lambda f: (not f.fails, f.name)
    )
    if not rows:
        return text
    text += "\n| verdict | kernel | where | what |\n|---|---|---|---|\n"
    for number, finding in enumerate(rows):
        name = f"{finding.gpu} {finding.kernel}".strip()
        cells = (finding.verdict.value, name, finding.where, finding.detail)
        line = "| " + " | ".join(map(_escaped, cells)) + " |\n"
        rest = f"\n{len(rows) - number} more are in the JSON report.\n"
        if len((text + line + rest).encode()) > _MARKDOWN_BYTES:
            return text + rest
        text += line
    return text


def to_junit(findings: Sequence[Finding]) -> str:
    """One test case per finding, as CI systems show them."""
    failures = sum(finding.fails for finding in findings)
    suite = ElementTree.Element(
        "testsuite", name="autotune gate", tests=str(len(findings)), failures=str(failures)
    )
    for finding in findings:
        name = " ".join(part for part in (finding.kernel, finding.where) if part)
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"gate.{finding.gpu or 'recorded'}", name=name
        )
        if finding.fails:
            message = f"{finding.verdict.value}: {finding.detail}"
            failure = ElementTree.SubElement(case, "failure", message=message)
            failure.text = "\n".join(map(str, finding.changes)) or finding.detail
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    return dict(sorted(Counter(finding.verdict.value for finding in findings).items()))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
