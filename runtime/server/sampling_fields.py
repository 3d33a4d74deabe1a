"""What both generating endpoints take: OpenAI's fields, and the extras that vLLM's clients send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from runtime.errors import InvalidParameterError
from runtime.sampling_params import MAX_SEED, SamplingParams
from runtime.server.api_error import bad_request, from_engine_error
from runtime.server.config import (
    MAX_LOGIT_BIAS,
    MAX_N,
    MAX_SALT_CHARS,
    MAX_STOP_CHARS,
    MAX_STOP_TOKEN_IDS,
    MAX_STOPS,
)

INT32 = (1 << 31) - 1


class ApiModel(BaseModel):
    """Base of requests: nothing is converted, nothing unknown is passed over."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )


StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
StopTexts = Annotated[list[StopText], Field(max_length=MAX_STOPS, fail_fast=True)]
TokenId = Annotated[int, Field(ge=0, le=INT32)]
Count = Annotated[int, Field(ge=1, le=INT32)]


class StreamOptions(ApiModel):
    """Extras of a stream."""

    include_usage: bool | None = Field(None, description="A last chunk with the usage.")
    continuous_usage_stats: bool | None = Field(None, description="Usage so far in every chunk.")


class SamplingFields(ApiModel):
    """How to choose tokens and when to stop; None is the default of the model or the server."""

    model: str | None = Field(None, max_length=1024)
    n: int | None = Field(None, ge=1, le=MAX_N)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=INT32)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    seed: int | None = Field(None, ge=-MAX_SEED - 1, le=MAX_SEED)
    stop: StopText | StopTexts | None = None
    stop_token_ids: (
        Annotated[list[TokenId], Field(max_length=MAX_STOP_TOKEN_IDS, fail_fast=True)] | None
    ) = None
    max_tokens: Count | None = None
    min_tokens: int | None = Field(None, ge=0, le=INT32)
    ignore_eos: bool | None = None
    logit_bias: (
        Annotated[
            dict[
                Annotated[str, Field(pattern=r"^[0-9]{1,10}$")],
                Annotated[float, Field(ge=-100, le=100)],
            ],
            Field(max_length=MAX_LOGIT_BIAS),
        ]
        | None
    ) = Field(None, description="Token id → what is added to its logit.")
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    add_special_tokens: bool | None = Field(None, description="Of the tokenizer, around a prompt.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    priority: int | None = Field(
        None, ge=-INT32 - 1, le=INT32, description="Smaller is sooner; under the priority policy."
    )
    cache_salt: str | None = Field(None, min_length=1, max_length=MAX_SALT_CHARS)
    user: str | None = Field(None, max_length=1024, description="Taken, and not used.")

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def includes_running_usage(self) -> bool:
        """Whether every chunk of a stream carries the usage so far."""
        options = self.stream_options
        return self.includes_usage and options is not None and bool(options.continuous_usage_stats)

    def check_stream_options(self) -> None:
        """Raise ApiError for stream options without a stream."""
        if self.stream_options is not None and not self.stream:
            raise bad_request("stream_options", "stream_options: only with stream=true")

    def sampling_params(
        self,
        defaults: Mapping[str, float | int],
        *,
        max_tokens: int | None,
        logprobs: int | None,
        prompt_logprobs: int | None,
        names: Mapping[str, str],
    ) -> SamplingParams:
        """Parameters for the engine.

        Args:
            defaults: the model's own, for fields that are not given.
            max_tokens: of the output; None for as many as fit.
            logprobs: most likely tokens to report per output token.
            prompt_logprobs: the same, per prompt token.
            names: the engine's field → the API's, where they differ.

        Raises:
            ApiError: 400, naming the field.
        """
        given: dict[str, Any] = {
            name: value for name in _PASSED_ON if (value := getattr(self, name)) is not None
        }
        if self.logit_bias is not None:
            given["logit_bias"] = {int(token): bias for token, bias in self.logit_bias.items()}
        try:
            return SamplingParams(
                **{**defaults, **given},
                max_tokens=max_tokens,
                logprobs=logprobs,
                prompt_logprobs=prompt_logprobs,
            )
        except InvalidParameterError as error:
            raise from_engine_error(error, names) from error


_PASSED_ON = (
    "n",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "stop_token_ids",
    "min_tokens",
    "ignore_eos",
    "include_stop_str_in_output",
    "skip_special_tokens",
)
