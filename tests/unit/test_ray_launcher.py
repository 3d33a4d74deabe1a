"""Workers on a Ray cluster: which GPUs get one, and with what words. Ray itself takes no part."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from autotune.arch import GPUS
from autotune.cli import main, worker
from autotune.cli.ray_launcher import ACCELERATORS, Launch, Node, launch_all, plan
from autotune.errors import UnknownChoiceError, UsageError

NODES = (
    Node("A100", gpus=4, cpus=64),
    Node("H100", gpus=2, cpus=1),
    Node(None, gpus=0, cpus=8),
    Node("L4", gpus=1, cpus=8),
)


class FakeCluster:
    """Remembers what it was asked to run."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.ran: list[tuple[Launch, Sequence[str]]] = []

    def nodes(self) -> Sequence[Node]:
        return NODES

    def run(self, launches: Sequence[tuple[Launch, Sequence[str]]]) -> list[int]:
        self.ran += launches
        return self.codes or [0] * len(launches)


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    worker.add_arguments(parser)
    return parser.parse_args(["--storage", "journal:/mnt/x", "--ray", "auto", *words])


def test_every_gpu_has_a_name_that_ray_knows() -> None:
    assert set(ACCELERATORS) == set(GPUS)


def test_one_worker_per_gpu_of_the_kinds_asked_for() -> None:
    assert (
        plan(["a100", "h100"], NODES)
        == [Launch("a100", "A100", 16)] * 4 + [Launch("h100", "H100", 1)] * 2
    )


@pytest.mark.parametrize(
    ("gpus", "complaint"),
    [
        (["a100", "b200"], "no b200; it has 1 x L4, 2 x H100, 4 x A100"),
        (["a100", "a100-40gb"], "both a100 and a100-40gb A100"),
    ],
)
def test_what_the_cluster_cannot_do_is_refused(gpus: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        plan(gpus, NODES)


def test_an_unknown_gpu_lists_the_known() -> None:
    with pytest.raises(UnknownChoiceError, match="a1000"):
        plan(["a1000"], NODES)


def test_workers_get_the_launchers_words() -> None:
    cluster = FakeCluster(0, 1)
    wanted = options(
        *("--gpu", "l4", "--kernel", "fused_mlp", "--kernel", "dequant_gemm", "--seed", "3"),
        *("--block-size", "16,32", "--results", "out", "--jobs", "99", "--variants"),
    )
    assert launch_all(wanted, cluster) == 1, "the worst exit code"
    ((launch, words),) = cluster.ran
    assert launch == Launch("l4", "L4", 8)
    assert words[:5] == ["worker", "--gpu", "l4", "--jobs", "8"]
    parser = argparse.ArgumentParser()
    worker.add_arguments(parser)
    read = vars(parser.parse_args(words[1:]))
    expected = vars(wanted) | {"ray": None, "jobs": 8, "results": str(Path("out").absolute())}
    assert read == expected


def test_ray_needs_the_gpus_named() -> None:
    with pytest.raises(UsageError, match="--gpu a100"):
        launch_all(options(), FakeCluster())


def test_without_ray_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["--storage", f"journal:{tmp_path}", "--gpu", "a100", "--ray", "auto"]
    assert main(["worker", *words]) == 2
    assert "pip install 'pagetune[ray]'" in capsys.readouterr().err
