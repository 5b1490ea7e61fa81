"""The GPUs that nvidia-smi lists, with a script in its place."""

from __future__ import annotations

import pytest

from harness.machine import nvidia_smi
from harness.machine.nvidia_smi import GpuState

STATES = """\
GPU-aa, 1980, 1980, 0x0000000000000000, Enabled, 0, NVIDIA H100 80GB HBM3
GPU-bb, 345, 1980, 0x0000000000000021, Disabled, 17, NVIDIA H100, a strange name
GPU-cc, [N/A], [N/A], [N/A], [N/A], [N/A], NVIDIA T4
"""


def test_states_are_parsed():
    first, second, third = nvidia_smi.parse_states(STATES, "GPU-aa, 7\nGPU-aa, 8\nGPU-bb, 9\n", frozenset({8}))
    assert first == GpuState("NVIDIA H100 80GB HBM3", 1980, 1980, 0, True, 0, 1)
    assert second == GpuState("NVIDIA H100, a strange name", 345, 1980, 0x21, False, 17, 1)
    assert third == GpuState("NVIDIA T4", None, None, None, None, None, 0)


@pytest.mark.parametrize("text", ["", "\n", "No devices were found\n"])
def test_lines_of_another_form_are_left_out(text):
    assert nvidia_smi.parse_states(text, text) == ()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (None, ("", "")),
        ("exit 9", ("", "")),
        ('case "$1" in *event*|*compute*) echo "$1";; *) exit 2;; esac', ("event_reasons", "gpu_uuid,pid")),
        # An older driver knows only the older name of the column.
        ('case "$1" in *throttle*|*compute*) echo "$1";; *) exit 2;; esac', ("throttle_reasons", "gpu_uuid,pid")),
    ],
)
def test_reasons_have_the_name_that_the_driver_knows(tmp_path, monkeypatch, script, expected):
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    texts = nvidia_smi.query_states()
    assert all(word in text for word, text in zip(expected, texts, strict=True))
    assert bool(texts[0]) == bool(expected[0])
