"""Where the studies of a fleet lie: a PostgreSQL database, a folder of journals, an SQLite file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from autotune.errors import StorageError, UsageError
from autotune.search.journal import Journal
from autotune.search.turns import FileTurns, PostgresTurns, Turns

ACCEPTED = (
    "postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
    "journal:FOLDER (on a file system that all machines share)",
    "sqlite:///FILE (workers of one machine)",
)

_SETTINGS = {
    # A machine that lost its power or its network must not keep the others waiting for hours.
    "idle_in_transaction_session_timeout": "300s",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
_BUSY_S = 60
"""How long SQLite waits for another writer."""


class SharedStorage:
    """The studies of a fleet, and its locks."""

    def __init__(
        self, turns: Turns, database: BaseStorage | None = None, folder: Path | None = None
    ) -> None:
        assert (database is None) != (folder is None)
        self.turns = turns
        self._database = database
        self._folder = folder
        self._journals: dict[str, BaseStorage] = {}

    @classmethod
    def open(cls, url: str) -> SharedStorage:
        """Open the storage at a URL, making its tables or its folder if there are none.

        Raises:
            UsageError: the URL is none of `ACCEPTED`, its driver is not installed, or nothing
                answers there.
        """
        if url.startswith("journal:"):
            rest = url.removeprefix("journal:")
            folder = Path(rest[2:] if rest.startswith("//") else rest).expanduser()
            if not rest.strip("/"):
                raise _refused(url, "names no folder")
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _refused(url, str(error)) from error
            return cls(FileTurns(folder), folder=folder)
        try:
            address = sqlalchemy.make_url(url)
        except SQLAlchemyError as error:
            raise _refused(url, "is not a URL") from error
        if address.get_backend_name() in ("postgresql", "postgres"):
            return cls._postgres(address.set(drivername="postgresql+psycopg"))
        if address.get_backend_name() == "sqlite" and address.database not in (None, ":memory:"):
            return cls._sqlite(address)
        raise _refused(address.render_as_string(), "is not shared between processes")

    @classmethod
    def _postgres(cls, address: sqlalchemy.URL) -> SharedStorage:
        options = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
        arguments = {"connect_args": {"options": options, "connect_timeout": 10}}
        try:
            turns = PostgresTurns(sqlalchemy.create_engine(address, **arguments))
            with turns.turn("tables"):  # eight workers that make them at once trip over each other
                plain = address.render_as_string(hide_password=False)
                return cls(turns, RDBStorage(plain, engine_kwargs=arguments))
        except ImportError as error:
            raise _refused(
                address.render_as_string(),
                f"needs a driver: {error}. Install it: pip install 'pagetune[dist]'",
            ) from error
        except SQLAlchemyError as error:
            raise _refused(address.render_as_string(), _first_line(error)) from error

    @classmethod
    def _sqlite(cls, address: sqlalchemy.URL) -> SharedStorage:
        path = Path(str(address.database)).absolute()
        arguments = {"connect_args": {"timeout": _BUSY_S}}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            turns = FileTurns(path.parent)
            with turns.turn(f"{path.name}-tables"):
                return cls(turns, RDBStorage(str(address), engine_kwargs=arguments))
        except (SQLAlchemyError, OSError) as error:
            raise _refused(str(address), _first_line(error)) from error

    def storage(self, study: str) -> BaseStorage:
        """Optuna's storage that holds, or will hold, the study of that name."""
        if self._database is not None:
            return self._database
        assert self._folder is not None
        if study not in self._journals:
            path = self._folder / f"{study}.journal"
            try:
                self._journals[study] = JournalStorage(Journal(path))
            except (OSError, ValueError, KeyError) as error:
                raise StorageError(f"cannot use the study file {path}: {error!r}") from error
        return self._journals[study]

    def notes(self) -> dict[str, Mapping[str, Any]]:
        """Notes on every study that is here, by its name."""
        if self._database is not None:
            return _notes(self._database)
        assert self._folder is not None
        found: dict[str, Mapping[str, Any]] = {}
        for path in sorted(self._folder.glob("*.journal")):
            found |= _notes(self.storage(path.stem))
        return found

    def notes_of(self, study: str) -> Mapping[str, Any] | None:
        """Notes on one study, None if there is no such study yet."""
        storage = self.storage(study)
        try:
            return storage.get_study_user_attrs(storage.get_study_id_from_name(study))
        except KeyError:
            return None


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn the libraries' complaints about a storage that went away into ours."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise StorageError(
            f"the storage does not answer any more: {_first_line(error)}. Nothing that was "
            "recorded is lost; go on with the same command"
        ) from error


def _notes(storage: BaseStorage) -> dict[str, Mapping[str, Any]]:
    return {study.study_name: study.user_attrs for study in storage.get_all_studies()}


def _refused(url: str, complaint: str) -> UsageError:
    return UsageError(f"--storage {url}: {complaint}. Accepted: {'; '.join(ACCEPTED)}")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
