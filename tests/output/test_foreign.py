"""Files of a run from elsewhere are data: each is read right, or refused in one line.

Hypothesis changes a committed run at random: its bytes, its cells, its JSON. ``INPUTS`` is the number of each.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
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
from harness.run.plan import complete_groups
from harness.run.stored_plan import restore

RUN = Path(__file__).parent.parent.parent / "results" / "reference" / "amd-epyc-zen3-2cpu" / "quick"
#: Lines that are kept of each file.
KEPT = 13
#: Errors that the command line prints as one line.
ONE_LINE = (StoreError, CaseError, RegistryError, BudgetError, PlanError)
#: Longest message, in characters: a terminal shows it whole.
MESSAGE_LENGTH = 3000
SLOW = os.environ.get("BILINEAR_BENCH_SLOW") == "1"
#: Number of inputs of each kind: in `make slow`, and in `make test`.
INPUTS = 1000 if SLOW else 25
fuzzed = settings(max_examples=INPUTS, deadline=None, suppress_health_check=list(HealthCheck), database=None)

#: Texts that a spreadsheet, a terminal, a parser or arithmetic may stumble over.
AWKWARD = (
    *("", "[bold]x[/bold]", "[/x]", "\x1b[2J\x1b]0;x\x07", "=1+1", "@cmd", "a\nb", "a\rb", "\0", '"', "\u202e", "🦀"),
    *("nan", "inf", "-inf", "1e999", "-1", "0", "9" * 30, "1e-320", "1e17", "-0.0", "1_0", "٣", " 1 ", "é" * 3000),
    *("timed", "rejected", "True", "cuda", "forward", "few_blocks", "few_blocks(1);few_blocks", "x;y"),
)
#: A draw is one number: were it many, it would depend on the constants of modules that are imported meanwhile.
SEEDS = st.integers(0, 2**63)


def drawn_text(draw):
    """Draw what a cell may hold."""
    number = draw.uniform(-1, 1) * 10 ** draw.randint(-30, 30)
    signs = "".join(chr(draw.randrange(0xD800)) for _ in range(draw.randint(0, 30)))
    return draw.choice([draw.choice(AWKWARD), draw.choice(AWKWARD), signs, str(number), str(round(number))])


def drawn_json(draw, depth=0):
    """Draw a value of JSON, nested twice at most."""
    plain_values = [
        None,
        True,
        10**40,
        -1,
        0,
        1e308,
        "",
        "[/x]",
        "\x1b[31m",
        "x" * 10_000,
        [],
        {},
        draw.randint(-99, 99),
    ]
    if depth == 2 or draw.random() < 0.7:
        return draw.choice(plain_values)
    inner = [drawn_json(draw, depth + 1) for _ in range(draw.randint(0, 3))]
    return inner if draw.random() < 0.5 else {drawn_text(draw): value for value in inner}


class Files(dict):
    """Files by name, which fit into a message of Hypothesis."""

    def __repr__(self):
        return f"files {sorted(self)}"


@pytest.fixture(scope="module")
def files():
    """The files of a committed run, cut to its first rows, by name."""
    cut = {name: "".join((RUN / name).read_text().splitlines(keepends=True)[:KEPT]) for name in (RECORDS, SAMPLES)}
    whole = cut | {ENVIRONMENT: (RUN / ENVIRONMENT).read_text()}
    return Files({name: text.encode() for name, text in whole.items()})


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
@given(SEEDS)
def test_changed_bytes_are_read_or_refused(files, seed):
    draw = random.Random(seed)
    name = draw.choice(sorted(files))
    content = bytearray(files[name])
    for _ in range(draw.randint(1, 3)):
        place, length = draw.randint(0, len(content)), draw.choice([0, 1, 2, 1000])
        content[place : place + length] = draw.randbytes(draw.randint(0, 4))
    check(files | {name: bytes(content)})


@fuzzed
@given(SEEDS)
def test_changed_cells_are_read_or_refused(files, seed):
    draw = random.Random(seed)
    name = draw.choice([RECORDS, SAMPLES])
    rows = list(csv.reader(files[name].decode().splitlines()))
    for _ in range(draw.randint(1, 4)):
        row = draw.choice(rows)
        row[draw.randrange(len(row))] = drawn_text(draw)
    rows += [rows[1]] * draw.choice([0, 0, 1])
    check(files | {name: written(rows)})


def written(rows):
    with tempfile.TemporaryFile("w+", newline="", encoding="utf-8", errors="replace") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
        file.seek(0)
        return file.read().encode()


@fuzzed
@given(SEEDS)
def test_changed_json_is_read_or_refused(files, seed):
    draw = random.Random(seed)
    whole = json.loads(files[ENVIRONMENT])
    for _ in range(draw.randint(1, 3)):
        place, part = whole, draw.choice(["plan", "doctor", "versions", "gpus", "cpu_model", "run_id", "workers"])
        while draw.random() < 0.5 and (inner := inside(place, part)):
            place, part = inner, draw.choice(sorted(inner) if isinstance(inner, dict) else range(len(inner)))
        if isinstance(place, dict) and draw.random() < 0.5:
            place.pop(part, None)
        else:
            place[part] = drawn_json(draw)
    check(files | {ENVIRONMENT: json.dumps(whole).encode()})


def inside(place, part):
    """Return what a part of a mapping or list holds, if that has parts; else None."""
    inner = place.get(part) if isinstance(place, dict) else place[part]
    return inner if isinstance(inner, dict | list) and inner else None


def link_in_a_circle(path):
    path.symlink_to(path.name)


#: What a name in a run's folder may be instead of a regular file, and words of the refusal.
OTHERS = {
    "FIFO": (os.mkfifo, "is no regular file"),
    "folder": (Path.mkdir, "is no regular file"),
    "circle": (link_in_a_circle, "cannot be read (Too many levels of symbolic links)"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
    "nothing": (lambda path: None, "cannot be read (No such file or directory)"),
}


@pytest.mark.parametrize("name", [RECORDS, SAMPLES, ENVIRONMENT])
@pytest.mark.parametrize("other", OTHERS)
def test_what_is_no_regular_file_is_refused_without_waiting(files, tmp_path, name, other):
    make, words = OTHERS[other]
    folder = put(tmp_path / "run", files)
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(StoreError, match=re.escape(f"{name} {words}")):
        store.environment(folder) if name == ENVIRONMENT else store.read(folder / name)


HEADER = (RUN / RECORDS).read_bytes().partition(b"\n")[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bytes(100) + b"\n", "is binary: line 1 holds a NUL"),
        (b"\xff\xfe\n", "is not UTF-8 in line 1: save it as UTF-8"),
        (b"a," * 10**6 + b"\n", "has over 65,536 bytes in line 1"),
        (HEADER + b"\n" + b"a" * 10**5 + b"\n", "has over 65,536 bytes in line 2"),
        (HEADER + b",more\n", "has other columns than this version writes"),
        (HEADER + b'\n"' + b"a\n" * 10**5, "line 65538: field larger than field limit"),
        (HEADER + b"\n1,2\n", "line 2: 2 values for 69 columns"),
        (b"", "has other columns than this version writes"),
    ],
)
def test_a_table_of_another_kind_is_refused(tmp_path, content, words):
    (tmp_path / RECORDS).write_bytes(content)
    with pytest.raises(StoreError, match=re.escape(words)):
        store.read(tmp_path / RECORDS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 10**6, "is nested too deeply"),
        ("{", "is no JSON"),
        ("[]", "holds no JSON object"),
        ('{"plan": [NaN]}', "NaN is no number of JSON"),
        ('{"cpu_model": ["x"]}', "has a wrong cpu_model: ['x'], expected a text"),
        ('{"versions": {"torch": 2.1}}', "has a wrong versions.torch: 2.1, expected a text"),
        ('{"gpus": ["a", null]}', "has a wrong gpus[1]: None, expected a text"),
        ('{"plan": {"budget_seconds": 1e999}}', "has a wrong plan.budget_seconds: inf, expected a finite number"),
        ('{"cpu_model": "' + "x" * 10**7 + '"}', "has 10,000,017 bytes, expected at most 4,194,304"),
    ],
)
def test_an_environment_of_another_kind_is_refused(tmp_path, text, words):
    (tmp_path / ENVIRONMENT).write_text(text)
    with pytest.raises(StoreError, match=re.escape(words)):
        store.environment(tmp_path)


def test_a_table_larger_than_its_limit_is_refused_unread(tmp_path):
    with (tmp_path / RECORDS).open("wb") as file:
        file.truncate(2**40)  # it takes no room on the disk
    with pytest.raises(StoreError, match=r"has 1,099,511,627,776 bytes, expected at most 16,777,216"):
        store.read(tmp_path / RECORDS)


def test_a_table_that_a_spreadsheet_saved_is_read(files, tmp_path):
    before = store.read(put(tmp_path / "run", files) / RECORDS)
    (tmp_path / "run" / RECORDS).write_bytes(b"\xef\xbb\xbf" + files[RECORDS].replace(b"\n", b"\r\n"))
    assert store.read(tmp_path / "run" / RECORDS).equals(before)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "great"}, "column status holds what is no Status: 'great'"),
        ({"median_seconds": "-1"}, "column median_seconds holds what is no float: '-1'"),
        ({"median_seconds": "inf"}, "column median_seconds holds what is no float: 'inf'"),
        ({"rank": "9" * 30}, "column rank holds what is no int"),
        ({"backend": "[/x]"}, "backend is '[/x]', expected letters"),
        ({"mode": "sideways"}, "mode is 'sideways', expected one of"),
        ({"device": "abacus"}, "column device holds what is no str: 'abacus'"),
        ({"tuning": "\x1b[2J"}, "column tuning holds what is no str"),
        ({}, "it repeats line 2"),
    ],
)
def test_a_row_that_the_harness_never_writes_is_refused(files, tmp_path, changes, words):
    rows = list(csv.reader(files[RECORDS].decode().splitlines()))
    wrong = dict(zip(rows[0], rows[1], strict=True)) | changes
    put(tmp_path / "run", files | {RECORDS: written([*rows[:2], list(wrong.values())])})
    with pytest.raises(StoreError, match=re.escape(f"line 3: {words}")):
        store.read(tmp_path / "run" / RECORDS)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *(("cases", value) for value in ([], None, [{}], [1], "x")),
        *(("threads", value) for value in (True, "2", 0, -1)),
        *(("budget_seconds", value) for value in (0, -1, "x", [])),
        *(("backends", value) for value in ("numpy-loop", [1], ["no-such"])),
        *(("devices", value) for value in ([], ["abacus"], ["cpu", "cpu"])),
        *(("options", value) for value in (None, {"freeze": 1}, {"no_such": True})),
        *(("wanted", value) for value in ([], {"a": "b"})),
        *(("run_id", value) for value in ("../x", 1)),
        ("no_such", 1),
        ("seed", -1),
    ],
)
def test_a_plan_that_no_command_line_makes_is_not_resumed(files, tmp_path, part, value):
    environment = json.loads(files[ENVIRONMENT])
    environment["plan"][part] = value
    put(tmp_path / "run", files | {ENVIRONMENT: json.dumps(environment).encode()})
    with pytest.raises(ONE_LINE):
        restore(tmp_path / "run")


@pytest.mark.parametrize("arguments", [("report", "run"), ("run", "--resume", "run")])
@pytest.mark.parametrize("name", [RECORDS, ENVIRONMENT])
def test_the_command_line_refuses_a_hostile_run_in_one_line(bilinear_bench, files, tmp_path, arguments, name):
    put(tmp_path / "run", files | {name: b"\x1b[2J\n" * 3})
    ended = bilinear_bench(*arguments)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith("error: ")
    assert "\x1b" not in ended.stderr


def test_locale_and_path_change_nothing_of_a_report(bilinear_bench, files, tmp_path):
    environment = json.loads(files[ENVIRONMENT]) | {"cpu_model": "Größe 2"}
    content = files | {ENVIRONMENT: json.dumps(environment, ensure_ascii=False).encode()}
    shown = []
    for name, locale in (("plain", "C.UTF-8"), ("with 'quotes'\nand lines", "C")):
        put(tmp_path / name, content)
        ended = bilinear_bench("report", name, LC_ALL=locale, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
        assert ended.returncode == 0, ended.stderr
        shown.append([line for line in ended.stdout.splitlines() if "median" in line or "numba-fused" in line])
    assert shown[0] == shown[1]
