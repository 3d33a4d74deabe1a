"""The benchmark runs every contender to the end; how fast they are is not tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
from tiny_models import save_model

from runtime.bench.contenders import CONTENDERS, EngineContender
from runtime.bench.continuous import Continuous
from runtime.bench.hf_model import HfModel
from runtime.bench.kv_facts import measure_kv
from runtime.bench.make_model import MODEL_SHAPES, make_model
from runtime.bench.report import print_report, summarise
from runtime.bench.setup import Setup
from runtime.bench.turns import Limits, Score, Worker, take_turns
from runtime.bench.workload import WORKLOADS, Workload, read_workload
from runtime.cli import main
from runtime.cli.bench import _AGAINST, _MODELS, _WORKLOADS
from runtime.errors import BenchmarkError, InvalidParameterError

SMALL = Workload("small", ((5, 6, 7), (8, 9), (4,) * 40), (4, 6, 3))


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
    assert Workload.from_json(json.loads(json.dumps(SMALL.to_json()))) == SMALL


def test_workload_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(
        '{"prompt_token_ids": [3, 4], "max_tokens": 5}\n\n{"prompt": "abc", "max_tokens": 2}\n'
    )
    found = read_workload(path, lambda text: [len(text)])
    assert found == Workload("requests.jsonl", ((3, 4), (3,)), (5, 2))
    for line in (
        "not JSON",
        "[1]",
        '{"prompt": "abc"}',
        '{"prompt": "", "max_tokens": 2}',
        '{"prompt": "abc", "max_tokens": 0}',
        '{"prompt_token_ids": [true], "max_tokens": 2}',
        '{"prompt": "abc", "max_tokens": 2, "temperature": 1}',
    ):
        path.write_text(f'{{"prompt": "abc", "max_tokens": 2}}\n{line}\n')
        with pytest.raises(InvalidParameterError, match=r"requests\.jsonl:2"):
            read_workload(path, lambda text: [1])
    path.write_text("\n")
    with pytest.raises(InvalidParameterError, match="at least one request"):
        read_workload(path, lambda text: [1])


@pytest.mark.parametrize("name", CONTENDERS)
def test_contenders(folder: Path, name: str) -> None:
    setup = Setup(folder, "fp32", 1, SMALL.max_len)
    served = CONTENDERS[name](setup, HfModel(setup))(SMALL, 2)
    assert (served.num_output_tokens, served.num_prompt_tokens) == (13, 45)


def test_a_continuous_run_is_cut_off(folder: Path) -> None:
    setup = Setup(folder, "fp32", 1, 1100)
    run = CONTENDERS["hf-continuous"](setup, HfModel(setup))
    assert isinstance(run, Continuous)
    run.limit_s = 0.05
    served = run(Workload("long", ((5, 6),) * 2, (1000,) * 2), 2)
    assert served.num_output_tokens < 2000
    assert served.num_prompt_tokens is None


class FakeWorker:
    """Answers like a contender's process; notes what is asked of which."""

    asked: ClassVar[list[tuple[tuple[str, ...], str, int, int, int]]] = []

    def __init__(self, setup: Setup, *names: str) -> None:
        self.names = names

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(
        self, name: str, workload: Workload, batch_size: int, limit_s: float | None = None
    ) -> dict[str, Any]:
        asked = (len(workload.prompts), workload.num_output_tokens, batch_size)
        self.asked.append((self.names, name, *asked))
        if name == "hf-batch" and batch_size > 2:
            return {"out_of_memory": "too large"}
        served = {"num_output_tokens": asked[1], "num_prompt_tokens": 5, "seconds": 6 / batch_size}
        return {**served, "cpu_seconds": 1.0, "peak_rss_bytes": 1, "peak_device_bytes": 2}

    def measure_kv(self, workload: Workload) -> dict[str, Any]:
        return {"kv_waste": 0.5}


