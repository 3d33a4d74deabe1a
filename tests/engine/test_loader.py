"""Checkpoints in every accepted form, and a clear error for each that is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from references import NUM_TOKENS, Reference
from safetensors.torch import load_file, save_file

from runtime.checkpoint import Checkpoint
from runtime.errors import CheckpointError, InvalidParameterError, WeightError
from runtime.llm import LLM
from runtime.loader import make_ops
from runtime.model_config import load_model_config
from runtime.ops.request import Demands, OpsRequest
from runtime.sampling_params import SamplingParams

GetReference = Callable[[str], Reference]


@pytest.fixture
def folder(reference: GetReference, tmp_path: Path) -> Path:
    """A copy of the Llama checkpoint that a test may damage."""
    found = reference("llama").folder
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((found / name).read_bytes())
    return tmp_path


def generate(folder: Path) -> list[int]:
    llm = LLM(folder, skip_tokenizer=True, num_blocks=32, max_model_len=128)
    params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS)
    return list(llm.generate([[3, 4, 5]], params)[0].outputs[0].token_ids)


def resave(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_sharded_index(folder: Path) -> None:
    expected = generate(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / part)
    index = {"weight_map": {name: part for part, held in parts.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert generate(folder) == expected
    (folder / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"b\.safetensors is missing"):
        generate(folder)


def test_packed_checkpoint_of_an_unpacked_family(folder: Path) -> None:
    expected = generate(folder)

    def pack(tensors: dict[str, torch.Tensor]) -> None:
        for index in range(2):
            prefix = f"model.layers.{index}.self_attn"
            parts = [tensors.pop(f"{prefix}.{part}_proj.weight") for part in "qkv"]
            tensors[f"{prefix}.qkv_proj.weight"] = torch.cat(parts)

    resave(folder, pack)
    assert generate(folder) == expected


def test_repeated_head_and_buffers_of_old_checkpoints(
    reference: GetReference, tmp_path: Path
) -> None:
    found = reference("llama-tied-biased").folder
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((found / name).read_bytes())
    expected = generate(tmp_path)

    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(6)

    resave(tmp_path, add)
    assert generate(tmp_path) == expected


@pytest.mark.parametrize(
    ("name", "match"),
    [
        (None, "no weights in this folder"),
        ("pytorch_model.bin", r"only pytorch_model\.bin: pickled weights can run code"),
        ("model.gguf", "GGUF files are not supported"),
    ],
)
def test_refused_formats(folder: Path, name: str | None, match: str) -> None:
    (folder / "model.safetensors").unlink()
    if name is not None:
        (folder / name).write_bytes(b"anything")
    with pytest.raises(CheckpointError, match=match):
        generate(folder)


def test_damaged_files(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        generate(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="no weight_map"):
        generate(folder)
    index.write_text('{"weight_map": {"x": "../elsewhere.safetensors"}}')
    with pytest.raises(CheckpointError, match="outside of the folder"):
        generate(folder)


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("model.norm.weight", None, r"'model\.norm\.weight' is missing"),
        ("model.layers.1.self_attn.v_proj.weight", None, "v_proj.weight' is missing"),
        ("lm_head.weight", (3, 48), r"has shape \[3, 48\], but config.json makes it \[151, 48\]"),
        ("model.layers.0.self_attn.q_proj.bias", (48,), "no layer .* takes .*q_proj.bias"),
    ],
)
def test_wrong_tensors(folder: Path, name: str, shape: tuple[int, ...] | None, match: str) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors.pop(name, None)
        if shape is not None:
            tensors[name] = torch.zeros(shape)

    resave(folder, change)
    with pytest.raises(WeightError, match=match):
        generate(folder)


def test_checkpoint_reads_lazily(folder: Path) -> None:
    with Checkpoint(folder) as checkpoint:
        assert checkpoint.shape("lm_head.weight") == (151, 48)
        assert len(list(checkpoint)) == 3 + 2 * 9


def test_unknown_operation_set(folder: Path) -> None:
    request = OpsRequest(Demands.of(load_model_config(folder)), torch.device("cpu"))
    with pytest.raises(InvalidParameterError, match="one of torch"):
        make_ops("tpu", request)
