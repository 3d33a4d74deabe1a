"""How many KV blocks an engine gets, and the scheduler's limits that follow."""

from __future__ import annotations

from runtime.config import EngineConfig
from runtime.errors import InvalidParameterError
from runtime.model_sizes import ModelSizes
from runtime.preemption import PreemptionMode
from runtime.scheduler_config import SchedulerConfig


def plan_memory(
    config: EngineConfig,
    model: ModelSizes,
    block_size: int,
    token_bytes: int,
    *,
    kv_bytes: int | None = None,
    is_asynchronous: bool,
) -> SchedulerConfig:
    """Settle block counts and lengths.

    Args:
        config: of the engine.
        model: of the model.
        block_size: tokens per block.
        token_bytes: of one token in the KV cache, in all layers.
        kv_bytes: what there is for the KV cache; None for `kv_cache_bytes` of `config`.
        is_asynchronous: whether the device runs by itself.

    Raises:
        InvalidParameterError: the limits contradict each other, or `kv_cache_bytes` is too small.
    """
    max_len = config.max_model_len or model.max_position
    if max_len > model.max_position:
        raise InvalidParameterError(
            "max_model_len", max_len, f"at most {model.max_position}, the model's context"
        )
    bytes_per_block = block_size * token_bytes
    num_blocks = config.num_blocks
    if num_blocks is None:
        useful = 1 + config.max_num_seqs * -(-max_len // block_size)
        given = config.kv_cache_bytes if kv_bytes is None else kv_bytes
        num_blocks = min(useful, given // bytes_per_block)
        if num_blocks < 2:
            raise InvalidParameterError(
                "kv_cache_bytes",
                given,
                f"at least {2 * bytes_per_block}, two blocks",
            )
    batched = config.max_num_batched_tokens
    if not config.enable_chunked_prefill:
        batched = max(batched, max_len)
    mode = config.preemption_mode
    runs_ahead = config.async_scheduling
    if runs_ahead is None:
        runs_ahead = is_asynchronous
    return SchedulerConfig(
        block_size=block_size,
        num_blocks=num_blocks,
        num_host_blocks=config.swap_bytes // bytes_per_block,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=batched,
        max_model_len=max_len,
        max_queue_len=config.max_queue_len,
        policy=config.policy,
        enable_prefix_caching=config.enable_prefix_caching,
        enable_chunked_prefill=config.enable_chunked_prefill,
        long_prefill_token_threshold=config.long_prefill_token_threshold,
        preemption_mode=mode if isinstance(mode, PreemptionMode) else None,
        preemption_cost=config.preemption_cost,
        enable_forecast=config.enable_forecast,
        max_steps_in_flight=2 if runs_ahead else 1,
    )
