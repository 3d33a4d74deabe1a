"""The dashboard asks for what /metrics gives, under either prefix."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from runtime.server.messages import Refusal, Refused
from runtime.server.metrics import ServerMetrics

DASHBOARD: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "docs" / "grafana" / "pagetune.json").read_text()
)
EXPRESSIONS = [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
]


def page(prefix: str) -> dict[str, set[str]]:
    """Sample name → its labels, of a server that has finished and refused something."""
    metrics = ServerMetrics(prefix, "tiny")
    metrics.dropped(["nobody"])
    metrics._finish(_trace(), 2.0)
    metrics.refused(Refused("x", Refusal.INVALID, "no"))
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.page().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def _trace() -> Any:
    from runtime.server.metrics import _Trace

    return _Trace(3, 0.0, 0.5, 1.0, 2.0, 4, {0: 2.0}, ["stop"])


def asked(expression: str, prefix: str) -> set[str]:
    """Names of the metrics in a query."""
    return set(re.findall(rf"\b{prefix}:\w+", expression.replace("${prefix}", prefix)))


@pytest.mark.parametrize("prefix", ["pagetune", "vllm"])
def test_every_metric_exists(prefix: str) -> None:
    known = page(prefix)
    for expression in EXPRESSIONS:
        names = asked(expression, prefix)
        assert names, expression
        assert names <= known.keys(), expression
        labels = {"le", *re.findall(r"(\w+)=~?\"", expression)}
        for group in re.findall(r"by \((.*?)\)", expression):
            labels.update(word.strip() for word in group.split(","))
        for label in labels - {"le"}:
            assert all(label in known[name] for name in names), (label, expression)
        assert ("histogram_quantile" in expression) == any("_bucket" in name for name in names)


def test_every_metric_is_shown() -> None:
    """By one of its samples; when a counter was created is of no interest."""
    shown = set().union(*(asked(expression, "pagetune") for expression in EXPRESSIONS))
    stem = re.compile(r"_(bucket|count|sum|created)$")
    missing = {stem.sub("", name) for name in page("pagetune") if not name.endswith("_created")}
    assert missing - {stem.sub("", name) for name in shown} == set()


def test_counters_are_taken_as_rates() -> None:
    for expression in EXPRESSIONS:
        for name in re.findall(r"(\S*)\$\{prefix\}:(\w+)", expression):
            before, metric = name
            is_gauge = metric in (
                "num_requests_running",
                "num_requests_waiting",
                "kv_cache_usage_perc",
            )
            assert is_gauge != before.endswith("rate("), expression


def test_layout() -> None:
    names = {one["name"] for one in DASHBOARD["templating"]["list"]}
    assert names == {"datasource", "prefix", "model_name"}
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
