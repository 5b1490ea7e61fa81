"""Integers as the exact inputs draw them, and cases to draw them for."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from harness.case import MODES, Case
from harness.correctness import exact

SMALL = st.builds(
    Case,
    st.integers(0, 20),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 20),
    bias=st.booleans(),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 2**32),
)
several = settings(max_examples=25, deadline=None)


def draw(case, generator):
    density = exact.plan(case)
    return {name: exact.integers(generator, name, shape, density) for name, shape in case.shapes().items()}
