from __future__ import annotations

import pytest
from report_rows import timed

from harness.output.caption import caption

VERSIONS = {"bilinear-bench": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6", "scipy": "1.17.1", "numba": "0.68.1"}
MACHINE = {"cpu_count": 2, "cpu_model": "AMD EPYC", "gpus": ["NVIDIA H200, 580, 1 MiB"], "versions": VERSIONS}


@pytest.fixture
def rows(frame):
    return frame(timed("torch-bilinear", 4e-3, 2, threads=2), timed("numba-fused", 1e-3, 1, threads=2))


def test_a_caption_has_machine_threads_dtype_versions_run_and_date(rows):
    assert caption(rows, MACHINE) == (
        "2 CPUs AMD EPYC; 2 threads; float32; torch 2.13.0+cpu, numpy 2.4.6, numba 0.68.1; bilinear-bench 0.1.0; "
        "run 20260102T030405Z-00ff, 2026-01-02."
    )


def test_a_caption_of_a_gpu_names_it(rows):
    assert caption(rows.assign(device="cuda"), MACHINE).startswith("NVIDIA H200; 2 threads; float32; torch 2.13.0")


def test_a_caption_leaves_out_what_the_run_does_not_know(rows):
    assert caption(rows.assign(threads=None), {}) == (
        "CPUs; float32; bilinear-bench; run 20260102T030405Z-00ff, 2026-01-02."
    )


def test_a_caption_keeps_control_characters_out(rows):
    assert "\x1b" not in caption(rows, MACHINE | {"cpu_model": "\x1b[31m"})
