"""Hugging Face's side: greedy tokens and the log-probabilities at every one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from runtime.loader import DTYPES


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceRun:
    """One prompt and its greedy continuation."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: torch.Tensor  # float32 [num_tokens, vocab_size], as computed while decoding


class Reference:
    """A model as transformers runs it, with eager attention and one prompt at a time."""

    def __init__(
        self,
        folder: Path,
        dtype: str,
        eos_token_ids: Sequence[int],
        kv_cache_dtype: str = "auto",
        tensors: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Load it.

        Args:
            folder: of the model.
            dtype: to compute in.
            eos_token_ids: that end a run.
            kv_cache_dtype: its cache is rounded as the engine's is.
            tensors: in place of the folder's own, those of its quantised layers among them.
        """
        from transformers import (
            MODEL_FOR_CAUSAL_LM_MAPPING,
            AutoConfig,
            AutoModelForCausalLM,
            GenerationConfig,
        )

        shared = {"dtype": DTYPES[dtype], "attn_implementation": "eager"}
        if tensors is None:
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, **shared
            ).eval()
        else:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            if hasattr(config, "quantization_config"):
                del config.quantization_config
            model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
            self._model = model_class.from_pretrained(
                None, config=config, state_dict=dict(tensors), **shared
            ).eval()
        self._kv_cache_dtype = kv_cache_dtype
        # Penalties and the like in the folder's generation_config.json are not the model's.
        self._model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=list(eos_token_ids) or None, pad_token_id=0
        )

    def run(self, prompt: Sequence[int], num_tokens: int) -> ReferenceRun:
        """Generate greedily, until an end token or `num_tokens`."""
        ids = torch.tensor([list(prompt)])
        done = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=num_tokens,
            output_logits=True,
            return_dict_in_generate=True,
            **self._cache(),
        )
        logits = torch.cat(done.logits).float()  # [num_tokens, vocab_size]
        tokens = done.sequences[0, len(prompt) :].tolist()
        return ReferenceRun(tuple(prompt), tuple(tokens), torch.log_softmax(logits, dim=-1))

    def score(self, run: ReferenceRun) -> torch.Tensor:
        """Log-probabilities at another run's tokens, in one pass: [num_tokens, vocab_size]."""
        ids = torch.tensor([[*run.prompt, *run.tokens]])
        with torch.inference_mode():
            logits = self._model(ids, **self._cache()).logits[0, len(run.prompt) - 1 : -1].float()
        return torch.log_softmax(logits, dim=-1)

    def _cache(self) -> dict[str, Any]:
        if self._kv_cache_dtype == "auto":
            return {}
        from runtime.check.rounded_cache import RoundedCache

        return {"past_key_values": RoundedCache(self._model.config, self._kv_cache_dtype)}
