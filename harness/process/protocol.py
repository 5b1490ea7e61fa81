"""The protocol between a run and its workers: every request and every reply, a frozen dataclass each.

Both sides use these classes, and so do the tests' fakes. A message is one line of JSON over a private pipe; arrays
travel as ``.npy`` files in the worker's private folder. What is decoded is held to the declared types: a worker that
leaves something out or sends something else has broken the protocol (``ProtocolError``).

A class of requests names its reply in its base, as in ``class Load(Request[Loaded])``. On the wire a request has the
name of its class.

Length: it is one table of all messages.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, Union

from harness.case import Case
from harness.checked import Location
from harness.correctness.conduct import Storage
from harness.correctness.drawn import Drawn
from harness.correctness.edge_cases import EdgeCase
from harness.correctness.verdict import Facts
from harness.machine.gpu import State as GpuState
from harness.machine.threads import ThreadReport
from harness.machine.usage import Busy

ReplyT = TypeVar("ReplyT")


class ProtocolError(ValueError):
    """A message that is not what the protocol says."""


class Request(Generic[ReplyT]):
    """A message to a worker; the parameter is the class of its reply."""

    __slots__ = ()


#: Functions of a worker that carry out its requests, by the class of the request.
Handlers = Mapping[type[Request[Any]], Callable[[Any], object]]


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """Confirm a request that has no result."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Stand in for a reply where the worker raised.

    Attributes:
        error: Type and text of the exception.
        location: Deepest frame in the backend's own files, or outside of the harness; None if there is none.
        traceback: The end of the traceback.
        out_of_memory: True if memory ran out.
    """

    error: str
    location: Location | None = None
    traceback: str = ""
    out_of_memory: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Configuration:
    """Start values of a worker, in its command line.

    Attributes:
        role: A key of ``harness.worker.main.ROLES``.
        nonce: Number of the first reply, which confirms the start.
        parent: Process id of the supervisor.
        cpus: Numbers of the CPUs that the worker binds itself to; None leaves it unbound.
        requests: File descriptor from which the worker reads requests.
        replies: File descriptor to which the worker writes replies.
    """

    role: str
    nonce: str
    parent: int
    cpus: tuple[int, ...] | None
    requests: int
    replies: int


@dataclasses.dataclass(frozen=True, slots=True)
class Started:
    """Confirm the start of the worker: the first reply, to no request."""

    affinity: tuple[int, ...] | None


# Of a backend's worker: a description of its results.


@dataclasses.dataclass(frozen=True, slots=True)
class Storages:
    """Memory of arrays, by name.

    Attributes:
        results: Memory of the results of the call.
        inputs: Memory of the inputs of the call.
        earlier: Memory of the results of earlier calls, which must still be intact.
    """

    results: dict[str, Storage]
    inputs: dict[str, Storage]
    earlier: dict[str, Storage]


@dataclasses.dataclass(frozen=True, slots=True)
class Results:
    """Describe native results; their values are files in the request's folder, if they are well formed.

    Attributes:
        native_type: Exact type of the backend's own arrays, with its module.
        facts: Type, dtype, shape and device of each result, before it is converted.
        storages: Memory of results, inputs and earlier results.
        changed: Names of inputs and parameters that the call changed.
    """

    native_type: str
    facts: dict[str, Facts]
    storages: Storages
    changed: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Affinity:
    """CPUs that a worker may use: before its backend was loaded, and now; None where the system has no affinity.

    Attributes:
        before: Numbers of the CPUs before the backend was loaded.
        now: Numbers of the CPUs now.
    """

    before: tuple[int, ...] | None
    now: tuple[int, ...] | None


# Of a backend's worker: loading and support.


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """Report whether a backend is available on a device.

    Attributes:
        available: True if the backend is loaded.
        reason: Reason why it is not; empty if it is.
        offered: False if the backend does not run on that device at all.
        version: Version of its framework.
        untimeable: Reason why its times on this device mean nothing; empty if they do.
        import_seconds: Time of importing the backend and its framework, in seconds.
        tick_seconds: Smallest step of the worker's clock, in seconds.
        overhead_seconds: Time of the timing loop itself, for one call, in seconds.
        threads: Thread pools and affinity after loading.
    """

    available: bool
    reason: str = ""
    offered: bool = True
    version: str | None = None
    untimeable: str = ""
    import_seconds: float = 0.0
    tick_seconds: float = 0.0
    overhead_seconds: float = 0.0
    threads: ThreadReport | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Load(Request[Loaded]):
    """Import a backend.

    Attributes:
        name: Name of its entry point.
        target: ``module:Class``.
        device: ``cpu`` or ``cuda``.
    """

    name: str
    target: str
    device: str


@dataclasses.dataclass(frozen=True, slots=True)
class Supported:
    """Report whether the backend can do a case.

    Attributes:
        supported: True if it can.
        reason: Reason why it cannot; empty if it can.
        workspace_bytes: Memory that the technique takes on top of inputs and results, in bytes.
    """

    supported: bool
    reason: str = ""
    workspace_bytes: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class AskSupport(Request[Supported]):
    """Ask the backend whether it can do a case."""

    case: Case


# Of a backend's worker: the gate.


@dataclasses.dataclass(frozen=True, slots=True)
class EdgeCaseRun:
    """Answer an edge case.

    Attributes:
        results: Results of the kernel; None if it raised.
        failure: Exception of the kernel; None if it returned.
        operators: Operators of PyTorch that ran in the first call of the case.
    """

    results: Results | None
    failure: Failure | None = None
    operators: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class RunEdgeCase(Request[EdgeCaseRun]):
    """Run one edge case; results go to a folder of its name.

    Attributes:
        alike: All edge cases of the same case: their kernels are prepared before one of them is called, and kept.
        name: Name of the edge case to run now.
        directory: Folder in which its folder is made.
    """

    alike: tuple[EdgeCase, ...]
    name: str
    directory: Path


@dataclasses.dataclass(frozen=True, slots=True)
class LoadedFiles:
    """Paths of all modules and libraries that the worker has loaded, but for Python's own and the harness's."""

    paths: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class ListFiles(Request[LoadedFiles]):
    """Name the files that the backend's answers depend on."""


