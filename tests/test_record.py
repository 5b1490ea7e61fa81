from __future__ import annotations

import dataclasses
import math

import pytest

from harness.record import BAD, NAME_PATTERN, STATUS_MEANING, TIMES, Record, Sample, Status

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


def test_a_backward_time_may_be_negative_because_it_is_a_difference_but_is_finite():
    assert Record(**KEY, status=Status.TIMED, median_seconds=1.0, backward_seconds=-0.1).backward_seconds == -0.1
    with pytest.raises(ValueError, match="backward_seconds is nan"):
        Record(**KEY, status=Status.TIMED, median_seconds=1.0, backward_seconds=math.nan)


@pytest.mark.parametrize("field", ["run_id", "suite", "case", "backend"])
@pytest.mark.parametrize("name", ["", "=1+1", "../up", "a b", "a,b", "a\nb", "a/b", "ä", "x" * 129])
def test_a_malformed_name_cannot_be_built(field, name):
    assert not NAME_PATTERN.fullmatch(name)
    with pytest.raises(ValueError, match=f"{field} is"):
        Record(**KEY | {field: name}, status=Status.FAILED, reason="why")


def test_every_column_and_every_status_has_its_line_of_the_dictionary():
    for field in (*dataclasses.fields(Record), *dataclasses.fields(Sample)):
        assert field.metadata["meaning"], field.name
    assert set(STATUS_MEANING) == set(Status)
    fine = {Status.TIMED, Status.CHECKED, Status.UNSUPPORTED, Status.UNAVAILABLE, Status.TOO_SLOW}
    assert set(Status) - BAD == fine
