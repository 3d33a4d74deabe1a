"""Atomic writes: the old content or the new, never half of it, and nothing left behind."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from autotune.errors import StorageError
from autotune.files import write_atomically


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


def test_writes_folders_and_content(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.json"
    write_atomically(path, "µs → 1\n")
    assert path.read_text(encoding="utf-8") == "µs → 1\n"
    assert names(path.parent) == ["c.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_replaces_old_content(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    write_atomically(path, "old and longer")
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["c.json"]


@pytest.mark.parametrize("call", ["replace", "fsync", "chmod", "fdopen"])
def test_a_failing_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "c.json"
    write_atomically(path, "old")

    def fail(handle: object, *rest: object, **names: object) -> None:
        if call == "fdopen":
            assert isinstance(handle, int)
            os.close(handle)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageError) as caught:
        write_atomically(path, "new")
    monkeypatch.undo()
    assert str(path) in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["c.json"]


def test_text_that_is_no_unicode_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "half of a pair: \ud800")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["c.json"]


def test_an_interrupt_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "c.json", "new")
    assert names(tmp_path) == []


@pytest.mark.parametrize("target", ["file/below", "."])
def test_an_impossible_target_is_named(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="cannot write"):
        write_atomically(tmp_path / target, "new")
    assert "file" in names(tmp_path)
