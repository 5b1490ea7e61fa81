from __future__ import annotations

import itertools

import numpy as np
import pytest

from harness.catalog.registry import DISTRIBUTION, entries
from harness.output.palette import COLOURS, GREY, looks

#: Linear RGB as people without one kind of cone see it (Machado, Oliveira and Fernandes, 2009, severity 1.0).
SIGHT = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
#: Linear RGB to XYZ over the white point D65.
XYZ = np.array([[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8728]])
#: A difference in CIELAB that is seen at a glance; about 2 is the least that is seen at all.
APART = 10.0
OURS = [name for name, entry in entries().items() if entry.distribution.startswith(f"{DISTRIBUTION} ")]


def linear(colour):
    share = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    x, y, z = np.cbrt(np.maximum(XYZ @ rgb, 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def apart(one, other, sight):
    return float(np.linalg.norm(lab(np.clip(sight @ linear(one), 0, 1)) - lab(np.clip(sight @ linear(other), 0, 1))))


def test_the_measure_of_colours_knows_black_white_and_likeness():
    assert apart("#000000", "#ffffff", np.eye(3)) == pytest.approx(100, abs=9)
    assert apart("#777777", "#787878", np.eye(3)) < 1


@pytest.mark.parametrize("sight", SIGHT)
def test_the_colours_are_told_apart_by_the_colour_blind(sight):
    for one, other in itertools.combinations(COLOURS, 2):
        assert apart(one, other, np.asarray(SIGHT[sight])) > APART, (one, other)


def test_the_colours_can_be_seen_on_white():
    for colour in COLOURS:
        assert 1.05 / (float(XYZ[1] @ linear(colour)) + 0.05) > 2, colour  # contrast as WCAG 2 defines it


def test_backends_of_one_colour_differ_in_mark_and_dash():
    for (_, one), (_, other) in itertools.combinations(looks([*OURS, "mine", "yours", "numba-fused#2"]).items(), 2):
        assert one.colour != other.colour or (one.mark != other.mark and one.dash != other.dash)


def test_no_backend_is_grey():
    found = {look.colour for look in looks([*OURS, *(f"other-{number}" for number in range(9))]).values()}
    assert found <= set(COLOURS)
    assert GREY not in COLOURS


def test_a_backend_looks_the_same_in_every_figure():
    whole = looks([*OURS, "mine"])
    for name in whole:
        assert looks([name]) == {name: whole[name]}


def test_other_backends_have_different_looks_while_there_are_free_ones():
    names = [f"other-{number}" for number in range(18)]
    assert len(set(looks(names).values())) == 18
    assert looks(reversed(names)) == looks(names)
    assert len(looks([*names, "one-more"])) == 19
