from __future__ import annotations

import pytest

from harness.case import CaseError
from harness.output.case_labels import find, names_of

TUCKER, PLAIN = "128x200x200x200", "6x5x4x3"
LABELS = dict.fromkeys((TUCKER, f"{TUCKER}:nobias", f"{TUCKER}:bfloat16"), "TuckER") | {"1x32x32x16": "SimGNN"}


def test_a_case_is_called_by_its_label_and_its_options():
    names = names_of([TUCKER, f"{TUCKER}:bfloat16", PLAIN, f"{PLAIN}:nobias"], LABELS)
    assert list(names.values()) == ["TuckER", "TuckER:bfloat16", PLAIN, f"{PLAIN}:nobias"]
    assert names_of([f"{TUCKER}:bfloat16"], LABELS, "bfloat16") == {f"{TUCKER}:bfloat16": "TuckER"}


def test_a_missing_bias_is_named_only_next_to_the_same_layer_with_one():
    assert names_of([f"{TUCKER}:nobias"], LABELS) == {f"{TUCKER}:nobias": "TuckER"}
    assert list(names_of([TUCKER, f"{TUCKER}:nobias"], LABELS).values()) == ["TuckER", "TuckER:nobias"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("TuckER", [TUCKER, f"{TUCKER}:nobias"]),
        ("tucker", [TUCKER, f"{TUCKER}:nobias"]),
        ("tuck", [TUCKER, f"{TUCKER}:nobias"]),
        ("TuckER:nobias", [f"{TUCKER}:nobias"]),
        (TUCKER, [TUCKER, f"{TUCKER}:nobias"]),
        (f"{TUCKER}:nobias", [f"{TUCKER}:nobias"]),
        (PLAIN, [PLAIN]),
    ],
)
def test_a_case_of_a_run_is_found_by_label_or_sizes(name, found):
    assert find(name, [TUCKER, f"{TUCKER}:nobias", PLAIN], LABELS) == found


def test_a_case_that_is_not_in_the_run_names_those_that_are():
    with pytest.raises(CaseError, match="case 'SimGNN' is not in this run, expected one of: TuckER, 6x5x4x3"):
        find("SimGNN", [TUCKER, PLAIN], LABELS)
