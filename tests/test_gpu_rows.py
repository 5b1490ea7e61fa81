"""On a GPU every backend for it passes the gate, and a row has the device's times."""

from __future__ import annotations

import csv

import pytest
from command_line import BRIEF

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

ARITHMETIC = [(), ("--precision", "tf32"), ("--dtype", "float16"), ("--dtype", "bfloat16"), ("--dtype", "float64")]


@pytest.mark.parametrize("options", ARITHMETIC, ids=lambda options: " ".join(options) or "float32")
def test_every_backend_on_a_gpu_is_right_or_states_what_it_lacks(bilinear_bench, options):
    ended = bilinear_bench("check", "--device", "cuda", "--suite", "seed", *options, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "triton-fused    right" in ended.stdout


def test_row_on_a_gpu_has_the_times_and_the_roofline_of_the_device(bilinear_bench, tmp_path):
    # BRIEF begins with --no-roofline, which is left out.
    ended = bilinear_bench(
        "run", "--device", "cuda", "--case", "512x128x128x256", "--out", "run", *BRIEF[1:], timeout=600
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with (tmp_path / "run" / "records.csv").open() as file:
        rows = {(row["backend"], row["mode"]): row for row in csv.DictReader(file)}
    for name in ("torch-bilinear", "triton-fused"):
        row = rows[name, "forward"]
        assert row["status"] == "timed", row["reason"]
        assert 0 < float(row["device_seconds"]) <= 1.1 * float(row["median_seconds"])
        assert float(row["roofline_fraction"]) > 0
        assert row["peak_memory_bytes"]
