"""Sampling parameters that a model's folder recommends, in its generation_config.json."""

from __future__ import annotations

from pathlib import Path

from runtime.config_fields import ConfigFields, read_json_object

_FILE = "generation_config.json"


def read_defaults(folder: Path) -> dict[str, float | int]:
    """Read the fields that the API has too; empty without the file.

    A model that is not meant to be sampled (`do_sample` is false) recommends nothing: its file's
    other fields are what transformers writes in any case.

    Raises:
        ConfigFieldError, ModelFolderError: the file is damaged.
    """
    path = folder / _FILE
    if not path.is_file():
        return {}
    fields = ConfigFields(read_json_object(path), str(path))
    found: dict[str, float | int] = {}
    if not fields.flag("do_sample"):
        return found
    for name in ("temperature", "top_p", "min_p", "repetition_penalty"):
        value = fields.optional_number(name)
        if value is not None:
            found[name] = value
    top_k = fields.optional_count("top_k")
    if top_k is not None:
        found["top_k"] = top_k
    return found
