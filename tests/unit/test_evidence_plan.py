"""What the engine's evidence on a GPU is made of; the stages themselves are rehearsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from evidence.engine.checked import plan
from evidence.engine.child import merge
from evidence.engine.shapes import FAMILIES
from evidence.stages import GROUPS, STAGES

from runtime.cli import main


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
