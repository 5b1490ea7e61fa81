"""How far off is the ratio of a thing to itself? Ours beside pytest-benchmark, torch.utils.benchmark and pyperf.

    python studies/peers.py results/reference/MACHINE/peers.csv [RUNS] [SECONDS]

Each tool compares nn.Bilinear with nn.Bilinear (the seed case, forward, all CPUs) as its documentation says, and has
the same wall time for it, imports included: about WALL_SECONDS. How much a tool is told to measure for that (seconds a
layer, for ours the budget, for pyperf processes) is learnt from its last row. The tools take turns, so that all see the
same machine. The ratio is that of the two figures that the tool puts first: medians, for pyperf means, for ours the
estimate of the ratio. Goes on with a table that is there; no run is begun after SECONDS. Needs `pip install pyperf`.
"""

from __future__ import annotations

import csv
import dataclasses
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

from harness.machine.environment import cpu_model
from harness.machine.threads import budget, pool_environment

WALL_SECONDS = 30.0
COLUMNS = ("tool", "run", "told", "ratio", "first_seconds", "second_seconds", "wall_seconds", "comparison", "cpu")

#: The ratio of a comparison, the figures of both layers in seconds, and the tool's word for it if it has one.
Found = tuple[float, float, float, str]

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


def ours(_: Path, told: float) -> Found:
    """Run the harness with a budget of so many seconds; what the gate takes is in its wall time, too."""
    row = run("torch-bilinear#2", "--budget", str(told), "--device", "cpu")
    first, second = float(row["baseline_median_seconds"]), float(row["median_seconds"])
    return float(row["speedup"]), first, second, row["comparison"]


def pytest_benchmark(folder: Path, told: float) -> Found:
    """Two benchmarks in one file, each of so many seconds."""
    (folder / "test_layers.py").write_text(PYTEST_BENCHMARK)
    options = ("-q", "-p", "no:cacheprovider", "--benchmark-json=out.json", f"--benchmark-max-time={told}")
    _python(folder, "-m", "pytest", "test_layers.py", *options)
    found = json.loads((folder / "out.json").read_text())["benchmarks"]
    first, second = (one["stats"]["median"] for one in sorted(found, key=lambda one: one["name"]))
    return first / second, first, second, ""


def torch_timer(folder: Path, told: float) -> Found:
    """Two timers in one process, each of so many seconds."""
    (folder / "timer.py").write_text(TORCH_TIMER)
    first, second = (float(word) for word in _python(folder, "timer.py", str(told)).split())
    return first / second, first, second, ""


def pyperf(folder: Path, told: float) -> Found:
    """So many worker processes a layer, with three values each as by default."""
    (folder / "layers.py").write_text(PYPERF)
    options = (f"--processes={round(told)}", "-o", "out.json", "--inherit-environ=OMP_NUM_THREADS")
    _python(folder, "layers.py", *options)
    benchmarks = json.loads((folder / "out.json").read_text())["benchmarks"]
    means = [statistics.fmean(value for made in one["runs"] for value in made.get("values", ())) for one in benchmarks]
    return means[0] / means[1], means[0], means[1], ""


def _python(folder: Path, *arguments: str) -> str:
    """Run Python in a folder, with as many threads for everybody; return what it printed."""
    command = [sys.executable, *arguments]
    environment = os.environ | pool_environment(budget(None))
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


@dataclasses.dataclass(frozen=True)
class Tool:
    """A tool, what to tell it the first time, how many wall seconds one more of that costs, and the least of it."""

    compare: Callable[[Path, float], Found]
    first: float
    cost: float
    least: float

    def told(self, rows: list[dict[str, str]]) -> float:
        """What to tell it next, so that it takes WALL_SECONDS if it is as fast as in its last row."""
        if not rows:
            return self.first
        told, wall = float(rows[-1]["told"]), float(rows[-1]["wall_seconds"])
        return max(self.least, round(told + (WALL_SECONDS - wall) / self.cost, 1))


TOOLS = {
    "bilinear-bench": Tool(ours, WALL_SECONDS - 10, 1, 1),
    "pytest-benchmark": Tool(pytest_benchmark, (WALL_SECONDS - 4) / 2, 2, 0.5),
    "torch.utils.benchmark": Tool(torch_timer, (WALL_SECONDS - 2.5) / 2, 2, 0.5),
    # A process imports PyTorch and measures for half a second; both layers have as many.
    "pyperf": Tool(pyperf, 4, 6, 1),
}


def measure(path: Path, number: int) -> dict[str, str]:
    """Let the tool whose turn it is compare once."""
    name = list(TOOLS)[number % len(TOOLS)]
    told = TOOLS[name].told(_rows(path, name))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        ratio, first, second, comparison = TOOLS[name].compare(Path(scratch), told)
    wall_seconds = f"{time.monotonic() - start:.1f}"
    found = (name, number // len(TOOLS), told, ratio, first, second, wall_seconds, comparison, cpu_model())
    return dict(zip(COLUMNS, map(str, found), strict=True))


def _rows(path: Path, tool: str) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["tool"] == tool]


def main() -> None:
    """Fill the table, then say how far the ratios are from 1."""
    path = Path(sys.argv[1])
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 30
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else float("inf")
    fill(path, COLUMNS, runs * len(TOOLS), seconds, lambda number: measure(path, number))
    for tool in TOOLS:
        found = _rows(path, tool)
        off = sorted(abs(float(row["ratio"]) - 1) for row in found)
        walls = [float(row["wall_seconds"]) for row in found]
        if off:
            print(
                f"{tool}: {len(off)} runs, off by {statistics.median(off):.1%} in the median, {off[-1]:.1%} at most, "
                f"{statistics.fmean(walls):.0f} s each"
            )


if __name__ == "__main__":
    main()
