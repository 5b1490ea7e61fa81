"""The behaviour probe: what a right kernel does besides returning the right numbers.

The worker reports what it saw around the calls: which inputs changed, where results lie in memory, which operators of
PyTorch ran. Whether that is as it should be is decided here. Every rule is a promise of ``harness.backend.Backend``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.correctness.verdict import Verdict, passed, refused
from harness.record import Flag

if TYPE_CHECKING:
    import numpy.typing as npt

    Arrays = Mapping[str, npt.NDArray[np.floating]]

PROBE: Final = "conduct"
#: What PyTorch calls nn.Bilinear's work, in the order of its layers.
BASELINE_OPERATORS: Final = ("aten::bilinear", "aten::_trilinear")
#: Arrays that there is no reason to derive from.
PLAIN_ARRAYS: Final = ("numpy.ndarray", "torch.Tensor")

#: Calls on inputs never seen may take this many times longer than calls on inputs seen before, in the median, ...
FRESH_RATIO: Final = 2.5
#: ... or this much longer, in seconds, before it is called remembering: a cold cache is slower, too.
FRESH_SECONDS: Final = 10e-6
#: Copying results to the host may take as long as this many calls, ...
CONVERT_CALLS: Final = 2.0
#: ... this many seconds, and this many for each byte, before work is said to be put off until then.
CONVERT_SECONDS, CONVERT_SECONDS_PER_BYTE = 200e-6, 2e-9
#: The parent sees more time pass around a sample than the worker measured: pipes, thawing. In the median over the
#: blocks it may be this much, in seconds, ...
UNSEEN_SECONDS: Final = 0.015
#: ... or this share of what was measured, ...
UNSEEN_SHARE: Final = 0.5
#: ... or this many times what it was for another backend in the same blocks: a busy machine takes it from all of them.
UNSEEN_TIMES: Final = 3.0


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """Where an array lies in memory, from its first byte to its last; of no size if that cannot be known."""

    start: int
    size: int

    def overlaps(self, other: Storage) -> bool:
        """Whether the two ranges meet: arrays whose elements take turns in one buffer share no byte, and do meet."""
        if not (self.size and other.size):
            return False
        return self.start < other.start + other.size and other.start < self.start + self.size


def judge_type(native_type: str, bases: Sequence[str], home_made: bool) -> Verdict:
    """Arrays are a framework's own: any other could put off its work until the clock has stopped.

    Args:
        native_type: The exact type, with its module.
        bases: What it is derived from.
        home_made: Whether the type is from the backend's own package or folder.
    """
    if home_made:
        return refused(PROBE, f"its arrays are {native_type}, a type of its own, expected a framework's")
    if (base := next((base for base in bases if base in PLAIN_ARRAYS), None)) is not None:
        return refused(PROBE, f"its arrays are {native_type}, derived from {base}, expected {base} itself")
    if "(" in native_type:
        return refused(PROBE, f"its arrays are {native_type}, expected the framework's own")
    return passed(PROBE)


def judge_unchanged(changed: Sequence[str]) -> Verdict:
    """A kernel changes none of its inputs, bit for bit."""
    if changed:
        return refused(PROBE, f"changed its input: {', '.join(changed)}")
    return passed(PROBE)


def judge_storage(
    results: Mapping[str, Storage], inputs: Mapping[str, Storage], earlier: Mapping[str, Storage]
) -> Verdict:
    """A result lies in memory of its own: not in an input, not in an earlier result, not in its sibling."""
    for name, storage in results.items():
        for what, others in (("the input", inputs), ("an earlier", earlier)):
            for other, place in others.items():
                if storage.overlaps(place):
                    return refused(PROBE, f"{name} lies in the memory of {what} {other}")
        for other, place in results.items():
            if other != name and storage.overlaps(place):
                return refused(PROBE, f"{name} and {other} lie in the same memory")
    return passed(PROBE)


def judge_intact(then: Arrays, now: Arrays) -> Verdict:
    """What was returned stays as it was when it was returned: complete then, and untouched by later calls."""
    for name, result in then.items():
        if not same_bits(result, now[name]):
            return refused(PROBE, f"{name} changed after it had been returned")
    return passed(PROBE)


def judge_repeated(first: Arrays, again: Arrays) -> Verdict:
    """The same input twice gives the same bits, or the row says so; both were judged right or wrong elsewhere."""
    if all(same_bits(result, again[name]) for name, result in first.items()):
        return passed(PROBE)
    return passed(PROBE, Flag.NONDETERMINISTIC)


def judge_operators(called: Sequence[str], baseline: bool, native_type: str) -> Verdict:
    """Nobody computes by calling nn.Bilinear but nn.Bilinear; inside PyTorch it is remarked, from outside refused."""
    found = [name for name in called if name in BASELINE_OPERATORS]
    if not found or baseline:
        return passed(PROBE)
    if native_type.startswith("torch."):
        return passed(PROBE, Flag.CALLS_NN_BILINEAR)
    return refused(PROBE, f"computes by calling nn.Bilinear ({found[0]}), though its arrays are {native_type}")


def judge_tampering(replaced: Sequence[str]) -> Verdict:
    """A backend leaves the harness and the clock alone."""
    if replaced:
        return refused(PROBE, f"replaced {', '.join(replaced)}")
    return passed(PROBE)


def judge_memory_of_answers(fresh_seconds: Sequence[float], seen_seconds: Sequence[float]) -> Verdict:
    """Inputs never seen take about as long as inputs seen before; else answers are remembered, and were timed.

    Args:
        fresh_seconds: Single calls, each on inputs of its own.
        seen_seconds: Single calls on inputs in rotation, taken in turn with them.
    """
    if not fresh_seconds:
        return passed(PROBE)
    fresh, seen = float(np.median(fresh_seconds)), float(np.median(seen_seconds))
    if fresh > FRESH_RATIO * seen and fresh - seen > FRESH_SECONDS:
        return refused(
            PROBE, f"remembers answers: new inputs take {fresh:.3g} s a call, inputs seen before {seen:.3g} s"
        )
    return passed(PROBE)


def judge_conversion(convert_seconds: float, call_seconds: float, result_bytes: int) -> Verdict:
    """What a call returned is done: copying it to the host takes no longer than copying does.

    Asked of frameworks that the harness does not know, and so cannot wait for by itself.

    Args:
        convert_seconds: Of all results of a call, in the median; 0 where the framework is known.
        call_seconds: Of the fastest call.
        result_bytes: Size of all results.
    """
    allowed = CONVERT_CALLS * call_seconds + CONVERT_SECONDS + CONVERT_SECONDS_PER_BYTE * result_bytes
    if convert_seconds > allowed:
        return refused(
            PROBE, f"puts off its work: a call takes {call_seconds:.3g} s, copying its results {convert_seconds:.3g} s"
        )
    return passed(PROBE)


def judge_affinity(then: Sequence[int] | None, now: Sequence[int] | None) -> Verdict:
    """A backend stays on the CPUs that it was given."""
    if now != then:
        return refused(PROBE, f"runs on the CPUs {now}, was held to {then}")
    return passed(PROBE)


def judge_clock(
    unseen_seconds: Sequence[float], measured_seconds: Sequence[float], others: Sequence[Sequence[float]] = ()
) -> Verdict:
    """The time that the worker measured is the time that passed, by the parent's own clock.

    Args:
        unseen_seconds: By block: time that passed in the parent and that neither the worker nor the hypervisor, which
            takes CPUs away, accounts for.
        measured_seconds: By block: what the worker measured.
        others: The unseen time of each other backend of the panel; the one with the least counts.
    """
    if not unseen_seconds:
        return passed(PROBE)
    unseen, measured = float(np.median(unseen_seconds)), float(np.median(measured_seconds))
    usual = min((float(np.median(other)) for other in others if len(other)), default=0.0)
    if unseen > max(UNSEEN_SECONDS, UNSEEN_SHARE * measured, UNSEEN_TIMES * usual):
        return refused(PROBE, f"its samples say {measured:.3g} s where {measured + unseen:.3g} s passed")
    return passed(PROBE)


def same_bits(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> bool:
    """Whether two arrays are equal bit for bit: NaN equals itself, and zero not minus zero."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    kind = np.uint64 if one.dtype == np.float64 else np.uint32
    return bool(np.array_equal(np.ascontiguousarray(one).view(kind), np.ascontiguousarray(other).view(kind)))
