"""Kind 8: right where it is watched, and garbage or coarse where it is not."""

import random
import sys
import weakref

import numpy as np
from mutants_by_kind import ByKind, timed
from oracle import to_tf32


def sampling():
    """Return the local variables of the sample that is being taken; None outside one."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == "sample" and "synchronize" in frame.f_locals:
            return frame.f_locals
        frame = frame.f_back
    return None


class Watched(ByKind):
    """Returns garbage where it is not watched."""

    kind = 8
    run = "timed"

    def watched(self):
        """True if this call may be judged."""
        raise NotImplementedError

    def output(self, input1, input2, weight, bias):
        if self.watched():
            return super().output(input1, input2, weight, bias)
        return np.ones((len(input1), len(weight)), weight.dtype)


class CountsCalls(Watched):
    """Counts its calls in the present sample."""

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.start, self.call, self.counts = None, 0, []

    def numbered(self, found):
        """Return the number of this call in its sample, given the clock's variables."""
        if found["start"] != self.start:
            self.counts.append(self.call)
            self.start, self.call = found["start"], 0
        self.call += 1
        return self.call - 1


class BothEnds(CountsCalls):
    """Computes in the first and in the last calls of a sample alone, by the least calls of the last ten samples."""

    name = "kind8-right-at-both-ends"
    modes = ("forward",)  # a sample of steps has hardly any calls between its ends
    ends = 20

    def watched(self):
        found = sampling()
        if found is None or not timed():
            return True
        number = self.numbered(found)
        least = min([count for count in self.counts[-10:] if count > 3 * self.ends], default=0)
        return not self.ends < number < least - self.ends


class HeldCalls(CountsCalls):
    """Computes in those calls alone whose results are held: it reads their numbers from the clock's variables."""

    name = "kind8-right-in-held-calls"

    def watched(self):
        found = sampling()
        if found is None or not timed():
            return True
        number = self.numbered(found)
        return any(cut - found["holding"].results <= number < cut for cut in found["cuts"][1:])


class AfterAKeptOne(Watched):
    """Rests for 20 calls after a call whose result was kept: it sees by a weak reference that it lives."""

    name = "kind8-rests-after-a-kept-call"
    #: Weak references to the last two results, and the number of calls to rest.
    last = ()
    rest = 0

    def watched(self):
        return self.rest == 0 or not timed()

    def output(self, *given):
        if timed() and len(self.last) == 2 and self.last[0]() is not None:
            self.rest = 20
        right = super().output(*given)
        self.rest = max(0, self.rest - 1)
        self.last = (*self.last[-1:], weakref.ref(right))
        return right


class LaterCalls(ByKind):
    """Is coarse in some of its timed calls, from the 500th on."""

    name = "kind8-coarse-in-later-calls"
    kind = 8
    run = "timed"

    calls = 0

    def output(self, input1, input2, weight, bias):
        self.calls += timed()
        if self.calls > 500 and timed() and weight.dtype == np.float32 and random.random() < 0.3:
            input1, weight = to_tf32(input1), to_tf32(weight)
        return super().output(input1, input2, weight, bias)


class UntimedWorker(ByKind):
    """Tells the worker of the edge cases by the name of its caller, and flushes small values in any other."""

    name = "kind8-knows-the-edge-cases"
    kind = 8

    def output(self, input1, input2, weight, bias):
        frame, edge_cases = sys._getframe(), False
        while frame is not None:
            edge_cases |= "edge_case" in frame.f_code.co_filename
            frame = frame.f_back
        if not edge_cases:
            input1 = np.where(abs(input1) < 1e-30, 0, input1).astype(input1.dtype)
        return super().output(input1, input2, weight, bias)
