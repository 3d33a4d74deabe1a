"""What the engine's evidence on a GPU is made of; the stages themselves are rehearsed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from evidence.engine import child
from evidence.engine.checked import plan
from evidence.engine.child import merge
from evidence.engine.shapes import FAMILIES
from evidence.stages import GROUPS, STAGES

from autotune.deadline import Deadline
from runtime.cli import main


@dataclass
class Place:
    """What a probe asks of a workplace."""

    out: Path
    deadline: Deadline
    stage: str = "engine-latency"
    budget_s: float = 11.0
    kept: list[dict[str, Any]] = field(default_factory=list)

    def keep(self, document: dict[str, Any]) -> None:
        self.kept.append(json.loads(json.dumps(document)))


def test_checks_cover_families_types_graphs_and_block_sizes() -> None:
    wanted = plan()
    assert len(set(wanted)) == len(wanted)
    first = [(family, words) for family, words in wanted if len(words) == 2]
    assert wanted[: len(first)] == first  # plain checks come before all variations
    assert {family for family, _ in first} == set(FAMILIES)
    assert {words for _, words in first} == {("--dtype", "fp32"), ("--dtype", "bf16")}
    said = [" ".join(words) for _, words in wanted]
    assert any(words.endswith("--enforce-eager") for words in said)
    for size in (32, 64, 128, 256):
        assert any(f"--block-size {size}" in words for words in said)


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_have_heads_as_released_models_have(family: str) -> None:
    shape = FAMILIES[family]
    heads = shape["num_attention_heads"]
    assert shape.get("head_dim", shape["hidden_size"] // heads) in (96, 128, 256)
    assert heads // shape["num_key_value_heads"] in (1, 2, 4, 7)
    assert 2 <= shape["num_hidden_layers"] <= 4


def test_one_name_stands_for_all_stages_of_the_engine() -> None:
    assert GROUPS["engine"] == tuple(name for name in STAGES if name.startswith("engine-"))
    assert len(GROUPS["engine"]) == 6
    assert all(stage.__doc__ for stage in STAGES.values())


def test_what_a_probe_tells_is_joined() -> None:
    found: dict[str, Any] = {}
    for told in (
        {"rows": [1], "sizes": {"16": {"a": [1]}}, "copy_gbs": 1.0},
        {"rows": [2], "sizes": {"64": {"a": [2]}}, "copy_gbs": 2.0},
        {"sizes": {"16": {"a": [3]}}},
    ):
        merge(found, json.loads(json.dumps(told)))
    assert found == {
        "rows": [1, 2],
        "sizes": {"16": {"a": [3]}, "64": {"a": [2]}},
        "copy_gbs": 2.0,
    }


def test_check_takes_a_block_size(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    assert "--block-size" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("last", "key", "said"),
    [
        ("exec sleep 60", "stopped", "time was up"),
        ("echo out of luck >&2; exit 3", "failed", "exit code 3: out of luck"),
        ("true", None, None),
    ],
    ids=["stopped", "failed", "done"],
)
def test_a_probe_leaves_what_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str, key: str | None, said: str
) -> None:
    program = tmp_path / "program"
    lines = ('{"rows": [1]}', '{"rows": [2], "raw": [9]}')
    said_lines = "".join(f"echo '{line}'\n" for line in lines)
    program.write_text(f"#!/bin/sh\n{said_lines}{last}\n")
    program.chmod(0o700)
    monkeypatch.setattr(child.sys, "executable", str(program))
    place = Place(tmp_path, Deadline(11.0))
    found = child.probe(place, "latency", {}, {"model": "m"})  # type: ignore[arg-type]
    assert found["rows"] == [1, 2]
    assert [document["rows"] for document in place.kept] == [[1], [1, 2]]
    assert "raw" not in found
    assert '"raw":[9]' in (tmp_path / "engine-latency.raw").read_text()
    assert set(found) == {"model", "rows", *filter(None, [key])}
    if key is not None:
        assert said in found[key]