@dataclasses.dataclass(frozen=True, slots=True)
class GradientsChecked:
    """Report the objection of PyTorch's gradcheck; empty without one, and for arrays that are not PyTorch's."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class CheckGradients(Request[GradientsChecked]):
    """Hold a step's backward against finite differences of its forward, for a small float64 case."""

    case: Case


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """Report how a case was prepared.

    Attributes:
        prepare_seconds: Time of ``prepare_forward`` or ``prepare_forward_backward``, in seconds.
        first_call_seconds: Time of the first call, compiling included, in seconds.
        tuning: Parameters that the backend chose for the case, in its own words.
        threads: Thread pools and affinity after the first call.
        affinity: CPUs of the worker before the backend was loaded, and now.
        home_made: True if the type of its arrays is from the backend's own package or folder.
        native_bases: Types from which the type of its arrays is derived.
        inputs: Type, dtype, shape and device of each input.
        results: Results of the first call.
    """

    prepare_seconds: float
    first_call_seconds: float
    tuning: str
    threads: ThreadReport
    affinity: Affinity
    home_made: bool
    native_bases: tuple[str, ...]
    inputs: dict[str, Facts]
    results: Results


@dataclasses.dataclass(frozen=True, slots=True)
class Prepare(Request[Prepared]):
    """Prepare a case, make its inputs, call once; leave the first results in a folder.

    Attributes:
        case: The case.
        input_sets: Number of input sets in rotation.
        directory: Folder for the results.
    """

    case: Case
    input_sets: int
    directory: Path


@dataclasses.dataclass(frozen=True, slots=True)
class ScenarioRun:
    """Answer a scenario.

    Attributes:
        results: Results of the call.
        operators: Operators of PyTorch that ran, if the arrays are another framework's.
        call_seconds: Time of the fastest of the repeated calls, in seconds; 0 where calls are not repeated.
        convert_seconds: Time of the backend's own ``to_numpy``, in seconds; 0 where it is not called.
        kernel_seconds: Time of preparing another kernel and calling it once, in seconds; None in other scenarios.
        peak_bytes: Memory of the call at its peak, results included, in bytes; None where it was not measured.
    """

    results: Results
    operators: tuple[str, ...] = ()
    call_seconds: float = 0.0
    convert_seconds: float = 0.0
    kernel_seconds: float | None = None
    peak_bytes: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class RunScenario(Request[ScenarioRun]):
    """Call once more in a way that reveals a fault; leave the results in a folder.

    Attributes:
        scenario: A key of ``harness.worker.scenarios.SCENARIOS``.
        directory: Folder for the results.
        few_calls: True if a call takes long: as few are made as the scenario can do with, and their memory is measured.
    """

    scenario: str
    directory: Path
    few_calls: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Integrity:
    """Report what a backend has changed against its promises.

    Attributes:
        changed: Names of the inputs that no longer hold their values.
        replaced: Names of the functions of the clocks and the harness that were replaced.
    """

    changed: tuple[str, ...]
    replaced: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class CheckIntegrity(Request[Integrity]):
    """Look at inputs and functions; leave the first results, as they are now, in a folder."""

    directory: Path


