"""The record: one row of ``records.csv``, and the sample: one row of ``samples.csv``.

Field order is column order, and each field carries its line of the data dictionary, so a row is described once. A row
that would mislead cannot be built: times without the status ``timed``, a failure without a reason, a speed-up without
both absolute times, an unknown flag.

Length: each of the 91 columns has its meaning here.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import re
from collections.abc import Mapping
from typing import Any, Final

#: Names reach file names, tables and spreadsheets; these signs are harmless in all three.
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:#-]{0,127}")


class Status(enum.StrEnum):
    """The outcome of a planned cell; ``STATUS_MEANING`` has a line for each."""

    TIMED = "timed"
    CHECKED = "checked"
    REJECTED = "rejected"
    UNSUPPORTED = "unsupported"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    TOO_SLOW = "too_slow"
    INTERRUPTED = "interrupted"


#: Beginning of ``stopped_by`` of a backend that left; the name of the one that it was shown to be slower than follows.
SLOWER_THAN: Final = "slower than "


def slower_than(stopped_by: Mapping[str, str]) -> dict[str, str]:
    """Return the backends that left, each with the one that it was shown to be slower than.

    Args:
        stopped_by: Column ``stopped_by`` of backends, by name.
    """
    return {name: why.removeprefix(SLOWER_THAN) for name, why in stopped_by.items() if why.startswith(SLOWER_THAN)}


class Relation(enum.StrEnum):
    """The verdict on two times; ``RELATION_MEANING`` has a line for each."""

    FASTER = "faster"
    SLOWER = "slower"
    EQUIVALENT = "equivalent"
    AMBIGUOUS = "ambiguous"


class Flag(enum.StrEnum):
    """A reason to doubt a row; ``FLAG_MEANING`` has a line for each.

    A flag may carry a detail in brackets, as in ``oversubscribed(3.4)``.
    """

    NO_STEADY_STATE = "no_steady_state"
    FEW_BLOCKS = "few_blocks"
    MOSTLY_DISTURBED = "mostly_disturbed"
    UNDISTURBED = "undisturbed"
    OVERSUBSCRIBED = "oversubscribed"
    OVERHEAD = "overhead"
    IMPLAUSIBLE = "implausible"
    CLASS_DIFFERS = "class_differs"
    NONDETERMINISTIC = "nondeterministic"
    FLUSHES_SUBNORMALS = "flushes_subnormals"
    NONFINITE_DIFFERS = "nonfinite_differs"
    NORMWISE = "normwise"
    CALLS_NN_BILINEAR = "calls_nn_bilinear"
    EDGE_CASES_PARTIAL = "edge_cases_partial"
    THREADS_DIFFER = "threads_differ"
    THREADS_UNVERIFIED = "threads_unverified"
    LAUNCH_BOUND = "launch_bound"
    DEVICE_OVER_HOST = "device_over_host"
    QUEUED_OVER_HOST = "queued_over_host"
    DEVICE_UNDER_ROOFLINE = "device_under_roofline"
    NO_DEVICE_TIMES = "no_device_times"

    def detailed(self, detail: object) -> str:
        """Return the flag with a detail in brackets."""
        return f"{self}({detail})"


#: One line for each flag, for the data dictionary.
FLAG_MEANING: Final[dict[Flag, str]] = {
    Flag.NO_STEADY_STATE: "the times never settled at one level",
    Flag.FEW_BLOCKS: "under ten samples: a slow call, or a small budget",
    Flag.MOSTLY_DISTURBED: "other work disturbed more than half of the blocks",
    Flag.UNDISTURBED: "the undisturbed blocks alone give another verdict, the one in brackets",
    Flag.OVERSUBSCRIBED: "more threads were runnable than the machine has CPUs; in brackets, their mean number",
    Flag.OVERHEAD: "the timing loop itself is over 5 % of a call",
    Flag.IMPLAUSIBLE: "a median more than 5 % below the roofline is impossible: not ranked",
    Flag.CLASS_DIFFERS: "another precision class than the baseline's row",
    Flag.NONDETERMINISTIC: "the same inputs gave different bits",
    Flag.FLUSHES_SUBNORMALS: "results below the smallest normal number become zero",
    Flag.NONFINITE_DIFFERS: "NaN and infinity in the inputs reach other results than nn.Bilinear's",
    Flag.NORMWISE: "small rows of a batch are as inexact as its largest row, as in Strassen's product",
    Flag.CALLS_NN_BILINEAR: "a PyTorch backend that calls nn.Bilinear's own operator",
    Flag.EDGE_CASES_PARTIAL: "the backend supports too few sizes for all of the edge cases",
    Flag.THREADS_DIFFER: "a thread pool or the CPU affinity differs from the thread budget; in brackets, which",
    Flag.THREADS_UNVERIFIED: "the system cannot tell how many CPUs the worker is held to",
    Flag.LAUNCH_BOUND: "on a GPU: the device works during less than half of a call",
    Flag.DEVICE_OVER_HOST: "on a GPU: the device's events report more time than the host's clock, so one is wrong",
    Flag.QUEUED_OVER_HOST: "on a GPU: calls with one synchronisation took longer than calls with one each",
    Flag.DEVICE_UNDER_ROOFLINE: "on a GPU: the device's time is more than 5 % below the roofline",
    Flag.NO_DEVICE_TIMES: "on a GPU: the device's times could not be measured; in brackets, why",
}

#: One line for each relation, for the data dictionary.
RELATION_MEANING: Final[dict[Relation, str]] = {
    Relation.FASTER: "the 99 % interval of the speed-up is above 1, and the estimate is above the equivalence band",
    Relation.SLOWER: "the interval is below 1, and the estimate is below the band",
    Relation.EQUIVALENT: "the interval is inside the band",
    Relation.AMBIGUOUS: "none of these: too few samples, too much noise, or two methods that disagree",
}

#: One line for each status, for the data dictionary.
STATUS_MEANING: Final[dict[Status, str]] = {
    Status.TIMED: "passed the gate before and after timing; the only status with times",
    Status.CHECKED: "passed the gate, but is not timed: `check`, a case of size zero, a simulated device",
    Status.REJECTED: "the gate rejected it; `phase` says when, `reason` says where",
    Status.UNSUPPORTED: "the backend does not support this case or device",
    Status.UNAVAILABLE: "the package, the compiler or the device is missing",
    Status.FAILED: "it raised, crashed, was killed, broke the protocol, or its entry point leads nowhere",
    Status.TIMEOUT: "over the time limit; its process was killed",
    Status.OUT_OF_MEMORY: "it was predicted not to fit and not attempted, or it ran out of memory",
    Status.TOO_SLOW: "one call takes longer than the budget; its time is in `first_call_seconds` and in the reason",
    Status.INTERRUPTED: "the run was stopped before this cell was complete; `--resume` completes it",
}

#: Statuses after which the exit code is 1.
BAD: Final = frozenset(
    {Status.REJECTED, Status.FAILED, Status.TIMEOUT, Status.OUT_OF_MEMORY, Status.INTERRUPTED},
)


def column(meaning: str) -> Any:
    """Declare a column that may be missing, with its line of the data dictionary."""
    return dataclasses.field(default=None, metadata={"meaning": meaning})


def key_column(meaning: str) -> Any:
    """Declare a column that every row has."""
    return dataclasses.field(metadata={"meaning": meaning})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One planned (case, backend, device, mode) and its outcome.

    Raises:
        ValueError: The row would mislead; see the module's docstring.
    """

    run_id: str = key_column("the run: UTC time of its start and four random hexadecimal digits")
    suite: str = key_column("the suite the case came from; `command-line` for `--case`")
    case: str = key_column(
        "the case as `--case` takes it: batch x in1 x in2 x out, then every option that is not the default"
    )
    label: str | None = column("what people call the case, in the suites; `--case` takes it too. Empty without a name")
    batch: int = key_column("rows of both inputs")
    in1_features: int = key_column("columns of input1")
    in2_features: int = key_column("columns of input2")
    out_features: int = key_column("pages of the weight, (out, in1, in2)")
    dtype: str = key_column("element type: float32, float64, float16 or bfloat16")
    precision: str = key_column("required precision of the products: `ieee` (the dtype's own) or `tf32`")
    bias: bool = key_column("whether there is a bias")
    mode: str = key_column("`forward` (inference) or `forward_backward` (one training step)")
    seed: int = key_column("seed of the inputs and of the order of measuring")
    backend: str = key_column("the implementation; `#2` marks a second entry of the same one")
    backend_version: str | None = column("version of the backend's framework, as its worker reported it")
    device: str = key_column("`cpu` or `cuda`")
    threads: int | None = column("thread budget of the worker")
    flush_l2: bool | None = column(
        "whether twice the GPU's L2 is written before each call; if not, the few inputs in rotation stay in cache"
    )
    status: Status = key_column("outcome of the cell; see the list of statuses")
    phase: str | None = column("step that decided the status: plan, load, support, prepare, gate, timing, recheck")
    reason: str | None = column("why the cell was not timed; empty exactly when it was")
    probes: str | None = column(
        "result of each probe of the gate, as in `edge_cases=ok;exact=no`; probes that did not run are left out; "
        "`edge_cases=kept`: an earlier run found them right"
    )
    precision_class: str | None = column(
        "precision that the errors show: `float64`, `float32`, `tf32`, `float16` or `bfloat16`; empty if worse than "
        "all. Rows of different classes are not ranked together"
    )
    max_error_over_bound: float | None = column(
        "largest of two quotients: an element's error against the float64 reference over its bound, and the precision "
        "probe's figures over the limits of the class; above 1 the gate rejects"
    )
    mean_absolute_error: float | None = column(
        "mean absolute difference of `output` from the baseline's, both in the case's dtype; empty for the baseline"
    )
    max_absolute_error: float | None = column("largest absolute difference of any result from the float64 reference")
    gate_seconds: float | None = column(
        "time of the gate for this row, without the reference and the edge cases. Edge cases run once for a backend, "
        "dtype, precision and mode (their time is in `environment.json`)"
    )
    import_seconds: float | None = column("time of importing the backend and its framework, once per worker")
    prepare_seconds: float | None = column("time of `prepare_forward` or `prepare_forward_backward`")
    first_call_seconds: float | None = column("time of the first call, compiling included")
    tuning: str | None = column(
        "parameters that the backend chose for the case, in its own words: tiles, an order of contraction"
    )
    compile_cache: str | None = column(
        "compile caches when the cell was prepared: `empty` (fresh worker), `filled` (fresh worker), or `warm_worker` "
        "(the worker had another case before)"
    )
    break_even_calls: int | None = column(
        "number of calls after which the sum of prepare_seconds, first_call_seconds and all further calls is below the "
        "baseline's; only where `comparison` is faster"
    )
    processes: int | None = column("number of fresh processes that were timed")
    blocks: int | None = column("number of blocks with a sample of this backend")
    calls: int | None = column("kernel calls in a sample, median over the samples")
    min_seconds: float | None = column("smallest time of one call with its synchronisation, over the samples")
    p25_seconds: float | None = column("lower quartile")
    median_seconds: float | None = column("median: the time of one call; a whole step in `forward_backward`")
    mean_seconds: float | None = column("arithmetic mean")
    p75_seconds: float | None = column("upper quartile")
    p95_seconds: float | None = column("95th percentile")
    median_low_seconds: float | None = column("lower end of the 99 % interval of the median (order statistics)")
    median_high_seconds: float | None = column("upper end of that interval; both empty with too few samples")
    forward_seconds: float | None = column(
        "median of `forward` alone, from samples of its own (`forward_backward` only)"
    )
    backward_seconds: float | None = column("median_seconds - forward_seconds (`forward_backward` only)")
    queued_seconds: float | None = column("time of a call when many calls share one synchronisation; `cuda` only")
    device_seconds: float | None = column(
        "time of a call on the device, between two events, launched while the device was busy; `cuda` only; empty for "
        "JAX, which has no events, and for calls with more launches than the queue holds"
    )
    graph_seconds: float | None = column(
        "time of a call replayed from a CUDA graph: its work without its launches; empty if it cannot be captured"
    )
    baseline: str | None = column(
        "backend that the ratio refers to: nn.Bilinear in the case's dtype, on the same device"
    )
    baseline_median_seconds: float | None = column("the baseline's median over the same blocks")
    speedup: float | None = column(
        "baseline time / this backend's time, above 1 is faster: Hodges-Lehmann estimate over the log-ratios of the "
        "blocks, or of the processes (`unit`)"
    )
    speedup_low: float | None = column(
        "lower end of its 99 % signed-rank interval; with 3 to 9 values, of a moderated t"
    )
    speedup_high: float | None = column("upper end; both empty with fewer than three values")
    comparison: str | None = column("faster, slower, equivalent or ambiguous; see below. Empty for the baseline")
    comparison_undisturbed: str | None = column("the same without the disturbed blocks")
    unit: str | None = column("unit of the comparison: `process` if there are several, else `block`")
    block_spread: float | None = column("standard deviation of the log-ratio among the blocks of a process (robust)")
    process_spread: float | None = column("the same between processes, without the share that the blocks explain")
    rank: int | None = column(
        "1 for the lowest median of the case, mode, device and precision class, and for every backend that is not "
        "shown slower than it; the rest is ranked likewise; empty if implausible"
    )
    gflop: float | None = column("least floating-point work: 2 batch in1 in2 out, three times that for a step, in 1e9")
    gflop_per_second: float | None = column("gflop / median_seconds")
    roofline_seconds: float | None = column(
        "least time this machine could take: gflop over its arithmetic peak, or the bytes of all arrays over the read "
        "bandwidth of the memory level that holds them, whichever is longer; empty if not measured"
    )
    roofline_fraction: float | None = column("roofline_seconds / median_seconds; above 1.05 the row is `implausible`")
    spot_roofline_fraction: float | None = column(
        "Hodges-Lehmann estimate of roofline / time over blocks or processes, where the roofline has the spot peak "
        "right before each sample (`spot_peak_flop_per_second` in samples.csv); `cpu` only, and only if multiply-add "
        "chains make the peak"
    )
    spot_roofline_fraction_low: float | None = column("lower end of its 99 % interval, as for the speed-up")
    spot_roofline_fraction_high: float | None = column("upper end; it may be above 1, by the noise of both")
    peak_memory_bytes: int | None = column(
        "memory of a call at its highest, without inputs, weights and results, and without memory that a framework "
        "never frees; 0 is below the resolution of the system"
    )
    steady_state: str | None = column("trend of the times: `flat`, `warming_up`, `slowing_down` or `no_steady_state`")
    disturbed_blocks: int | None = column("blocks during which other work ran on the machine; none is dropped")
    seconds_to_target: float | None = column(
        "wall time from the start of the group, gate and compiling included, until the interval's half-width reached "
        "the run's target; empty if it never did"
    )
    stopped_by: str | None = column(
        "why measuring ended: `target` (the interval is narrow enough), `slower than NAME` (the backend is shown to be "
        "slower than another one), `budget`, `processes` (the limit of fresh processes), or `blocks` (a slow backend, "
        "which joins a few blocks only)"
    )
    flags: str | None = column("reasons to doubt the row, separated by `;`; see the list of flags")

    def __post_init__(self) -> None:
        for name in ("run_id", "suite", "case", "backend"):
            value = getattr(self, name)
            if not NAME_PATTERN.fullmatch(value):
                raise ValueError(f"{name} is {value!r}, expected letters, digits and any of _ . : # -")
        for text in self.flags.split(";") if self.flags is not None else ():
            if not FLAG_PATTERN.fullmatch(text):
                raise ValueError(f"flag {text!r} is unknown, expected one of: {', '.join(Flag)}")
        for field in TIMES:
            value = getattr(self, field)
            if value is None:
                continue
            if self.status is not Status.TIMED:
                raise ValueError(f"{field} is given for a row that is {self.status}: only a timed row has times")
            if not math.isfinite(value) or (value <= 0 and field != "backward_seconds"):
                raise ValueError(f"{field} is {value}, expected a positive finite number")
        if self.status is Status.TIMED:
            if self.median_seconds is None or self.reason is not None:
                raise ValueError("a timed row has a median and no reason")
        elif not self.reason:
            raise ValueError(f"a row that is {self.status} has a reason")
        if self.speedup is not None and (self.median_seconds is None or self.baseline_median_seconds is None):
            raise ValueError("a speed-up needs both absolute times")

    @property
    def cell(self) -> tuple[str, str, str, str]:
        """Return the row's key within its run: case, mode, backend, device."""
        return (self.case, self.mode, self.backend, self.device)


