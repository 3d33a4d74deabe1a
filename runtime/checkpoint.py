"""The tensors of a model folder: safetensors files only, one or many behind an index.

Nothing is unpickled: a folder that has only .bin, .pt or GGUF files is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from runtime.config_fields import read_json_object
from runtime.errors import CheckpointError

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_REFUSED = {
    "*.gguf": "GGUF files are not supported; give the original checkpoint in safetensors",
    "*.bin": "pickled weights can run code when read; convert them to safetensors",
    "*.pt": "pickled weights can run code when read; convert them to safetensors",
    "*.pth": "pickled weights can run code when read; convert them to safetensors",
}


OnRead = Callable[[int, int], None]
"""Is told bytes read so far, and of all files."""


class Checkpoint:
    """Tensors by name, read from their files when asked for; a context manager."""

    def __init__(self, folder: Path, on_read: OnRead | None = None) -> None:
        """Find the files and list their tensors.

        Args:
            folder: of the model.
            on_read: called after each tensor that `read` gives.

        Raises:
            CheckpointError: no safetensors file, a file of the index is missing, or one is damaged.
        """
        self.folder = folder
        self._stack = ExitStack()
        self._file_of: dict[str, Any] = {}
        self._path_of: dict[str, Path] = {}
        self._on_read = on_read
        self._num_read_bytes = 0
        paths = weight_files(folder)
        self._num_bytes = sum(path.stat().st_size for path in paths)
        for path in paths:
            try:
                file = self._stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                self._stack.close()
                raise CheckpointError(
                    f"{path}: not a readable safetensors file: {error}"
                ) from error
            for name in file.keys():  # noqa: SIM118 - not iterable itself
                self._file_of[name] = file
                self._path_of[name] = path

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def __contains__(self, name: object) -> bool:
        return name in self._file_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def path(self, name: str) -> Path:
        """File that a tensor is in."""
        return self._path_of[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return tuple(self._file_of[name].get_slice(name).get_shape())

    def lazy(self, name: str) -> Any:
        """Return a handle that reads (a part of) a tensor when it is indexed."""
        return self._file_of[name].get_slice(name)

    def read(self, name: str) -> torch.Tensor:
        """Read a tensor, in the type it was saved in."""
        found: torch.Tensor = self._file_of[name].get_tensor(name)
        self._num_read_bytes += found.nbytes
        if self._on_read is not None:
            self._on_read(self._num_read_bytes, self._num_bytes)
        return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model's folder.

    Raises:
        CheckpointError: there are none, or one that the index names is missing.
    """
    index = folder / _INDEX
    if index.is_file():
        names = read_json_object(index).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise CheckpointError(f"{index}: has no weight_map")
        files = [folder / str(name) for name in sorted(set(names.values()))]
        for path in files:
            if path.parent != folder:
                raise CheckpointError(f"{index}: names {path.name!r} outside of the folder")
            if not path.is_file():
                raise CheckpointError(f"{folder}: {path.name} is missing, which {_INDEX} names")
        return files
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    found = sorted(folder.glob("*.safetensors"))
    if found:
        return found
    for pattern, reason in _REFUSED.items():
        for path in sorted(folder.glob(pattern)):
            raise CheckpointError(f"{folder}: no safetensors file, only {path.name}: {reason}")
    raise CheckpointError(f"{folder}: no weights in this folder: it has no safetensors file")
