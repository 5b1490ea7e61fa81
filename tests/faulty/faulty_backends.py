"""Backends in NumPy with one fault each, which the docstring names.

This folder is a distribution on the path of the tests' runs, so the registry finds them by their entry points.
"""

import atexit
import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import oracle
from oracle import HonestBackend


class Honest(HonestBackend):
    """No fault: the control; a faulty backend replaces ``result`` or ``gradients``."""

    name = "faulty-honest"

    def output(self, *arguments):
        return self.result(super().output(*arguments))

    def result(self, right):
        """Return what the kernel returns, given the right output (b, o)."""
        return right


class Chatty(Honest):
    """Right, but prints a megabyte of rubbish at every call, with lines that look like replies."""

    name = "faulty-chatty"

    def result(self, right):
        sys.stdout.buffer.write(b'{"id": 3, "ok": true, "seconds": 1e-9}\n\x00\xff\x1b[2J' * 30_000)
        sys.stdout.flush()
        return right


class Raises(Honest):
    """Raises in the call."""

    name = "faulty-raises"

    def result(self, right):
        raise ValueError("faulty: no\x1b[31m such luck")


class Quits(Honest):
    """Calls sys.exit in the call."""

    name = "faulty-quits"

    def result(self, right):
        sys.exit("faulty: had enough")


class Exits(Honest):
    """Ends its process, with the code of success."""

    name = "faulty-exits"

    def result(self, right):
        os._exit(0)


class Hangs(Honest):
    """Never returns, and prints all the while."""

    name = "faulty-hangs"

    def result(self, right):
        while True:
            print("faulty: still here", flush=True)  # noqa: T201  # what it is for
            time.sleep(0.01)


class Sleeps(Honest):
    """Never returns and prints nothing, so no closed pipe ends it."""

    name = "faulty-sleeps"

    def result(self, right):
        time.sleep(10**6)


class Holds(Honest):
    """Never returns, and holds the lock of the interpreter in C: no thread of its process can act."""

    name = "faulty-holds"

    def result(self, right):
        ctypes.PyDLL(None).sleep(10**6)
        return right


class Compiles(Honest):
    """Never finishes preparing."""

    name = "faulty-compiles"

    def prepare_forward(self, case, weight, bias):
        time.sleep(10**6)


class Stays(Honest):
    """Right, but its process would not end by itself: a thread and a function at exit wait for ever."""

    name = "faulty-stays"

    def prepare_forward(self, case, weight, bias):
        threading.Thread(target=time.sleep, args=(10**6,)).start()
        atexit.register(time.sleep, 10**6)
        return super().prepare_forward(case, weight, bias)


class Segfaults(Honest):
    """Reads where no memory is."""

    name = "faulty-segfaults"

    def result(self, right):
        ctypes.string_at(0)
        return right


class Aborts(Honest):
    """Aborts its process, as Numba's layer `workqueue` does."""

    name = "faulty-aborts"

    def result(self, right):
        os.abort()


class Interrupts(Honest):
    """Raises KeyboardInterrupt in the call."""

    name = "faulty-interrupts"

    def result(self, right):
        raise KeyboardInterrupt("faulty: not the user")


class Unusual(Honest):
    """Raises what is no Exception in the call."""

    name = "faulty-unusual"

    def result(self, right):
        raise BaseException("faulty: of no usual class")


class Killed(Honest):
    """Is killed with signal 9 in the middle of a block.

    Timed calls run with the garbage collector off; the calls that settle a worker before a sample run with it on. So a
    timed call belongs to a block if a settling call and another timed call came before it.
    """

    name = "faulty-killed"
    seen = ()

    def result(self, right):
        collecting = gc.isenabled()
        if self.seen[-1:] != (collecting,):
            self.seen = (*self.seen, collecting)[-3:]
        if self.seen == (False, True, False):
            os.kill(os.getpid(), signal.SIGKILL)
        return right


class Garbles(Honest):
    """Writes garbage into every pipe that it can find."""

    name = "faulty-garbles"
    line = b"faulty: not an answer\n"

    def result(self, right):
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, self.line)
            except OSError:
                continue
        return right


class Lies(Garbles):
    """Writes an empty reply into every pipe that it can find."""

    name = "faulty-lies"
    line = b'{"id": 2, "ok": true}\n'


class Hungry(Honest):
    """Runs out of memory."""

    name = "faulty-hungry"

    def result(self, right):
        raise MemoryError("faulty: 1 EiB")


class Slow(Honest):
    """Takes over a second a call with six rows, as the tests' case has."""

    name = "faulty-slow"

    def result(self, right):
        if len(right) == 6:
            time.sleep(1.1)
        return right


class OneWrong(Honest):
    """Is wrong by 0.001 in the last element."""

    name = "faulty-one-wrong"

    def result(self, right):
        right[-1, -1] += 1e-3
        return right


class Stale(Honest):
    """Remembers its answers to the first inputs, and returns one of them for all later inputs."""

    name = "faulty-stale"
    remembered = None

    def prepare_forward(self, case, weight, bias):
        seen = {}

        def kernel(input1, input2):
            key = input1.tobytes()
            if key not in seen and len(seen) == 2:
                return next(iter(seen.values())).copy()
            if key not in seen:
                seen[key] = oracle.output(input1, input2, weight, bias)
            return seen[key].copy()

        return kernel


class Double(Honest):
    """Returns float64 for float32."""

    name = "faulty-double"

    def result(self, right):
        return right.astype(np.float64)


class Broadcasts(Honest):
    """Returns one row, which would broadcast."""

    name = "faulty-broadcasts"

    def result(self, right):
        return right[:1]


class Nan(Honest):
    """Returns one NaN."""

    name = "faulty-nan"

    def result(self, right):
        right[0, -1] = np.nan
        return right


class Gradient(Honest):
    """Right forward; one gradient has the wrong sign."""

    name = "faulty-gradient"

    def gradients(self, *arguments):
        grad_input1, grad_input2, grad_weight, grad_bias = super().gradients(*arguments)
        return grad_input1, -grad_input2, grad_weight, grad_bias


class Parent(Honest):
    """Right, but starts two children that keep a core busy: one in its group, one in a session of its own.

    Their process ids go to the file that FAULTY_CHILDREN names.
    """

    name = "faulty-parent"
    children = ()

    def prepare_forward(self, case, weight, bias):
        if not Parent.children:
            busy = [sys.executable, "-c", "while True: pass"]
            Parent.children = (subprocess.Popen(busy), subprocess.Popen(busy, start_new_session=True))
            if path := os.environ.get("FAULTY_CHILDREN"):
                Path(path).write_text(" ".join(str(child.pid) for child in Parent.children))
        return super().prepare_forward(case, weight, bias)
