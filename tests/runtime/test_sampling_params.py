"""Parameters of requests and of the scheduler are refused by name."""

from __future__ import annotations

import pytest
from scheduler_scenario import make

from runtime.errors import (
    InvalidParameterError,
)
from runtime.sampling_params import SamplingParams
from runtime.sequence import Request


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", -2),
        ("min_p", 1.1),
        ("presence_penalty", 3.0),
        ("frequency_penalty", -2.5),
        ("repetition_penalty", 0.0),
        ("seed", 2**63),
        ("stop", ("",)),
        ("stop_token_ids", (-1,)),
        ("max_tokens", 0),
        ("min_tokens", 17),
        ("logprobs", -1),
        ("prompt_logprobs", True),
        ("logit_bias", {1: 101.0}),
    ],
)
def test_a_bad_parameter_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidParameterError, match=f"^{field}=") as error:
        SamplingParams(**{field: value})  # type: ignore[arg-type]
    assert error.value.field == field


def test_sampling_params_take_a_single_stop_string_and_say_what_is_greedy() -> None:
    params = SamplingParams(stop="###", temperature=0)  # type: ignore[arg-type]
    assert params.stop == ("###",)
    assert params.is_greedy
    with pytest.raises(InvalidParameterError, match=r"^detokenize="):
        SamplingParams(stop=("x",), detokenize=False)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"num_blocks": 1}, "num_blocks"),
        ({"max_num_batched_tokens": 3}, "max_num_batched_tokens"),
        ({"enable_chunked_prefill": False}, "max_num_batched_tokens"),
        ({"long_prefill_token_threshold": 0}, "long_prefill_token_threshold"),
        ({"max_steps_in_flight": 3}, "max_steps_in_flight"),
    ],
)
def test_contradicting_limits_are_refused_by_name(fields: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidParameterError, match=f"^{field}="):
        make(**fields)


@pytest.mark.parametrize("prompt", [(), (1, -1)])
def test_an_impossible_prompt_is_refused(prompt: tuple[int, ...]) -> None:
    with pytest.raises(InvalidParameterError, match="prompt_token_ids"):
        Request("a", prompt)
