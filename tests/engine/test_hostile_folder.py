"""A model's folder that wants its own code run: it is served without, or refused, and none runs."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_model
from tiny_tokenizer import save_tokenizer

from runtime.errors import CheckpointError
from runtime.llm import LLM
from runtime.sampling_params import SamplingParams


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def poison(folder: Path, canary: Path) -> None:
    """Put code wherever some library would look for it."""
    code = f"import pathlib; pathlib.Path({str(canary)!r}).mkdir()\nclass Own: pass\n"
    for name in ("evil.py", "modeling_evil.py", "tokenization_evil.py", "sitecustomize.py"):
        (folder / name).write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    pickled = pickle.dumps(Canary(canary))
    for name in ("pytorch_model.bin", "consolidated.00.pth", "model.pt", "training_args.bin"):
        (folder / name).write_bytes(pickled)
    maps = {
        "config.json": {"AutoConfig": "evil.Own", "AutoModelForCausalLM": "modeling_evil.Own"},
        "tokenizer_config.json": {"AutoTokenizer": ["tokenization_evil.Own", None]},
        "generation_config.json": {"AutoGenerationConfig": "evil.Own"},
    }
    for name, value in maps.items():
        path = folder / name
        known = json.loads(path.read_text()) if path.exists() else {}
        known |= {"auto_map": value, "trust_remote_code": True, "custom_pipelines": {"x": {}}}
        path.write_text(json.dumps(known))


@pytest.mark.parametrize("impl", ["native", "transformers"])
def test_code_of_a_folder_never_runs(tmp_path: Path, impl: str) -> None:
    folder, canary = tmp_path / "model", tmp_path / "canary"
    folder.mkdir()
    save_model("llama-text", folder)
    save_tokenizer(folder)
    poison(folder, canary)
    assert pickle.loads(pickle.dumps(Canary(tmp_path / "works"))) is None
    assert (tmp_path / "works").exists()  # that is what would have happened
    llm = LLM(folder, model_impl=impl, num_blocks=16)
    (output,) = llm.generate("the fox", SamplingParams(max_tokens=3), use_tqdm=False)
    assert len(output.outputs[0].token_ids) == 3
    assert not canary.exists()


def test_pickled_weights_are_refused_unread(tmp_path: Path) -> None:
    folder, canary = tmp_path / "model", tmp_path / "canary"
    folder.mkdir()
    save_model("llama-text", folder)
    save_tokenizer(folder)
    poison(folder, canary)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="pickled weights can run code"):
        LLM(folder, num_blocks=16)
    assert not canary.exists()
