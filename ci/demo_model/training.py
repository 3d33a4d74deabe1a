"""The demo model and its training: a small Llama, plain torch; same seed, same weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from demo_model.corpus import Corpus
from demo_model.forward import Forward
from demo_model.muon import Muon
from demo_model.stream import IGNORED, Stream
from demo_model.vocabulary import Vocabulary
from demo_model.workers import Workers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

_WARM_UP = 0.04
_COOL_DOWN = 0.5


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the weights, beside the corpus."""

    num_steps: int = 600
    seed: int = 0
    num_rows: int = 8
    row_length: int = 128
    vocab_size: int = 2048
    hidden_size: int = 128
    num_layers: int = 4
    max_position: int = 512
    matrix_lr: float = 0.01
    vector_lr: float = 0.02


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a training after a step."""

    step: int
    num_steps: int
    loss: float
    """Nats per token, averaged over the steps since the last report."""
    elapsed_s: float


def make_model(recipe: Recipe, vocabulary: Vocabulary) -> LlamaForCausalLM:
    """An untrained Llama: grouped-query attention, heads of 32, tied embeddings."""
    torch.manual_seed(recipe.seed)
    num_heads = recipe.hidden_size // 32
    config = LlamaConfig(
        vocab_size=vocabulary.size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.hidden_size * 3,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads // 2,
        head_dim=32,
        max_position_embeddings=recipe.max_position,
        tie_word_embeddings=True,
        bos_token_id=vocabulary.bos_id,
        eos_token_id=vocabulary.eos_id,
        pad_token_id=vocabulary.pad_id,
    )
    return LlamaForCausalLM(config)


def train(
    model: LlamaForCausalLM,
    recipe: Recipe,
    corpus: Corpus,
    vocabulary: Vocabulary,
    report: Callable[[Progress], None],
    report_every: int = 50,
    num_threads: int = 2,
) -> list[float]:
    """Train in place; losses per step, in nats per token."""
    losses: list[float] = []
    started = time.monotonic()
    model.train()
    with Workers(num_threads) as workers:
        for loss in _steps(model, recipe, Stream(corpus, vocabulary, recipe.seed), workers):
            losses.append(loss)
            step = len(losses)
            if step % report_every == 0 or step == recipe.num_steps:
                recent = losses[-report_every:]
                elapsed_s = time.monotonic() - started
                report(Progress(step, recipe.num_steps, sum(recent) / len(recent), elapsed_s))
    model.eval()
    return losses


def _steps(
    model: LlamaForCausalLM, recipe: Recipe, stream: Stream, workers: Workers
) -> Iterator[float]:
    """Take the recipe's steps; the loss of each."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim == 1 or "embed" in name]
    optimizers = (
        Muon(matrices, lr=recipe.matrix_lr, workers=workers),
        torch.optim.AdamW(others, lr=recipe.vector_lr, betas=(0.9, 0.95), weight_decay=0.0),
    )
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: _rate(step, recipe.num_steps))
        for o in optimizers
    ]
    forward = Forward(model, recipe.row_length)
    weights = [*matrices, *others]

    def slopes(ids: Tensor, targets: Tensor) -> tuple[float, tuple[Tensor, ...]]:
        loss = forward.loss(ids, targets)
        return loss.item(), torch.autograd.grad(loss, weights)

    for ids, targets in islice(
        stream.batches(recipe.num_rows, recipe.row_length), recipe.num_steps
    ):
        num_learnt = int((targets != IGNORED).sum())
        shares = workers.map(slopes, ids, targets)
        for weight, *parts in zip(weights, *(gradients for _, gradients in shares), strict=True):
            weight.grad = sum(parts[1:], parts[0]) / num_learnt
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        yield sum(loss for loss, _ in shares) / num_learnt


def _rate(step: int, num_steps: int) -> float:
    """Share of the learning rate: a short rise, a plateau, a straight fall to zero."""
    rise = (step + 1) / max(1.0, _WARM_UP * num_steps)
    fall = (num_steps - step) / max(1.0, _COOL_DOWN * num_steps)
    return min(1.0, rise, fall)
