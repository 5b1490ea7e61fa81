"""The description of the machine and of the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.machine import environment

GIB = 2**30


@pytest.fixture
def system_files(monkeypatch):
    """Replace the system's files by a mapping from path to text; a path that it lacks is missing."""
    files: dict[str, str] = {}
    monkeypatch.setattr(environment, "read", lambda path: files.get(str(path)))
    return files


def test_description_is_json_and_describes_the_machine():
    description = environment.describe()
    assert json.loads(json.dumps(description)) == description
    assert description["threads_available"] >= 1
    assert description["memory_bytes"] >= description["memory_available_bytes"] > 0
    assert "numpy" in description["versions"]


def test_description_has_no_path_no_secret_and_no_owner(monkeypatch):
    variables = {
        "OMP_NUM_THREADS": "2",
        "JAX_API_KEY": "hush-alice",
        "TORCH_HOME": "/home/alice/torch",
        "NUMBA_CACHE_DIR": "/home/alice/cache",
        "UNRELATED": "alice",
        "LD_PRELOAD": "/home/alice/lib/libjemalloc.so",
        "XLA_FLAGS": "--xla_dump_to=/home/alice/dump",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["/home/alice/bin/bilinear-bench", "run", "--out", "/home/alice/results"])
    description = environment.describe()
    assert description["variables"]["OMP_NUM_THREADS"] == "2"
    assert description["arguments"] == ["run", "--out", "results"]
    assert "libjemalloc.so" in description["variables"]["LD_PRELOAD"]  # the library changes times, its folder does not
    assert "alice" not in json.dumps(description)


@pytest.mark.parametrize(
    ("limit", "granted", "total", "available"),
    [(None, None, 16, 9), (4, 3, 4, 2), (1, 0, 1, 0), (64, 63, 16, 9)],
)
def test_memory_is_cut_to_the_cgroups_less_a_reserve(monkeypatch, limit, granted, total, available):
    monkeypatch.setattr(environment.psutil, "virtual_memory", lambda: FakeMemory)
    monkeypatch.setattr(environment.cgroup, "memory_limit", lambda: limit and limit * GIB)
    monkeypatch.setattr(environment.cgroup, "memory_free", lambda: None if granted is None else granted * GIB)
    assert (environment.total_bytes(), environment.available_bytes()) == (total * GIB, available * GIB)


def test_description_names_what_workers_do_not_get(monkeypatch):
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    description = environment.describe()
    assert description["variables"]["OMP_PROC_BIND"] == "close"
    assert "OMP_PROC_BIND" in description["variables_withheld"]


class FakeMemory:
    available = 10 * GIB
    total = 16 * GIB


def test_system_files_are_read_and_a_missing_one_is_none(system_files):
    assert environment.oom_kills() is None
    system_files["/proc/vmstat"] = "pgfault 9\noom_kill_disable 5\noom_kill 3"
    system_files["/proc/cpuinfo"] = "processor\t: 0\nmodel name\t: Fast One 3000\nflags\t: fma avx2"
    assert environment.oom_kills() == 3
    assert environment.cpu_model() == "Fast One 3000"
    assert environment.describe()["cpu_flags"] == ["avx2", "fma"]
    system_files["/proc/cpuinfo"] = "model name\t: AMD EPYC\ncpu family\t: 25\nmodel\t\t: 17"
    assert environment.cpu_model() == "AMD EPYC (family 25, model 17)"


@pytest.mark.parametrize(
    ("script", "listed", "memory"),
    [
        (None, [], None),
        ("exit 9", [], None),
        ("echo; echo 'H200, 570.1, 9 MiB'; echo 'H200, 570.1, 9 MiB'", ["H200, 570.1, 9 MiB"] * 2, 9 * 2**20),
        ("echo 'GB10, 580.1, [N/A]'", ["GB10, 580.1, [N/A]"], None),
    ],
)
def test_gpus_are_those_that_nvidia_smi_lists(tmp_path, monkeypatch, script, listed, memory):
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.gpus() == listed
    assert environment.device_bytes.__wrapped__("cuda") == memory
    assert environment.device_bytes.__wrapped__("cpu") is None


def test_revision_is_that_of_the_checkout_and_marks_changed_files(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    assert environment.git_revision(tmp_path) is None

    def git(*arguments: str):
        settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *settings, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    Path(tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    revision = environment.git_revision(tmp_path)
    assert len(revision) == 12
    assert int(revision, 16) >= 0
    Path(tmp_path / "file").write_text("two")
    assert environment.git_revision(tmp_path) == f"{revision}+changed"
