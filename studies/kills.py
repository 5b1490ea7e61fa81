"""Kill runs at random instants, and look at what is left: files, processes, folders, and whether they can be resumed.

    python studies/kills.py results/reference/MACHINE/kills.csv [SECONDS] [AT_ONCE] [SEED]

Each row is a real run of two cases, forward, in folders of its own. A kind of ``KINDS`` strikes at an instant that is
drawn over the time of an unbroken run: a signal to the harness, one of its workers killed with signal 9, or a disk that
fills up. The full disk is a tmpfs, which takes root. The study continues a table that exists, and starts no row after
SECONDS. ``lost`` has what should not be; it is empty in every row of a harness that keeps its promises. ``rejected``
counts rows that the gate rejects because the machine is busy: every backend here is honest.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
from run_table import fill

from harness.output import store
from harness.process.machine_lock import RUN_LOCK
from harness.record import Status

#: Number of instants of each kind.
KINDS = {"SIGKILL": 100, "SIGTERM": 20, "SIGINT": 20, "SIGHUP": 20, "full disk": 20, "worker": 50}
COLUMNS = (
    *("number", "kind", "instant_seconds", "rows", "exit_code", "outlived_seconds", "folders_left"),
    *("resumed_exit_code", "rejected", "lost"),
)
CASES, BACKENDS = ("6x5x4x3", "7x5x4x3"), ("numpy-loop", "numpy-einsum")
PLANNED = {(case, backend) for case in CASES for backend in (*BACKENDS, "torch-bilinear")}
OPTIONS = (
    *(option for case in CASES for option in ("--case", case)),
    *(option for backend in BACKENDS for option in ("--backend", backend)),
    *("--mode", "forward", "--device", "cpu", "--threads", "1"),
    *("--budget", "0.3", "--processes", "2", "--no-roofline", "--no-lock"),
)
#: Variable that marks every process of a run.
MARK = "BILINEAR_BENCH_KILLS"
#: Time that processes may take to end after their run, in seconds: the kernel kills them, and the machine is busy.
GONE_SECONDS = 10.0
#: Exit codes of a run that a kind stops. A signal that comes before the harness handles it ends it by that signal.
STOPPED = {
    name: {128 + number, -number}
    for name, number in signal.Signals.__members__.items()
    if name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
}
DISK_BYTES = 2**20


class Scratch:
    """The folders and the processes of one row.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.temporary, self.disk = folder / "tmp", folder / "disk"
        self.run = self.disk / "run"
        self.temporary.mkdir()
        self.disk.mkdir()
        self._folder = folder

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start the command line."""
        with (self._folder / "stderr").open("w") as errors:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "harness", "run", *options],
                cwd=self._folder,
                env=os.environ | {MARK: self.mark, "TMPDIR": str(self.temporary), "PYTHONPATH": str(store_root())},
                stdout=subprocess.DEVNULL,
                stderr=errors,
                text=True,
            )

    def processes(self) -> list[psutil.Process]:
        """Return the processes of the run that are there, stopped ones too, but for this one's child."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def outlived_seconds(self) -> float:
        """Wait for the end of every process, and return how long it took in seconds; kill those that stay."""
        start = time.monotonic()
        while (left := self.processes()) and time.monotonic() < start + GONE_SECONDS:
            time.sleep(0.01)
        for process in left:
            process.kill()
        return float("inf") if left else time.monotonic() - start

    @property
    def errors(self) -> list[str]:
        """The lines of standard error that are errors."""
        lines = (self._folder / "stderr").read_text().splitlines()
        return [line for line in lines if line.startswith(("error:", "Traceback"))]


def store_root() -> Path:
    """Return the folder that holds the harness."""
    return Path(store.__file__).parents[2]


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a file system of ``DISK_BYTES`` on a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)], check=True)  # noqa: S607
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


