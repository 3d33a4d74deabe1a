"""What `runtime bench serve` is asked to do; names and defaults are those of `vllm bench serve`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import InvalidParameterError

METRICS = {
    "ttft": "Time to First Token",
    "tpot": "Time per Output Token (excl. 1st token)",
    "itl": "Inter-token Latency",
    "e2el": "End-to-end Latency",
}
"""Name → heading."""

GOODPUT_METRICS = ("ttft", "tpot", "e2el")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Where prompts come from."""

    name: str = "random"
    path: Path | None = None
    num_prompts: int = 1000
    seed: int = 0
    input_len: int = 1024
    output_len: int | None = None
    """None: 128 for random, 256 for custom, the recorded answer's for sharegpt."""
    range_ratio: float = 0.0
    """Random lengths are uniform within 1 - ratio and 1 + ratio times those asked for."""
    prefix_len: int = 0
    """Tokens that all random prompts begin with, beside `input_len`."""


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """One run. Raises InvalidParameterError, naming the option."""

    base_url: str
    endpoint: str = "/v1/completions"
    backend: str = "openai"
    model: str | None = None
    """None: the first that the server lists."""
    tokenizer: Path | None = None
    """None: the server's own, over /tokenize and /detokenize."""
    headers: Mapping[str, str] = field(default_factory=dict)
    verify_tls: bool = True
    dataset: Dataset = Dataset()
    request_rate: float | None = None
    """Requests per second; None: all at once."""
    burstiness: float = 1.0
    max_concurrency: int | None = None
    num_warmups: int = 0
    ignore_eos: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of every request."""
    metrics: tuple[str, ...] = ("ttft", "tpot", "itl")
    percentiles: tuple[float, ...] = (99.0,)
    goodput_ms: Mapping[str, float] = field(default_factory=dict)
    """Metric → most that a good request may take."""
    label: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    ready_timeout_s: float = 0.0

    @property
    def is_chat(self) -> bool:
        """Whether requests are conversations."""
        return self.endpoint.endswith("/chat/completions")

    def __post_init__(self) -> None:
        def require(holds: bool, option: str, value: object, accepts: str) -> None:
            if not holds:
                raise InvalidParameterError(option, value, accepts)

        data = self.dataset
        is_http = self.base_url.startswith(("http://", "https://"))
        require(is_http, "base_url", self.base_url, "an address: http://HOST:PORT")
        is_known = self.endpoint.endswith("/completions")
        require(is_known, "endpoint", self.endpoint, "one that ends in /completions")
        require(data.num_prompts >= 1, "num_prompts", data.num_prompts, "at least 1")
        require(data.input_len >= 1, "random_input_len", data.input_len, "at least 1")
        given = data.output_len
        require(given is None or given >= 1, "output_len", given, "at least 1")
        require(0 <= data.range_ratio < 1, "random_range_ratio", data.range_ratio, "in [0, 1)")
        require(data.prefix_len >= 0, "random_prefix_len", data.prefix_len, "at least 0")
        needs_file = data.name != "random"
        accepts = "a file" if needs_file else "left out: this data set is made, not read"
        require(needs_file == (data.path is not None), "dataset_path", data.path, accepts)
        rate, most = self.request_rate, self.max_concurrency
        require(rate is None or rate > 0, "request_rate", rate, "above 0, or inf")
        require(self.burstiness > 0, "burstiness", self.burstiness, "above 0")
        require(most is None or most >= 1, "max_concurrency", most, "at least 1")
        require(self.num_warmups >= 0, "num_warmups", self.num_warmups, "at least 0")
        for name in self.metrics:
            require(name in METRICS, "percentile_metrics", name, f"of {', '.join(METRICS)}")
        for value in self.percentiles:
            require(0 <= value <= 100, "metric_percentiles", value, "from 0 to 100")
        for name, limit_ms in self.goodput_ms.items():
            accepts = f"of {', '.join(GOODPUT_METRICS)}"
            require(name in GOODPUT_METRICS, "goodput", name, accepts)
            require(limit_ms >= 0, "goodput", limit_ms, "at least 0 ms")