#: A flag, with or without a detail in brackets.
FLAG_PATTERN: Final = re.compile(rf"({'|'.join(Flag)})(\(.+\))?")

#: Columns that only a timed row has.
TIMES: Final = (
    *("min_seconds", "p25_seconds", "median_seconds", "mean_seconds", "p75_seconds", "p95_seconds"),
    *("median_low_seconds", "median_high_seconds", "forward_seconds", "backward_seconds", "queued_seconds"),
    *("device_seconds", "graph_seconds", "speedup", "speedup_low", "speedup_high", "gflop_per_second"),
    *("seconds_to_target", "spot_roofline_fraction", "spot_roofline_fraction_low", "spot_roofline_fraction_high"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One recorded time, warmup included."""

    case: str = key_column("the case, as in records.csv")
    mode: str = key_column("`forward` or `forward_backward`")
    device: str = key_column("`cpu` or `cuda`")
    backend: str = key_column("the implementation")
    kind: str = key_column(
        "`warmup` (before the blocks, in no statistic), `call` (the kernel) or `forward` (of a step); on a GPU "
        "`queued`, `device` and `graph`, outside the blocks"
    )
    process: int = key_column("number of the fresh process within the group, from 0")
    block: int | None = column(
        "number of the block, from 0; empty for warmup. The samples of a block are compared with each other"
    )
    position: int | None = column("place in the block's random order, from 0")
    calls: int = key_column("kernel calls in this sample")
    seconds: float = key_column("time of the whole sample; divide by calls for the time of a call")
    spot_peak_flop_per_second: float | None = column(
        "rate of multiply-add chains on all threads right before the sample, measured for a quarter of the sample's "
        "time (4 to 200 ms); `cpu` only"
    )
    steal_seconds: float | None = column("time that the hypervisor took from this machine's CPUs during the sample")
    involuntary_switches: int | None = column(
        "number of times that the worker's threads lost their CPU to another thread during the sample"
    )
    others_running: int | None = column("number of other runnable threads on this machine, right after the sample")
    clock_mhz: float | None = column("mean clock of the CPUs, as the system reports it")
    gpu_clock_mhz: float | None = column("clock of the GPU's multiprocessors right after the sample, by NVML")
    gpu_temperature_celsius: float | None = column("the GPU's temperature right after the sample")
    gpu_held_back: str | None = column(
        "reasons why the GPU runs below its highest clock, by NVML, such as its power cap"
    )
    disturbance: str | None = column(
        "which of these figures is beyond those of a quiet machine: steal, switches, clock, load, swap; or the run was "
        "stopped during the sample: stopped; joined by +"
    )