def can_mount() -> bool:
    """True if this process may mount a file system."""
    with tempfile.TemporaryDirectory() as place:
        try:
            with small_disk(Path(place)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def fill_up(disk: Path) -> None:
    """Write until a disk is full."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def strike(kind: str, run: subprocess.Popen[str], scratch: Scratch, chance: random.Random) -> None:
    """Do to a run what a kind stands for."""
    if kind == "full disk":
        fill_up(scratch.disk)
    elif kind == "worker":
        workers = [process for process in scratch.processes() if process.pid != run.pid]
        if workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                chance.choice(workers).kill()
    else:
        run.send_signal(signal.Signals[kind])


def one_row(number: int, kind: str, within_seconds: float, seed: int) -> dict[str, str]:
    """Return the row of one run.

    Args:
        number: Number of the row.
        kind: A key of ``KINDS``.
        within_seconds: Time of an unbroken run.
        seed: Seed of the instants.
    """
    chance = random.Random(f"{seed} {number}")  # noqa: S311  # an instant, not a secret
    instant = chance.uniform(0, within_seconds)
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as mounted:
        scratch = Scratch(Path(place))
        if kind == "full disk":
            mounted.enter_context(small_disk(scratch.disk))
        run = scratch.start(*OPTIONS, "--seed", str(number), "--out", str(scratch.run))
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(instant)
        strike(kind, run, scratch, chance)
        exit_code = run.wait()
        outlived = scratch.outlived_seconds()
        folders = [path.name for path in scratch.temporary.iterdir()]
        lost = [*ended_wrong(kind, exit_code, scratch), *([] if outlived < GONE_SECONDS else ["a process lives on"])]
        if folders and kind != "SIGKILL":  # after which only the next run can delete it
            lost.append("a temporary folder is left")
        (scratch.disk / "filler").unlink(missing_ok=True)
        rows, resumed, rejected = "", "", 0
        if scratch.run.exists():
            found, problems = look(scratch.run)
            code, more = resume(scratch)
            rejected, wrong = incomplete(scratch.run, code, may_fail=kind == "worker")
            rows, resumed, lost = str(found), str(code), lost + problems + more + wrong
        return dict(
            zip(
                COLUMNS,
                (
                    *(str(number), kind, f"{instant:.3f}", rows, str(exit_code), f"{outlived:.2f}"),
                    *(str(len(folders)), resumed, str(rejected), "; ".join(lost)),
                ),
                strict=True,
            )
        )


def ended_wrong(kind: str, exit_code: int, scratch: Scratch) -> list[str]:
    """Return what is wrong with how a run ended; 0 is right for one that was complete by then."""
    errors = scratch.errors
    if any(line.startswith("Traceback") for line in errors):
        return ["a traceback"]
    if kind == "full disk":
        whole = exit_code == 2 and len(errors) == 1
        return [] if exit_code == 0 or whole else [f"exit code {exit_code} with {len(errors)} errors"]
    right = {0} | ({1} if kind == "worker" else STOPPED[kind])
    return [] if exit_code in right else [f"exit code {exit_code}"]


def look(run: Path) -> tuple[int, list[str]]:
    """Return the number of rows that a run has left, and what is wrong with its files."""
    try:
        found = store.read(run / store.RECORDS)
        store.read(run / store.SAMPLES)
        store.environment(run)
    except store.StoreError as error:
        return 0, [f"unreadable: {error}"]
    return len(found), []


def resume(scratch: Scratch) -> tuple[int, list[str]]:
    """Complete a run; return the exit code, and what is wrong then."""
    code = scratch.start("--resume", str(scratch.run), "--no-lock").wait()
    wrong = [] if code in (0, 1) else [f"--resume exits with {code}: {' '.join(scratch.errors)}"]
    if scratch.outlived_seconds() >= GONE_SECONDS:
        wrong.append("a process outlives --resume")
    return code, wrong + [f"{path.name} is left after --resume" for path in scratch.temporary.iterdir()]


def incomplete(run: Path, exit_code: int, may_fail: bool) -> tuple[int, list[str]]:
    """Return the number of rejected rows of a completed run; and what it lacks, has twice, or has wrong.

    Args:
        run: Folder of the run.
        exit_code: What ``--resume`` ended with.
        may_fail: True if one backend may have failed, as after the end of its worker.
    """
    try:
        records, samples = store.read(run / store.RECORDS), store.read(run / store.SAMPLES)
    except store.StoreError as error:
        return 0, [f"unreadable after --resume: {error}"]
    wrong = []
    cells = list(zip(records["case"], records["backend"], strict=True))
    if set(cells) != PLANNED or len(cells) != len(PLANNED):
        wrong.append(f"{len(set(cells))} of {len(PLANNED)} cells in {len(cells)} rows")
    timed, rejected = (records["status"] == status.value for status in (Status.TIMED, Status.REJECTED))
    others = records[~timed & ~rejected]
    if others["backend"].nunique() > may_fail or not others["status"].isin([Status.FAILED.value]).all():
        wrong.append("; ".join(f"{row.backend} {row.status}: {row.reason}" for row in others.itertuples()))
    if exit_code != (0 if timed.all() else 1):
        wrong.append(f"--resume exits with {exit_code}")
    calls = samples[samples["kind"] == "call"]
    if calls.duplicated(["case", "backend", "block"]).any():
        wrong.append("samples twice")
    left = {path.name for path in run.iterdir()} - {store.RECORDS, store.SAMPLES, store.ENVIRONMENT, RUN_LOCK}
    # A later run deletes the draft of a folder when it is old.
    left |= {path.name for path in run.parent.iterdir() if not path.name.startswith(store.DRAFT)} - {run.name}
    return int(rejected.sum()), wrong + [f"{name} is left" for name in sorted(left)]


def schedule(seed: int) -> list[str]:
    """Return the kind of each row, in a random order, so that a part of the study has all kinds."""
    kinds = [kind for kind, count in KINDS.items() for _ in range(count)]
    random.Random(seed).shuffle(kinds)  # noqa: S311  # an order, not a secret
    return kinds


def unbroken_seconds() -> float:
    """Return the time of a run that nothing strikes, in seconds."""
    with tempfile.TemporaryDirectory() as place:
        scratch, start = Scratch(Path(place)), time.monotonic()
        if scratch.start(*OPTIONS, "--out", str(scratch.run)).wait() not in (0, 1):  # 1: rejected on a busy machine
            sys.exit(f"an unbroken run fails: {scratch.errors}")
        return time.monotonic() - start


def summary(path: Path) -> str:
    """Return a table with a line for each kind: instants, runs that had begun, and what was lost."""
    rows = pd.read_csv(path, keep_default_na=False)
    lines = []
    for kind, of_kind in rows.groupby("kind", sort=False):
        lost = sorted({text for text in of_kind["lost"] if text})
        begun = (of_kind["rows"] != "").sum()
        cells = (str(kind), f"{len(of_kind)}", f"{begun}", f"{of_kind['outlived_seconds'].max():.2f} s")
        lines.append((*cells, "; ".join(lost) or "nothing"))
    header = ("struck by", "instants", "had a folder", "last process gone after", "lost")
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *sorted(lines)))
    begun = len(PLANNED) * (rows["rows"] != "").sum()
    return f"{table}\n\nRows of honest backends that the gate rejected: {rows['rejected'].sum()} of {begun}."


def main() -> None:
    """Fill the table."""
    path, *given = sys.argv[1:]
    # Under nohup, and in a shell's background, these are ignored, and the runs would ignore them, too.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seconds, at_once, seed = [int(text) for text in given] + [3600, 1, 1][len(given) :]
    within, kinds = unbroken_seconds(), schedule(seed)
    fill(Path(path), COLUMNS, len(kinds), seconds, lambda row: one_row(row, kinds[row], within, seed), at_once)


if __name__ == "__main__":
    main()
