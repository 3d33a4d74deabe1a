"""Options from a YAML file, as words that stand before those of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.cli.engine_options import SWITCHES
from runtime.errors import EngineError

_OPTION = "--config"


class ConfigFileError(EngineError):
    """The file cannot be read, or holds something else than options."""


def expand_config(words: Sequence[str]) -> list[str]:
    """Put a file's options in front, right after the subcommand; later words win.

    A file maps long option names, with - or _, to a value, to a list of values, or to true for a
    flag (false leaves it out, or says no where there is an option for that). `model` stands for
    the positional argument.

    Args:
        words: subcommand first; returned as they are without `--config`.

    Raises:
        ConfigFileError: the file is not there, or not such a mapping.
    """
    path = _find(words)
    if path is None:
        return list(words)
    place = words.index("serve") + 1
    found, model = _words(path, _load(path))
    rest = list(words[place:])
    # MODEL stands first, where no option that takes several words can swallow it.
    if rest and not rest[0].startswith("-"):
        model = rest.pop(0)
    positional = [] if model is None else [model]
    return [*words[:place], *positional, *found, *rest]


def _find(words: Sequence[str]) -> Path | None:
    for index, word in enumerate(words):
        if word == _OPTION and index + 1 < len(words):
            return Path(words[index + 1])
        if word.startswith(f"{_OPTION}="):
            return Path(word.removeprefix(f"{_OPTION}="))
    return None


def _load(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigFileError(f"{path}: {error.strerror or error}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigFileError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ConfigFileError(f"{path}: must map option names to values, as in `port: 9000`")
    return values


def _words(path: Path, values: dict[str, Any]) -> tuple[list[str], str | None]:
    words: list[str] = []
    model: str | None = None
    for name, value in values.items():
        option = f"--{name.replace('_', '-')}"
        if name == "model":
            model = str(value)
        elif option == _OPTION:
            raise ConfigFileError(f"{path}: a configuration cannot name another one")
        elif value is False and name.replace("_", "-") in SWITCHES:
            words.append(f"--no-{name.replace('_', '-')}")
        elif value is True:
            words.append(option)
        elif isinstance(value, list):
            words.extend([option, *map(str, value)])
        elif isinstance(value, str | int | float) and value is not False:
            words.append(f"{option}={value}")
        elif value is not False and value is not None:
            raise ConfigFileError(f"{path}: {name} must be a word, a number, a list or a flag")
    return words, model
