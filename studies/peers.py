"""How far off is the ratio of a thing to itself? Ours beside pytest-benchmark, torch.utils.benchmark and pyperf.

    python studies/peers.py results/reference/MACHINE/peers.csv [RUNS] [SECONDS]

Each tool compares nn.Bilinear with nn.Bilinear (the seed case, forward, all CPUs) as its documentation says, and has
the same wall time for it, imports included: about WALL_SECONDS. The tools take turns, so that all see the same machine.
The ratio is that of the two figures that the tool puts first: medians, for pyperf means, for ours the estimate of the
ratio. Goes on with a table that is there; no run is begun after SECONDS. Needs `pip install pyperf`.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sittings import fill, run

from harness.machine.threads import budget, pool_environment

WALL_SECONDS = 15.0
COLUMNS = ("tool", "run", "ratio", "first_seconds", "second_seconds", "wall_seconds", "comparison")

LAYER = """
import os, sys
import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.manual_seed(0)
layers = [torch.nn.Bilinear(20, 30, 40).requires_grad_(False) for _ in range(2)]
input1, input2 = torch.randn(128, 20), torch.randn(128, 30)
"""
PYTEST_BENCHMARK = (
    LAYER
    + """
def test_first(benchmark):
    benchmark(layers[0], input1, input2)


def test_second(benchmark):
    benchmark(layers[1], input1, input2)
"""
)
TORCH_TIMER = (
    LAYER
    + """
from torch.utils.benchmark import Timer

found = [
    Timer("layer(input1, input2)", globals={"layer": layer, "input1": input1, "input2": input2},
          num_threads=torch.get_num_threads()).blocked_autorange(min_run_time=float(sys.argv[1]))
    for layer in layers
]
print(*(one.median for one in found))
"""
)
PYPERF = (
    LAYER
    + """
import pyperf

runner = pyperf.Runner()
runner.bench_func("first", layers[0], input1, input2)
runner.bench_func("second", layers[1], input1, input2)
"""
)


def tool_environment() -> dict[str, str]:
    """The same threads for everybody."""
    return os.environ | pool_environment(budget(None))


def ours(_: Path) -> tuple[float, float, float, str]:
    """Run the harness; what the gate takes is in its wall time, too."""
    row = run("torch-bilinear#2", "--budget", str(WALL_SECONDS - 6), "--device", "cpu")
    first, second = float(row["baseline_median_seconds"]), float(row["median_seconds"])
    return float(row["speedup"]), first, second, row["comparison"]


def pytest_benchmark(folder: Path) -> tuple[float, float, float, str]:
    """Two benchmarks in one file, with half of the time each."""
    (folder / "test_layers.py").write_text(PYTEST_BENCHMARK)
    each = (WALL_SECONDS - 4) / 2
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "test_layers.py",
        "--benchmark-json=out.json",
        "-p",
        "no:cacheprovider",
    ]
    subprocess.run(
        [*command, f"--benchmark-max-time={each}"], cwd=folder, env=tool_environment(), check=True, capture_output=True
    )
    found = json.loads((folder / "out.json").read_text())["benchmarks"]
    first, second = (one["stats"]["median"] for one in sorted(found, key=lambda one: one["name"]))
    return first / second, first, second, ""


def torch_timer(folder: Path) -> tuple[float, float, float, str]:
    """Two timers in one process, with half of the time each."""
    (folder / "timer.py").write_text(TORCH_TIMER)
    each = (WALL_SECONDS - 2.5) / 2
    command = [sys.executable, "timer.py", str(each)]
    ended = subprocess.run(command, cwd=folder, env=tool_environment(), check=True, capture_output=True, text=True)
    first, second = (float(word) for word in ended.stdout.split())
    return first / second, first, second, ""


def pyperf(folder: Path) -> tuple[float, float, float, str]:
    """As many worker processes as the time allows, three values each as by default."""
    (folder / "layers.py").write_text(PYPERF)
    command = [sys.executable, "layers.py", "--processes=2", "-o", "out.json", "--inherit-environ=OMP_NUM_THREADS"]
    subprocess.run(command, cwd=folder, env=tool_environment(), check=True, capture_output=True)
    benchmarks = json.loads((folder / "out.json").read_text())["benchmarks"]
    means = [statistics.fmean(value for made in one["runs"] for value in made.get("values", ())) for one in benchmarks]
    return means[0] / means[1], means[0], means[1], ""


TOOLS: dict[str, Callable[[Path], tuple[float, float, float, str]]] = {
    "bilinear-bench": ours,
    "pytest-benchmark": pytest_benchmark,
    "torch.utils.benchmark": torch_timer,
    "pyperf": pyperf,
}


def measure(number: int) -> dict[str, str]:
    """Let the tool whose turn it is compare once."""
    tool = list(TOOLS)[number % len(TOOLS)]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        ratio, first, second, comparison = TOOLS[tool](Path(scratch))
    found = {
        "tool": tool,
        "run": number // len(TOOLS),
        "ratio": ratio,
        "first_seconds": first,
        "second_seconds": second,
    }
    taken = {"wall_seconds": f"{time.monotonic() - start:.1f}", "comparison": comparison}
    return {name: str(value) for name, value in (found | taken).items()}


def main() -> None:
    """Fill the table, then say how far the ratios are from 1."""
    path = Path(sys.argv[1])
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 30
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else float("inf")
    fill(path, COLUMNS, runs * len(TOOLS), seconds, measure)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for tool in TOOLS:
        found = [row for row in rows if row["tool"] == tool]
        off = sorted(abs(float(row["ratio"]) - 1) for row in found)
        walls = [float(row["wall_seconds"]) for row in found]
        if off:
            print(
                f"{tool}: {len(off)} runs, off by {statistics.median(off):.1%} in the median, {off[-1]:.1%} at most, "
                f"{statistics.fmean(walls):.0f} s each"
            )


if __name__ == "__main__":
    main()
