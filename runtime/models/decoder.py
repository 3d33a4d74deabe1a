"""A decoder-only model: embedding, layers, last norm, head. Families say what the layers are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from runtime.kv_cache import KVCache, LayerKV
from runtime.layers.linear import make_linear
from runtime.layers.norm import RMSNorm
from runtime.model_config import ModelConfig
from runtime.model_input import ModelInput
from runtime.ops.base import OperationSet
from runtime.rope import build_rope_table
from runtime.weight_matrix import Matrix
from runtime.weights import Weights

_HEAD = "lm_head"


class Layer(Protocol):
    """One layer; the residual stream is x + residual, None counting as zero."""

    def __call__(
        self, x: torch.Tensor, residual: torch.Tensor | None, kv: LayerKV, plan: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the new x and the new residual."""
        ...


class Decoder:
    """Built with its weights, complete and unchanging; all state is in the KV cache."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        ops: OperationSet,
        build_layer: Callable[[int, Weights], Layer],
        *,
        max_len: int,
        embedding_scale: float | None = None,
        norm_offset: float = 0.0,
    ) -> None:
        """Take every tensor of the checkpoint.

        Args:
            config: of the model.
            weights: the whole checkpoint.
            ops: operations to run on.
            build_layer: makes a layer of its index and its weights.
            max_len: most tokens of a sequence, for the table of angles.
            embedding_scale: factor on the embedding, rounded to the model's type.
            norm_offset: added to the last norm's weight.

        Raises:
            WeightError: a tensor is missing, left over, or of another shape.
        """
        self.config = config
        self._ops = ops
        body = weights.scope("model")
        vocabulary = (config.vocab_size, config.hidden_size)
        self._embedding = body.tensor("embed_tokens.weight", vocabulary)
        layers = body.scope("layers")
        self._layers = tuple(
            build_layer(index, layers.scope(str(index))) for index in range(config.num_layers)
        )
        self._norm = RMSNorm(
            body.scope("norm"), config.hidden_size, config.norm_eps, ops, norm_offset
        )
        tied = config.tie_word_embeddings
        head: Matrix = self._embedding
        if not tied:
            head, _ = weights.linear(
                _HEAD, vocabulary[:1], config.hidden_size, bias=False, is_head=True
            )
        # Some checkpoints repeat the tied head.
        weights.check_all_taken(but=(f"{_HEAD}.weight",) if tied else ())
        self._head = make_linear(ops, head, None)
        self._scale: torch.Tensor | None = None
        if embedding_scale is not None:
            self._scale = torch.tensor(embedding_scale, dtype=weights.dtype, device=weights.device)
        self._rope_table = build_rope_table(config.rope, max_len, weights.dtype, weights.device)

    def forward(self, step: ModelInput, cache: KVCache) -> torch.Tensor:
        """Compute the last hidden states [num_tokens, hidden_size], and write keys and values."""
        plan = self._ops.plan(step, self._rope_table)
        x = F.embedding(step.token_ids, self._embedding)
        if self._scale is not None:
            x = x * self._scale
        residual: torch.Tensor | None = None
        for layer, kv in zip(self._layers, cache.layers, strict=True):
            x, residual = layer(x, residual, kv, plan)
        x, _ = self._norm.add(x, residual)
        return x

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of the next token, float32 [num_rows, vocab_size]."""
        scores = self._head(hidden)
        cap = self.config.logit_softcap
        if cap is not None:
            scores = torch.tanh(scores / cap) * cap
        return scores.float()
