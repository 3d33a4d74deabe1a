"""Which folders are used, and which are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autotune import paths
from autotune.errors import StorageError
from autotune.paths import (
    cache_dir,
    child_environment,
    data_dir,
    results_dirs,
    results_target,
    studies_dir,
    templates_dir,
)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o720, 0o702])
def test_a_cache_that_others_can_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    monkeypatch.setenv("AUTOTUNE_CACHE", str(folder))
    with pytest.raises(StorageError, match=f"chmod 700 {folder}"):
        cache_dir()


def test_a_cache_of_somebody_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cache_dir()
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(StorageError, match="AUTOTUNE_CACHE"):
        cache_dir()


def test_the_cache_is_made_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "deep" / "cache"))
    assert cache_dir().stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_place_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="Set AUTOTUNE_CACHE"):
        cache_dir()


def test_where_the_cache_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "first"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "second"))
    monkeypatch.setenv("HOME", str(tmp_path / "third"))
    assert cache_dir() == tmp_path / "first"
    monkeypatch.delenv("AUTOTUNE_CACHE")
    assert cache_dir() == tmp_path / "second" / "pagetune"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == tmp_path / "third" / ".cache" / "pagetune"


def test_where_results_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_RESULTS", str(tmp_path / "variable"))
    assert results_dirs(tmp_path / "option") == (tmp_path / "option",)
    assert results_dirs() == (tmp_path / "variable",)
    assert results_target() == tmp_path / "variable"
    monkeypatch.delenv("AUTOTUNE_RESULTS")
    assert results_dirs() == (data_dir("results"),)


def test_an_installed_package_is_never_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "autotune"
    (package / "_data" / "results").mkdir(parents=True)
    monkeypatch.setattr(paths, "_PACKAGE", package)
    monkeypatch.delenv("AUTOTUNE_RESULTS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    assert results_target() == tmp_path / "home" / "pagetune" / "results"
    assert results_dirs() == (results_target(), package / "_data" / "results")


def test_where_studies_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_STUDIES", str(tmp_path / "variable"))
    assert studies_dir(tmp_path / "option") == tmp_path / "option"
    assert studies_dir() == tmp_path / "variable"
    monkeypatch.delenv("AUTOTUNE_STUDIES")
    assert studies_dir() == cache_dir() / "studies"


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert results_dirs("~/tuned") == (tmp_path / "tuned",)


def test_the_templates_are_there() -> None:
    assert (templates_dir() / "paged_attention_decode.py.jinja").is_file()


def test_workers_keep_tritons_cache_in_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    found = child_environment(TRITON_INTERPRET="1")
    assert found["TRITON_CACHE_DIR"] == str(cache_dir() / "triton")
    assert found["TRITON_INTERPRET"] == "1"
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    assert child_environment()["TRITON_CACHE_DIR"] == "/elsewhere"
    assert "TRITON_INTERPRET" not in os.environ
