"""The Triton kernels that ship, inside the engine: Hugging Face's tokens, in fp32; and in bf16."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from references import Reference

from autotune.arch import lookup
from autotune.kernels import load_kernel
from autotune.kernels.fused_mlp_problem import FusedMlpProblem
from autotune.kernels.paged_attention_decode_problem import DecodeProblem
from autotune.kernels.paged_attention_prefill_problem import PrefillProblem
from autotune.problem import Problem
from autotune.records import Environment, Provenance, Selection, Timing
from autotune.results import CellResult, ResultsStore

GetReference = Callable[[str], Reference]
Run = Callable[..., dict[str, Any]]

TESTS = Path(__file__).parent
ROOT = TESTS.parents[1]
PROMPTS = (1, 0)
"""Of the references: 37 and 3 tokens long."""
NUM_TOKENS = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run prompts of a reference in a process whose triton interprets."""
    folder = tmp_path_factory.mktemp("interpreter")
    environment = dict(os.environ)
    environment |= {
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(TESTS))),
        "AUTOTUNE_CACHE": str(folder / "cache"),
        "AUTOTUNE_RESULTS": str(folder / "no-results"),
    }
    with subprocess.Popen(
        [sys.executable, str(TESTS / "interpreter_worker.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None

        def run(
            found: Reference,
            prompts: tuple[int, ...] = PROMPTS,
            num_tokens: int = NUM_TOKENS,
            **options: Any,
        ) -> dict[str, Any]:
            order = {
                "folder": str(found.folder),
                "options": {"dtype": "fp32", "max_model_len": 128, "num_blocks": 16} | options,
                "prompts": [found.prompts[index] for index in prompts],
                "max_tokens": num_tokens,
            }
            worker.stdin.write(json.dumps(order) + "\n")
            worker.stdin.flush()
            line = worker.stdout.readline()
            assert line, "the worker has ended; its error is above"
            answer: dict[str, Any] = json.loads(line)
            wanted = [found.outputs[index][:num_tokens] for index in prompts]
            assert answer["tokens"] == wanted
            return answer

        yield run
        worker.stdin.close()


def kernels(answer: dict[str, Any]) -> set[str]:
    return {row["kernel"] for row in answer["explanation"]["kernels"]}


@pytest.mark.parametrize(
    ("family", "block_size"),
    [
        ("llama3", 16),
        ("mistral", 32),
        ("qwen2", 16),
        ("qwen3", 32),
        ("phi3", 16),
        ("gemma2", 32),
    ],
)
def test_every_family_in_chunks_beside_decodes(
    reference: GetReference, run: Run, family: str, block_size: int
) -> None:
    found = reference(family)
    answer = run(found, block_size=block_size, long_prefill_token_threshold=20)
    searched = {"paged_attention_decode", "paged_attention_prefill", "fused_mlp"}
    assert searched | {"rms_norm", "rope_kv_write"} <= kernels(answer)
    left = {row["operation"] for row in answer["explanation"]["kernels"] if row["reason"]}
    assert not any("norm" in operation or "write" in operation for operation in left)
    assert answer["explanation"]["can_capture"]


@pytest.mark.parametrize(("kv_dtype", "family"), [("int8", "llama3"), ("fp8", "qwen3")])
def test_a_quantised_cache(
    rounded_reference: Callable[[str, str], Reference], run: Run, kv_dtype: str, family: str
) -> None:
    options = {"kv_cache_dtype": kv_dtype, "block_size": 16, "long_prefill_token_threshold": 20}
    answer = run(rounded_reference(family, kv_dtype), (1,), **options)
    assert answer["explanation"]["can_capture"]
    for row in answer["explanation"]["kernels"]:
        if row["kernel"].startswith(("paged_attention", "rope_kv_write")):
            assert f"kv_dtype={kv_dtype}" in row["problem"]
            assert "kv_scale=token" in row["problem"]


def test_quantised_weights(quantised_reference: GetReference, run: Run) -> None:
    limits = {"max_num_batched_tokens": 16, "max_num_seqs": 1, "block_size": 16}
    answer = run(quantised_reference("gptq-act-order"), (0,), 2, **limits)
    rows = [row for row in answer["explanation"]["kernels"] if "of 4 bits" in row["operation"]]
    assert {row["kernel"] for row in rows} == {"dequant_gemm"}
    assert all(row["tier"] == "default" and "group_size=32" in row["problem"] for row in rows)
    assert answer["explanation"]["can_capture"]


def test_one_request_alone_in_one_order_of_sums(reference: GetReference, run: Run) -> None:
    rows = run(reference("llama3"), (1,), deterministic=True)["explanation"]["kernels"]
    assert {row["kernel"] for row in rows if "linear" in row["operation"]} == {"fused_mlp"}
    assert not [row for row in rows if row["kernel"] == "torch"]
    (decode,) = [row for row in rows if row["kernel"] == "paged_attention_decode"]
    assert (decode["config"]["cut"], decode["tier"]) == ("chunks", "default")


def test_preempted(reference: GetReference, run: Run) -> None:
    answer = run(
        reference("llama3"),
        (0, 0),
        7,
        block_size=4,
        num_blocks=5,  # three blocks each at the end, and four in all
        max_model_len=12,
        enable_forecast=False,
        enable_prefix_caching=False,
        preemption_mode="recompute",
    )
    assert answer["preemptions"] > 0


def test_blocks_that_no_tile_fits_go_to_torch(reference: GetReference, run: Run) -> None:
    explanation = run(reference("gemma2"), block_size=5)["explanation"]
    assert not explanation["can_capture"]
    left = [row["operation"] for row in explanation["kernels"] if "tile" in (row["reason"] or "")]
    assert len(left) == 4, "decode and prefill, with and without a window"


def save_tuned(
    folder: Path, problem: Problem, library: Mapping[str, int] | None = None, **knobs: Any
) -> None:
    """Store a configuration as measured for a problem's cell.

    `library` says from which size on which routine of torch's was faster; without knobs the default
    is stored.
    """
    spec, arch = load_kernel(problem.kernel), lookup("a100")
    space = spec.space(problem, arch)
    selection = Selection(
        exact=problem.exact_axes(),
        nearest=problem.nearest_axes(),
        config=space.config(**knobs) if knobs else spec.default_config(problem, arch),
        provenance=Provenance.MEASURED,
        time_us=10.0,
        error_factor=None,
        default_us=20.0,
        floor_us=1.0,
        reason="made up",
        timing=Timing(10.0, 9.0, 11.0, 20),
    )
    further = [
        replace(selection, nearest=problem.at(m=size).nearest_axes(), library=name)
        for name, size in (library or {}).items()
    ]
    cell = CellResult(
        problem.exact_axes(), "0" * 16, Environment("3.6.0", "ptxas"), {}, (selection, *further)
    )
    ResultsStore(folder).merge("a100", problem.kernel, [cell])


def test_tuned_configurations_are_what_runs(
    reference: GetReference, run: Run, tmp_path: Path
) -> None:
    axes = {"dtype": "fp32", "head_dim": 20, "group": 2, "block_size": 16}
    loop = {"tile": 16, "lookup": "scalar", "prefetch": True, "tail": "split_loop"}
    save_tuned(
        tmp_path,
        DecodeProblem.from_axes(axes),
        **loop,
        variant="split",
        num_splits=2,
        num_warps=1,
        num_stages=3,
    )
    save_tuned(
        tmp_path,
        PrefillProblem.from_axes(axes),
        **loop,
        block_m=16,
        value_parts=1,
        num_warps=2,
        num_stages=2,
        order="heads_reversed",
    )
    gate_up = FusedMlpProblem.from_axes({"dtype": "fp32", "n": 80, "k": 48, "m": 1})
    save_tuned(tmp_path, gate_up, {"cublas": 16})
    answer = run(reference("qwen3"), block_size=16, results=str(tmp_path))
    kernel, library = [
        row for row in answer["explanation"]["kernels"] if "gate-up" in row["operation"]
    ]
    assert (kernel["kernel"], kernel["library"], kernel["tier"]) == ("fused_mlp", None, "nearest")
    assert (library["kernel"], library["library"], library["config"]) == ("torch", "cublas", None)
    assert library["source"].startswith("library cublas: measured on a100 at m=16 (tier ")
    assert library["sizes"].endswith("+ tokens"), "prompts, in the same engine as decodes by kernel"
    assert library["reason"] is None, "nothing is amiss"
    rows = [row for row in answer["explanation"]["kernels"] if "attention" in row["kernel"]]
    assert {row["tier"] for row in rows} == {"nearest"}
    assert {row["config"]["tile"] for row in rows} == {16}
    assert {row["gain"] for row in rows} == {2.0}


def in_python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_interpreter_cannot_be_asked_for_too_late() -> None:
    code = """
import triton
from runtime import interpreter
from runtime.errors import DeviceError
for attempt in (interpreter.choose, interpreter.require):
    try:
        attempt()
    except DeviceError as error:
        assert "TRITON_INTERPRET=1" in str(error), error
    else:
        raise SystemExit("accepted")
"""
    done = in_python(code, TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stderr


def test_the_check_command_runs_on_the_interpreter_in_bf16(reference: GetReference) -> None:
    words = ["--ops", "interpreter", "--dtype", "bf16"]
    words += ["--prompts", "1", "--max-tokens", "16", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "runtime", "check", str(reference("llama3").folder), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(row["passed"] for row in json.loads(done.stdout))
