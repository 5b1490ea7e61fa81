"""Records: an illegal row cannot be built, and a legal one comes back from its file."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.case import DTYPES, MODES
from harness.output import cells, store
from harness.output.dictionary import render
from harness.record import (
    BAD,
    FLAG_MEANING,
    NAME_PATTERN,
    RELATION_MEANING,
    STATUS_MEANING,
    TIMES,
    Flag,
    Record,
    Relation,
    Sample,
    Status,
)

KEY = {
    **{"run_id": "20260102T030405Z-00ff", "suite": "quick", "case": "3x2x2x2:float64", "backend": "numpy-einsum#2"},
    **{"batch": 3, "in1_features": 2, "in2_features": 2, "out_features": 2, "dtype": "float64", "precision": "ieee"},
    **{"bias": True, "mode": "forward", "seed": 0, "device": "cpu"},
}
UNTIMED = [status for status in Status if status is not Status.TIMED]


def test_a_timed_row_with_its_median_and_without_a_reason_is_legal():
    row = Record(**KEY, status=Status.TIMED, median_seconds=1e-3, baseline_median_seconds=2e-3, speedup=2.0)
    assert row.cell == ("3x2x2x2:float64", "forward", "numpy-einsum#2", "cpu")


@pytest.mark.parametrize("status", UNTIMED)
def test_a_row_that_was_not_timed_is_legal_with_a_reason_only(status):
    assert Record(**KEY, status=status, reason="why", first_call_seconds=3.0).reason == "why"
    for reason in (None, ""):
        with pytest.raises(ValueError, match="has a reason"):
            Record(**KEY, status=status, reason=reason)


@pytest.mark.parametrize("field", TIMES)
def test_a_row_that_was_not_timed_has_no_times(field):
    with pytest.raises(ValueError, match=f"{field} is given for a row that is failed"):
        Record(**KEY, status=Status.FAILED, reason="why", **{field: 1.0})


def test_a_timed_row_without_a_median_or_with_a_reason_cannot_be_built():
    with pytest.raises(ValueError, match="a median and no reason"):
        Record(**KEY, status=Status.TIMED)
    with pytest.raises(ValueError, match="a median and no reason"):
        Record(**KEY, status=Status.TIMED, median_seconds=1.0, reason="why")


@pytest.mark.parametrize("missing", ["median_seconds", "baseline_median_seconds"])
def test_a_speedup_without_both_absolute_times_cannot_be_built(missing):
    times = {"median_seconds": 1.0, "baseline_median_seconds": 2.0, "speedup": 2.0}
    with pytest.raises(ValueError, match=r"both absolute times|a median"):
        Record(**KEY, status=Status.TIMED, **times | {missing: None})


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_time_is_positive_and_finite(value):
    with pytest.raises(ValueError, match="median_seconds is"):
        Record(**KEY, status=Status.TIMED, median_seconds=value)


def test_a_backward_time_may_be_negative_but_is_finite():
    assert Record(**KEY, status=Status.TIMED, median_seconds=1.0, backward_seconds=-0.1).backward_seconds == -0.1
    with pytest.raises(ValueError, match="backward_seconds is nan"):
        Record(**KEY, status=Status.TIMED, median_seconds=1.0, backward_seconds=math.nan)


@pytest.mark.parametrize("field", ["run_id", "suite", "case", "backend"])
@pytest.mark.parametrize("name", ["", "=1+1", "../up", "a b", "a,b", "a\nb", "a/b", "ä", "x" * 129])
def test_a_malformed_name_cannot_be_built(field, name):
    assert not NAME_PATTERN.fullmatch(name)
    with pytest.raises(ValueError, match=f"{field} is"):
        Record(**KEY | {field: name}, status=Status.FAILED, reason="why")


def test_every_column_has_its_line_of_the_dictionary():
    for field in (*dataclasses.fields(Record), *dataclasses.fields(Sample)):
        assert field.metadata["meaning"], field.name


@pytest.mark.parametrize(
    ("words", "meanings"), [(Status, STATUS_MEANING), (Relation, RELATION_MEANING), (Flag, FLAG_MEANING)]
)
def test_every_status_relation_and_flag_has_its_line_of_the_dictionary(words, meanings):
    assert list(meanings) == list(words)
    for word in words:
        assert f"| `{word}` | {meanings[word]} |" in render().splitlines()


@pytest.mark.parametrize("flags", ["fast", "few_blocks;", "few_blocks;fast(1)", "few_blocks(", "Few_blocks"])
def test_an_unknown_or_malformed_flag_cannot_be_built(flags):
    with pytest.raises(ValueError, match="is unknown, expected one of: no_steady_state"):
        Record(**KEY, status=Status.FAILED, reason="why", flags=flags)


def test_a_flag_may_have_a_detail():
    flags = f"{Flag.FEW_BLOCKS};{Flag.OVERSUBSCRIBED.detailed(3.4)}"
    assert Record(**KEY, status=Status.FAILED, reason="why", flags=flags).flags == "few_blocks;oversubscribed(3.4)"


def test_the_statuses_of_exit_code_1_are_the_bad_ones():
    fine = {Status.TIMED, Status.CHECKED, Status.UNSUPPORTED, Status.UNAVAILABLE, Status.TOO_SLOW}
    assert set(Status) - BAD == fine


#: A text that reaches the file as it is: printable, and no formula for a spreadsheet.
SIGNS = st.one_of(st.characters(exclude_categories=("C", "Z")), st.just(" "))
PLAIN = st.builds("{}{}".format, st.sampled_from("aÄ1\"',;"), st.text(SIGNS, max_size=30))
POSITIVE = st.floats(min_value=1e-12, max_value=1e18)
VALUES = {bool: st.booleans(), int: st.integers(0, 2**40), float: POSITIVE, str: PLAIN}
NAMES = st.from_regex(NAME_PATTERN, fullmatch=True)
#: Columns with values of their own; the others take any value of their type.
SPECIAL = dict.fromkeys(("run_id", "suite", "case", "backend"), NAMES) | {
    "flags": st.lists(
        st.one_of(
            st.sampled_from(list(Flag)).map(str),
            st.tuples(st.sampled_from(list(Flag)), st.floats(1, 9)).map(lambda pair: pair[0].detailed(pair[1])),
        ),
        min_size=1,
        unique=True,
    ).map(";".join),
    "backward_seconds": st.floats(-1e18, 1e18),
    **dict.fromkeys(("in1_features", "in2_features"), st.integers(1, 2**40)),
    **{"dtype": st.sampled_from(list(DTYPES)), "precision": st.just("ieee"), "mode": st.sampled_from(MODES)},
    "device": st.sampled_from(["cpu", "cuda"]),
    **dict.fromkeys(("comparison", "comparison_undisturbed"), st.sampled_from(list(Relation)).map(str)),
}


@st.composite
def records(draw):
    """Draw any legal record."""
    status = draw(st.sampled_from(list(Status)))
    types = cells.column_types(Record)
    optional = {field.name for field in dataclasses.fields(Record) if field.default is None} - {"reason"}
    optional -= set() if status is Status.TIMED else set(TIMES)
    given_columns = draw(st.sets(st.sampled_from(sorted(optional))))
    needed = {"median_seconds"} if status is Status.TIMED else {"reason"}
    if "speedup" in given_columns:
        needed.add("baseline_median_seconds")
    required = set(types) - {field.name for field in dataclasses.fields(Record) if field.default is None} - {"status"}
    names = sorted(required | given_columns | needed)
    return Record(
        status=status, **{name: draw(SPECIAL[name] if name in SPECIAL else VALUES[types[name]]) for name in names}
    )


@settings(max_examples=40, deadline=None)
@given(records())
def test_any_legal_record_comes_back_from_the_file_as_it_was(record):
    with tempfile.TemporaryDirectory() as folder:
        with store.Store.create(Path(folder) / "run", {}) as opened:
            opened.add_record(record)
        row = store.read(Path(folder) / "run" / store.RECORDS).iloc[0].to_dict()
    assert {name: None if value is pd.NA else value for name, value in row.items()} == dataclasses.asdict(record)