def test_limits_spare_slow_contenders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.bench.turns.Worker", FakeWorker)
    setup = Setup(Path("m"), "bf16", 1, 300, "cuda")
    limits = Limits((1, 2, 3), trial_tokens=2, sample=1, rounds={"hf": 1})
    seen: list[str] = []
    names = ("engine", "hf", "hf-batch")
    scores, kv = take_turns(names, setup, SMALL, 2, limits, lambda name, _: seen.append(name))
    # On a GPU the engine's process has ended before that of the others starts.
    assert seen == ["engine", "engine", "hf", "hf-batch", "hf-batch"]
    assert FakeWorker.asked == [
        (("engine",), "engine", 1, 2, 1),
        *[(("engine",), "engine", 3, 13, 3)] * 2,
        (("hf", "hf-batch"), "hf", 1, 2, 1),
        (("hf", "hf-batch"), "hf-batch", 1, 2, 1),
        *[(("hf", "hf-batch"), "hf-batch", size, min(2 * size, 6), size) for size in (1, 2, 3)],
        (("hf", "hf-batch"), "hf", 1, 4, 3),
        *[(("hf", "hf-batch"), "hf-batch", 3, 13, 2)] * 2,
    ]
    assert scores["hf-batch"].tried_s == {1: 18.0, 2: 4.5}
    figures = summarise(SMALL, scores)
    assert figures["hf"]["sampled_output_tokens"] == 4
    assert figures["hf"]["output_tokens_per_s"] == 4 / 2
    assert figures["hf-batch"]["engine_ratio"] == 3 / 2
    assert kv == {"kv_waste": 0.5}


def test_kv_facts(folder: Path) -> None:
    shared = WORKLOADS["shared-prefix"](151, 0).first(6)
    setup = Setup(folder, "fp32", 1, shared.max_len)
    facts = measure_kv(setup, EngineContender(setup), shared)
    size = facts["block_size"]
    # All but the first find the prefix, or all that find it computed when they are admitted.
    assert 0 <= facts["prefix_hit_rate"] < 5 / 6
    # At most one slot less than a block is unused per sequence, of at least 528.
    assert 0 < facts["kv_waste"] < (size - 1) / 528 * 6
    sampling = facts["parallel_sampling"]
    prompt, output = 256 // size, 32 // size
    assert sampling["blocks_unshared"] == 4 * (prompt + output)
    assert prompt + 4 * output <= sampling["blocks_shared"] <= prompt + 4 * (output + 1)
    assert sampling["saving"] >= 0.3


def test_summary() -> None:
    scores = {
        "engine": Score([2.0, 1.0, 4.0], [1.0] * 3, 10),
        "hf-batch": Score([8.0, 6.0, 5.0], [1.0] * 3, 20, 16, {16: 5.0, 8: 7.0}),
    }
    figures = summarise(SMALL, scores)
    assert figures["engine"]["output_tokens_per_s"] == 13 / 2
    assert figures["engine"]["total_tokens_per_s"] == (13 + 45) / 2
    assert figures["hf-batch"]["engine_ratio"] == 3
    assert figures["hf-batch"]["batch_size"] == 16


def test_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    path = tmp_path / "requests.jsonl"
    path.write_text('{"prompt_token_ids": [3, 4], "max_tokens": 5}\n' * 3)
    command = ["bench", str(folder), "--workload", str(path), "--threads", "1"]
    assert main([*command, "--against", "hf-batch", "--rounds", "2", "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {n: len(f["seconds"]) for n, f in report["contenders"].items()} == {
        "engine": 2,
        "hf-batch": 2,
    }
    assert all(f["peak_rss_bytes"] > 1 << 26 for f in report["contenders"].values())
    assert report["threads"] == 1
    assert report["dtype"] == "fp32"
    assert report["environment"]["torch"]
    print_report(report)
    printed = capsys.readouterr().out
    assert printed.startswith("requests.jsonl: 3 requests, 6 tokens in, 15 out, 1 threads, fp32")
    assert "hf-batch of 3" in printed


def test_a_failing_contender_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"contender 'engine' has failed: .*nothing"):
        Worker(Setup(tmp_path / "nothing", "fp32", 1, 10), "engine")


def test_choices_are_those_of_the_tables() -> None:
    assert ("engine", *_AGAINST) == tuple(CONTENDERS)
    assert tuple(WORKLOADS) == _WORKLOADS
    assert tuple(MODEL_SHAPES) == _MODELS


def test_made_models_are_served(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        make_model("llama-2m-32k", folder)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    setup = Setup(tmp_path / "a", "fp32", 1, 100)
    CONTENDERS["engine"](setup, HfModel(setup))(SMALL, 1)


def test_mistakes_exit_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(folder), "--rounds", "0"]) == 2
    assert "rounds=0 is not valid" in capsys.readouterr().err
    assert main(["bench", str(folder), "--workload", "nothing"]) == 2
    assert "a file, or one of mixed, shared-prefix" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_info:
        main(["bench", str(folder), "--against", "vllm"])
    assert exit_info.value.code == 2
    assert "'vllm' is not one of hf, hf-batch, hf-continuous" in capsys.readouterr().err
