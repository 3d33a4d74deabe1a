"""Before a model of transformers is served: does it say over pages what it says by itself?

Two short sequences of random tokens go through the paged path in one flat step after another, cut
into chunks and then one token at a time, and through transformers' eager attention, one by one and
whole. Positions that are ignored, states that leak from one token to its neighbour in the step,
and heads that are not what they seem show at nearly every row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from runtime.generic.comparison import compare_rows, refusing
from runtime.generic.config import GenericConfig
from runtime.generic.interface import SERVING
from runtime.kv_cache import KVCache
from runtime.model_runner import Model
from runtime.ops.base import OperationSet
from runtime.sampling_params import SamplingParams
from runtime.scheduler import Scheduler
from runtime.scheduler_config import SchedulerConfig
from runtime.sequence import Request
from runtime.step_inputs import StepInputs
from runtime.stream import make_stream

_LENGTHS = ((7, 12), (4, 9))
"""Per sequence: tokens of its prompt, and all of its tokens."""
_CHUNK = 5


def eager_logits(config: GenericConfig, hf_model: Any, device: torch.device) -> list[torch.Tensor]:
    """Run transformers' own attention on each text: [num_tokens, vocab_size] per text.

    Raises:
        UnsupportedModelError: the code does not run.
    """
    with refusing(config), torch.inference_mode():
        hf_model.set_attn_implementation("eager")
        logits = [hf_model(input_ids=ids[None].to(device)).logits[0] for ids in _texts(config)]
        hf_model.set_attn_implementation(SERVING)
    return logits


def check_paged(
    config: GenericConfig,
    model: Model,
    ops: OperationSet,
    dtype: torch.dtype,
    device: torch.device,
    references: list[torch.Tensor],
) -> None:
    """Run the same texts over pages, and compare.

    Args:
        config: of the model.
        model: the paged one.
        ops: that it is bound to.
        dtype: of the KV cache.
        device: of all tensors.
        references: what `eager_logits` gave.

    Raises:
        UnsupportedModelError: they differ, or the code does not run.
    """
    with refusing(config), torch.inference_mode():
        for rows, logits in _run_paged(config, model, ops, dtype, device):
            expected = torch.stack([references[text][place] for text, place in rows]).float()
            places = ", ".join(str(place) for _, place in rows)
            compare_rows(config, logits, expected, dtype, f"over pages, at positions {places},")


def _texts(config: GenericConfig) -> list[torch.Tensor]:
    """Random token ids [num_tokens], the same at each call."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(config.vocab_size, (n,), generator=generator) for _, n in _LENGTHS]


def _run_paged(
    config: GenericConfig,
    model: Model,
    ops: OperationSet,
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[tuple[list[tuple[int, int]], torch.Tensor]]:
    """Yield per step its rows as (text, place), and their logits [num_tokens, vocab_size]."""
    texts = _texts(config)
    block_size = ops.block_size
    longest = max(total for _, total in _LENGTHS)
    num_blocks = 1 + len(_LENGTHS) * -(-longest // block_size)
    limits = SchedulerConfig(
        block_size=block_size,
        num_blocks=num_blocks,
        max_num_seqs=len(_LENGTHS),
        max_model_len=longest + 1,
        long_prefill_token_threshold=_CHUNK,
        max_steps_in_flight=1,
    )
    cache = KVCache(
        config.num_layers,
        num_blocks,
        0,
        block_size,
        config.num_kv_heads,
        config.head_dim,
        dtype,
        device,
    )
    scheduler = Scheduler(limits)
    inputs = StepInputs(limits, make_stream(device), with_tables=ops.needs_tables)
    for index, (num_prompt, total) in enumerate(_LENGTHS):
        prompt = tuple(texts[index][:num_prompt].tolist())
        params = SamplingParams(temperature=0, max_tokens=total - num_prompt + 1)
        scheduler.add_request(Request(str(index), prompt, params))
    while scheduler.has_unfinished:
        batch = scheduler.schedule()
        hidden = model.forward(inputs.upload(inputs.prepare(batch)), cache)
        rows = [
            (int(sequence.request.request_id), place)
            for sequence, start, count in zip(
                batch.sequences, batch.starts, batch.counts, strict=True
            )
            for place in range(start, start + count)
        ]
        ends = [len(sequence.token_ids) for sequence in batch.samples]
        chosen = [texts[int(s.request.request_id)] for s in batch.samples]
        yield rows, model.logits(hidden)
        tokens = [
            int(text[end]) if end < len(text) else 0 for text, end in zip(chosen, ends, strict=True)
        ]
        scheduler.finish_step(batch, tokens)
