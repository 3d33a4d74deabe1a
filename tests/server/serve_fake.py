"""`runtime serve` before the fake engine; arguments: shutdown timeout, port."""

from __future__ import annotations

import sys
from pathlib import Path

from runtime.config import EngineConfig
from runtime.errors import EngineError
from runtime.server.config import ServerConfig
from runtime.server.serve import serve

if __name__ == "__main__":
    config = ServerConfig(
        EngineConfig(Path("none"), skip_tokenizer=True),
        ("fake",),
        port=int(sys.argv[2]),
        shutdown_timeout_s=float(sys.argv[1]),
    )
    try:
        sys.exit(serve(config, engine_module="fake_engine"))
    except EngineError as error:
        print(f"runtime: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
