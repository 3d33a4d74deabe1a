"""Writing files so that a reader finds the old content or the new, never half of it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from autotune.errors import StorageError


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 as `write_bytes_atomically` does."""
    write_bytes_atomically(path, text.encode())


def require_writable(folder: Path) -> None:
    """Make the folder if need be and try a file in it: better now than after hours of work.

    Raises:
        StorageError: nothing can be written there.
    """
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        raise StorageError(
            f"cannot write to {folder}: {error.strerror or error}. Nothing was done; free some "
            "space or choose another folder."
        ) from error


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, sync, rename.

    Raises:
        StorageError: the folder cannot be written or the disk is full; `path` is as it was.
    """
    temporary = None
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}. The file is unchanged; free some "
            "space or choose another folder."
        ) from error
    finally:  # interrupts included
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
