"""Suggestions for misspelt names."""

from __future__ import annotations

import pytest

from harness.catalog.suggest import did_you_mean, suggestion

KNOWN = ("numpy-loop", "numba-loop", "torch-fused", "Deep Graph Infomax")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("numpy-lop", "did you mean 'numpy-loop' or 'numba-loop'?"),
        ("TORCH-FUSED", "did you mean 'torch-fused'?"),
        ("deep graph infomx", "did you mean 'Deep Graph Infomax'?"),
        ("xyz", ""),
        ("", ""),
    ],
)
def test_close_names_are_suggested_in_any_case_of_letters(given, meant):
    assert did_you_mean(given, KNOWN) == meant


def test_all_names_are_listed_where_none_is_close():
    assert suggestion("xyz", KNOWN).startswith(", expected one of: numpy-loop, numba-loop, ")
    assert suggestion("numpy-loop2", KNOWN[:1]) == ": did you mean 'numpy-loop'?"
