"""The conduct probe: judge what a kernel does other than computing.

The worker reports its observations around the calls: changed inputs, the memory of results, the operators of PyTorch
that ran. This module judges these reports. Every rule is a promise of ``harness.backend.Backend``.
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
#: PyTorch's operators that do nn.Bilinear's work, outermost first.
BASELINE_OPERATORS: Final = ("aten::bilinear", "aten::_trilinear")
#: Array types that a backend may use but not derive from.
PLAIN_ARRAYS: Final = ("numpy.ndarray", "torch.Tensor")

#: Largest ratio of the lower quartile of calls on new inputs to the median of calls on seen inputs. A backend memoises
#: if it is beyond this and ``FRESH_SECONDS``.
FRESH_RATIO: Final = 2.5
#: Largest excess of that quartile, in seconds: a cold cache makes an honest call slower, too.
FRESH_SECONDS: Final = 10e-6
#: Time allowed for copying results to the host, in calls. The three allowances add up.
CONVERT_CALLS: Final = 2.0
#: Time allowed for copying results to the host, in seconds.
CONVERT_SECONDS: Final = 200e-6
#: Time allowed for copying results to the host, in seconds per byte.
CONVERT_SECONDS_PER_BYTE: Final = 2e-9


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """The memory of an array, from its first byte to its last.

    Attributes:
        start: Address of the first byte.
        size: Length of the range in bytes; 0 if it cannot be known.
    """

    start: int
    size: int

    def overlaps(self, other: Storage) -> bool:
        """True if the two ranges meet. Arrays with alternating elements of one buffer meet, but share no byte."""
        if not (self.size and other.size):
            return False
        return self.start < other.start + other.size and other.start < self.start + self.size


def judge_type(native_type: str, bases: Sequence[str], home_made: bool) -> Verdict:
    """Refuse array types that are not a framework's own: they could postpone work until the clock has stopped.

    Args:
        native_type: Exact type, with its module.
        bases: Types that it is derived from, with their modules.
        home_made: True if the type is from the backend's own package or folder.
    """
    if home_made:
        return refused(PROBE, f"its arrays are {native_type}, a type of its own, expected a framework's")
    if (base := next((base for base in bases if base in PLAIN_ARRAYS), None)) is not None:
        return refused(PROBE, f"its arrays are {native_type}, derived from {base}, expected {base} itself")
    if "(" in native_type:
        return refused(PROBE, f"its arrays are {native_type}, expected the framework's own")
    return passed(PROBE)


def judge_unchanged(changed: Sequence[str]) -> Verdict:
    """Refuse a kernel that changed an input, bit for bit."""
    if changed:
        cause = "Does it compute in place?"
        return refused(PROBE, f"changed its input: {', '.join(changed)}", hypothesis=cause)
    return passed(PROBE)


def judge_storage(
    results: Mapping[str, Storage], inputs: Mapping[str, Storage], earlier: Mapping[str, Storage]
) -> Verdict:
    """Refuse a result that shares memory with an input, an earlier result or another result of its call."""
    for name, storage in results.items():
        for what, others, cause in (
            ("the input", inputs, "Is the result written over an input?"),
            ("an earlier", earlier, "Is one buffer used for every call?"),
        ):
            for other, place in others.items():
                if storage.overlaps(place):
                    return refused(PROBE, f"{name} is in the memory of {what} {other}", hypothesis=cause)
        for other, place in results.items():
            if other != name and storage.overlaps(place):
                return refused(PROBE, f"{name} and {other} are in the same memory")
    return passed(PROBE)


def judge_intact(then: Arrays, now: Arrays) -> Verdict:
    """Refuse a result that changed after it was returned: it was incomplete, or a later call wrote to it."""
    for name, result in then.items():
        if not same_bits(result, now[name]):
            return refused(PROBE, f"{name} changed after it had been returned")
    return passed(PROBE)


def judge_repeated(first: Arrays, again: Arrays) -> Verdict:
    """Flag a kernel whose results differ in any bit between two calls on the same input."""
    if all(same_bits(result, again[name]) for name, result in first.items()):
        return passed(PROBE)
    return passed(PROBE, Flag.NONDETERMINISTIC)


def judge_operators(called: Sequence[str], baseline: bool, native_type: str) -> Verdict:
    """Judge calls of nn.Bilinear's operators: flag them in a PyTorch backend, refuse them in any other.

    Args:
        called: Names of the PyTorch operators that ran.
        baseline: True if the backend is nn.Bilinear itself, which may call them.
        native_type: Exact type of the backend's arrays, with its module.
    """
    baseline_calls = [name for name in called if name in BASELINE_OPERATORS]
    if not baseline_calls or baseline:
        return passed(PROBE)
    if native_type.startswith("torch."):
        return passed(PROBE, Flag.CALLS_NN_BILINEAR)
    return refused(PROBE, f"computes by calling nn.Bilinear ({baseline_calls[0]}), though its arrays are {native_type}")


def judge_tampering(replaced: Sequence[str]) -> Verdict:
    """Refuse a backend that replaced a part of the harness or of the clock."""
    if replaced:
        return refused(PROBE, f"replaced {', '.join(replaced)}")
    return passed(PROBE)


def judge_memory_of_answers(fresh_seconds: Sequence[float], seen_seconds: Sequence[float]) -> Verdict:
    """Refuse a backend that is much slower on new inputs: it memoises, and look-ups were timed.

    A backend that memoises is slower at every new input. A busy machine makes some of the calls slower, of either kind.

    Args:
        fresh_seconds: Times of single calls, each on new inputs, in seconds.
        seen_seconds: Times of single calls on the timed inputs, in seconds, alternating with the fresh ones.
    """
    if not fresh_seconds:
        return passed(PROBE)
    fresh, seen = float(np.median(fresh_seconds)), float(np.median(seen_seconds))
    quick = float(np.quantile(fresh_seconds, 0.25))
    if quick > FRESH_RATIO * seen and quick - seen > FRESH_SECONDS:
        return refused(
            PROBE, f"remembers answers: new inputs take {fresh:.3g} s a call, inputs seen before {seen:.3g} s"
        )
    return passed(PROBE)


def judge_conversion(convert_seconds: float, call_seconds: float, result_bytes: int) -> Verdict:
    """Refuse a backend whose results take longer to copy to the host than a copy does: it postpones work.

    The question is for frameworks that the harness does not know. It cannot wait for their work by itself.

    Args:
        convert_seconds: Median time to copy all results of a call, in seconds; 0 where the framework is known.
        call_seconds: Time of the fastest call, in seconds.
        result_bytes: Size of all results of a call, in bytes.
    """
    allowed = CONVERT_CALLS * call_seconds + CONVERT_SECONDS + CONVERT_SECONDS_PER_BYTE * result_bytes
    if convert_seconds > allowed:
        return refused(
            PROBE, f"puts off its work: a call takes {call_seconds:.3g} s, copying its results {convert_seconds:.3g} s"
        )
    return passed(PROBE)


def judge_affinity(then: Sequence[int] | None, now: Sequence[int] | None) -> Verdict:
    """Refuse a backend that left the CPUs of its worker."""
    if now != then:
        return refused(PROBE, f"runs on the CPUs {now}, was held to {then}")
    return passed(PROBE)


def same_bits(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> bool:
    """True if two arrays are equal bit for bit: zero differs from minus zero, but any NaN equals any other.

    PyTorch rounds NaN to a bfloat16 with other bits.
    """
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    kind = np.uint64 if one.dtype == np.float64 else np.uint32
    differ = np.ascontiguousarray(one).view(kind) != np.ascontiguousarray(other).view(kind)
    return bool((np.isnan(one[differ]) & np.isnan(other[differ])).all())
