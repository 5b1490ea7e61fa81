"""Measure the ratio of nn.Bilinear to itself: this harness, pytest-benchmark, torch.utils.benchmark and pyperf.

    python studies/peers.py results/reference/MACHINE/peers.csv [RUNS] [SECONDS]

Each tool compares nn.Bilinear with nn.Bilinear (the seed case, forward, all CPUs) as its documentation says. Each has
about WALL_SECONDS of wall time, imports included. The amount that a tool is set to measure follows from its last row:
seconds for each layer, the budget of this harness, processes of pyperf. The tools take turns, so all see the same
machine. The ratio is that of the tool's main figures: medians, for pyperf means, for this harness the estimate. The
study continues a table that exists, and starts no run after SECONDS. It needs `pip install pyperf`.
"""

from __future__ import annotations

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

from run_table import fill, rows, run

from harness.machine.environment import cpu_model
from harness.machine.threads import budget, pool_environment

#: Wall time of one comparison by one tool, in seconds.
WALL_SECONDS = 30.0
COLUMNS = ("tool", "run", "amount", "ratio", "first_seconds", "second_seconds", "wall_seconds", "comparison", "cpu")

#: The ratio of a comparison, the figures of both layers in seconds, and the verdict of a tool that has one.
Outcome = tuple[float, float, float, str]

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

timings = [
    Timer("layer(input1, input2)", globals={"layer": layer, "input1": input1, "input2": input2},
          num_threads=torch.get_num_threads()).blocked_autorange(min_run_time=float(sys.argv[1]))
    for layer in layers
]
print(*(one.median for one in timings))
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


def bilinear_bench(_: Path, amount: float) -> Outcome:
    """Run the harness with a budget of ``amount`` seconds; its wall time includes the gate."""
    row = run("torch-bilinear#2", "--budget", str(amount), "--device", "cpu")
    first, second = float(row["baseline_median_seconds"]), float(row["median_seconds"])
    return float(row["speedup"]), first, second, row["comparison"]


def pytest_benchmark(folder: Path, amount: float) -> Outcome:
    """Run two benchmarks in one file, ``amount`` seconds each."""
    (folder / "test_layers.py").write_text(PYTEST_BENCHMARK)
    options = ("-q", "-p", "no:cacheprovider", "--benchmark-json=out.json", f"--benchmark-max-time={amount}")
    _python(folder, "-m", "pytest", "test_layers.py", *options)
    benchmarks = json.loads((folder / "out.json").read_text())["benchmarks"]
    first, second = (one["stats"]["median"] for one in sorted(benchmarks, key=lambda one: one["name"]))
    return first / second, first, second, ""


def torch_timer(folder: Path, amount: float) -> Outcome:
    """Run two timers in one process, ``amount`` seconds each."""
    (folder / "timer.py").write_text(TORCH_TIMER)
    first, second = (float(word) for word in _python(folder, "timer.py", str(amount)).split())
    return first / second, first, second, ""


def pyperf(folder: Path, amount: float) -> Outcome:
    """Run ``amount`` worker processes for each layer, with the default of three values in each."""
    (folder / "layers.py").write_text(PYPERF)
    options = (f"--processes={round(amount)}", "-o", "out.json", "--inherit-environ=OMP_NUM_THREADS")
    _python(folder, "layers.py", *options)
    benchmarks = json.loads((folder / "out.json").read_text())["benchmarks"]
    means = [
        statistics.fmean(value for process in one["runs"] for value in process.get("values", ())) for one in benchmarks
    ]
    return means[0] / means[1], means[0], means[1], ""


def _python(folder: Path, *arguments: str) -> str:
    """Run Python in a folder, with the harness's number of threads; return its output."""
    command = [sys.executable, *arguments]
    environment = os.environ | pool_environment(budget(None))
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


@dataclasses.dataclass(frozen=True)
class Tool:
    """A tool and the amount that it is set to measure.

    Attributes:
        compare: Function that compares once.
        first: Amount of the first run.
        cost: Wall time of one more unit, in seconds.
        least: Least amount.
    """

    compare: Callable[[Path, float], Outcome]
    first: float
    cost: float
    least: float

    def amount(self, rows: list[dict[str, str]]) -> float:
        """Return the next amount, so that the tool takes WALL_SECONDS if it is as fast as in its last row."""
        if not rows:
            return self.first
        amount, wall = float(rows[-1]["amount"]), float(rows[-1]["wall_seconds"])
        return max(self.least, round(amount + (WALL_SECONDS - wall) / self.cost, 1))


TOOLS = {
    "bilinear-bench": Tool(bilinear_bench, WALL_SECONDS - 10, 1, 1),
    "pytest-benchmark": Tool(pytest_benchmark, (WALL_SECONDS - 4) / 2, 2, 0.5),
    "torch.utils.benchmark": Tool(torch_timer, (WALL_SECONDS - 2.5) / 2, 2, 0.5),
    # A process imports PyTorch and measures for half a second; both layers have the same number of processes.
    "pyperf": Tool(pyperf, 4, 6, 1),
}


def measure(path: Path, number: int) -> dict[str, str]:
    """Compare once with the tool whose turn it is."""
    name = list(TOOLS)[number % len(TOOLS)]
    amount = TOOLS[name].amount(_rows(path, name))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        ratio, first, second, comparison = TOOLS[name].compare(Path(scratch), amount)
    wall_seconds = f"{time.monotonic() - start:.1f}"
    values = (name, number // len(TOOLS), amount, ratio, first, second, wall_seconds, comparison, cpu_model())
    return dict(zip(COLUMNS, map(str, values), strict=True))


def _rows(path: Path, tool: str) -> list[dict[str, str]]:
    return [row for row in rows(path) if row["tool"] == tool]


def main() -> None:
    """Fill the table, then print how far the ratios are from 1."""
    path = Path(sys.argv[1])
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 30
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else float("inf")
    fill(path, COLUMNS, runs * len(TOOLS), seconds, lambda number: measure(path, number))
    for tool in TOOLS:
        if of_tool := _rows(path, tool):
            off = sorted(abs(float(row["ratio"]) - 1) for row in of_tool)
            wall_seconds = statistics.fmean(float(row["wall_seconds"]) for row in of_tool)
            print(
                f"{tool}: {len(off)} runs, off by {statistics.median(off):.1%} in the median, {off[-1]:.1%} at most, "
                f"{wall_seconds:.0f} s each"
            )


if __name__ == "__main__":
    main()
