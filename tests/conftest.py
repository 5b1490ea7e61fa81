"""Fixtures for tests that start processes, or read the files of a run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command_line import FAULTY, command, cpus_for, environment

from harness.output import store
from harness.process.folders import CACHE_VARIABLES, usual_cache

if TYPE_CHECKING:
    import pandas as pd

    from harness.record import Record

# This process compiles into the folders of the workers, so that each kernel is compiled once for all tests.
for variable, folder in CACHE_VARIABLES.items():
    os.environ.setdefault(variable, str(usual_cache() / folder))
# Every run of the tests asks its own edge cases.
os.environ["CI"] = "1"
# Tests run side by side, and none of them is about times.
os.environ["BILINEAR_BENCH_LOCK"] = "0"

#: The outside package has tests of its own; `test_third_party.py` runs them where the package is installed.
collect_ignore = ["third_party"]

#: Folders whose tests share one process of pytest-xdist: in two processes each kernel would be compiled twice.
COMPILING = ("tests/backends/", "tests/bilinear_bench/")
#: With this variable the slow tests run; `make slow` sets it.
SLOW = "BILINEAR_BENCH_SLOW"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip slow tests unless the environment asks for them."""
    if os.environ.get(SLOW) == "1":
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes long: `make slow` runs it"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Send a test to any free process, but tests that share a slow fixture to the same process.

    Such tests have a name before a colon: `test_something[what they share: parameter]`. The groups of pytest-xdist 3.8
    do not reach its scheduler under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Sharing(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(COMPILING):
                return "compiling"
            shared, colon, _ = nodeid.partition("[")[2].partition(": ")
            return shared if colon else nodeid

    return Sharing(config, log)


@pytest.fixture
def frame(tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Write rows into the files of a run, and read them as a report does."""

    def frame(*records: Record) -> pd.DataFrame:
        with store.Store.create(tmp_path / "run", {}) as opened:
            for record in records:
                opened.add_record(record)
        return store.read(tmp_path / "run" / store.RECORDS)

    return frame


@pytest.fixture
def faulty_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the faulty backends on the path of this process and of its workers."""
    monkeypatch.setenv("PYTHONPATH", FAULTY)
    for folder in FAULTY.split(os.pathsep):
        monkeypatch.syspath_prepend(folder)


@pytest.fixture
def bilinear_bench(tmp_path: Path):
    """Run the command line in an empty folder, faulty backends on its path; return the finished process."""

    def run(*arguments: str, timeout: float = 300, **variables: str) -> subprocess.CompletedProcess[str]:
        with cpus_for(arguments):
            return subprocess.run(
                command(*arguments),
                cwd=tmp_path,
                env=environment(**variables),
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )

    return run


@pytest.fixture(scope="module")
def one_thread():
    """Give PyTorch one thread: on small work a pool of threads only waits, and long on a shared machine."""
    import torch  # not at the top: few tests need it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def write(tmp_path: Path):
    """Write a file of the fake system."""

    def into(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    return into
