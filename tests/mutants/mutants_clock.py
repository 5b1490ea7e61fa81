"""Mutants in NumPy that falsify the measured seconds: the conduct probe rejects them."""

import gc
import json
import sys
import time

from mutant_bases import Mutant
from mutants_stated import Caught

from harness.timing.clock import Clock
from harness.worker import integrity

#: Factor by which a lying clock shortens seconds: more than any jitter.
LIE = 6.0


class PerfCounter(Mutant):
    """C09: replaces time.perf_counter by a slow clock."""

    name = "mutant-replaces-perf-counter"
    caught = Caught("conduct", reason="replaced time.perf_counter")

    def __init__(self, device="cpu"):
        super().__init__(device)
        original = time.perf_counter
        time.perf_counter = lambda: original() / LIE


def lie_in_samples():
    """Make Clock.sample return too few seconds."""
    original = Clock.sample

    def liar(self, *arguments, **named):
        seconds, kept = original(self, *arguments, **named)
        return seconds / LIE, kept

    Clock.sample = liar


class ClockSample(Mutant):
    """C09: replaces Clock.sample by a liar."""

    name = "mutant-replaces-sample"
    caught = Caught("conduct", reason="replaced Clock.sample")

    def __init__(self, device="cpu"):
        super().__init__(device)
        lie_in_samples()


class SilencedWatch(Mutant):
    """C09: replaces Clock.sample by a liar, and the watch that would notice."""

    name = "mutant-replaces-the-watch"
    caught = Caught("conduct", phase="timing", reason="its samples say")

    def __init__(self, device="cpu"):
        super().__init__(device)
        lie_in_samples()
        integrity.Watch.replaced = lambda watch: ()


class ClockInstance(Mutant):
    """C09: finds the worker's clock in memory and gives it another source of time."""

    name = "mutant-slows-the-clock"
    caught = Caught("conduct", phase="timing", reason="its samples say")
    lie = LIE

    def __init__(self, device="cpu"):
        super().__init__(device)
        lie = self.lie
        for found in gc.get_objects():
            if type(found) is Clock:
                found._now = lambda: time.perf_counter() / lie


class ClockHalf(ClockInstance):
    """C09: halves the seconds of the worker's clock, which the parent might not notice."""

    name = "mutant-slows-the-clock-by-half"
    lie = 2.0


class ForgesSeconds(Mutant):
    """C10: replaces the function that sends the worker's replies, and shortens the seconds in them."""

    name = "mutant-forges-replies"
    caught = Caught("conduct", reason="replaced harness.worker.main._send")

    def __init__(self, device="cpu"):
        super().__init__(device)
        worker = sys.modules["harness.worker.main"]
        original = worker._send

        def send(replies, line):
            message = json.loads(line)
            fields = message["reply"]
            for key in ("seconds", "forward_seconds"):
                if isinstance(fields.get(key), float):
                    fields[key] /= LIE
            for stretch in fields.get("stretches", []):
                stretch["seconds"] /= LIE
            original(replies, json.dumps(message).encode() + b"\n")

        worker._send = send
