from __future__ import annotations

import pytest

from harness.output.layout import plain
from harness.output.remarks import short_reason
from harness.output.welcome import COMMANDS, welcome


def test_the_bare_command_shows_the_machine_the_backends_and_four_commands():
    absent = {
        "cupy-einsum": "cupy-cuda13x is not installed: pip install 'cupy-cuda13x>=13'",
        "flaggems": "flag-gems is not installed: pip install flag-gems",
        "triton-fused": "needs CUDA",
    }
    lines = plain(welcome("0.2", "2 CPUs AMD EPYC, no GPU", 13, absent, {}, 80)).splitlines()
    assert " ".join(lines[0:2]) == (
        "bilinear-bench 0.2: which way of computing torch.nn.Bilinear is right, and   fastest, here?"
    )
    assert " ".join(" ".join(lines[2:5]).split()) == (
        "2 CPUs AMD EPYC, no GPU. 13 backends ready; not here: cupy-einsum, flaggems (not installed), "
        "triton-fused (needs CUDA)"
    )
    assert [line.strip().partition("  ")[0] for line in lines[5:]] == list(COMMANDS)
    assert max(len(line) for line in lines) <= 80


def test_nothing_is_called_absent_where_everything_is_here():
    text = plain(welcome("0.2", "1 CPU", 1, {}, {}, 80))
    assert "1 backend ready\n" in text
    assert "not here" not in text


def test_an_entry_point_that_leads_nowhere_is_called_broken():
    text = plain(welcome("0.2", "1 CPU", 1, {}, {"mine": "entry point leads to no module 'x'"}, 80))
    assert "not here: mine (broken: see list)" in text


@pytest.mark.parametrize(
    ("reason", "short"),
    [
        ("cupy-cuda13x is not installed: pip install 'cupy-cuda13x>=13'", "not installed"),
        ("triton-fused runs on cuda", "needs CUDA"),
        ("torch 1.0 is installed, expected >=2.4", "torch 1.0 is installed, expected >=2.4"),
    ],
)
def test_a_reason_is_said_in_few_words(reason, short):
    assert short_reason(reason) == short
