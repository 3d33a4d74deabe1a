"""Records that contradict themselves do not construct; the others survive JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from record_cases import make_report, make_selection

from autotune.config import Config
from autotune.kernels.paged_attention_decode_problem import DecodeProblem
from autotune.records import (
    CompileReport,
    Environment,
    Evaluation,
    Provenance,
    Selection,
    Status,
    Timing,
    to_json,
)

CONFIG = Config({"tile": 16})
FAILURES = [status for status in Status if status not in (Status.OK, Status.DUPLICATE)]


@pytest.mark.parametrize(
    "fields",
    [
        {"status": Status.OK},
        {"status": Status.OK, "reports": (make_report(),), "reason": "why?"},
        {"status": Status.OK, "reports": (make_report(),), "twin": CONFIG},
        {"status": Status.DUPLICATE, "reports": (make_report(),), "reason": "same code"},
        {"status": Status.DUPLICATE, "reports": (make_report(),), "twin": CONFIG},
        *({"status": status} for status in FAILURES),
        *({"status": status, "reason": ""} for status in FAILURES),
        *({"status": status, "reason": "x", "twin": CONFIG} for status in FAILURES),
    ],
)
def test_evaluations_that_contradict_themselves(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="status"):
        Evaluation(CONFIG, **fields)


@pytest.mark.parametrize("status", FAILURES)
def test_failures_carry_a_reason(status: Status) -> None:
    assert Evaluation(CONFIG, status, "because").reports == ()


@pytest.mark.parametrize(
    ("provenance", "changes"),
    [
        (Provenance.DEFAULT, {"time_us": 1.0}),
        (Provenance.MEASURED, {"time_us": None}),
        (Provenance.PREDICTED, {"time_us": None}),
        (Provenance.PREDICTED, {"error_factor": None}),
        (Provenance.MEASURED, {"error_factor": 2.0}),
        (Provenance.DEFAULT, {"error_factor": 2.0}),
        (Provenance.MEASURED, {"timing": None}),
        (Provenance.PREDICTED, {"timing": Timing(1.0, 1.0, 1.0, 3)}),
    ],
)
def test_selections_that_contradict_themselves(
    provenance: Provenance, changes: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="a selection that is"):
        make_selection(DecodeProblem(), provenance=provenance, **changes)


@pytest.mark.parametrize(
    ("time_us", "default_us", "gain"), [(50.0, 100.0, 2.0), (50.0, None, None), (80.0, 40.0, 0.5)]
)
def test_gain_is_default_over_time(
    time_us: float, default_us: float | None, gain: float | None
) -> None:
    selection = make_selection(DecodeProblem(), time_us=time_us, default_us=default_us)
    assert selection.gain == gain


def test_an_untested_default_has_no_gain() -> None:
    assert make_selection(DecodeProblem(), provenance=Provenance.DEFAULT).gain is None
    assert make_selection(DecodeProblem(), provenance=Provenance.MEASURED).gain is not None


@pytest.mark.parametrize("report", [make_report(), make_report(mma=None, loop={}, registers=255)])
def test_a_report_survives_json(report: CompileReport) -> None:
    assert CompileReport.from_json(json.loads(json.dumps(to_json(report)))) == report


def test_json_has_plain_types_only() -> None:
    selection: Selection = make_selection(DecodeProblem())
    data = to_json(selection)
    assert json.loads(json.dumps(data)) == data
    assert data["provenance"] == "predicted"
    assert data["config"] == dict(selection.config)
    assert data["reports"][0]["binary_sha"] == selection.reports[0].binary_sha
    assert to_json(Environment("3.6", "ptxas 13"))["driver"] is None


def test_records_are_frozen() -> None:
    with pytest.raises(AttributeError):
        make_report().registers = 1  # type: ignore[misc]
