"""Random weights in a model's shapes: by seed, for every family, and not for what has levels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from references import Reference
from tiny_models import save_model

from runtime.checkpoint import Checkpoint
from runtime.cli import main
from runtime.config import EngineConfig
from runtime.dummy_weights import DummyWeights
from runtime.engine_plan import plan_engine
from runtime.errors import InvalidParameterError
from runtime.gpu_memory import weight_bytes
from runtime.llm import LLM
from runtime.model_config import ModelConfig, load_model_config, with_quantization
from runtime.sampling_params import SamplingParams
from runtime.weight_memory import shape_bytes

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7], [9] * 20]


def tokens(folder: Path, **options: object) -> list[tuple[int, ...]]:
    llm = LLM(folder, dtype="fp32", load_format="dummy", skip_tokenizer=True, **options)
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, params)]


def test_a_tensor_is_of_its_seed_and_name() -> None:
    def made(seed: int, scope: str, name: str = "weight") -> torch.Tensor:
        weights = DummyWeights(Path("m"), seed, torch.float32, CPU)
        return weights.scope("layers").scope(scope).tensor(name, (64, 48))

    same = made(0, "1")
    assert torch.equal(same, made(0, "1"))
    assert not torch.equal(same, made(1, "1"))
    assert not torch.equal(same, made(0, "2"))
    assert not torch.equal(same, made(0, "1", "other"))
    assert 0.018 < same.std().item() < 0.022
    plain = DummyWeights(Path("m"), 0, torch.float32, CPU)
    assert plain.tensor("norm.weight", (4,)).tolist() == [1.0] * 4
    assert plain.tensor("q_proj.bias", (4,), torch.bfloat16).tolist() == [0.0] * 4


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "phi3", "gemma2"])
def test_a_config_alone_is_served(
    reference: Callable[[str], Reference], tmp_path: Path, family: str
) -> None:
    shutil.copy(reference(family).folder / "config.json", tmp_path)
    found = tokens(tmp_path)
    assert found == tokens(tmp_path)
    assert found != tokens(tmp_path, seed=1)
    assert found != tokens(tmp_path, quantization="int8", seed=2)


def test_what_has_levels_or_foreign_code_is_refused(
    reference: Callable[[str], Reference], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((reference("llama").folder / "config.json").read_text())
    packed = {"quant_method": "gptq", "bits": 4, "group_size": 8, "sym": True}
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": packed}))
    words = ["generate", str(tmp_path), "--prompt-ids", "5", "--load-format", "dummy"]
    assert main(words) == 2
    assert "auto for a gptq checkpoint" in capsys.readouterr().err
    save_model("gpt2", tmp_path / "gpt2")
    with pytest.raises(InvalidParameterError, match="auto for GPT2LMHeadModel"):
        plan_engine(EngineConfig(tmp_path / "gpt2", load_format="dummy"))
    with pytest.raises(InvalidParameterError, match="one of auto, safetensors, dummy"):
        EngineConfig(tmp_path, load_format="pt")


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_shapes_say_what_memory_weights_take(
    reference: Callable[[str], Reference], family: str
) -> None:
    folder = reference(family).folder
    model = load_model_config(folder)
    assert isinstance(model, ModelConfig)
    with Checkpoint(folder) as checkpoint:
        names = [name for name in checkpoint if len(checkpoint.shape(name)) == 2]
        exact = sum(checkpoint.read(name).nbytes for name in names)
    assert shape_bytes(model, 4) == exact <= weight_bytes(folder, 4, 4)
    rounded = with_quantization(model, "int8")
    assert isinstance(rounded, ModelConfig)
    assert shape_bytes(rounded, 4) < exact
