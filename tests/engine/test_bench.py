"""The benchmark runs every contender to the end; how fast they are is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_models import save_model

from runtime.bench.contenders import CONTENDERS
from runtime.bench.workload import WORKLOADS, Workload
from runtime.cli import main
from runtime.cli.bench import _AGAINST, _WORKLOADS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("long-model")
    save_model("llama-long", found)
    return found


def test_workloads_are_fixed_by_the_seed() -> None:
    mixed = WORKLOADS["mixed"](1000, 0)
    assert mixed == WORKLOADS["mixed"](1000, 0) != WORKLOADS["mixed"](1000, 1)
    assert len(mixed.prompts) == 32
    assert all(16 <= len(prompt) <= 256 for prompt in mixed.prompts)
    assert all(16 <= count <= 128 for count in mixed.output_lens)
    shared = WORKLOADS["shared-prefix"](1000, 0)
    assert len({prompt[:512] for prompt in shared.prompts}) == 1
    assert len({prompt[512:] for prompt in shared.prompts}) == 32
    assert shared.num_output_tokens == 32 * 32
    assert len(shared.first(2).prompts) == 2


@pytest.mark.parametrize("name", CONTENDERS)
def test_contenders(folder: Path, name: str) -> None:
    workload = Workload("small", ((5, 6, 7), (8, 9)), (4, 6))
    run = CONTENDERS[name](folder, "fp32", workload.max_len)
    assert run(workload) > 0


def test_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    command = ["bench", str(folder), "--requests", "2", "--against", "hf-batch"]
    assert main([*command, "--rounds", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {name: len(values) for name, values in report["seconds"].items()} == {
        "engine": 2,
        "hf-batch": 2,
    }
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("mixed: 2 requests, ")


def test_choices_are_those_of_the_tables() -> None:
    assert ("engine", *_AGAINST) == tuple(CONTENDERS)
    assert tuple(WORKLOADS) == _WORKLOADS


def test_mistakes_exit_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(folder), "--rounds", "0"]) == 2
    assert "rounds=0 is not valid" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_info:
        main(["bench", str(folder), "--against", "vllm"])
    assert exit_info.value.code == 2
    assert "'vllm' is not one of hf, hf-batch, hf-continuous" in capsys.readouterr().err
