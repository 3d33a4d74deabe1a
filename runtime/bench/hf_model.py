"""The model as transformers has it, loaded once for all of that library's contenders."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from runtime.bench.setup import Setup
from runtime.loader import DTYPES

NO_TOKEN = 0
"""Padding; masked."""


class HfModel:
    """Loads it when it is first asked for."""

    def __init__(self, setup: Setup) -> None:
        self.device = torch.device(setup.device)
        self._setup = setup
        self._model: Any = None

    def get(self) -> Any:
        """Return the model, on the device; with random weights where the setup says so."""
        if self._model is None:
            self._model = self._load()
        return self._model

    def tensor(self, rows: list[list[int]]) -> torch.Tensor:
        """Put token ids, or a mask, on the device: int64 [number of rows, their length]."""
        return torch.tensor(rows, device=self.device)

    def _load(self) -> Any:
        from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

        setup, dtype = self._setup, DTYPES[self._setup.dtype]
        if setup.is_dummy:
            config = AutoConfig.from_pretrained(setup.folder, local_files_only=True)
            torch.manual_seed(0)
            with self.device:
                model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        else:
            model = AutoModelForCausalLM.from_pretrained(
                setup.folder, dtype=dtype, local_files_only=True, trust_remote_code=False
            ).eval()
        model.generation_config = GenerationConfig(do_sample=False, pad_token_id=NO_TOKEN)
        return model.to(self.device)


def page_field() -> str:
    """Name of the page size in transformers' configuration of continuous batching.

    Newer releases call `page_size` what was `block_size` before.
    """
    from transformers import ContinuousBatchingConfig

    names = {field.name for field in dataclasses.fields(ContinuousBatchingConfig)}
    return "page_size" if "page_size" in names else "block_size"
