"""A model that computes NaN for some prompts: those requests fail, and their neighbours do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from live_server import LiveServer, events, save_served_model, served
from safetensors.torch import load_file, save_file

NAN, INFINITE = 310, 311
"""Tokens whose embeddings are not numbers."""

GOOD: dict[str, Any] = {"max_tokens": 24, "temperature": 0, "logprobs": 3, "ignore_eos": True}


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = save_served_model(tmp_path_factory.mktemp("poisoned"))
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.embed_tokens.weight"][NAN] = float("nan")
    tensors["model.embed_tokens.weight"][INFINITE] = float("inf")
    save_file(tensors, path, metadata={"format": "pt"})
    # So few blocks that good requests get those that were poisoned.
    with served(folder, num_blocks=24, max_num_seqs=8) as found:
        yield found


def strict(text: str) -> Any:
    """Parse JSON; NaN and Infinity, which Python would take, are none."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in an answer")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("token", [NAN, INFINITE])
def test_neighbours_are_not_touched(poisoned: LiveServer, token: int) -> None:
    prompts = [f"once upon {number} times" for number in range(4)]
    alone = [poisoned.complete(prompt, **GOOD).json()["choices"] for prompt in prompts]
    bad: dict[str, Any] = {"prompt": [5] * 30 + [token], "max_tokens": 20, "ignore_eos": True}
    scored = {**bad, "logprobs": 3}
    unscored = [
        {**bad, "temperature": 0},
        {**bad, "temperature": 1},
        {**bad, "temperature": 1, "top_p": 0.5, "top_k": 9, "min_p": 0.1},
        {**bad, "temperature": 1, "n": 2, "repetition_penalty": 1.5},
    ]
    for _ in range(2):
        with ThreadPoolExecutor(12) as pool:
            good = [pool.submit(poisoned.complete, prompt, **GOOD) for prompt in prompts]
            whole = pool.submit(poisoned.complete, **scored)
            echoed = pool.submit(poisoned.complete, **{**scored, "echo": True, "max_tokens": 0})
            streamed = pool.submit(poisoned.complete, **scored, stream=True)
            others = [pool.submit(poisoned.complete, **body) for body in unscored]
        for found, expected in zip(good, alone, strict=True):
            assert found.result().json()["choices"] == expected
        for failed in (whole, echoed):
            assert failed.result().status_code == 500
            strict(failed.result().text)
        if streamed.result().status_code == 200:  # else it failed before the stream began
            assert events(streamed.result().text)[-1]["error"]["code"] == 500
        else:
            assert streamed.result().status_code == 500
        for other in others:
            assert other.result().status_code == 500
            assert "not finite" in strict(other.result().text)["error"]["message"]
    assert poisoned.get("/health").status_code == 200
    assert poisoned.used_blocks() == 0
