"""All workers of a run: start them, each in its environment, find them by name, and end them with the run."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from harness.process import folders
from harness.process.handle import Worker, WorkerHandle

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
        cache: Root of the compile caches, made if missing; None for one that ends with the run.
        freeze: True if idle workers are stopped.
        empty_caches: True if every new worker gets empty compile caches instead.

    Raises:
        FolderError: There is no temporary folder with room.
    """

    def __init__(self, thread_budget: int, cache: Path | None, freeze: bool = True, empty_caches: bool = False) -> None:
        self.thread_budget = thread_budget
        self.freeze = freeze
        self.empty_caches = empty_caches
        self._root, self._lock = folders.make_private()
        self._cache = self._root / "cache" if cache is None else cache
        self.findings = None if empty_caches else self._cache / "edge_cases"
        self._workers: dict[tuple[str, str], Worker] = {}
        #: Numbers what is private to each worker.
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        folders.remove_leftovers(self._root.parent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for key in list(self._workers):
            self.discard(*key)
        shutil.rmtree(self._root, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

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
        variables = folders.cache_variables(cache)
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
        settings = folders.cache_variables(self._cache / "peaks") | COMPILES | dict(variables or {})
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
