"""Where things lie on disk: data shipped with the package, results, the cache.

The only module that reads environment variables.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from autotune.errors import StorageError

_PACKAGE = Path(__file__).resolve().parent


def data_dir(name: str) -> Path:
    """Return the folder `name` ("templates", "results") of the wheel, else of the checkout."""
    packaged = _PACKAGE / "_data" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name


def templates_dir() -> Path:
    """Folder of the Jinja templates."""
    return data_dir("templates")


def results_dirs(override: str | Path | None = None) -> tuple[Path, ...]:
    """Folders in which results are looked up, first match first.

    `override` alone if given, else `$AUTOTUNE_RESULTS` alone if set, else what this user tuned and
    then what was shipped.
    """
    chosen = override or os.environ.get("AUTOTUNE_RESULTS")
    if chosen:
        return (Path(chosen).expanduser(),)
    return tuple(dict.fromkeys((_own_results_dir(), data_dir("results"))))


def results_target(override: str | Path | None = None) -> Path:
    """Folder that results are written to: never one inside an installed package."""
    return results_dirs(override)[0]


def _own_results_dir() -> Path:
    shipped = data_dir("results")
    if not shipped.is_relative_to(_PACKAGE):  # a checkout: results are reviewed like code
        return shipped
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "pagetune" / "results"


def cache_dir() -> Path:
    """Owner-only cache for rendered kernels and compile reports, made when first asked for.

    `$AUTOTUNE_CACHE`, else `$XDG_CACHE_HOME/pagetune`, else `~/.cache/pagetune`.

    Raises:
        StorageError: the folder cannot be made, or belongs to somebody else or is open to them:
            code is imported from it.
    """
    chosen = os.environ.get("AUTOTUNE_CACHE")
    if chosen:
        folder = Path(chosen).expanduser()
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        folder = Path(base).expanduser() / "pagetune"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
    except OSError as error:
        raise StorageError(
            f"cannot use the cache folder {folder}: {error}. Set AUTOTUNE_CACHE to a writable one."
        ) from error
    if info.st_uid != os.getuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StorageError(
            f"the cache folder {folder} can be written by other users, and kernels are imported "
            f"from it. Run: chmod 700 {folder}, or set AUTOTUNE_CACHE to a folder of your own."
        )
    return folder


def studies_dir(override: str | Path | None = None) -> Path:
    """Folder of the search ledgers: `override`, else `$AUTOTUNE_STUDIES`, else in the cache."""
    chosen = override or os.environ.get("AUTOTUNE_STUDIES")
    return Path(chosen).expanduser() if chosen else cache_dir() / "studies"


def child_environment(**extra: str) -> dict[str, str]:
    """Environment for a worker process: ours, with Triton's cache inside our own cache."""
    env = dict(os.environ)
    env.setdefault("TRITON_CACHE_DIR", str(cache_dir() / "triton"))
    env.update(extra)
    return env
