"""Backends by name, pattern and list."""

from __future__ import annotations

import pytest

from harness.catalog.registry import RegistryError, entries
from harness.catalog.selection import choose

BASELINE = "torch-bilinear"


def chosen(*texts, skip=()):
    return list(choose(texts, skip, always=BASELINE).entries)


def test_without_names_all_backends_are_taken():
    selection = choose((), always=BASELINE)
    assert set(selection.entries) == set(entries())
    assert selection.wanted == {}


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["numpy-loop,numpy-einsum"], ["numpy-loop", "numpy-einsum"]),
        (["numpy-loop, numpy-einsum"], ["numpy-loop", "numpy-einsum"]),
        (["numpy-*"], ["numpy-contract", "numpy-einsum", "numpy-loop"]),
        (["numpy-loop", "numpy-*"], ["numpy-loop", "numpy-contract", "numpy-einsum"]),
        (["numpy-loop,numpy-loop#2"], ["numpy-loop", "numpy-loop#2"]),
        (["num[bp]a-loop"], ["numba-loop"]),
        (["all"], [name for name in entries() if name != BASELINE]),
        (["numpy-loop#2,all"], ["numpy-loop#2", *(name for name in entries() if name != BASELINE)]),
    ],
)
def test_names_patterns_and_lists_are_taken_with_the_baseline(texts, names):
    assert chosen(*texts) == [BASELINE, *names]


@pytest.mark.parametrize(
    ("skip", "names"),
    [
        (["numpy-loop"], ["numpy-contract", "numpy-einsum"]),
        (["*-loop,*-contract"], ["numpy-einsum"]),
        (["torch-*"], ["numpy-contract", "numpy-einsum", "numpy-loop"]),
    ],
)
def test_skip_leaves_out_names_patterns_and_lists(skip, names):
    assert chosen("numpy-*", skip=skip) == [BASELINE, *names]


def test_skip_leaves_out_some_of_all():
    assert chosen("all", skip=["*-*p"]) == [
        BASELINE,
        *(name for name in entries() if name[-1] != "p" and name != BASELINE),
    ]


def test_usual_backends_are_taken_and_the_others_known_as_left_out():
    def usual(known):
        return [name for name in known if name.startswith("numpy-")]

    selection = choose((), ["numpy-loop", "jax-*"], always=BASELINE, usual=usual)
    assert list(selection.entries) == [BASELINE, "numpy-contract", "numpy-einsum"]
    others = {name for name in entries() if not name.startswith(("numpy-", "jax-")) and name != BASELINE}
    assert set(selection.left_out) == others
    given = choose(["numpy-loop"], always=BASELINE, usual=usual)
    assert (list(given.entries), given.left_out) == ([BASELINE, "numpy-loop"], {})


def test_skip_leaves_out_every_entry_of_a_backend():
    assert chosen("numpy-loop,numpy-loop#2,numpy-einsum", skip=["numpy-loop"]) == [BASELINE, "numpy-einsum"]
    assert chosen("numpy-loop,numpy-loop#2", skip=["numpy-loop#2"]) == [BASELINE, "numpy-loop"]


def test_each_text_is_wanted_with_what_it_stands_for():
    wanted = choose(["numpy-*", "numba-loop"], ["numpy-loop"], always=BASELINE).wanted
    assert wanted == {"numpy-*": ("numpy-contract", "numpy-einsum"), "numba-loop": ("numba-loop",)}


@pytest.mark.parametrize(
    ("texts", "skip", "words"),
    [
        (["numba-fusd"], [], "backend 'numba-fusd' is unknown: did you mean 'numba-fused'"),
        (["xyz-*"], [], "no backend matches 'xyz-*', expected a pattern of some of: "),
        (["numpy-loop,"], [], "backend '' is unknown, expected one of: "),
        (["$(reboot)"], [], "backend '$(reboot)' is unknown"),
        (["numpy-loop,numpy-loop"], [], "given twice"),
        ([], ["numpy-lop"], "backend 'numpy-lop' is unknown: did you mean 'numpy-loop'"),
        ([], ["xyz*"], "no backend matches 'xyz*'"),
        ([], ["all"], "backend 'all' is unknown"),
        ([], [BASELINE], "it is the baseline of every ratio"),
        (["numpy-loop"], ["numpy-*"], "no backend is left"),
        ([], ["*"], "no backend is left"),
    ],
)
def test_what_names_no_backend_is_refused(texts, skip, words):
    with pytest.raises(RegistryError) as error:
        choose(texts, skip, always=BASELINE)
    assert words in str(error.value)


def test_without_a_baseline_the_given_names_alone_are_taken():
    assert list(choose(["numpy-loop"], always=None).entries) == ["numpy-loop"]
    assert BASELINE not in choose(["torch-*"], [BASELINE], always=None).entries
