"""Any decoder-only model of transformers, by that library's code over our paged attention.

The tokens of a step are one flat sequence with their own positions; there are no masks. The last
hidden states are those of the model's body, and the logits come from the whole model with its body
replaced by what passes hidden states through, so that its own head, scales and caps apply.
"""

from __future__ import annotations

from typing import Any

import torch

from runtime.checkpoint import Checkpoint
from runtime.generic.config import GenericConfig
from runtime.generic.context_guard import check_context
from runtime.generic.far_check import check_far_positions
from runtime.generic.interface import set_handler
from runtime.generic.paged_attention import CurrentStep, PagedAttention
from runtime.generic.self_check import check_paged, eager_logits
from runtime.generic.weights import load_weights
from runtime.kv_cache import KVCache
from runtime.model_input import ModelInput
from runtime.ops.base import OperationSet


class PassThrough(torch.nn.Module):  # type: ignore[misc]
    """Takes the place of a model's body: gives back the hidden states it is given."""

    def __init__(self, output_class: Any) -> None:
        """Answer with an output of the body's class."""
        super().__init__()
        self._output_class = output_class

    def forward(self, *inputs: Any, inputs_embeds: torch.Tensor, **options: Any) -> Any:
        """Return `inputs_embeds` [1, num_rows, hidden_size] as the last hidden states."""
        return self._output_class(last_hidden_state=inputs_embeds)


class TransformersModel:
    """A `model_runner.Model` around a model of transformers."""

    def __init__(self, config: GenericConfig, hf_model: Any, ops: OperationSet) -> None:
        """Take a model with its weights; its attention layers are bound to the paged cache."""
        self.config = config
        self._ops = ops
        self._step = CurrentStep()
        self._model = hf_model
        for index, call in enumerate(config.calls):
            handler = PagedAttention(call, index, ops, self._step)
            set_handler(hf_model.get_submodule(call.module), handler)
        self._body = hf_model.get_submodule(config.body)
        parent, _, name = config.body.rpartition(".")
        setattr(hf_model.get_submodule(parent), name, PassThrough(config.output_class))

    def forward(self, step: ModelInput, cache: KVCache) -> torch.Tensor:
        """Compute the last hidden states [num_tokens, hidden_size], and write keys and values."""
        self._step.cache, self._step.plan = cache, self._ops.plan(step, None)
        try:
            output = self._body(
                input_ids=step.token_ids[None], position_ids=step.positions[None], use_cache=False
            )
        finally:
            self._step.cache = self._step.plan = None
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of the next token, float32 [num_rows, vocab_size]."""
        scores: torch.Tensor = self._model(inputs_embeds=hidden[None], use_cache=False).logits[0]
        return scores.float()


def build(
    config: GenericConfig,
    checkpoint: Checkpoint,
    ops: OperationSet,
    dtype: torch.dtype,
    device: torch.device,
    max_len: int,
) -> TransformersModel:
    """Load the model, and compare a short run of it with transformers' own attention.

    Raises:
        WeightError: the checkpoint is not that of this model.
        UnsupportedModelError: the two do not agree, or they agree only in contexts shorter
            than `max_len`.
    """
    check_context(config, max_len)
    hf_model = load_weights(config.model_class, config.hf_config, checkpoint, dtype, device)
    check_far_positions(config, hf_model, dtype, device, max_len)
    references = eager_logits(config, hf_model, device)
    model = TransformersModel(config, hf_model, ops)
    check_paged(config, model, ops, dtype, device, references)
    return model
