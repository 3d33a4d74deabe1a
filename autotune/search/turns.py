"""Taking turns: what only one process of a fleet may do at a time."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine, text

from autotune.errors import StorageError


class Turns(Protocol):
    """Named locks that all workers share, and that die with their holder."""

    def turn(self, name: str) -> AbstractContextManager[None]:
        """Hold the lock of that name; waits until it is free."""
        ...


class FileTurns:
    """An empty file per name, locked as long as it is open.

    `flock` on Linux reaches across machines on NFS, too, unless it is mounted with `local_lock`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """See `Turns.turn`.

        Raises:
            StorageError: the folder cannot be written, or its file system knows no locks.
        """
        path = self._folder / f"{name}.turn"
        try:
            file = path.open("ab")
        except OSError as error:
            raise StorageError(f"cannot write the lock file {path}: {error}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                raise StorageError(f"cannot lock {path}: {error}") from error
            yield


class PostgresTurns:
    """Advisory locks of the server, held by a transaction: a lost connection lets go of them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """See `Turns.turn`."""
        digest = hashlib.sha256(f"pagetune {name}".encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        with self._engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            yield
