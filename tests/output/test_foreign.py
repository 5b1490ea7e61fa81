"""Files of a run from elsewhere are data: each is read right, or refused in one line.

Hypothesis changes a committed run at random: its bytes, its cells, its JSON. ``INPUTS`` is the number of each.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.case import CaseError
from harness.catalog.registry import RegistryError
from harness.machine.threads import BudgetError
from harness.output import store
from harness.output.caption import caption
from harness.output.layout import plain
from harness.output.report import chosen, one_case, report
from harness.output.store import ENVIRONMENT, RECORDS, SAMPLES, StoreError
from harness.run.options import PlanError
from harness.run.plan import complete_groups, restore

RUN = Path(__file__).parent.parent.parent / "results" / "reference" / "amd-epyc-zen3-2cpu" / "quick"
#: Lines that are kept of each file.
KEPT = 13
#: Errors that the command line prints as one line.
ONE_LINE = (StoreError, CaseError, RegistryError, BudgetError, PlanError)
#: Longest message, in characters: a terminal shows it whole.
MESSAGE_LENGTH = 3000
SLOW = os.environ.get("BILINEAR_BENCH_SLOW") == "1"
#: Number of inputs of each kind: in `make slow`, and in `make test`.
INPUTS = 2000 if SLOW else 50
fuzzed = settings(max_examples=INPUTS, deadline=None, suppress_health_check=list(HealthCheck), database=None)

#: Texts that a spreadsheet, a terminal, a parser or arithmetic may stumble over.
AWKWARD = (
    *("", "[bold]x[/bold]", "[/x]", "\x1b[2J\x1b]0;x\x07", "=1+1", "@cmd", "a\nb", "a\rb", "\0", '"', "\u202e", "🦀"),
    *("nan", "inf", "-inf", "1e999", "-1", "0", "9" * 30, "1e-320", "1e17", "-0.0", "1_0", "٣", " 1 ", "é" * 3000),
    *("timed", "rejected", "True", "cuda", "forward", "few_blocks", "few_blocks(1);few_blocks", "x;y"),
)
TEXTS = st.one_of(
    st.sampled_from(AWKWARD),
    st.text(max_size=30),
    st.floats().map(str),
    st.integers().map(str),
)
JSON = st.recursive(
    st.one_of(
        st.sampled_from([None, True, 10**40, -1, 0, 1e308, "", "[/x]", "\x1b[31m", "x" * 10_000, [], {}]), st.integers()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def files():
    """The files of a committed run, cut to its first rows, by name."""
    cut = {name: "".join((RUN / name).read_text().splitlines(keepends=True)[:KEPT]) for name in (RECORDS, SAMPLES)}
    return {name: text.encode() for name, text in (cut | {ENVIRONMENT: (RUN / ENVIRONMENT).read_text()}).items()}


def put(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def screens(folder):
    """Print a run in every way, and prepare to resume it; return the text."""
    lines = [*report(folder, "run", 80), *one_case(folder, None, (), 120, wide=True)]
    for file in (RECORDS, SAMPLES):
        store.read(folder / file)
    return plain(lines) + caption(chosen(folder, None, ()), store.environment(folder))


def resumed(folder):
    """Do what ``--resume`` does before it measures."""
    plan, _ = restore(folder)
    done = complete_groups(plan, store.rows(folder / RECORDS, earlier=True))
    store.Store.resume(folder, lambda row: (row["case"], row["mode"], row["device"]) in done).__exit__()
    return ""


def check(files):
    """Assert that files are printed, or refused in one line, and resumed or refused."""
    with tempfile.TemporaryDirectory() as folder:
        put(Path(folder), files)
        shown, refused = [], []
        for use in (screens, resumed):
            try:
                shown.append(use(Path(folder)))
            except ONE_LINE as error:
                refused.append(str(error))
    assert all(sign.isprintable() or sign == "\n" for sign in "".join(shown))
    assert all(len(message) < MESSAGE_LENGTH for message in refused)


def test_the_run_that_is_changed_is_printed_as_it_is(files, tmp_path):
    assert "numba-fused" in screens(put(tmp_path / "run", files))
    assert restore(tmp_path / "run")[0].run_id == json.loads(files[ENVIRONMENT])["run_id"]


@fuzzed
@given(st.data())
def test_changed_bytes_are_read_or_refused(files, data):
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content)))
        length = data.draw(st.sampled_from([0, 1, 2, 1000]))
        content[place : place + length] = data.draw(st.binary(max_size=4))
    check(files | {name: bytes(content)})


@fuzzed
@given(st.data())
def test_changed_cells_are_read_or_refused(files, data):
    name = data.draw(st.sampled_from([RECORDS, SAMPLES]))
    rows = list(csv.reader(files[name].decode().splitlines()))
    for _ in range(data.draw(st.integers(1, 4))):
        row = rows[data.draw(st.integers(0, len(rows) - 1))]
        row[data.draw(st.integers(0, len(row) - 1))] = data.draw(TEXTS)
    rows += [rows[1]] * data.draw(st.sampled_from([0, 0, 1]))
    check(files | {name: written(rows)})


def written(rows):
    with tempfile.TemporaryFile("w+", newline="", encoding="utf-8", errors="replace") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
        file.seek(0)
        return file.read().encode()


@fuzzed
@given(st.data())
def test_changed_json_is_read_or_refused(files, data):
    whole = json.loads(files[ENVIRONMENT])
    for _ in range(data.draw(st.integers(1, 3))):
        place = whole
        part = data.draw(st.sampled_from(["plan", "doctor", "versions", "gpus", "cpu_model", "run_id", "workers"]))
        while isinstance(place.get(part) if isinstance(place, dict) else place[part], dict | list) and data.draw(
            st.booleans()
        ):
            inner = place[part]
            keys = sorted(inner) if isinstance(inner, dict) else range(len(inner))
            if not keys:
                break
            place, part = inner, data.draw(st.sampled_from(keys))
        if isinstance(place, dict) and data.draw(st.booleans()):
            place.pop(part, None)
        else:
            place[part] = data.draw(JSON)
    check(files | {ENVIRONMENT: json.dumps(whole).encode()})
