"""What every contender of a benchmark gets alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.config import EngineConfig


@dataclass(frozen=True, slots=True)
class Setup:
    """Fit for JSON, in both directions."""

    folder: Path
    dtype: str
    threads: int
    max_len: int
    """Most tokens of a sequence."""
    device: str = "cpu"
    """PyTorch's name."""
    engine: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of EngineConfig; of the engine alone, but for `load_format`."""

    @property
    def is_dummy(self) -> bool:
        """Whether weights are random, and the folder has a config.json only."""
        return self.engine.get("load_format") == "dummy"

    def engine_config(self, **changes: Any) -> EngineConfig:
        """The engine's configuration, with `changes` to it."""
        fields: dict[str, Any] = {
            "dtype": self.dtype,
            "device": self.device,
            "max_model_len": self.max_len,
            "skip_tokenizer": True,
        }
        return EngineConfig(self.folder, **(fields | dict(self.engine) | changes))

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        values = dataclasses.asdict(self)
        values["folder"] = str(self.folder.resolve())
        if values["engine"].get("results") is not None:
            values["engine"]["results"] = str(values["engine"]["results"])
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Setup:
        """Make it of what `to_json` gave."""
        return cls(**{**values, "folder": Path(values["folder"])})
