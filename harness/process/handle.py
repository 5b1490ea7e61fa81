"""A worker as the parent sees it: spawned, run only while it has a request, timed out, killed.

A worker without a request is stopped (SIGSTOP) with its whole process group: idle thread pools spin and take the CPUs
of the worker that is timed.

* The group is new but the session is not. If this process ends, the stopped group is orphaned, and the kernel ends
  orphaned stopped groups (SIGHUP, SIGCONT). The worker itself asks to be killed with its parent.
* A new worker starts by itself, so several start at the same time; its first request waits until it has started.
* A worker is seen stopped, with its descendants, before its reply is returned.
* A time limit is one of running time: it starts when the request is sent, whatever the worker prints. What the worker
  waited for a CPU is added to it, and time in which this process was stopped is not counted.

Length: the class owns the process and its pipes, and each way to end closes both.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

import psutil

from harness.checked import Location
from harness.machine import environment, standing, threads, usage
from harness.machine.standing import Standing
from harness.machine.usage import Usage
from harness.machine.variables import passed_on
from harness.process import frames, protocol, start
from harness.process.protocol import Configuration, Failure, ProtocolError, ReplyT, Request, Started
from harness.record import Status

#: Longest reply that is read, in bytes; a worker that sends more broke the protocol.
REPLY_BYTES: Final = 2**20
#: Longest end of a worker's output that is kept, in bytes.
OUTPUT_BYTES: Final = 8 * 2**10
#: Time that a process group may take to stop before the worker is killed, in seconds.
STOP_SECONDS: Final = 5.0
#: Time after which a waiting parent checks whether the worker is alive, in seconds. The end of the pipe shows a death,
#: too, unless a forked grandchild holds the pipe.
LOOK_SECONDS: Final = 1.0

#: Time after which a parent that waited for ``LOOK_SECONDS`` was stopped, or its machine was, in seconds.
LATE_SECONDS: Final = 1.5 * LOOK_SECONDS
#: Time between two looks at the threads of a worker, while these are looked at, in seconds.
STANDING_SECONDS: Final = 0.01

#: Time that a worker which hangs may take to say where, in seconds.
TELL_SECONDS: Final = 0.5


class WorkerError(Exception):
    """A request without its reply: the worker raised, died, hung or broke the protocol.

    Attributes:
        status: What the cell becomes.
        reason: The cause in words, with the end of the worker's output where it died.
        location: Deepest frame that is known; None if none is.
        traceback: Traceback of what the worker raised, or faulthandler's report of a crash.
        output: End of what the worker printed.
    """

    def __init__(
        self, status: Status, reason: str, location: Location | None = None, traceback: str = "", output: str = ""
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.location = location
        self.traceback = traceback
        self.output = output


class WorkerHandle(Protocol):
    """The part of a worker that a run uses."""

    directory: Path
    #: Time between the last request and its reply, in seconds by the clock of this process.
    elapsed_seconds: float
    #: Part of it in which this process did not run, since it or the machine was stopped, in seconds.
    stopped_seconds: float
    #: CPU time and waits of each thread of the worker in that interval; empty where the system does not count them.
    usage: Sequence[Usage]

    @property
    def alive(self) -> bool:
        """True if the worker can still take requests."""
        ...

    @property
    def output(self) -> str:
        """End of what the worker has printed."""
        ...

    def standing(self) -> Standing | None:
        """Return what the system grants the worker and its descendants; None if it cannot be known."""
        ...

    def looking(self) -> contextlib.AbstractContextManager[list[Standing]]:
        """Return what the system grants them now and then during the requests of the context."""
        ...

    def request(self, request: Request[ReplyT], time_limit_seconds: float) -> ReplyT:
        """Return the reply, or raise WorkerError."""
        ...

    def kill(self) -> None:
        """End the worker."""
        ...


class Worker:
    """One child process, stopped whenever it has no request.

    Args:
        role: A key of ``harness.worker.main.ROLES``.
        directory: A private folder for its files; made here.
        variables: Environment variables on top of this process's own, without those that are withheld.
        thread_budget: Number of CPUs that it is held to.
        freeze: True if it is stopped between requests.
        start_seconds: Time limit for starting, in seconds.

    Raises:
        WorkerError: The system starts no further process.
    """

    def __init__(
        self,
        role: str,
        directory: Path,
        variables: dict[str, str],
        thread_budget: int,
        freeze: bool = True,
        start_seconds: float = 60.0,
    ) -> None:  # over 40 lines: the order of pipes, process and closing is one sequence
        self.directory = directory
        directory.mkdir(mode=0o700)
        self._freeze = freeze
        #: Time between the last request and its reply, in seconds by this process's clock.
        self.elapsed_seconds = 0.0
        self.stopped_seconds = 0.0
        self.usage: Sequence[Usage] = ()
        self._usage_before: dict[str, Usage] = {}
        #: What was seen of its threads since ``looking`` began; None outside of that.
        self._looks: list[Standing] | None = None
        #: One thread may kill it while another waits for its reply; its pipes are closed once.
        self._closing = threading.Lock()
        self._output = b""
        self._pending = b""
        self._oom_kills = environment.oom_kills()
        request_read, request_write = os.pipe()
        reply_read, reply_write = os.pipe()
        nonce = secrets.token_hex(8)
        cpus = threads.cpus(thread_budget)
        configuration = Configuration(
            role=role,
            nonce=nonce,
            parent=os.getpid(),
            cpus=None if cpus is None else tuple(cpus),
            requests=request_read,
            replies=reply_write,
        )
        try:
            self._process = subprocess.Popen(
                start.command("harness.worker.main", json.dumps(protocol.encode(configuration))),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(request_read, reply_write),
                env=passed_on(os.environ) | variables | threads.pool_environment(thread_budget),
                process_group=0,
            )
        except OSError as error:  # such as a limit of processes
            for pipe in (request_write, reply_read):
                os.close(pipe)
            raise WorkerError(Status.FAILED, f"its process cannot be started: {error.strerror}") from None
        finally:
            os.close(request_read)
            os.close(reply_write)
        self._request_pipe, self._reply_pipe = request_write, reply_read
        assert self._process.stdout is not None  # noqa: S101  # a pipe was requested; this tells mypy
        self._output_pipe = self._process.stdout.fileno()
        os.set_blocking(self._output_pipe, False)
        os.set_blocking(self._reply_pipe, False)
        #: Number and time limit of the reply that it has started; None once that is read.
        self._starting: tuple[str, float] | None = (nonce, start_seconds)

    @property
    def pid(self) -> int:
        """Return the child's process id, which is also its group's."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True if the process can still take requests."""
        return self._process.returncode is None

    @property
    def output(self) -> str:
        """End of what the worker has printed."""
        with self._closing:
            if self._process.stdout and not self._process.stdout.closed:
                self._drain()
        return self._output.decode(errors="replace").strip()

    def request(self, request: Request[ReplyT], time_limit_seconds: float) -> ReplyT:
        """Continue the worker until it has replied, and return the reply.

        Raises:
            WorkerError: The worker raised and lives on; or it did not start, died, hung or broke the protocol, and has
                ended.
        """
        if not self.alive:
            # Its pipes are closed, and their numbers may be another file's by now.
            raise WorkerError(Status.FAILED, "its process had ended before this request")
        if self._starting is not None:
            started, self._starting = self._starting, None
            self._replied(Started, *started)
        # A reply carries its request's random number: what was written ahead of the request is no reply.
        nonce = secrets.token_hex(8)
        self._usage_before = self._read_usage()
        self._signal(signal.SIGCONT)
        try:
            os.write(self._request_pipe, protocol.encode_request(nonce, request))
        except BrokenPipeError:
            raise self._end(Status.FAILED, self._obituary()) from None
        return self._replied(protocol.reply_type(request), nonce, time_limit_seconds)

    def standing(self) -> Standing | None:
        """Return what the system grants the worker and its descendants; None if it cannot be known."""
        return standing.read([self.pid, *(child.pid for child in self._descendants())])

    @contextlib.contextmanager
    def looking(self) -> Iterator[list[Standing]]:
        """Return what the system grants them now and then during the requests of the context.

        It is for requests that are not timed: looking takes CPU time.
        """
        looks: list[Standing] = []
        self._looks = looks
        try:
            yield looks
        finally:
            self._looks = None

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

    def _replied(self, kind: type[ReplyT], nonce: str, limit_seconds: float) -> ReplyT:
        """Wait for the reply with this number, then stop the worker."""
        start = time.monotonic()
        line = self._line(limit_seconds)
        self.elapsed_seconds = time.monotonic() - start
        self.usage = self._gained()
        try:
            reply = protocol.decode_reply(line, nonce, kind)
        except ProtocolError:
            raise self._end(Status.FAILED, f"broke the protocol: replied {line[:80]!r}") from None
        self._stop()
        if isinstance(reply, Failure):
            status = Status.OUT_OF_MEMORY if reply.out_of_memory else Status.FAILED
            where = f" ({reply.location})" if reply.location else ""
            raise WorkerError(status, f"{reply.error}{where}", reply.location, reply.traceback, self.output)
        return reply

    def _line(self, limit_seconds: float) -> bytes:
        """Read one line of reply while draining the output."""
        left, added, last = limit_seconds, 0.0, time.monotonic()
        self.stopped_seconds = 0.0
        with selectors.DefaultSelector() as selector:
            selector.register(self._reply_pipe, selectors.EVENT_READ)
            selector.register(self._output_pipe, selectors.EVENT_READ)
            while True:
                longest = LOOK_SECONDS if self._looks is None else STANDING_SECONDS
                ready = {key.fd for key, _ in selector.select(min(max(left, 0.0), longest))}
                if self._looks is not None and (seen := self.standing()) is not None:
                    self._looks.append(seen)
                # More time than was asked for has passed where this process was stopped: the worker may have been, too.
                now = time.monotonic()
                passed, last = now - last, now
                left -= min(passed, LOOK_SECONDS)
                if passed > LATE_SECONDS:
                    self.stopped_seconds += passed - LOOK_SECONDS
                    self._signal(signal.SIGCONT)
                if self._output_pipe in ready and not self._drain():
                    selector.unregister(self._output_pipe)  # it may close its output
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
                if left <= 0:
                    waited = max((used.waited / 1e9 for used in self._gained()), default=0.0)
                    left, added = left + waited - added, waited
                    if left <= 0:
                        self._have_it_tell_where()
                        raise self._end(Status.TIMEOUT, f"no answer within {limit_seconds:.3g} s")

    def _gained(self) -> Sequence[Usage]:
        """Return how each thread came by its CPU time since the request."""
        return usage.gained(self._usage_before, self._read_usage())

    def _read_usage(self) -> dict[str, Usage]:
        """Return how each thread of the worker, and of its descendants, came by its CPU time until now."""
        processes = [self.pid, *(child.pid for child in self._descendants())]
        return {name: used for pid in processes for name, used in usage.read(Path(f"/proc/{pid}/task")).items()}

    def _drain(self) -> bool:
        """Keep the end of what the worker has printed; return True if more may come."""
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
                # A child outside the group, after setsid, is stopped on its own.
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
        descendants: list[psutil.Process] = []
        waiting = [self.pid]
        while waiting:
            parent = waiting.pop()
            for path in Path(f"/proc/{parent}/task").glob("*/children"):
                with contextlib.suppress(OSError, psutil.NoSuchProcess):  # it may end while we look
                    children = [psutil.Process(int(child)) for child in path.read_text().split()]
                    descendants += children
                    waiting += [child.pid for child in children]
        return descendants

    def _end(self, status: Status, reason: str) -> WorkerError:
        """Kill the worker and return what became of it, with the end of its output."""
        self.kill()
        if self._process.returncode == -signal.SIGKILL and status is Status.FAILED:
            kills = environment.oom_kills()
            if kills is not None and self._oom_kills is not None and kills > self._oom_kills:
                status, reason = Status.OUT_OF_MEMORY, f"killed by the kernel for memory ({reason})"
        output, crash = frames.parted(self.output)
        last = " | ".join(line.strip() for line in output.splitlines()[-6:] if line.strip())
        location = frames.deepest_frame(crash)
        reason = f"{reason} in {location}" if location else reason
        return WorkerError(
            status, f"{reason}; its output ended: {last}" if last else reason, location, crash, output.strip()
        )

    def _have_it_tell_where(self) -> None:
        """Ask a worker that hangs where it is; it prints that as faulthandler does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, frames.TELL_WHERE)
        deadline = time.monotonic() + TELL_SECONDS
        while time.monotonic() < deadline and not frames.parted(self.output)[1]:
            time.sleep(TELL_SECONDS / 20)

    def _obituary(self) -> str:
        """Return how the process ended, in words; called when its pipe has closed."""
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


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
