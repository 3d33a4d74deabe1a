"""The Triton kernels that ship, inside the engine: the same tokens as Hugging Face, in fp32."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Reference

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
            found: Reference, prompts: tuple[int, ...] = PROMPTS, **options: Any
        ) -> dict[str, Any]:
            order = {
                "folder": str(found.folder),
                "options": {"dtype": "fp32", "max_model_len": 128, "num_blocks": 16} | options,
                "prompts": [found.prompts[index] for index in prompts],
                "max_tokens": NUM_TOKENS,
            }
            worker.stdin.write(json.dumps(order) + "\n")
            worker.stdin.flush()
            line = worker.stdout.readline()
            assert line, "the worker has ended; its error is above"
            answer: dict[str, Any] = json.loads(line)
            wanted = [found.outputs[index][:NUM_TOKENS] for index in prompts]
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
    assert {"paged_attention_decode", "paged_attention_prefill", "fused_mlp"} <= kernels(answer)
    assert answer["explanation"]["can_capture"]
