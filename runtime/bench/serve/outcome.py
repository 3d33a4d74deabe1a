"""What became of one request."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Outcome:
    """Times are of one monotonic clock, in seconds."""

    prompt_len: int
    start_s: float
    """When it was sent."""
    queue_s: float = 0.0
    """How long it waited here for --max-concurrency before that."""
    ttft_s: float | None = None
    itl_s: list[float] = field(default_factory=list)
    """Between chunks that carry tokens."""
    latency_s: float = 0.0
    output_len: int = 0
    """Tokens, by the server's count."""
    text: str = ""
    error: str | None = None
    """None: it came to its end."""

    @property
    def is_success(self) -> bool:
        """Whether the whole answer has come."""
        return self.error is None

    @property
    def tpot_s(self) -> float | None:
        """Seconds per token after the first; None for answers of one."""
        if self.output_len < 2 or self.ttft_s is None:
            return None
        return (self.latency_s - self.ttft_s) / (self.output_len - 1)