@dataclasses.dataclass(frozen=True, slots=True)
class Located:
    """Say where the results of the prepared kernel are made; those of which it cannot be told are left out."""

    places: dict[str, Location]


@dataclasses.dataclass(frozen=True, slots=True)
class Locate(Request[Located]):
    """Call once more, and see where the results are made; only after a refusal."""


@dataclasses.dataclass(frozen=True, slots=True)
class FreshChecked:
    """Report the calls on unseen inputs.

    Attributes:
        fresh_seconds: Times of calls on unseen inputs, in seconds.
        seen_seconds: Times of calls on inputs in rotation, in seconds; one for each of the fresh ones.
        affinity: CPUs of the worker before the backend was loaded, and now.
        results: Results for the last of the unseen inputs.
    """

    fresh_seconds: tuple[float, ...]
    seen_seconds: tuple[float, ...]
    affinity: Affinity
    results: Results


@dataclasses.dataclass(frozen=True, slots=True)
class CheckFresh(Request[FreshChecked]):
    """Call on inputs that no call has seen; leave the results of the last call in a folder.

    Attributes:
        variations: Numbers of the inputs; calls on all but the last are timed.
        kind: Kind of the last inputs.
        directory: Folder for the results.
        settle: True if a call that is not timed comes before each pair.
    """

    variations: tuple[int, ...]
    kind: str
    directory: Path
    settle: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """Results of one call of the last sample.

    Attributes:
        results: The results.
        call: Number of the call.
    """

    results: Results
    call: int


@dataclasses.dataclass(frozen=True, slots=True)
class KeptResults(Request[Kept]):
    """Leave in a folder the result of a sample that differs most from that of another call on the same values.

    Attributes:
        forward: True for the results of the forward alone.
        calls: Numbers of the calls to choose from; -1 for the copy of the last result.
        directory: Folder for the results.
    """

    forward: bool
    calls: tuple[int, ...]
    directory: Path


# Of a backend's worker: timing.


@dataclasses.dataclass(frozen=True, slots=True)
class Stretch:
    """Some calls in a row, and their time in seconds."""

    calls: int
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class WarmedUp:
    """Report the warmup.

    Attributes:
        stretches: Calls, in stretches of growing length.
        busy: Threads that were busy in that time; None where the system does not report it.
    """

    stretches: tuple[Stretch, ...]
    busy: Busy | None


@dataclasses.dataclass(frozen=True, slots=True)
class WarmUp(Request[WarmedUp]):
    """Warm the kernel up.

    Attributes:
        seconds: Least time of all calls, in seconds.
        at_least: Least number of calls.
    """

    seconds: float
    at_least: int


@dataclasses.dataclass(frozen=True, slots=True)
class MoveArrays(Request[Done]):
    """Move all arrays to new places in memory; with ``new_kernel`` the kernel is prepared again, too."""

    new_kernel: bool


@dataclasses.dataclass(frozen=True, slots=True)
class DrawValues(Request[Done]):
    """Draw the values of the sample to come, and restore those of the last one.

    Attributes:
        secret: Number that the values are drawn from.
        calls: Number of calls in the sample.
        first: Number of the first call, which chooses its input set.
    """

    secret: int
    calls: int
    first: int


@dataclasses.dataclass(frozen=True, slots=True)
class SteadyGpuClock(Request[Done]):
    """Run the kernel until the GPU's clock is steady."""


@dataclasses.dataclass(frozen=True, slots=True)
class GpuReading:
    """The GPU's state by NVML; None where it cannot be read."""

    state: GpuState | None


