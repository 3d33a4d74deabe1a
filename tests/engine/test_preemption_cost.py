"""What it costs to preempt is measured at start, and decides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import make_prompts, save_model

from runtime.batch import ScheduledBatch
from runtime.calibration import measure_preemption_cost
from runtime.config import EngineConfig
from runtime.engine import LLMEngine
from runtime.kv_cache import KVCache
from runtime.preemption import PreemptionCost, PreemptionMode
from runtime.sampling_params import SamplingParams
from runtime.scheduler_config import SchedulerConfig

LIMITS = SchedulerConfig(16, 10, num_host_blocks=3, max_num_seqs=4, max_model_len=200)


class MadeUpDevice:
    """Takes as long as its figures say; the first of a kind takes ten times as long."""

    def __init__(self, tokens_per_s: float, block_moves_per_s: float) -> None:
        self.now_s = 0.0
        self.seen: list[ScheduledBatch] = []
        self._tokens_per_s = tokens_per_s
        self._block_moves_per_s = block_moves_per_s

    def run(self, batch: ScheduledBatch) -> None:
        num_moves = len(batch.swap_outs) + len(batch.swap_ins)
        elapsed_s = batch.num_tokens / self._tokens_per_s + num_moves / self._block_moves_per_s
        self.now_s += elapsed_s if batch in self.seen else 10 * elapsed_s
        self.seen.append(batch)

    def clock(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("tokens_per_s", "moves_per_s", "mode"),
    [
        (50_000.0, 10_000.0, PreemptionMode.SWAP),  # 16 tokens in 0.32 ms, 2 moves in 0.2 ms
        (100_000.0, 10_000.0, PreemptionMode.RECOMPUTE),
    ],
)
def test_rates_are_those_of_the_device(
    tokens_per_s: float, moves_per_s: float, mode: PreemptionMode
) -> None:
    device = MadeUpDevice(tokens_per_s, moves_per_s)
    cost = measure_preemption_cost(device.run, LIMITS, 4096, 64, device.clock)
    assert cost.prefill_tokens_per_s == pytest.approx(tokens_per_s)
    assert cost.link_bytes_per_s == pytest.approx(4096 * moves_per_s)
    assert cost.choose(num_tokens=32, num_blocks=2) is mode
    assert {batch.num_tokens for batch in device.seen} == {64, 0}
    for batch in device.seen:
        assert all(slot < 16 for slot in batch.slot_mapping), "in the trash block"
        assert {device_block for device_block, _ in batch.swap_outs} <= {0}
        assert {device_block for _, device_block in batch.swap_ins} <= {0}


def test_slow_devices_are_asked_once_and_still_clocks_do_not_hurt() -> None:
    slow = MadeUpDevice(10.0, 1.0)
    measure_preemption_cost(slow.run, LIMITS, 4096, 1000, slow.clock)
    assert [batch.num_tokens for batch in slow.seen] == [199, 0]
    still = measure_preemption_cost(lambda batch: None, LIMITS, 4096, 10, lambda: 0.0)
    assert still.prefill_tokens_per_s == pytest.approx(10 / 1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cost-model")
    save_model("llama", made)
    return made


def engine_of(folder: Path, **options: object) -> LLMEngine:
    chosen = {"block_size": 8, "num_blocks": 9, "max_model_len": 128, **options}
    return LLMEngine(
        EngineConfig(folder, skip_tokenizer=True, enable_forecast=False, **chosen)  # type: ignore[arg-type]
    )


SWAP_IS_CHEAP = PreemptionCost(1000, 1e12, 10.0)
RECOMPUTING_IS_CHEAP = PreemptionCost(1000, 1000.0, 1e9)


@pytest.mark.parametrize(
    ("cost", "mode"),
    [(SWAP_IS_CHEAP, PreemptionMode.SWAP), (RECOMPUTING_IS_CHEAP, PreemptionMode.RECOMPUTE)],
)
def test_given_figures_decide(cost: PreemptionCost, mode: PreemptionMode, folder: Path) -> None:
    engine = engine_of(folder, swap_bytes=1 << 22, preemption_cost=cost)
    for index, prompt in enumerate(make_prompts([9, 12, 7])):
        engine.add_request(str(index), prompt, SamplingParams(max_tokens=30, ignore_eos=True))
    while engine.has_unfinished:
        engine.step()
    counts = engine.scheduler.stats().num_preemptions
    assert counts[mode.value] > 0
    assert sum(counts.values()) == counts[mode.value]


def test_an_engine_measures_only_where_there_is_a_choice(folder: Path) -> None:
    measured = engine_of(folder, swap_bytes=1 << 22)
    cost = measured.scheduler.config.preemption_cost
    assert cost is not None
    assert (
        cost.bytes_per_block == 2 * 2 * 8 * 2 * 12 * 4
    )  # layers, k and v, slots, heads, dim, fp32
    assert cost.link_bytes_per_s is not None
    assert measured.scheduler.config.preemption_mode is None
    pool = measured.runner.cache.tensors[0].device
    assert not pool.any(), "nothing is left of it"
    assert engine_of(folder).scheduler.config.preemption_cost is None
    fixed = engine_of(folder, swap_bytes=1 << 22, preemption_mode="swap").scheduler.config
    assert (fixed.preemption_mode, fixed.preemption_cost) == (PreemptionMode.SWAP, None)


@pytest.mark.parametrize("kv_dtype", ["auto", "int8"])
def test_blocks_come_back_from_the_host_byte_by_byte(kv_dtype: str) -> None:
    cache = KVCache(3, 6, 5, 4, 2, 8, torch.float32, torch.device("cpu"), kv_dtype)
    pools = [tensor.device.view(torch.uint8) for tensor in cache.tensors]
    assert len(pools) == (1 if kv_dtype == "auto" else 2)
    generator = torch.Generator().manual_seed(0)
    for pool in pools:
        pool.copy_(torch.randint(256, pool.shape, generator=generator))
    befores = [pool.clone() for pool in pools]
    cache.swap_out([(1, 4), (5, 0), (2, 2)])
    for pool, before in zip(pools, befores, strict=True):
        assert torch.equal(pool, before)
        pool[:, :, 1:] = 77
    cache.swap_in([(0, 3), (4, 1), (2, 5)])
    for pool, before in zip(pools, befores, strict=True):
        for source, target in ((5, 3), (1, 1), (2, 5)):
            assert torch.equal(pool[:, :, target], before[:, :, source])
        assert (pool[:, :, [2, 4]] == 77).all()
        assert torch.equal(pool[:, :, 0], before[:, :, 0])
    cache.copy([(3, 2), (1, 4)])
    for pool, before in zip(pools, befores, strict=True):
        assert torch.equal(pool[:, :, 2], before[:, :, 5])
        assert torch.equal(pool[:, :, 4], before[:, :, 1])
    cache.clear_trash()
    assert not any(pool[:, :, 0].any() for pool in pools)
    assert cache.bytes_per_block == sum(pool[:, :, 0].numel() for pool in pools)
