"""The citation and the paragraph of method say what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from harness.catalog.suites import Suite
from harness.run import sample
from harness.timing import clock, estimates, intervals, roofline, stopping

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = (ROOT / "CITATION.cff").read_text()
DEFAULT = Suite("any", "", ())


def method() -> str:
    """Return the paragraph of method as one line."""
    page = (ROOT / "docs" / "citing.md").read_text()
    (fence,) = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return " ".join(fence.split())


def value(key: str) -> str:
    """Return the value of a top-level key of CITATION.cff."""
    (found,) = re.findall(rf"^{key}: (.*)$", CITATION, re.MULTILINE)
    return found.strip('"')


@pytest.mark.parametrize("key", ["version", "license"])
def test_the_citation_has_the_projects(key):
    assert value(key) == PROJECT[key]


def test_the_citation_has_title_authors_and_no_invented_address():
    assert (value("cff-version"), value("type"), value("title")) == ("1.2.0", "software", PROJECT["name"])
    assert re.findall(r'^  - name: "(.*)"$', CITATION, re.MULTILINE) == [one["name"] for one in PROJECT["authors"]]
    assert value("message")
    assert not re.search("doi|url|http", CITATION, re.IGNORECASE)


@pytest.mark.parametrize(
    "said",
    [
        f"{PROJECT['name']} {PROJECT['version']}",
        f"The calls of a sample take at least {1000 * clock.SAMPLE_SECONDS:g} ms together",
        f"Each process is warmed up for {sample.WARM_UP_SECONDS:g} s first",
        f"a call over {stopping.SLOW_SECONDS:g} s takes part in at most {stopping.SLOW_BLOCKS} blocks",
        f"the exact {100 * intervals.LEVEL:g} % interval of Wilcoxon's signed ranks",
        f"with {intervals.FEWEST_VALUES} to {estimates.LEAST_VALUES - 1} values the interval is Student's",
        f"From {estimates.LEAST_VALUES} values on, the median",
        f"up to [{DEFAULT.processes}] fresh processes",
        f"the equivalence band of [{100 * DEFAULT.band:g} %]",
        f"at most [{100 * DEFAULT.target:g} %] or after [{DEFAULT.budget_seconds:g}] s of measuring",
        f"with {100 * intervals.LEVEL:g} % order-statistic intervals",
    ],
)
def test_a_number_of_the_method_is_the_codes(said):
    assert said in method()


def test_the_method_counts_the_input_sets():
    assert roofline.INPUT_SETS == 2
    assert "two sets of inputs in turn" in method()
