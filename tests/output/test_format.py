from __future__ import annotations

import math
import os
import subprocess

import pandas as pd
import pytest

from harness.output import format as form


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (1.2345, 1.20, 1.28, "1.23 s"),
        (1.2345, 1.2344, 1.2346, "1.234 s"),  # four digits are the most
        (1.2345, 0.5, 2.5, "1.2 s"),  # and two the fewest: the interval says the rest
        (12.34, 12.1, 12.5, "12.3 s"),
        (0.0005049, 0.000480, 0.000530, "500 us"),
        (0.0005049, 0.0005040, 0.0005058, "504.9 us"),
        (9.996e-3, 9.98e-3, 10.01e-3, "10.0 ms"),
        (0.9996, 0.8, 1.2, "1.0 s"),
        (0.9994e-3, 0.98e-3, 1.02e-3, "1.0 ms"),
        (0.9994e-3, 0.9993e-3, 0.9995e-3, "999.4 us"),
        (12345.6, 12000.0, 13000.0, "12,300 s"),
        (1.23e-8, 1.22e-8, 1.24e-8, "0.0123 us"),
        (1.864e-3, pd.NA, pd.NA, "1.9 ms"),  # no interval: two digits
        (123.4, None, None, "120 s"),
        (pd.NA, pd.NA, pd.NA, ""),
        (None, None, None, ""),
        (float("nan"), 1.0, 2.0, ""),
    ],
)
def test_a_time_has_the_digits_that_its_interval_supports(value, low, high, text):
    assert form.seconds(value, low, high) == text


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (1.0, 1.0, 1.0, "1x"),  # the baseline, which is as fast as itself
        (1.864, 1.80, 1.92, "1.86x"),
        (41.93, 38.0, 45.0, "42x"),
        (0.1234, 0.1, 0.15, "0.12x"),
        (57.0, 7.0, 460.0, "57x"),
        (250.4, 249.0, 252.0, "250x"),
        (1.864, pd.NA, pd.NA, "1.9x"),
        (pd.NA, pd.NA, pd.NA, ""),
    ],
)
def test_a_ratio_has_the_digits_that_its_interval_supports(value, low, high, text):
    assert form.ratio(value, low, high) == text


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (184e-6, 130e-6, 240e-6, "30 %"),
        (1.0, 0.9979, 1.0021, "0.21 %"),
        (1.0, 0.5, 2.5, "100 %"),
        (1.0, 0.4, 2.5, ">100 %"),
        (1.0, pd.NA, pd.NA, ""),
        (pd.NA, 1.0, 2.0, ""),
    ],
)
def test_an_interval_is_a_share_of_its_estimate(value, low, high, text):
    assert form.plus_minus(value, low, high) == text


@pytest.mark.parametrize(
    ("low", "high", "wide"),
    [(1.0, 10.0, False), (1.0, 10.1, True), (1e-6, 7e8, True), (pd.NA, 2.0, True), (None, None, True)],
)
def test_an_interval_of_over_ten_fold_is_too_wide_for_a_ratio(low, high, wide):
    assert form.too_wide(low, high) == wide


def test_both_ends_of_an_interval_have_at_least_two_digits():
    assert form.interval(3.9, 4.1) == "3.90x .. 4.10x"
    assert form.interval(0.07, 3.0) == "0.070x .. 3.0x"
    assert form.interval(pd.NA, 3.0) == form.interval(3.0, None) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(pd.NA, ""), (0, "0"), (1023, "0"), (1024, "1.0 KiB"), (300 * 1024, "300 KiB"), (2.8e9, "2.6 GiB")],
)
def test_memory_has_two_digits_and_below_a_kibibyte_it_is_zero(value, text):
    assert form.size(value) == text


def test_a_share_has_two_digits_and_a_missing_one_is_empty():
    assert [form.percent(share) for share in (0.625, 0.00049, 1.02, pd.NA)] == ["62 %", "0.049 %", "100 %", ""]


def test_a_number_has_its_format_and_a_missing_one_is_empty():
    assert [form.number(value, ".1e") for value in (3.84e-8, None)] == ["3.8e-08", ""]


def test_a_text_has_no_sign_that_moves_the_cursor():
    assert form.text("\x1b]0;t\x07\x9b31m\rgone\u202e") == " ]0;t  31m gone "
    assert form.text(None) == form.text(pd.NA) == ""


@pytest.mark.parametrize("value", [3e-9, 9.96e-7, 4.5e-6, 9.996e-4, 1.21e-3, 0.9996, 7.0, 1234.5])
def test_a_printed_time_reads_back_as_what_is_printed(value):
    printed = form.printed_seconds(value)
    assert form.seconds(printed) == form.seconds(value)
    assert printed == pytest.approx(value, rel=0.05)


def test_a_missing_time_has_no_printed_time():
    assert math.isnan(form.printed_seconds(None))


@pytest.mark.parametrize(
    "name", ["plain", "a b", "it's", 'q"', "a[b]", "x\ny", "caf\udce9", "-dash", "$(id)", "a\tb'c"]
)
def test_the_name_of_a_run_is_one_line_that_a_shell_reads_back(name):
    shown = form.argument(name)
    read = subprocess.run(["bash", "-c", f"printf %s {shown}"], capture_output=True, check=True).stdout
    assert read == os.fsencode(name if name != "-dash" else "./-dash")
    assert shown.isprintable()


def test_a_plain_name_is_shown_as_it_is():
    assert form.argument("results/20260102T030405Z-abcd") == "results/20260102T030405Z-abcd"
