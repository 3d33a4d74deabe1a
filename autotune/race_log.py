"""Raw samples of every race, one JSON object per line: what a figure can be checked against."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.errors import StorageError


class RaceLog:
    """Appends to a file; None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append one entry and the time of day.

        Raises:
            StorageError: the file cannot be written.
        """
        if self.path is None:
            return
        line = json.dumps({"unix_s": round(time.time(), 3), **entry}, separators=(",", ":"))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise StorageError(
                f"cannot write raw samples to {self.path}: {error.strerror or error}. Free some "
                "space, or name another file."
            ) from error
