"""The folders of a run: whose they are, and what is said where they cannot be had."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.process import folders, machine_lock
from harness.process.folders import FolderError

HOLD = """
import sys
from harness.process import folders
print(folders.make_private()[0], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Place the module as if it were installed, with a home that takes files."""
    monkeypatch.setattr(folders, "__file__", str(tmp_path / "site/harness/process/folders.py"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return tmp_path / "home/.cache/bilinear-bench"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def other_run(temporary):
    """Start a process that has a private folder; return the process and the folder."""
    variables = os.environ | {"TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
    )
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.communicate()


def test_folder_of_a_run_that_lives_is_left_alone_and_then_removed(temporary, other_run):
    process, folder = other_run
    folders.remove_leftovers(temporary)
    assert folder.is_dir()
    process.kill()
    process.wait()
    folders.remove_leftovers(temporary)
    assert not folder.exists()


def test_folders_of_others_and_of_unknown_origin_are_left_alone(temporary, monkeypatch):
    unknown = temporary / f"{folders.PREFIX}4194303-old"  # a process number tells nothing on a shared folder
    unknown.mkdir()
    (temporary / f"{folders.PREFIX}host.lock").touch()
    foreign = temporary / f"{folders.PREFIX}foreign"
    foreign.mkdir()
    (foreign / folders.LOCK).touch()
    monkeypatch.setattr(os, "getuid", lambda: -1)
    folders.remove_leftovers(temporary)
    assert unknown.is_dir()
    assert foreign.is_dir()


def test_where_no_lock_can_be_had_no_folder_is_removed(temporary, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    folder, descriptor = folders.make_private()
    os.close(descriptor)
    monkeypatch.setattr(machine_lock.fcntl, "flock", no_locks)
    folders.remove_leftovers(temporary)
    assert folder.is_dir()


def test_cache_is_in_the_home_of_the_user(installed):
    assert folders.default_cache() == installed
    assert not folders.cache_fault()


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
def test_cache_that_takes_no_files_is_temporary_and_names_the_variable(installed, tmp_path, monkeypatch, variable):
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file"))
    assert folders.default_cache() is None
    assert variable in folders.cache_fault()


def test_user_without_a_home_has_a_temporary_cache(installed, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(folders.Path, "home", homeless)
    assert folders.default_cache() is None
    assert "no home" in folders.cache_fault()


def test_full_cache_is_temporary(installed, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folders.tempfile, "NamedTemporaryFile", full)
    assert "No space left on device" in folders.cache_fault()


def test_cache_that_runs_no_compiled_code_is_temporary(installed, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_flag=os.ST_NOEXEC))
    assert "noexec" in folders.cache_fault()


def test_temporary_folder_without_room_is_named_with_its_variable(temporary, monkeypatch):
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2 * 2**20))
    assert folders.temporary_folder(2**20) == temporary
    with pytest.raises(FolderError, match=rf"{temporary} has room for 2\.0 MiB, .* 3\.0 MiB: set TMPDIR"):
        folders.temporary_folder(3 * 2**20)


def test_without_any_temporary_folder_the_variable_is_named(monkeypatch):
    def none():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(folders.tempfile, "gettempdir", none)
    with pytest.raises(FolderError, match=r"No usable temporary directory .*: set TMPDIR"):
        folders.temporary_folder()
