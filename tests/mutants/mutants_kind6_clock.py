"""Kind 6: the clock is told wrong, by less than the parent's own clock sees in short samples."""

import gc
import math
import time

from mutants_by_kind import ByKind

from harness.process import protocol
from harness.timing.clock import Clock
from harness.worker.sample_worker import SampleWorker

#: Factor by which seconds are shortened.
LIE = 1.4


def clocks():
    """Return the worker's clocks."""
    return [found for found in gc.get_objects() if type(found) is Clock]


def lose(least, most):
    """Give the clocks a source of time that loses a third of what lasts between two times, in seconds."""
    state = [time.perf_counter(), 0.0]

    def now():
        read = time.perf_counter()
        passed, state[0] = read - state[0], read
        if least < passed < most:
            state[1] += passed / 3
        return read - state[1]

    for clock in clocks():
        clock._now = now


class SlowClock(ByKind):
    """Gives the worker's clock a source of time that runs 1.4 times slower."""

    name = "kind6-slows-the-clock-a-little"
    kind = 6
    run = "timed"

    def __init__(self, device="cpu"):
        super().__init__(device)
        for clock in clocks():
            clock._now = lambda: time.perf_counter() / LIE


class OtherCode(ByKind):
    """Replaces the code of Clock.sample, and not the function."""

    name = "kind6-other-code-in-the-clock"
    kind = 6
    run = "timed"

    def __init__(self, device="cpu"):
        super().__init__(device)
        original = type(Clock.sample)(Clock.sample.__code__, Clock.sample.__globals__, "sample")
        original.__defaults__ = Clock.sample.__defaults__
        Clock.sample.__defaults__ = None
        Clock.sample.__globals__["_original"], Clock.sample.__globals__["_lie"] = original, LIE

        def sample(self, *given, **named):
            seconds, held = _original(self, *given, **named)  # noqa: F821  # in the clock's module
            return seconds / _lie, held  # noqa: F821

        Clock.sample.__code__ = sample.__code__


class OtherReply(ByKind):
    """Replaces the code of the worker that takes samples, so that replies have fewer seconds."""

    name = "kind6-other-code-in-the-worker"
    kind = 6
    run = "timed"

    def __init__(self, device="cpu"):
        super().__init__(device)
        take = SampleWorker.take_sample
        original = type(take)(take.__code__, take.__globals__, "take_sample")
        take.__globals__["_original"], take.__globals__["_lie"] = original, LIE

        def take_sample(self, request):
            taken = _original(self, request)  # noqa: F821  # in the worker's module
            forward = None if taken.forward_seconds is None else taken.forward_seconds / _lie  # noqa: F821
            return dataclasses.replace(taken, seconds=taken.seconds / _lie, forward_seconds=forward)  # noqa: F821

        take.__code__ = take_sample.__code__


class OtherClass(ByKind):
    """Makes the worker's clock an object of another class, whose samples are shorter."""

    name = "kind6-another-class-of-clock"
    kind = 6
    run = "timed"

    def __init__(self, device="cpu"):
        super().__init__(device)
        for clock in clocks():
            clock.__class__ = ShortClock


class ShortClock(Clock):
    """Returns too few seconds."""

    def sample(self, *arguments, **named):
        seconds, kept = super().sample(*arguments, **named)
        return seconds / LIE, kept


class NowAndThen(ByKind):
    """Gives the worker's clock a source of time that loses a third of what lasts longer than five milliseconds."""

    name = "kind6-long-samples-are-shortened"
    kind = 6
    run = "timed"

    def __init__(self, device="cpu"):
        super().__init__(device)
        lose(0.005, math.inf)


class ShortSamplesAlone(ByKind):
    """Gives the worker's clock a source of time that loses a third of what lasts from 5 to 100 milliseconds."""

    name = "kind6-short-samples-are-shortened"
    kind = 6
    run = "timed"

    def __init__(self, device="cpu"):
        super().__init__(device)
        lose(0.005, 0.1)


class ShortReplies(ByKind):
    """Replaces the code that encodes replies."""

    name = "kind6-other-code-in-the-protocol"
    kind = 6
    run = "timed"

    def __init__(self, device="cpu"):
        super().__init__(device)
        encode = protocol.encode_reply
        original = type(encode)(encode.__code__, encode.__globals__, "encode_reply")
        encode.__globals__["_original"], encode.__globals__["_lie"] = original, LIE

        def encode_reply(nonce, reply):
            if type(reply).__name__ == "SampleTaken":
                object.__setattr__(reply, "seconds", reply.seconds / _lie)  # noqa: F821  # in the protocol's module
            return _original(nonce, reply)  # noqa: F821

        encode.__code__ = encode_reply.__code__
