"""All workers of a run: start them, each in its environment, find them by name, and end them with the run."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import psutil

from harness.process.handle import Worker, WorkerHandle

#: Compile caches, by the variable that moves each one.
CACHE_VARIABLES: Final = {
    "NUMBA_CACHE_DIR": "numba",
    "JAX_COMPILATION_CACHE_DIR": "jax",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
}
#: Variables of a peak worker: its kernels are compiled, whatever is switched off for backends.
COMPILES: Final = {"NUMBA_DISABLE_JIT": "0", "NUMBA_OPT": "3"}
#: Variable of random length in each worker's environment.
PADDING: Final = "BILINEAR_BENCH_PADDING"
#: Largest length of its value, in bytes: a page.
PADDING_BYTES: Final = 4096
#: Variables that hide the GPU from a worker for the CPU: no context, no device memory, no driver threads.
NO_GPU: Final[dict[str, str]] = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
#: Variables of a worker for the GPU. JAX would take three quarters of the memory at once, and leave the others too
#: little. GPUs are numbered as NVML numbers them. CuPy multiplies float32 as float32.
SHARED_GPU: Final[dict[str, str]] = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "CUPY_TF32": "0",
}


class WorkerPool(Protocol):
    """The part of a supervisor that a run uses. Every method that starts a worker may raise WorkerError."""

    empty_caches: bool
    #: Folder of right findings of edge cases, next to the compile caches; None where these begin empty.
    findings: Path | None

    def worker(self, name: str, device: str) -> tuple[WorkerHandle, bool]:
        """Return a backend's worker, and whether it has just been started with empty compile caches."""
        ...

    def edge_case_worker(self, name: str, device: str) -> WorkerHandle:
        """Return a worker for the same backend that is never timed."""
        ...

    def reference(self, device: str) -> WorkerHandle:
        """Return the reference's worker that computes on a device."""
        ...

    def peak_worker(self, name: str, device: str = "cpu", variables: Mapping[str, str] | None = None) -> WorkerHandle:
        """Return a new worker that measures a device."""
        ...

    def discard(self, name: str, device: str) -> None:
        """End a backend's worker."""
        ...

    def discard_edge_case_worker(self, name: str, device: str) -> None:
        """End a backend's edge-case worker."""
        ...

    def discard_peak_worker(self, name: str) -> None:
        """End a peak worker."""
        ...


class Supervisor:
    """All workers of a run. Use as a context manager; its end ends all of them.

    Args:
        thread_budget: Number of CPUs of each worker.
        cache: Root of the compile caches; made if missing.
        freeze: True if idle workers are stopped.
        empty_caches: True if every new worker gets empty compile caches instead.
    """

    def __init__(self, thread_budget: int, cache: Path, freeze: bool = True, empty_caches: bool = False) -> None:
        self.thread_budget = thread_budget
        self.freeze = freeze
        self.empty_caches = empty_caches
        self.findings = None if empty_caches else cache / "edge_cases"
        self._cache = cache
        self._workers: dict[tuple[str, str], Worker] = {}
        #: Numbers what is private to each worker.
        self._numbers = itertools.count(1)
        self._root = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))

    def __enter__(self) -> Self:
        _remove_leftovers(self._root.parent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for key in list(self._workers):
            self.discard(*key)
        shutil.rmtree(self._root, ignore_errors=True)

    def worker(self, name: str, device: str) -> tuple[Worker, bool]:
        """Return the backend's worker, started if there is none; and whether it was started with empty caches.

        Raises:
            WorkerError: It did not start.
        """
        return self._backend_worker((name, device), device)

    def edge_case_worker(self, name: str, device: str) -> Worker:
        """Return a worker for the same backend that is never timed; `discard_edge_case_worker` ends it.

        Raises:
            WorkerError: It did not start.
        """
        return self._backend_worker((f"edge cases of {name}", device), device)[0]

    def discard_edge_case_worker(self, name: str, device: str) -> None:
        """Kill a backend's edge-case worker, if there is one."""
        self.discard(f"edge cases of {name}", device)

    def _backend_worker(self, key: tuple[str, str], device: str) -> tuple[Worker, bool]:
        if key in self._workers and self._workers[key].alive:
            return self._workers[key], False
        cache = self._root / f"cache{next(self._numbers)}" if self.empty_caches else self._cache
        variables = _cache_variables(cache)
        empty = not any(any(Path(folder).iterdir()) for folder in variables.values())
        self._workers[key] = self._spawn("backend", device, variables)
        return self._workers[key], empty

    def reference(self, device: str = "cpu") -> Worker:
        """Return the reference's worker that computes on a device, started if there is none.

        Raises:
            WorkerError: It did not start.
        """
        key = ("reference", device)
        if key not in self._workers or not self._workers[key].alive:
            self._workers[key] = self._spawn("reference", device)
        return self._workers[key]

    def peak_worker(self, name: str, device: str = "cpu", variables: Mapping[str, str] | None = None) -> Worker:
        """Return a new worker that measures a device; `discard_peak_worker` ends it.

        Args:
            name: Library whose rates it measures; an earlier worker of that name is ended.
            device: Device that is measured.
            variables: Environment variables on top of the others.

        Raises:
            WorkerError: It did not start.
        """
        self.discard_peak_worker(name)
        # A folder of its own: code that it compiles must not make an empty cache look filled to a backend.
        settings = _cache_variables(self._cache / "peaks") | COMPILES | dict(variables or {})
        role = "peaks" if device == "cpu" else "gpu peaks"
        worker = self._workers[f"peaks with {name}", "cpu"] = self._spawn(role, device, settings)
        return worker

    def discard_peak_worker(self, name: str) -> None:
        """Kill a peak worker, if there is one."""
        self.discard(f"peaks with {name}", "cpu")

    def discard(self, name: str, device: str) -> None:
        """Kill a worker, if there is one; the next request for it starts another."""
        worker = self._workers.pop((name, device), None)
        if worker is not None:
            worker.kill()

    def _spawn(self, role: str, device: str, variables: Mapping[str, str] | None = None) -> Worker:
        directory = self._root / f"worker{next(self._numbers)}"
        # Where the stack begins depends on the size of the environment, and moves times (Mytkowicz et al., ASPLOS'09).
        padding = {PADDING: "x" * secrets.randbelow(PADDING_BYTES)}
        settings = (NO_GPU if device == "cpu" else SHARED_GPU) | dict(variables or {}) | padding
        return Worker(role, directory, settings, self.thread_budget, self.freeze)


#: Prefix of private folders. The process id of their run follows, so that a later run finds the leftovers of a killed
#: one.
PREFIX: Final = "bilinear-bench-"


def default_cache() -> Path:
    """Return the folder of compile caches: in the checkout, or in the user's cache folder for an installed package."""
    checkout = Path(__file__).parent.parent.parent
    if (checkout / "pyproject.toml").is_file():
        return checkout / ".cache" / "compiled"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bilinear-bench"


def _cache_variables(cache: Path) -> dict[str, str]:
    """Return variables that put each compile cache into this folder, and make the folders."""
    variables = {variable: str(cache / folder) for variable, folder in CACHE_VARIABLES.items()}
    for folder in variables.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    return variables


def _remove_leftovers(folder: Path) -> None:
    """Delete private folders of runs that have ended without deleting them, killed with signal 9 for instance."""
    for leftover in folder.glob(f"{PREFIX}*"):
        owner = leftover.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(leftover, ignore_errors=True)
