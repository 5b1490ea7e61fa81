"""Rank the rows of committed runs again, from their committed samples.

    python studies/committed_ranks.py [FOLDER ...]

Each run under ``results/reference`` gets the ranks of ``harness.timing.selection.ranks``, the rule of a new run. Only
the column ``rank`` of records.csv changes: no other column depends on it. Without a change no file is written.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.output import store
from harness.record import Flag, Status, slower_than
from harness.timing import selection

REFERENCE = Path(__file__).resolve().parent.parent / "results" / "reference"
#: A group: the columns that its rows share.
GROUP = ("case", "mode", "device")

Rows = list[dict[str, str]]
#: Times of a call in seconds, by backend and block.
Seconds = dict[str, dict[int, float]]


def groups(folder: Path) -> Iterator[tuple[Rows, Seconds, dict[int, int], float]]:
    """Yield what is ranked together in a run: rows, times, number of the process by block, equivalence band.

    Args:
        folder: A run.
    """
    band = float(store.environment(folder)["plan"]["band"])
    seconds: dict[tuple[str, ...], Seconds] = {}
    processes: dict[tuple[str, ...], dict[int, int]] = {}
    for sample in store.rows(folder / store.SAMPLES, earlier=True):
        if sample["kind"] == "call":
            key, block = tuple(sample[name] for name in GROUP), int(sample["block"])
            times = seconds.setdefault(key, {}).setdefault(sample["backend"], {})
            times[block] = float(sample["seconds"]) / int(sample["calls"])
            processes.setdefault(key, {})[block] = int(sample["process"])
    alike: dict[tuple[str, ...], Rows] = {}
    for row in store.rows(folder / store.RECORDS, earlier=True):
        if row["status"] == Status.TIMED and Flag.IMPLAUSIBLE not in row["flags"].split(";"):
            alike.setdefault((*(row[name] for name in GROUP), row["precision_class"]), []).append(row)
    for (*key, _), rows in alike.items():
        of_group = seconds[tuple(key)]
        yield rows, {row["backend"]: of_group[row["backend"]] for row in rows}, processes[tuple(key)], band


def ranks(folder: Path) -> dict[tuple[str, ...], int]:
    """Return the ranks of a run by case, mode, device and backend.

    Args:
        folder: A run.
    """
    return {
        (*(rows[0][name] for name in GROUP), backend): rank
        for rows, seconds, processes, band in groups(folder)
        for backend, rank in selection.ranks(
            seconds, processes, band, slower_than({row["backend"]: row["stopped_by"] for row in rows})
        ).items()
    }


def rewrite(path: Path) -> int:
    """Put the ranks into a records.csv; return the number of rows that changed.

    Args:
        path: ``records.csv`` of a run.
    """
    rank_of = ranks(path.parent)
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns, rows = list(reader.fieldnames or ()), list(reader)
    changed = 0
    for row in rows:
        rank = rank_of.get((*(row[name] for name in GROUP), row["backend"]))
        text = "" if rank is None else str(rank)
        changed += text != row["rank"]
        row["rank"] = text
    if changed:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return changed


def main() -> None:
    """Rewrite the runs that are named, or all committed ones."""
    folders = [Path(name) for name in sys.argv[1:]] or sorted(path.parent for path in REFERENCE.rglob(store.RECORDS))
    for folder in folders:
        print(f"{folder}: {rewrite(folder / store.RECORDS)} ranks changed")


if __name__ == "__main__":
    main()
