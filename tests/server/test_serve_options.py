"""Options of `runtime serve` by the names of `vllm serve`, and what becomes of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from runtime.checkpoint import Checkpoint
from runtime.cli import main, serve
from runtime.cli.config_file import expand_config
from runtime.cli.engine_options import SWITCHES, engine_config
from runtime.config import EngineConfig
from runtime.preemption import PreemptionMode
from runtime.server import weight_progress
from runtime.server.messages import FromEngine, Progress
from runtime.server.weight_progress import WeightProgress


def parse(*words: str) -> EngineConfig:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return engine_config(parser.parse_args(["model", *words]), 0.92)


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("", "gpu_memory_utilization", 0.92),
        ("--gpu-memory-utilization 0.5", "gpu_memory_utilization", 0.5),
        ("--kv-cache-gib 2", "gpu_memory_utilization", None),
        ("--kv-cache-gib 2", "kv_cache_bytes", 2 << 30),
        ("--swap-space 1", "swap_bytes", 1 << 30),
        ("--no-enable-prefix-caching", "enable_prefix_caching", False),
        ("--no-prefix-caching", "enable_prefix_caching", False),
        ("--no-prefix-caching --enable-prefix-caching", "enable_prefix_caching", True),
        ("--no-enable-chunked-prefill", "enable_chunked_prefill", False),
        ("--async-scheduling", "async_scheduling", True),
        ("--no-async-scheduling", "async_scheduling", False),
        ("", "async_scheduling", None),
        ("--preemption-mode swap", "preemption_mode", PreemptionMode.SWAP),
        ("--no-forecast", "enable_forecast", False),
        ("--cudagraph-capture-sizes 4 1", "cudagraph_capture_sizes", (1, 4)),
        ("-tp 1 -pp 1 -dp 1", "max_num_seqs", 64),
        ("--tokenizer other", "tokenizer", Path("other")),
        ("--tokenizer other", "text_folder", Path("other")),
        ("", "text_folder", Path("model")),
        ("--kv-cache-dtype fp8_e4m3", "kv_cache_dtype", "fp8"),
        ("--load-format dummy", "load_format", "dummy"),
    ],
)
def test_options_reach_the_engine(words: str, field: str, value: Any) -> None:
    assert getattr(parse(*words.split()), field) == value


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--revision main", "models are local folders, which have no revisions"),
        ("--kv-cache-dtype fp8_e5m2", "'fp8_e5m2' (choose from"),
    ],
)
def test_what_is_refused_says_why(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(*words.split())
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err


def test_a_file_can_say_no(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(
        "model: m\nenable_prefix_caching: false\nforecast: false\nasync-scheduling: true\n"
        "enforce-eager: false\n"
    )
    words = expand_config(["serve", "--config", str(path)])
    assert "--enforce-eager" not in words
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    config = engine_config(parser.parse_args(words[1:]))
    assert not config.enable_prefix_caching
    assert not config.enable_forecast
    assert config.async_scheduling is True


def test_every_switch_is_known() -> None:
    """By the file's reader, which sees no parser."""
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    kind = argparse.BooleanOptionalAction
    found = {a.option_strings[0][2:] for a in parser._actions if isinstance(a, kind)}
    assert found == set(SWITCHES)


@pytest.mark.parametrize("option", ["--tensor-parallel-size", "-tp", "-pp", "-dp"])
@pytest.mark.parametrize("value", ["2", "0"])
def test_more_than_one_device_is_refused(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "model", option, value]) == 2
    assert "parallel_size must be 1: a model runs on one device" in capsys.readouterr().err


def test_help_prints(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--help"])
    assert ended.value.code == 0
    assert "on GPUs what 92% of the memory leaves" in " ".join(capsys.readouterr().out.split())


class Channel:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[FromEngine] = []

    def send(self, message: FromEngine) -> None:
        self.sent.append(message)


def test_bytes_of_weights_are_told(served_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel()
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(weight_progress, "_EVERY_S", 0.0)
    progress = WeightProgress(channel)  # type: ignore[arg-type]

    def take(num_read: int, num_bytes: int) -> None:
        told.append((num_read, num_bytes))
        progress.take(num_read, num_bytes)

    with Checkpoint(served_model, take) as checkpoint:
        sizes = [checkpoint.read(name).nbytes for name in checkpoint]
    assert [read for read, _ in told] == [sum(sizes[: n + 1]) for n in range(len(sizes))]
    size = (served_model / "model.safetensors").stat().st_size
    assert {whole for _, whole in told} == {size}
    last = channel.sent[-1]
    assert isinstance(last, Progress)
    assert last.stage == f"weights 0 MB of 0 MB, {sum(sizes) / size:.0%}"
    progress.take(3_100_000_000, 15_000_000_000)
    assert channel.sent[-1] == Progress("weights 3.1 GB of 15.0 GB, 21%")
    monkeypatch.setattr(weight_progress, "_EVERY_S", 60.0)
    progress.take(1, 1)
    assert channel.sent[-1] == Progress("weights 3.1 GB of 15.0 GB, 21%")
