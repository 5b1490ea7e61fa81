"""The parent's side: spawn workers, let each run only while it is asked, time it out, kill it, collect what it said.

Frameworks disturb each other inside a process, and their idle thread pools spin and disturb each other across
processes. So each backend has a process of its own, and whoever is not asked anything is stopped (SIGSTOP) with its
whole process group: while one is timed, all others are. What that asks for:

* The group is new but the session is not: were this process to vanish, the stopped group would be orphaned, and the
  kernel ends orphaned stopped groups (SIGHUP, SIGCONT). The worker itself asks to be killed with its parent.
* A worker is seen stopped, with its descendants, before its answer is returned.
* A time limit is one of running time, whatever the worker prints meanwhile: it starts when the request is sent.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from harness.machine import environment, threads
from harness.record import Status

#: Longest reply that is read, in bytes; a worker that sends more broke the protocol.
REPLY_BYTES: Final = 2**20
#: What is kept of a worker's output: its end, in bytes.
OUTPUT_BYTES: Final = 8 * 2**10
#: How long a process group may take to stop before the worker is given up, in seconds.
STOP_SECONDS: Final = 5.0
#: How often a waiting parent looks whether the worker is still alive, in seconds. A pipe's end says it too, but not if
#: a forked grandchild holds the pipe.
LOOK_SECONDS: Final = 1.0

_RESULT_KEYS: Final = {"native_type", "facts", "storages"}
#: What each answer must hold; a worker that leaves something out broke the protocol.
ANSWER_KEYS: Final = {
    "load": {"available"},
    "support": {"supported"},
    "edge_case": {"answer", "operators"},
    "gradcheck": {"reason"},
    "prepare": {
        *("prepare_seconds", "tuning", "first_call_seconds", "threads", "affinity"),
        *("inputs", "native_bases", "home_made", *_RESULT_KEYS),
    },
    "scenario": {"operators", "call_seconds", "convert_seconds", "kernel_seconds", *_RESULT_KEYS},
    "changed": {"changed", "replaced"},
    "warm_up": {"stretches", "busy"},
    "sample": {"seconds", "forward_seconds", "involuntary_switches"},
    "gpu_state": {"state"},
    "memory": {"peak_bytes"},
    "device_times": {"queued_seconds", "device_seconds", "graph_seconds", "absent", "broken"},
    "kept": _RESULT_KEYS,
    "release": {"trimmed"},
    "check": {"fresh_seconds", "seen_seconds", "affinity", *_RESULT_KEYS},
    "expect": {"quadratics"},
    "arithmetic": {"flop_per_second", "source"},
    "spot_peak": {"flop_per_second", "source"},
    "product": {"flop_per_second", "detail"},
    "bandwidth": {"bytes_per_second", "source"},
    "device": {"name", "cache_bytes"},
    "device_product": {"flop_per_second", "detail"},
    "device_bandwidth": {"bytes_per_second", "source"},
}
#: Compile caches, by the variable that moves each one.
CACHE_VARIABLES: Final = {
    "NUMBA_CACHE_DIR": "numba",
    "JAX_COMPILATION_CACHE_DIR": "jax",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
}
#: A variable of random length in each worker's environment, up to a page.
PADDING: Final = "BILINEAR_BENCH_PADDING"
PADDING_BYTES: Final = 4096
#: A worker for the CPU sees no GPU: no context, no device memory, no driver threads.
NO_GPU: Final[dict[str, str]] = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
#: JAX would take three quarters of the GPU's memory at once, and leave the others too little. GPUs have NVML's numbers.
#: CuPy multiplies float32 as float32.
SHARED_GPU: Final[dict[str, str]] = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "CUPY_TF32": "0",
}
#: No worker gets this: it decides over a case's precision, for some libraries and not for others.
OVERRIDE: Final = "NVIDIA_TF32_OVERRIDE"


class WorkerError(Exception):
    """A request that was not answered as asked.

    Attributes:
        status: What the cell becomes.
        reason: Why, in words, with the end of the worker's output where it died.
    """

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Worker:
    """One child process, stopped whenever it is not answering.

    Args:
        role: A key of ``worker.ROLES``.
        directory: A private folder for its files; made here.
        variables: Environment variables on top of this process's own.
        thread_budget: CPUs it is held to.
        freeze: Whether to stop it between requests.
        start_seconds: Time limit for starting, in seconds.
    """

    def __init__(
        self,
        role: str,
        directory: Path,
        variables: dict[str, str],
        thread_budget: int,
        freeze: bool = True,
        start_seconds: float = 60.0,
    ) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700)
        self._freeze = freeze
        #: Time between the last request and its answer, by this process's clock.
        self.elapsed_seconds = 0.0
        #: It may be killed by one thread while another waits for its answer; its pipes are closed once.
        self._closing = threading.Lock()
        self._output = b""
        self._pending = b""
        self._oom_kills = environment.oom_kills()
        request_read, request_write = os.pipe()
        reply_read, reply_write = os.pipe()
        nonce = secrets.token_hex(8)
        configuration = {
            "role": role,
            "nonce": nonce,
            "parent": os.getpid(),
            "cpus": threads.cpus(thread_budget),
            "requests": request_read,
            "replies": reply_write,
        }
        package = str(Path(__file__).parent.parent.parent)
        search = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        # -P keeps the working directory off the import path: a file named torch.py there shall not become torch.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.worker.main", json.dumps(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(request_read, reply_write),
            env={name: value for name, value in os.environ.items() if name != OVERRIDE}
            | variables
            | threads.pool_environment(thread_budget)
            | {"PYTHONPATH": search},
            process_group=0,
        )
        os.close(request_read)
        os.close(reply_write)
        self._request_pipe, self._reply_pipe = request_write, reply_read
        assert self._process.stdout is not None  # noqa: S101  # we asked for a pipe; tells mypy
        self._output_pipe = self._process.stdout.fileno()
        os.set_blocking(self._output_pipe, False)
        os.set_blocking(self._reply_pipe, False)
        self._answered("start", nonce, start_seconds)

    @property
    def pid(self) -> int:
        """The child's process id, which is also its group's."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process can still be asked."""
        return self._process.returncode is None

    def request(self, do: str, time_limit_seconds: float, **fields: Any) -> dict[str, Any]:
        """Let the worker run until it has answered, and return the answer.

        Raises:
            WorkerError: It raised (and lives on), or it died, hung or broke the protocol (and is gone).
        """
        if not self.alive:
            # Its pipes are closed, and their numbers may be another file's by now.
            raise WorkerError(Status.FAILED, "its process had ended before this request")
        # An answer carries its request's number, which nobody can foresee: what was written ahead is no answer.
        nonce = secrets.token_hex(8)
        line = json.dumps({"id": nonce, "do": do, **fields}).encode() + b"\n"
        self._signal(signal.SIGCONT)
        try:
            os.write(self._request_pipe, line)
        except BrokenPipeError:
            raise self._end(Status.FAILED, self._obituary()) from None
        return self._answered(do, nonce, time_limit_seconds)

    def kill(self) -> None:
        """End the process, its group and whatever else descends from it, stopped or not."""
        family = self._descendants()
        self._signal(signal.SIGKILL)
        for relative in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                relative.kill()
        self._process.wait()
        with self._closing:
            if self._process.stdout and not self._process.stdout.closed:
                self._drain()
                self._process.stdout.close()
                os.close(self._request_pipe)
                os.close(self._reply_pipe)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _answered(self, do: str, nonce: str, limit_seconds: float) -> dict[str, Any]:
        """Wait for the reply with this number, then stop the worker."""
        start = time.monotonic()
        line = self._line(limit_seconds)
        self.elapsed_seconds = time.monotonic() - start
        try:
            reply = json.loads(line)
            if not isinstance(reply, dict) or reply.pop("id", None) != nonce:
                raise ValueError(line[:80])
            ok = bool(reply.pop("ok"))
            if ok and not ANSWER_KEYS.get(do, set()) <= set(reply):
                raise ValueError(line[:80])
        except (ValueError, KeyError):
            raise self._end(Status.FAILED, f"broke the protocol: replied {line[:80]!r}") from None
        self._stop()
        if ok:
            return reply
        status = Status.OUT_OF_MEMORY if reply.get("out_of_memory") else Status.FAILED
        raise WorkerError(status, f"{reply.get('error')} ({reply.get('where')})")

    def _line(self, limit_seconds: float) -> bytes:
        """Read one line of reply while draining the output."""
        deadline = time.monotonic() + limit_seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._reply_pipe, selectors.EVENT_READ)
            selector.register(self._output_pipe, selectors.EVENT_READ)
            while True:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise self._end(Status.TIMEOUT, f"no answer within {limit_seconds:.3g} s")
                ready = {key.fd for key, _ in selector.select(min(remaining, LOOK_SECONDS))}
                if self._output_pipe in ready and not self._drain():
                    selector.unregister(self._output_pipe)  # it closed its output; that is its right
                if self._reply_pipe in ready:
                    chunk = os.read(self._reply_pipe, 2**16)
                    if not chunk:
                        raise self._end(Status.FAILED, self._obituary())
                    self._pending += chunk
                    line, newline, rest = self._pending.partition(b"\n")
                    if newline:
                        self._pending = rest
                        return line
                    if len(self._pending) > REPLY_BYTES:
                        raise self._end(Status.FAILED, f"broke the protocol: a reply of over {REPLY_BYTES} bytes")
                elif self._process.poll() is not None:
                    raise self._end(Status.FAILED, self._obituary())

    def _drain(self) -> bool:
        """Keep the end of what the worker has printed; say whether more may come."""
        while True:
            try:
                chunk = os.read(self._output_pipe, 2**16)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            self._output = (self._output + chunk)[-OUTPUT_BYTES:]
            if len(chunk) < 2**16:
                return True

    def _stop(self) -> None:
        """Stop the whole group, and see it stopped."""
        if not self._freeze:
            return
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        deadline = time.monotonic() + STOP_SECONDS
        for relative in self._descendants():
            while _runs(relative):
                if time.monotonic() > deadline:
                    raise self._end(Status.FAILED, f"its child process {relative.pid} could not be stopped")
                # Out of our group (setsid), say: then it has to be asked on its own.
                with contextlib.suppress(psutil.NoSuchProcess):
                    relative.suspend()
                time.sleep(0.0005)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):  # it has just ended; the next read says so
            os.killpg(self.pid, number)
        if number is signal.SIGCONT and self._freeze:
            for relative in self._descendants():
                with contextlib.suppress(psutil.NoSuchProcess):
                    relative.resume()

    def _descendants(self) -> list[psutil.Process]:
        # /proc/PID/task/TID/children costs microseconds; looking through all processes of the machine does not.
        found: list[psutil.Process] = []
        waiting = [self.pid]
        while waiting:
            parent = waiting.pop()
            for path in Path(f"/proc/{parent}/task").glob("*/children"):
                with contextlib.suppress(OSError, psutil.NoSuchProcess):  # it may end while we look
                    children = [psutil.Process(int(child)) for child in path.read_text().split()]
                    found += children
                    waiting += [child.pid for child in children]
        return found

    def _end(self, status: Status, reason: str) -> WorkerError:
        """Kill the worker and say what became of it, with the end of its output."""
        self.kill()
        if self._process.returncode == -signal.SIGKILL and status is Status.FAILED:
            kills = environment.oom_kills()
            if kills is not None and self._oom_kills is not None and kills > self._oom_kills:
                status, reason = Status.OUT_OF_MEMORY, f"killed by the kernel for memory ({reason})"
        output = self._output.decode(errors="replace").strip()
        said = " | ".join(line.strip() for line in output.splitlines()[-6:] if line.strip())
        return WorkerError(status, f"{reason}; its output ended: {said}" if said else reason)

    def _obituary(self) -> str:
        """How the process ended, in words; called when its pipe has closed."""
        try:
            code = self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its reply pipe and lived on"
        if code >= 0:
            return f"exited with code {code} without an answer"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "unknown"
        return f"killed by signal {-code} ({name})"