@dataclasses.dataclass(frozen=True, slots=True)
class ReadGpu(Request[GpuReading]):
    """Read the GPU's state."""


@dataclasses.dataclass(frozen=True, slots=True)
class SampleTaken:
    """One sample.

    Attributes:
        seconds: Time of all its calls, in seconds.
        forward_seconds: Time of the same number of forwards alone, in seconds; None if they were not requested.
        involuntary_switches: Number of times that a thread of the worker lost its CPU to another.
        held: Numbers of the calls whose results are still there; -1 for a copy of the last one.
        changing: True if rows of the inputs changed before each call.
    """

    seconds: float
    forward_seconds: float | None
    involuntary_switches: int
    held: tuple[int, ...] = ()
    changing: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class TakeSample(Request[SampleTaken]):
    """Take one sample, on the values that ``DrawValues`` has drawn, if it has.

    Attributes:
        calls: Number of calls in the sample.
        first: Number of the first call, which chooses its input set.
        settle_seconds: Time of the calls before it that are not recorded, in seconds.
        forward: True if a sample of the forward alone follows.
        passes: Number of samples that are taken in a row; their times add up.
        flush_l2: True if twice the GPU's L2 is written before each call.
    """

    calls: int
    first: int
    settle_seconds: float
    forward: bool
    passes: int = 1
    flush_l2: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryPeak:
    """Memory that a call takes at its peak, in bytes, results included; None where the system does not report it."""

    peak_bytes: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class MeasureMemory(Request[MemoryPeak]):
    """Measure the memory of a call."""


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceTimes:
    """Samples by a GPU's own clock; each list may be empty.

    Attributes:
        queued_seconds: Times of samples with one synchronisation each, in seconds.
        device_seconds: Times of single calls between two events of the device, in seconds.
        graph_seconds: Times of samples of replays of a captured call, in seconds.
        absent: Reason why a list is empty, by its name.
        broken: True if a failed capture may have left the process unusable.
    """

    queued_seconds: tuple[float, ...]
    device_seconds: tuple[float, ...]
    graph_seconds: tuple[float, ...]
    absent: dict[str, str]
    broken: bool


@dataclasses.dataclass(frozen=True, slots=True)
class MeasureDeviceTimes(Request[DeviceTimes]):
    """Take samples by the device's clock.

    Attributes:
        calls: Number of calls in a sample of ``queued_seconds`` and of ``graph_seconds``.
        call_seconds: Approximate time of a call, in seconds.
        repeats: Number of samples.
    """

    calls: int
    call_seconds: float
    repeats: int


@dataclasses.dataclass(frozen=True, slots=True)
class Released:
    """Report whether freed memory went back to the system; False if a framework keeps it."""

    trimmed: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Release(Request[Released]):
    """Release the case and its memory."""


# Of the reference's worker.


