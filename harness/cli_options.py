"""The options of the command line: each one's name, type and line of help.

A command has them as parameters with the names of the fields of ``PlanOptions`` and ``RunOptions``.

Length: a few lines for each option.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer

from harness.case import DTYPES, PRECISIONS

#: Bounds of a time, in seconds: a year of measuring is a mistake.
LEAST_SECONDS: Final = 0.1
MOST_SECONDS: Final = 365 * 24 * 3600.0
#: Largest seed, which the columns of 64 bits hold; and largest number of fresh processes.
MOST_SEED: Final = 2**63 - 1
MOST_PROCESSES: Final = 100_000

Choice = TypeVar("Choice", bound=enum.StrEnum)


class Device(enum.StrEnum):
    """Where a backend runs."""

    CPU = "cpu"
    CUDA = "cuda"


class ModeOption(enum.StrEnum):
    """What is timed: the keys of ``MODE_NAMES``."""

    FORWARD = "forward"
    STEP = "step"
    TRAIN = "train"
    FORWARD_BACKWARD = "forward_backward"


class FormatOption(enum.StrEnum):
    """How a check is printed."""

    TEXT = "text"
    GITHUB = "github"
    JSON = "json"


def _one_of(kind: type[Choice]) -> Callable[[str], Choice]:
    """Return the reader of an option with a few values."""

    def read(text: str) -> Choice:
        try:
            return kind(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is unknown, expected one of: {', '.join(kind)}") from None

    return read


def _share(text: str) -> float:
    """Read a share, as in ``0.8%`` or ``0.008``."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise typer.BadParameter(f"{text!r} is no share, expected one such as 2% or 0.02, above 0 and below 100%")
    return value


def _seconds(text: str | float) -> float:
    """Read a number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not LEAST_SECONDS <= value <= MOST_SECONDS:
        raise typer.BadParameter(
            f"{text!r} is not in the range: expected {LEAST_SECONDS:g} to {MOST_SECONDS:,.0f} seconds"
        )
    return value


Suite = Annotated[
    str | None, typer.Option("--suite", help="A named list of cases (see `list suites`); default: quick.")
]
Cases = Annotated[
    list[str] | None,
    typer.Option(
        "--case",
        metavar="CASE",
        help="A label, as in SimGNN (see `list cases`), or sizes, as in 2708x512x512x1: BATCHxIN1xIN2xOUT. "
        "Either with [:float64][:tf32][:nobias]; repeatable.",
    ),
]
Backends = Annotated[
    list[str] | None,
    typer.Option(
        "--backend",
        metavar="NAMES",
        help="A backend, a pattern such as 'torch-*', `all`, or a list with commas; NAME#2 enters it again; "
        "repeatable. One of each must be available, else the exit code is 1. Default: all, but `run` on the suite "
        "quick or with --quick measures the core set (see `list`).",
    ),
]
Skip = Annotated[
    list[str] | None,
    typer.Option(
        "--skip", metavar="NAMES", help="Backends to leave out: a name, a pattern, or a list with commas; repeatable."
    ),
]
Devices = Annotated[
    list[Device] | None,
    typer.Option(
        "--device", parser=_one_of(Device), metavar="|".join(Device), help="Repeatable. Default: all that are found."
    ),
]
Modes = Annotated[
    list[ModeOption] | None,
    typer.Option(
        "--mode",
        parser=_one_of(ModeOption),
        metavar="MODE",
        help=f"{', '.join(ModeOption)}: `step` and `train` are `forward_backward`, a training step. "
        "Repeatable. Default: forward and step.",
    ),
]
Threads = Annotated[int | None, typer.Option("--threads", help="CPUs of every worker. Default: all.")]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help=f"Dtype of every case, in place of its own: {', '.join(DTYPES)}.")
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision", help=f"Precision of every case's float32 products, for all backends: {', '.join(PRECISIONS)}."
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        max=MOST_SEED,
        metavar="N",
        help="Seed of the inputs and the order of measuring. Default: drawn, in every row.",
    ),
]
Recheck = Annotated[
    bool, typer.Option("--recheck", help="Ask the edge cases again that an earlier run has found right.")
]
TimeLimit = Annotated[
    float,
    typer.Option(
        "--time-limit",
        parser=_seconds,
        metavar="SECONDS",
        help="Seconds that compiling and one call may take before a worker is killed.",
    ),
]
Layer = Annotated[str | None, typer.Argument(metavar="CASE", help="The same as --case.", show_default=False)]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="One layer within about a minute: --budget 4, one process, no roofline. Default: nn.Bilinear's example.",
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder of the run; must not exist. Default: results/<run-id>.")
]
Resume = Annotated[
    str | None, typer.Option("--resume", help="Complete a run that was stopped: its folder, id, or `latest`.")
]
AllowDifferent = Annotated[
    bool,
    typer.Option(
        "--allow-different",
        help="With --resume: go on where machine, versions or threads differ; both environments are kept.",
    ),
]
Target = Annotated[
    float | None,
    typer.Option(
        "--target",
        parser=_share,
        metavar="SHARE",
        help="Half-width of the interval at which measuring stops, as in 0.8%. Default: 2%, or the suite's.",
    ),
]
Band = Annotated[
    float | None,
    typer.Option(
        "--band",
        parser=_share,
        metavar="SHARE",
        help="Equivalence band: ratios within it are no difference. Default: 2%, or the suite's.",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        "--processes",
        min=1,
        max=MOST_PROCESSES,
        metavar="N",
        help="Most fresh processes of each backend. Default: 40, or the suite's.",
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(
        "--budget",
        parser=_seconds,
        metavar="SECONDS",
        help="Seconds of measuring for a case in one mode on one device. Default: 30, or the suite's.",
    ),
]
EmptyCompileCache = Annotated[
    bool, typer.Option("--empty-compile-cache", help="Empty compile caches and a fresh worker for every cell.")
]
FlushL2 = Annotated[bool, typer.Option("--flush-l2", help="Write twice the GPU's L2 before each call; on a GPU only.")]
Roofline = Annotated[
    bool,
    typer.Option(
        "--roofline/--no-roofline",
        "--limit/--no-limit",
        help="Measure this machine's peaks, for the column `% of roofline`.",
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait for another run that measures on this machine, instead of ending.")
]
Lock = Annotated[
    bool,
    typer.Option(
        "--lock/--no-lock",
        envvar="BILINEAR_BENCH_LOCK",
        help="One run at a time on this machine: two spoil each other's times.",
    ),
]
ExplainTime = Annotated[
    bool, typer.Option("--explain-time", help="Print what the time of the run went into, before the answer.")
]
Freeze = Annotated[bool, typer.Option("--freeze/--no-freeze", help="Stop idle workers while another one runs.")]
Format = Annotated[
    FormatOption,
    typer.Option(
        "--format",
        parser=_one_of(FormatOption),
        metavar="|".join(FormatOption),
        help="text; github: annotations for Actions; json: one object on standard output (docs/ci.md).",
    ),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show every probe and promise, tracebacks, and what a backend printed.")
]
