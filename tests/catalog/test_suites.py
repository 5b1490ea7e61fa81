"""The suites: sources, no repetition, and the cases that they promise."""

from __future__ import annotations

import pytest

from harness.case import Case
from harness.catalog.suites import SUITES, SuiteError, labels, suite
from harness.timing import roofline

ENTRIES = [entry for listed in SUITES.values() for entry in listed.entries]


def test_every_case_has_a_label_and_a_source():
    assert all(entry.label and entry.source for entry in ENTRIES)


@pytest.mark.parametrize("name", SUITES)
def test_no_suite_holds_a_case_twice(name):
    names = [entry.case.name for entry in suite(name).entries]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if not entry.case.empty], ids=lambda entry: entry.label)
def test_every_case_with_work_is_parsed_from_its_name(entry):
    assert Case.parse(entry.case.name) == entry.case


def test_quick_holds_six_shapes_that_differ():
    assert [entry.case.name for entry in suite("quick").entries] == [
        "128x20x30x40",
        "1x32x32x16",
        "300x64x64x1",
        "1024x128x128x45",
        "2708x512x512x1",
        "128x200x200x200",
    ]


def test_only_upstream_holds_cases_of_size_zero():
    assert [name for name, listed in SUITES.items() if any(entry.case.empty for entry in listed.entries)] == [
        "upstream"
    ]


def test_an_unknown_suite_is_refused_with_the_known_ones():
    with pytest.raises(SuiteError, match=r"suite 'fast' is unknown, expected one of: seed, quick, models"):
        suite("fast")
    with pytest.raises(SuiteError, match="suite 'quack' is unknown: did you mean 'quick'"):
        suite("quack")


def test_the_cases_for_a_gpu_are_float32_and_fill_it():
    cases = [entry.case for entry in suite("gpu").entries]
    assert {case.dtype for case in cases} == {"float32"}
    assert len(cases) == 18
    assert min(roofline.flop(case) for case in cases) > 1e8
    assert sum(roofline.flop(case) > 1e10 for case in cases) >= 6


def test_labels_name_a_case_in_every_arithmetic():
    assert {labels()[f"2708x512x512x1{arithmetic}"] for arithmetic in ("", ":float64", ":tf32", ":bfloat16")} == {
        "Deep Graph Infomax"
    }


def test_a_label_goes_with_the_sizes_whatever_the_bias():
    assert labels()["2708x512x512x1:float64:nobias"] == "Deep Graph Infomax"
    assert labels()["8x2x3x4"] == "module"
    assert labels()["8x2x3x4:nobias"] == "module without bias"


def test_the_labels_of_a_suite_come_first_for_its_own_cases():
    case = "512x64x64x32"
    assert labels("batch-sweep")[case] == "batch 512 at 64 features"
    assert labels("feature-sweep")[case] == "64 features"
    assert labels("batch-sweep")["1x32x32x16"] == "SimGNN"
