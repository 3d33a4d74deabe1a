"""How a server is set up, and the bounds on what a request may ask; every default stands here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.config import EngineConfig
from runtime.errors import InvalidParameterError

KEY_VARIABLE = "PAGETUNE_API_KEY"
"""Environment variable that holds the key clients must send."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Names follow `vllm serve`. Raises InvalidParameterError, naming the field."""

    engine: EngineConfig
    served_model_names: tuple[str, ...]
    """The first is what answers say."""
    host: str = "127.0.0.1"
    port: int = 8000
    """0: any free one."""
    api_keys: tuple[str, ...] = ()
    """Any of them opens; none: no key is asked for."""
    max_num_queued_tokens: int | None = None
    shutdown_timeout_s: float = 0.0
    """How long running requests may take to finish after SIGTERM."""
    metrics_prefix: str = "pagetune"
    chat_template: Path | None = None
    """A file in place of the model's own template."""
    use_generation_config: bool = True
    """Take sampling defaults from the model's generation_config.json."""
    max_body_bytes: int = 8 << 20
    max_header_bytes: int = 64 << 10
    max_headers: int = 100
    body_timeout_s: float = 30.0
    """Longest pause in a request's body."""
    stall_timeout_s: float = 60.0
    """Longest time that a client may leave a stream unread."""
    log_requests: bool = False

    def __post_init__(self) -> None:
        def require(holds: bool, field: str, accepts: str) -> None:
            if not holds:
                raise InvalidParameterError(field, getattr(self, field), accepts)

        require(bool(self.served_model_names), "served_model_names", "at least one name")
        require(0 <= self.port < 1 << 16, "port", "from 0 to 65535")
        require(all(self.api_keys), "api_keys", "texts that are not empty")
        require(self.shutdown_timeout_s >= 0, "shutdown_timeout_s", "at least 0")
        is_word = self.metrics_prefix.isidentifier() and self.metrics_prefix.isascii()
        require(is_word, "metrics_prefix", "letters, digits and _")
        for field in ("max_body_bytes", "max_header_bytes", "max_headers"):
            require(getattr(self, field) >= 1, field, "at least 1")
        for field in ("body_timeout_s", "stall_timeout_s"):
            require(getattr(self, field) > 0, field, "above 0")
        limit = self.max_num_queued_tokens
        require(limit is None or limit >= 1, "max_num_queued_tokens", "at least 1")


MAX_N = 16
MAX_PROMPTS = 64
MAX_MESSAGES = 4096
MAX_PARTS = 256
MAX_STOPS = 4
MAX_STOP_CHARS = 256
MAX_STOP_TOKEN_IDS = 128
MAX_LOGIT_BIAS = 300
MAX_SALT_CHARS = 256
MAX_JSON_KEYS = 512
"""Of one object: no field takes more, and each unknown one costs an error."""
