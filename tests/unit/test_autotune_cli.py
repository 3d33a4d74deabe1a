"""The command line: exit codes, words that name the choices, and output that parses."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from own_folders import Folders
from record_cases import make_selection, sha

from autotune.arch import GPUS
from autotune.cli import COMMANDS, main
from autotune.effort import SAMPLERS
from autotune.kernels import KERNELS
from autotune.kernels.paged_attention_decode_problem import DecodeProblem
from autotune.model_shape import PRESETS
from autotune.records import Environment
from autotune.results import CellResult, ResultsStore

DECODE = "paged_attention_decode"


def autotune(*words: str) -> int:
    """Exit code of a command, whichever way it leaves."""
    try:
        return main(words)
    except SystemExit as leaving:
        return int(leaving.code or 0)


def store_decode(folders: Folders) -> Path:
    """Results for two sizes of one decode cell on an A100."""
    problem = DecodeProblem()
    selections = tuple(make_selection(problem.at(num_seqs=n), time_us=50.0 * n) for n in (1, 2))
    cell = CellResult(
        problem.exact_axes(), sha("template"), Environment("3.6.0", "ptxas 13"), {}, selections
    )
    return ResultsStore(folders.results).merge("a100", DECODE, [cell])


RUN = ("run", "--gpu", "a100", "--kernel", DECODE)


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        (("run", "--gpu", "a1000"), GPUS),
        (("run", "--gpu", "a100", "--kernel", "decode"), KERNELS),
        ((*RUN, "--model", "llama-4"), PRESETS),
        ((*RUN, "--sampler", "anneal"), SAMPLERS),
        ((*RUN, "--effort", "heroic"), ("predict", "quick", "full", "exhaustive")),
        ((*RUN, "--dtype", "int3"), ("bf16", "fp16", "fp32")),
        (("show", DECODE, "--gpu", "a1000"), GPUS),
        (("show", "decode", "--gpu", "a100"), KERNELS),
        (("show", DECODE, "--gpu", "a100", "--problem", "dtype=int3"), ("bf16", "fp16", "fp32")),
        (("show", "fused_mlp", "--gpu", "a100", "--knobs", "lod=pointer"), ("load", "block_m")),
        (("show", "fused_mlp", "--gpu", "a100", "--knobs", "load=tma"), ("pointer", "descriptor")),
        (
            ("show", DECODE, "--gpu", "a100", "--problem", "batch=3"),
            DecodeProblem.axis_names(),
        ),
        (("kernels", "--kernel", "decode"), KERNELS),
        (("kernels", "--gpu", "a1000"), GPUS),
        (("verify", "--kernel", "decode"), KERNELS),
        (("verify", "--kernel", DECODE, "--gpu", "a1000"), GPUS),
        (("verify", "--backend", "fpga"), ("interpreter", "gpu")),
        (("tune",), COMMANDS),
    ],
)
def test_unknown_names_exit_2_and_list_the_choices(
    words: Sequence[str], choices: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert autotune(*words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [choice for choice in choices if choice not in shown.err] == []
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((*RUN, "--trials", "0"), "'0' is not a positive whole number"),
        ((*RUN, "--trials", "many"), "'many' is not a positive whole number"),
        ((*RUN, "--budget", "-1"), "'-1' is not a positive number"),
        ((*RUN, "--budget", "nan"), "'nan' is not a positive number"),
        ((*RUN, "--jobs", "0"), "positive whole number"),
        ((*RUN, "--block-size", "17"), "'17' is not a KV block size; multiples of 16"),
        ((*RUN, "--block-size", "16,,32"), "'' is not a KV block size"),
        ((*RUN, "--resume", "--fresh"), "not allowed with"),
        ((*RUN, "--model", "/no/such/config.json"), "/no/such/config.json"),
        ((*RUN, "--tensor-parallel", "3"), "3"),
        ((*RUN, "--storage", "nonsense"), "--storage nonsense"),
        (("show", DECODE), "--gpu"),
        (("show", DECODE, "--gpu", "a100", "--ptx", "--sass"), "not allowed with"),
        (("show", DECODE, "--gpu", "a100", "--problem", "head_dim"), "axis=value"),
        (("show", DECODE, "--gpu", "a100", "--problem", "block_size=0"), "block_size=0"),
        (("show", DECODE, "--gpu", "a100", "--problem", "block_size=17"), "nothing is legal"),
        (("show", "fused_mlp", "--gpu", "a100", "--knobs", "load"), "knob=value"),
        (("show", "fused_mlp", "--gpu", "a100", "--knobs", "load=descriptor"), "no copy engine"),
        (("verify", "--problem", "m=1"), "--problem needs exactly one --kernel"),
        ((), "COMMAND"),
    ],
)
def test_bad_values_exit_2_and_say_what_would_do(
    words: Sequence[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert autotune(*words) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [("run",), ("run", "--gpu", "a100", "--effort", "quick"), ("verify", "--backend", "gpu")],
)
def test_no_device_exits_3_and_names_the_way_out(
    words: Sequence[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("autotune.cli.cells", "autotune.cli.verify", "autotune.device"):
        monkeypatch.setattr(f"{module}.local_devices", lambda: ())
    assert autotune(*words) == 3
    assert re.search(r"--gpu|--effort predict|--backend interpreter", capsys.readouterr().err)


@pytest.mark.parametrize("view", [(), ("--json",)])
def test_a_corrupt_file_exits_4_and_names_it(
    folders: Folders, view: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = store_decode(folders)
    path.write_bytes(path.read_bytes()[:100])
    assert autotune("show", DECODE, "--gpu", "a100", *view) == 4
    shown = capsys.readouterr()
    assert shown.out == ""
    assert str(path) in shown.err


def test_an_unwritable_cache_exits_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    monkeypatch.setenv("AUTOTUNE_CACHE", str(open_to_all))
    assert autotune(*RUN, "--trials", "1") == 1
    assert "AUTOTUNE_CACHE" in capsys.readouterr().err


def test_an_interrupt_exits_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*anything: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autotune.cli.gpus.local_devices", interrupt)
    assert autotune("gpus") == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert autotune(command, "--help") == 0
    text = capsys.readouterr().out
    assert re.search(r"examples?:\n\s+autotune " + command, text)
    assert "--json" in text


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert autotune("--help") == 0
    text = capsys.readouterr().out
    assert [command for command in COMMANDS if command not in text] == []
    assert "Example: autotune run --gpu a100" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert autotune("--version") == 0
    assert re.fullmatch(r"pagetune \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_gpus_as_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert autotune("gpus") == 0
    text = capsys.readouterr().out
    assert [name for name in GPUS if name not in text] == []
    assert autotune("gpus", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in document["gpus"]] == list(GPUS)
    assert autotune("gpus", "--sources") == 0
    assert "whitepaper" in capsys.readouterr().out


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_as_text_and_json(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert autotune("kernels", "--kernel", kernel, "--gpu", "h100") == 0
    text = capsys.readouterr().out
    assert autotune("kernels", "--kernel", kernel, "--gpu", "h100", "--json") == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert document["kernel"] == kernel
    assert document["space"]["legal"] >= document["space"]["binaries"] > 0
    for row in (*document["axes"], *document["knobs"]):
        assert row["name"] in text


def test_show_lists_stored_selections(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    store_decode(folders)
    assert autotune("show", DECODE, "--gpu", "a100") == 0
    text = capsys.readouterr().out
    assert "predicted" in text
    assert "bound by dram" in text
    assert autotune("show", DECODE, "--gpu", "a100", "--json") == 0
    documents = json.loads(capsys.readouterr().out)
    assert [row["nearest"]["num_seqs"] for row in documents] == [1, 2]
    assert [row["time_us"] for row in documents] == [50.0, 100.0]


def test_show_without_results_says_how_to_get_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert autotune("show", DECODE, "--gpu", "h100") == 0
    assert f"autotune run --gpu h100 --kernel {DECODE}" in capsys.readouterr().out


def test_show_one_problem(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    store_decode(folders)
    words = ("show", DECODE, "--gpu", "a100", "--problem", "num_seqs=2")
    assert autotune(*words) == 0
    text = capsys.readouterr().out
    assert "100.0 µs predicted (×÷ 2)" in text
    assert autotune(*words, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["tier"] == "predicted"
    assert document["selection"]["time_us"] == 100.0
    assert autotune("show", DECODE, "--gpu", "h100", "--problem", "num_seqs=2", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["tier"], document["selection"]) == ("default", None)


def test_show_with_other_knobs(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("show", "fused_mlp", "--gpu", "h100", "--json")
    assert autotune(*words, "--knobs", "load=descriptor,flatten=false,num_warps=8") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["config"]["load"] == "descriptor"
    assert document["config"]["num_warps"] == 8
    assert "flatten" not in document["config"], "plain"
    assert document["source"].endswith("changed by --knobs")


def test_show_source_is_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert autotune("show", DECODE, "--gpu", "a100", "--source") == 0
    source = capsys.readouterr().out
    compile(source, "source", "exec")
    assert "@triton.jit" in source
