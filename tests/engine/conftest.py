"""Models saved once per test run, with what Hugging Face generates from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from quantised_models import CASES, save_quantised
from references import NUM_TOKENS, Reference, make_reference
from tiny_models import hf_greedy, save_model

from runtime.check.rounded_cache import RoundedCache


@pytest.fixture(autouse=True)
def few_threads() -> None:
    """Tiny matrices gain nothing from threads, and test processes share the cores."""
    torch.set_num_threads(1)  # for every test: commands that ran in this process set their own


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reference]:
    """Reference of a case of `tiny_models.CONFIGS`, made when it is first asked for."""
    made: dict[str, Reference] = {}

    def get(name: str) -> Reference:
        if name not in made:
            folder = tmp_path_factory.mktemp(f"model-{name}")
            made[name] = make_reference(folder, save_model(name, folder))
        return made[name]

    return get


@pytest.fixture(scope="session")
def quantised_reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reference]:
    """The same of a case of `quantised_models.CASES`, by the numbers that its levels stand for."""
    made: dict[str, Reference] = {}

    def get(name: str) -> Reference:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = make_reference(folder, save_quantised(CASES[name], folder))
        return made[name]

    return get


@pytest.fixture(scope="session")
def rounded_reference(
    reference: Callable[[str], Reference],
) -> Callable[[str, str], Reference]:
    """The same, by Hugging Face over a cache whose numbers are rounded to int8 or fp8."""
    made: dict[tuple[str, str], Reference] = {}

    def get(name: str, kv_dtype: str) -> Reference:
        if (name, kv_dtype) not in made:
            plain = reference(name)
            config = plain.model.config
            outputs = [
                hf_greedy(
                    plain.model,
                    prompt,
                    NUM_TOKENS,
                    past_key_values=RoundedCache(config, kv_dtype),
                )
                for prompt in plain.prompts
            ]
            made[name, kv_dtype] = replace(plain, outputs=outputs)
        return made[name, kv_dtype]

    return get
