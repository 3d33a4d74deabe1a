"""Quantised weights: the tokens of Hugging Face's model of the numbers that they stand for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from quantised_models import CASES, WEIGHTS, edit_config
from references import NUM_TOKENS, Reference, make_reference
from safetensors.torch import load_file, save_file
from tiny_models import save_model

from runtime.cli import main
from runtime.config import EngineConfig
from runtime.engine_plan import plan_engine
from runtime.errors import InvalidParameterError
from runtime.llm import LLM
from runtime.ops.torch_build import VARIABLE
from runtime.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=NUM_TOKENS)
GetReference = Callable[[str], Reference]


def tokens(found: Reference, **options: Any) -> tuple[list[list[int]], list[list[int]]]:
    """Of all prompts at once, and one by one."""
    llm = LLM(found.folder, dtype="fp32", skip_tokenizer=True, max_model_len=128, **options)
    together = [list(o.outputs[0].token_ids) for o in llm.generate(found.prompts, GREEDY)]
    alone = [list(llm.generate([p], GREEDY)[0].outputs[0].token_ids) for p in found.prompts]
    return together, alone


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kernels", ["on", "off"])
def test_checkpoints(
    quantised_reference: GetReference, name: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels == "off":
        monkeypatch.setenv(VARIABLE, "off")
    found = quantised_reference(name)
    assert tokens(found) == (found.outputs, found.outputs)


def rounded(weight: torch.Tensor, bits: int, size: int) -> torch.Tensor:
    """What the nearest level stands for, group by group; int8 is symmetric."""
    parts = []
    for part in weight.split(size, dim=1):
        low, high = part.amin(1, keepdim=True).clamp(max=0), part.amax(1, keepdim=True).clamp(min=0)
        if bits == 8:
            scale = torch.maximum(-low, high) / 127
            parts.append((part / scale).round() * scale)
        else:
            scale = (high - low) / 15
            zero = (-low / scale).round()
            parts.append((((part / scale).round() + zero).clamp(0, 15) - zero) * scale)
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize(("quantization", "bits"), [("int8", 8), ("int4", 4)])
@pytest.mark.parametrize("kernels", ["on", "off"])
def test_rounded_when_loaded(
    tmp_path: Path, quantization: str, bits: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels == "off":
        monkeypatch.setenv(VARIABLE, "off")
    model = save_model("llama", tmp_path)
    for name, parameter in model.named_parameters():
        if name.endswith("_proj.weight"):
            size = parameter.shape[1] if bits == 8 else 32
            parameter.data.copy_(rounded(parameter.data, bits, size))
    found = make_reference(tmp_path, model)
    assert tokens(found, quantization=quantization) == (found.outputs, found.outputs)


Edit = Callable[[dict[str, torch.Tensor]], None]
FIRST = "model.layers.0.self_attn.q_proj"


def without(name: str) -> Edit:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[name]

    return edit


def put(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Edit:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = change(tensors[name]).contiguous()

    return edit


@pytest.mark.parametrize(
    ("edit", "fields", "says"),
    [
        pytest.param(
            without(f"{FIRST}.scales"),
            {},
            f"{WEIGHTS}: tensor '{FIRST}.scales' is missing beside qweight: the checkpoint is not "
            "complete as gptq; get it again",
            id="no scales",
        ),
        pytest.param(
            without(f"{FIRST}.qweight"), {}, f"tensor '{FIRST}.weight' is missing", id="no words"
        ),
        pytest.param(
            None,
            {"group_size": 32},
            f"{WEIGHTS}: tensor '{FIRST}.qzeros' has shape [3, 6], but config.json makes it [2, 6] "
            "(4 bits, group_size 32): its 3 rows are groups of 16; set group_size",
            id="group size",
        ),
        pytest.param(None, {"bits": 8}, f"tensor '{FIRST}.qweight' has shape [6, 48]", id="bits"),
        pytest.param(
            put(f"{FIRST}.scales", lambda scales: scales / 0),
            {},
            f"{WEIGHTS}: {FIRST}: scales must be finite",
            id="scales",
        ),
        pytest.param(
            put(f"{FIRST}.qweight", lambda words: words.long()),
            {},
            "packed words are int32",
            id="words",
        ),
        pytest.param(
            put(f"{FIRST}.g_idx", lambda groups: groups * 0),
            {},
            "g_idx does not split 48 rows into groups of 16",
            id="order",
        ),
        pytest.param(
            put(f"{FIRST}.bias", lambda bias: bias + 1),
            {},
            f"no layer of this architecture takes the tensors {FIRST}.bias",
            id="bias",
        ),
        pytest.param(None, {"bits": 3}, "'bits' is 3; supported of gptq are 4 and 8", id="3 bits"),
        pytest.param(
            None,
            {"quant_method": "fp8"},
            "'quant_method' is 'fp8'; supported are gptq, awq",
            id="method",
        ),
        pytest.param(None, None, f"which has '{FIRST}.qweight': config.json lacks", id="no config"),
    ],
)
def test_broken_checkpoints(
    quantised_reference: GetReference,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    edit: Edit | None,
    fields: dict[str, Any] | None,
    says: str,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(quantised_reference("gptq").folder, folder)
    if edit is not None:
        tensors = load_file(folder / WEIGHTS)
        edit(tensors)
        save_file(tensors, folder / WEIGHTS)
    own = CASES["gptq"].config
    edit_config(folder, quantization_config=None if fields is None else own | fields)
    capsys.readouterr()
    assert main(["generate", str(folder), "--prompt-ids", "3,4", "--max-tokens", "1"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert str(folder) in error


def test_groups_that_no_kernel_takes_are_left_to_torch(quantised_reference: GetReference) -> None:
    plan = plan_engine(EngineConfig(quantised_reference("awq").folder), gpu="a100")
    rows = [row for row in plan.ops.report().rows if "of 4 bits" in row.operation]
    assert [row.kernel for row in rows] == ["torch"] * 4
    assert all("group_size" in str(row.reason) for row in rows)


@pytest.mark.parametrize("deterministic", [False, True])
def test_tuned_kernels_are_planned(reference: GetReference, deterministic: bool) -> None:
    folder = reference("llama").folder
    config = EngineConfig(folder, quantization="int4", deterministic=deterministic)
    plan = plan_engine(config, gpu="a100")
    rows = [row for row in plan.ops.report().rows if row.kernel == "dequant_gemm"]
    assert {row.problem for row in rows if row.problem is not None} == {
        f"dtype=fp32,bits=4,group_size=32,zero_point=True,n={n},k={k}"
        for n, k in ((96, 48), (48, 48), (160, 48), (48, 80))
    }


@pytest.mark.parametrize(
    ("name", "quantization", "says"),
    [
        ("gptq", "int4", "left out, or gptq, as config.json says"),
        ("gptq", "awq", "left out, or gptq, as config.json says"),
        (None, "gptq", "left out, or one of int8, int4: config.json has no gptq"),
        (None, "fp8", "one of int8, int4, gptq, awq"),
    ],
)
def test_contradictions(
    reference: GetReference,
    quantised_reference: GetReference,
    name: str | None,
    quantization: str,
    says: str,
) -> None:
    found = reference("llama") if name is None else quantised_reference(name)
    with pytest.raises(InvalidParameterError, match=says):
        plan_engine(EngineConfig(found.folder, quantization=quantization))


def test_models_of_transformers_are_not_rounded(reference: GetReference) -> None:
    found = reference("llama")
    config = EngineConfig(found.folder, model_impl="transformers", quantization="int8")
    with pytest.raises(InvalidParameterError, match="left out for LlamaForCausalLM"):
        plan_engine(config)


def test_an_unknown_name_lists_the_choices(
    reference: GetReference, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(reference("llama").folder)
    with pytest.raises(SystemExit) as caught:
        main(["generate", folder, "--prompt-ids", "3", "--quantization", "int5"])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert all(name in said for name in ("int8", "int4", "gptq", "awq"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gptq-act-order", []),
        ("awq", ["--dtype", "bf16"]),
        (None, ["--quantization", "int4"]),
        (None, ["--quantization", "int8", "--dtype", "bf16"]),
    ],
    ids=["gptq", "awq-bf16", "int4", "int8-bf16"],
)
def test_the_check_command_gives_hugging_face_the_same_numbers(
    reference: GetReference,
    quantised_reference: GetReference,
    capsys: pytest.CaptureFixture[str],
    name: str | None,
    words: list[str],
) -> None:
    found = reference("llama") if name is None else quantised_reference(name)
    command = ["check", str(found.folder), "--prompts", "2", "--max-tokens", "8", *words]
    assert main(command) == 0, capsys.readouterr().out


def test_what_is_saved_is_explained(
    reference: GetReference, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    folder = str(reference("llama").folder)
    assert main(["generate", folder, "--quantization", "int4", "--explain", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    # Two layers; groups of 32 in 48 and 80 inputs; a scale and a zero of four bytes each.
    shapes = ((96, 48, 2), (48, 48, 2), (160, 48, 2), (48, 80, 3))
    levels = sum(n * k // 2 for n, k, _ in shapes)
    tables = sum(n * groups * 8 for n, _, groups in shapes)
    assert said["linear_bytes"] == 2 * (levels + tables)
    assert said["linear_bytes"] + said["saved_bytes"] == 2 * sum(n * k * 4 for n, k, _ in shapes)
    assert said["weights"] == "int4, rounded to nearest, in groups of up to 128"
