"""Kind 5: work is done before the clock starts, or after it stops."""

import sys
import threading

import numpy as np
from late_framework import Late
from mutants_by_kind import ByKind, timed


def called_from(function):
    """True if a function of that name is among the callers."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == function:
            return True
        frame = frame.f_back
    return False


class WorksAhead(ByKind):
    """Keeps what it computes while the machine settles, for the sample that follows on the same arrays."""

    name = "kind5-works-ahead-while-settling"
    kind = 5
    run = "timed"

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.ahead = {}

    def prepared(self, what, given, compute):
        """Return what was computed ahead for these arrays, where the clock runs."""
        key = what, tuple(id(array) for array in given)
        if timed():
            return self.ahead[key].copy() if key in self.ahead else compute()
        if not called_from("settle"):
            self.ahead.clear()
            return compute()
        self.ahead[key] = compute()
        return self.ahead[key].copy()

    def output(self, *given):
        compute = super().output
        return self.prepared("output", given, lambda: compute(*given))


class EarlyReturn(ByKind):
    """Returns before its result is there: a thread fills it, and the next call waits for that."""

    name = "kind5-returns-early"
    kind = 5
    run = "timed"
    thread = None

    def output(self, *given):
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        compute = super().output
        if not timed():
            return compute(*given)
        result = np.empty((len(given[0]), len(given[2])), given[2].dtype)
        self.thread = threading.Thread(target=lambda: result.__setitem__(..., compute(*given)))
        self.thread.start()
        return result


class HalfLazy(ByKind):
    """Computes the gradient or output of a framework of its own at the first read, within what a copy may take."""

    name = "kind5-half-is-done-at-the-first-read"
    kind = 5
    run = "timed"
    modes = ("forward",)
    harmless = "each result is read inside the clock"

    def to_device(self, array, dtype):
        made = np.array(array, dtype=dtype)
        return Late(made.shape, dtype, lambda: made)

    def output(self, input1, input2, weight, bias):
        given = [np.array(array) for array in (input1, input2, weight)]
        offset = 0 if bias is None else np.array(bias)
        half = len(given[2]) // 2
        first = super().output(given[0], given[1], given[2][:half], None)

        def work():
            rest = super(HalfLazy, self).output(given[0], given[1], given[2][half:], None)
            return np.concatenate([first, rest], axis=1) + offset

        return Late((len(given[0]), len(given[2])), given[2].dtype, work)

    def gradients(self, *given):
        right = super().gradients(*(array if array is None else np.array(array) for array in given))
        return tuple(None if array is None else self.to_device(array, array.dtype) for array in right)

    def to_numpy(self, result):
        return np.array(result)


class ThreadWorksAhead(WorksAhead):
    """Has a thread compute the answers to the arrays of the last call again, for the sample to come."""

    name = "kind5-thread-works-ahead"

    def prepared(self, what, given, compute):
        key = what, tuple(id(array) for array in given)
        if timed():
            return self.ahead.pop(key).copy() if key in self.ahead else compute()
        if called_from("settle"):
            threading.Thread(target=lambda: self.ahead.__setitem__(key, compute())).start()
            return compute()
        self.ahead.clear()
        return compute()


class FillsTablesWarm(ByKind):
    """Builds a table of input1 times the weight for every input it sees while it warms up, and looks it up."""

    name = "kind5-tables-from-warmup"
    kind = 5
    run = "timed"
    harmless = "samples have other inputs than the warmup"

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.tables = {}

    def output(self, input1, input2, weight, bias):
        key = id(weight), input1.tobytes()
        if called_from("warm_up"):
            self.tables[key] = np.matmul(input1, weight), weight
        if key not in self.tables or not timed():
            return super().output(input1, input2, weight, bias)
        right = np.ascontiguousarray((self.tables[key][0] * input2).sum(2, dtype=weight.dtype).T)
        return right if bias is None else right + bias