class Supervisor:
    """All workers of a run. Use as a context manager: whatever happens, none survives it.

    Args:
        thread_budget: CPUs of every worker alike.
        cache: Root of the compile caches; made if missing.
        freeze: Whether idle workers are stopped.
        empty_caches: True if every new worker gets empty compile caches instead.
    """

    def __init__(self, thread_budget: int, cache: Path, freeze: bool = True, empty_caches: bool = False) -> None:
        self.thread_budget = thread_budget
        self.freeze = freeze
        self.empty_caches = empty_caches
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
        """Kill a backend's edge_case_worker, if there is one."""
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
            name: Whose rates it measures; an earlier one of that name is ended.
            device: What is measured.
            variables: Environment variables on top of the others.

        Raises:
            WorkerError: It did not start.
        """
        self.discard_peak_worker(name)
        # A folder of its own: what it compiles shall not make an empty cache look filled to a backend.
        given = _cache_variables(self._cache / "peak_worker") | dict(variables or {})
        role = "peak_worker" if device == "cpu" else "device peak_worker"
        worker = self._workers[f"peak_worker of {name}", "cpu"] = self._spawn(role, device, given)
        return worker

    def discard_peak_worker(self, name: str) -> None:
        """Kill a peak_worker, if there is one."""
        self.discard(f"peak_worker of {name}", "cpu")

    def discard(self, name: str, device: str) -> None:
        """Kill a worker, if there is one; the next request for it starts another."""
        worker = self._workers.pop((name, device), None)
        if worker is not None:
            worker.kill()

    def _spawn(self, role: str, device: str, variables: Mapping[str, str] | None = None) -> Worker:
        directory = self._root / f"worker{next(self._numbers)}"
        # Where the stack begins depends on the size of the environment, and moves times (Mytkowicz et al., ASPLOS'09).
        padding = {PADDING: "x" * secrets.randbelow(PADDING_BYTES)}
        given = (NO_GPU if device == "cpu" else SHARED_GPU) | dict(variables or {}) | padding
        return Worker(role, directory, given, self.thread_budget, self.freeze)


#: Private folders carry this and the process id of their run, so that a later run can tell what a killed one left.
PREFIX: Final = "bilinear-bench-"


def default_cache() -> Path:
    """Where compile caches are kept: in the checkout, or for an installed package in the user's cache folder."""
    checkout = Path(__file__).parent.parent.parent
    if (checkout / "pyproject.toml").is_file():
        return checkout / ".cache" / "compiled"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bilinear-bench"


def _cache_variables(cache: Path) -> dict[str, str]:
    """Variables that put every compile cache into this folder; the folders are made."""
    variables = {variable: str(cache / folder) for variable, folder in CACHE_VARIABLES.items()}
    for folder in variables.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    return variables


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def _remove_leftovers(folder: Path) -> None:
    """Delete private folders of runs that are no more (killed with signal 9, say)."""
    for leftover in folder.glob(f"{PREFIX}*"):
        owner = leftover.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(leftover, ignore_errors=True)
