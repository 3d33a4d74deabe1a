"""The `runtime` command: output, JSON, errors and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from references import Reference
from tiny_models import save_model
from tiny_tokenizer import save_tokenizer

from runtime.cli import COMMANDS, main

GetReference = Callable[[str], Reference]


def test_generate_ids(reference: GetReference, capsys: pytest.CaptureFixture[str]) -> None:
    found = reference("llama")
    words = ",".join(map(str, found.prompts[0]))
    code = main(["generate", str(found.folder), "--prompt-ids", words, "--max-tokens", "6"])
    assert code == 0
    assert capsys.readouterr().out.split() == [str(token) for token in found.outputs[0][:6]]


def test_generate_text_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model("llama-text", tmp_path)
    save_tokenizer(tmp_path)
    capsys.readouterr()
    command = ["generate", str(tmp_path), "--prompt", "the fox", "--max-tokens", "5"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert main([*command, "--json", "--n", "2", "--temperature", "1", "--logprobs", "1"]) == 0
    (parsed,) = json.loads(capsys.readouterr().out)
    assert parsed["prompt"] == "the fox"
    assert len(parsed["outputs"]) == 2
    assert len(parsed["outputs"][0]["logprobs"]) == 5
    assert main([*command, "--prompt", "dog"]) == 0
    assert f"# the fox\n{text}# dog\n" in capsys.readouterr().out


def test_generate_beams(reference: GetReference, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(reference("llama").folder)
    command = ["generate", folder, "--prompt-ids", "5,6", "--max-tokens", "4", "--beam-width", "3"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines] == ["[0] ", "[1] ", "[2] "]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompt-ids", "1", "--temperature", "-1"], "temperature=-1.0 is not valid"),
        ([], "prompt"),
        (["--prompt-ids", "999"], "vocabulary"),
        (["--prompt", "text"], "no tokenizer in this folder"),
        (["--prompt-ids", "1", "--max-model-len", "9999"], "at most 256"),
    ],
)
def test_mistakes_exit_2(
    reference: GetReference,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    folder = str(reference("llama").folder)
    assert main(["generate", folder, *words]) == 2
    assert message in capsys.readouterr().err


def test_no_such_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "nowhere", "--prompt-ids", "1"]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([command, "--help"])
    assert exit_info.value.code == 0
    assert f"runtime {command} " in capsys.readouterr().out.partition("examples:")[2]


@pytest.mark.parametrize("words", ["['--help']", "['generate', '--help']"])
def test_help_loads_nothing_heavy(words: str) -> None:
    code = (
        "import sys, contextlib, runtime.cli\n"
        f"with contextlib.suppress(SystemExit): runtime.cli.main({words})\n"
        "print(sorted(set(sys.modules) & {'torch', 'transformers', 'triton', 'optuna'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("runtime.cli._dispatch", interrupted)
    assert main(["generate"]) == 130
    assert "interrupted" in capsys.readouterr().err