@dataclasses.dataclass(frozen=True, slots=True)
class ReferenceReply:
    """Root mean square, over each result's elements, of Q: the root of the sum of squared terms."""

    quadratics: dict[str, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Expect(Request[ReferenceReply]):
    """Compute the right results into a folder: NAME.npy, and the files that judging their rounding takes.

    Attributes:
        case: The case.
        variation: Number of the inputs.
        kind: Kind of the inputs.
        directory: Folder for the results.
        device: Device that computes the results.
        drawn: Part of the results to compute; None for all.
    """

    case: Case
    variation: int
    kind: str
    directory: Path
    device: str = "cpu"
    drawn: Drawn | None = None


# Of the peak workers.


@dataclasses.dataclass(frozen=True, slots=True)
class MeasuredRate:
    """A rate and its source.

    Attributes:
        per_second: Floating-point operations or bytes in a second; None if it could not be measured.
        source: Name of the measurement, or the reason why there is none.
    """

    per_second: float | None
    source: str


@dataclasses.dataclass(frozen=True, slots=True)
class MeasureArithmetic(Request[MeasuredRate]):
    """Measure multiply-adds of all threads in a dtype."""

    dtype: str


@dataclasses.dataclass(frozen=True, slots=True)
class MeasureSpotPeak(Request[MeasuredRate]):
    """Measure multiply-adds of all threads in a dtype at this moment, for ``seconds``."""

    dtype: str
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class MeasureProduct(Request[MeasuredRate]):
    """Measure a library's square GEMM.

    Attributes:
        library: A key of ``peak_products.PRODUCTS``.
        dtype: Dtype of both matrices.
    """

    library: str
    dtype: str


@dataclasses.dataclass(frozen=True, slots=True)
class MeasureBandwidth(Request[MeasuredRate]):
    """Measure reads of all threads, each from its own buffer.

    Attributes:
        bytes_per_thread: Size of each buffer.
        library: ``numba``, or ``numpy`` where there is no Numba.
    """

    bytes_per_thread: int
    library: str = "numba"


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceDescription:
    """A device's name, and the size of its last cache in bytes; None where it is unknown."""

    name: str
    cache_bytes: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class DescribeDevice(Request[DeviceDescription]):
    """Ask for the description of a device."""

    device: str


@dataclasses.dataclass(frozen=True, slots=True)
class MeasureDeviceProduct(Request[MeasuredRate]):
    """Measure a device's square GEMM in a dtype and precision."""

    device: str
    dtype: str
    precision: str


@dataclasses.dataclass(frozen=True, slots=True)
class MeasureDeviceBandwidth(Request[MeasuredRate]):
    """Measure a device's copies between two buffers of ``size_bytes``."""

    device: str
    size_bytes: int


def request_types() -> dict[str, type[Request[Any]]]:
    """Return every class of requests by its name on the wire."""
    return {kind.__name__: kind for kind in Request.__subclasses__()}


def reply_type(request: Request[ReplyT]) -> type[ReplyT]:
    """Return the class of a request's reply."""
    base = next(base for base in type(request).__orig_bases__ if typing.get_origin(base) is Request)  # type: ignore[attr-defined]
    kind: type[ReplyT] = typing.get_args(base)[0]
    return kind


# Lines on the wire.


def encode_request(nonce: str, request: Request[Any]) -> bytes:
    """Return a request as a line."""
    return _line({"id": nonce, "request": type(request).__name__, "fields": encode(request)})


def decode_request(line: bytes) -> tuple[str, Request[Any]]:
    """Return a line's number and request.

    Raises:
        ProtocolError: It is no request.
    """
    message = _message(line)
    kind = request_types().get(str(message.get("request")))
    if kind is None:
        raise ProtocolError(f"no request: {line[:80]!r}")
    return str(message.get("id")), decode(kind, message.get("fields"))


def encode_reply(nonce: str, reply: object) -> bytes:
    """Return a reply, or a failure, as a line."""
    return _line({"id": nonce, "failed": isinstance(reply, Failure), "reply": encode(reply)})


def decode_reply(line: bytes, nonce: str, kind: type[ReplyT]) -> ReplyT | Failure:
    """Return the reply in a line.

    Args:
        line: Line that the worker wrote.
        nonce: Number of the request.
        kind: Class of its reply.

    Raises:
        ProtocolError: The line is no reply to that request.
    """
    message = _message(line)
    if message.get("id") != nonce:
        raise ProtocolError(f"a reply to another request: {line[:80]!r}")
    if message.get("failed"):
        return decode(Failure, message.get("reply"))
    return decode(kind, message.get("reply"))


def encode(value: Any) -> Any:
    """Return a message as JSON can hold it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): encode(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def decode(kind: type[ReplyT], value: Any) -> ReplyT:
    """Return a message from JSON, held to its declared types.

    Raises:
        ProtocolError: Something is missing, or of another type.
    """
    return _decode(kind, value)  # type: ignore[no-any-return]  # _decode returns the declared type


def _decode(kind: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _decode(next(one for one in arguments if one is not type(None)), value)
    if origin is tuple and isinstance(value, list):
        return tuple(_decode(arguments[0], item) for item in value)
    if origin is dict and isinstance(value, dict):
        return {name: _decode(arguments[1], item) for name, item in value.items()}
    if origin is typing.Literal and value in arguments:
        return value
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = _hints(kind)
        if set(value) != set(hints):
            raise ProtocolError(f"a {kind.__name__} with {', '.join(value) or 'nothing'}")
        return kind(**{name: _decode(hints[name], item) for name, item in value.items()})
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise ProtocolError(f"{value!r:.80} is not of type {getattr(kind, '__name__', kind)}")


@functools.cache
def _hints(kind: Any) -> Mapping[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _line(message: Mapping[str, object]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise ProtocolError(f"no message: {line[:80]!r}")
    return message
