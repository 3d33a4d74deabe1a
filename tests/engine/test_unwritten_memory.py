"""What no one has written is never read: outputs are the same where fresh memory holds NaN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from references import Reference

from runtime.llm import LLM
from runtime.ops.torch_build import VARIABLE
from runtime.outputs import RequestOutput
from runtime.sampling_params import SamplingParams

PARAMS = (
    SamplingParams(temperature=0, max_tokens=20, logprobs=5, prompt_logprobs=3, ignore_eos=True),
    SamplingParams(temperature=1, seed=1, max_tokens=20, logprobs=0, top_p=0.9, ignore_eos=True),
    SamplingParams(temperature=1, seed=2, max_tokens=9, n=3, logprobs=2, min_p=0.01),
    SamplingParams(temperature=0, max_tokens=15, repetition_penalty=1.3, presence_penalty=0.5),
)


@pytest.fixture
def poison() -> Iterator[Callable[[], None]]:
    """Have PyTorch fill what it allocates with NaN, and with the greatest integers."""

    def begin() -> None:
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = True
        assert torch.empty(4).isnan().all()

    yield begin
    torch.use_deterministic_algorithms(False)


def outputs(reference: Reference, **options: Any) -> list[RequestOutput]:
    llm = LLM(reference.folder, skip_tokenizer=True, num_blocks=40, block_size=8, **options)
    prompts = [*reference.prompts, *reference.prompts]  # the second half finds cached prefixes
    params = [PARAMS[index % len(PARAMS)] for index in range(len(prompts))]
    return llm.generate(prompts, params, use_tqdm=False)


@pytest.mark.parametrize("kernels", ["", "off"])
def test_no_output_depends_on_it(
    reference: Callable[[str], Reference],
    poison: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    kernels: str,
) -> None:
    if kernels:
        monkeypatch.setenv(VARIABLE, kernels)
    # Chunks, preemption (the pool is tight) and a swap space, so that every buffer is used.
    options = {"max_num_batched_tokens": 24, "max_num_seqs": 8, "swap_bytes": 1 << 20}
    plain = outputs(reference("llama"), **options)
    poison()
    poisoned = outputs(reference("llama"), **options)
    for one, other in zip(plain, poisoned, strict=True):
        assert one.outputs == other.outputs
        assert one.prompt_logprobs == other.prompt_logprobs
