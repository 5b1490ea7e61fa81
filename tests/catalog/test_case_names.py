"""Cases by sizes and by labels."""

from __future__ import annotations

import pytest

from harness.case import Case, CaseError
from harness.catalog.case_names import case_of


@pytest.mark.parametrize(
    ("text", "case"),
    [
        ("3x4x5x6:float64", Case(3, 4, 5, 6, dtype="float64")),
        ("SimGNN", Case(1, 32, 32, 16)),
        ("simgnn", Case(1, 32, 32, 16)),
        ("  Deep   graph INFOMAX ", Case(2708, 512, 512, 1)),
        ("deep graph", Case(2708, 512, 512, 1)),
        ("nn.Bilinear's example", Case(128, 20, 30, 40)),
        ("SimGNN:float64", Case(1, 32, 32, 16, dtype="float64")),
        ("TuckER:tf32:nobias", Case(128, 200, 200, 200, precision="tf32", bias=False)),
        ("MACE skip connection", Case(10000, 128, 89, 128, dtype="float64", bias=False)),
        ("MACE skip connection:float32", Case(10000, 128, 89, 128, bias=False)),
        ("AGCRN:nobias", Case(19648, 10, 130, 128, bias=False)),
        ("64 features", Case(512, 64, 64, 32)),
    ],
)
def test_a_case_is_named_by_sizes_or_by_a_label_with_options(text, case):
    assert case_of(text) == case


def test_of_several_suites_the_first_one_counts():
    assert case_of("TuckER").bias  # `quick` has it with a bias, `models` without


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SimGMN", "did you mean 'SimGNN'?"),
        ("FlagGems", "is the beginning of 5 labels, expected one: FlagGems 1, FlagGems 2"),
        ("operator sample, leading dimensions ()", "names 4 cases, expected the sizes of one: 1x3x4x5, "),
        ("SimGNN:int8", "unknown option 'int8'"),
        ("xyz", "expected BATCHxIN1xIN2xOUT, as in 128x20x30x40, or a label (`bilinear-bench list cases`"),
        ("", "expected BATCHxIN1xIN2xOUT"),
        ("$(reboot)", "case '$(reboot)' is unknown"),
        ("3x4", "does not read as BATCHxIN1xIN2xOUT"),
    ],
)
def test_a_text_that_names_no_case_is_refused_with_what_was_expected(text, words):
    with pytest.raises(CaseError) as error:
        case_of(text)
    assert words in str(error.value)
