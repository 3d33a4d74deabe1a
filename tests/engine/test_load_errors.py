"""What goes wrong on the way to a served model: one clear line and exit code 2, no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from references import Reference

from runtime.cli import main

GetReference = Callable[[str], Reference]


def run(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str:
    """Generate from a folder that cannot be served; returns the one line of error."""
    capsys.readouterr()
    prompt = [] if "--prompt-ids" in words else ["--prompt-ids", "3,4,5"]
    assert main(["generate", str(folder), "--max-tokens", "2", *prompt, *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("runtime: ")]
    assert lines, captured.err
    assert str(folder) in lines[-1] or "is not valid" in lines[-1] or "tokens" in lines[-1]
    return lines[-1]


@pytest.mark.parametrize("name", ["llama", "cohere2"])
@pytest.mark.parametrize(
    ("file", "says"),
    [
        (None, "no weights in this folder"),
        ("pytorch_model.bin", "only pytorch_model.bin: pickled weights can run code"),
        ("model.gguf", "GGUF files are not supported"),
        ("model.safetensors", "not a readable safetensors file"),
    ],
)
def test_no_weights_to_read(
    reference: GetReference,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    file: str | None,
    says: str,
) -> None:
    config = reference(name).folder / "config.json"
    (tmp_path / "config.json").write_bytes(config.read_bytes())
    if file is not None:
        (tmp_path / file).write_bytes(b"anything")
    assert says in run(capsys, tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no config.json in this folder"),
        ("{", "not valid JSON"),
        ("[]", "holds list, not a JSON object"),
        ("{}", "'architectures' is missing"),
        ('{"architectures": ["NoSuchForCausalLM"]}', "unknown architecture 'NoSuchForCausalLM'"),
    ],
)
def test_config_missing_or_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, says: str
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert says in run(capsys, tmp_path)


def test_a_file_in_place_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    line = run(capsys, path)
    assert "a file; model.gguf is GGUF" in line
    assert "which is not supported: use safetensors; give the folder" in line


@pytest.mark.parametrize("name", ["llama", "cohere2"])
def test_too_long_and_too_little_memory(
    reference: GetReference, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = reference(name).folder
    long = ",".join(["5"] * 300)
    assert "the prompt has 300 tokens" in run(capsys, folder, "--prompt-ids", long)
    line = run(capsys, folder, "--kv-cache-gib", "0.0000001")
    assert "kv_cache_bytes must be at least" in line
    few = ("--num-blocks", "2", "--block-size", "4")
    assert "needs 29 tokens of KV cache" in run(
        capsys, folder, *few, "--prompt-ids", ",".join(["5"] * 28)
    )


def test_an_impl_without_the_architecture(
    reference: GetReference, capsys: pytest.CaptureFixture[str]
) -> None:
    line = run(capsys, reference("cohere2").folder, "--model-impl", "native")
    assert "unknown architecture 'Cohere2ForCausalLM'" in line
    assert "LlamaForCausalLM" in line


def test_the_tokenizer_is_not_there(
    reference: GetReference, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = reference("cohere2").folder
    assert main(["generate", str(folder), "--prompt", "text"]) == 2
    assert "no tokenizer in this folder" in capsys.readouterr().err
    assert json.loads((folder / "config.json").read_text())["model_type"] == "cohere2"
