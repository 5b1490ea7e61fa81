"""The operator step by step, on the example of the article that started this: 128 x 20 x 30 -> 40.

The article rewrites ``torch.nn.Bilinear`` in NumPy, page by page over the weight, and looks at the mean absolute
difference from PyTorch's own output. This module does the same with the two backends that are those two programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from harness.case import Case
from harness.catalog.registry import select
from harness.correctness.gate import mean_absolute_difference
from harness.correctness.inputs import make_inputs
from harness.process.protocol import Load, Prepare
from harness.process.supervisor import WorkerPool

EXAMPLE: Final = Case(128, 20, 30, 40)
PAGE_LOOP: Final = "numpy-loop"
MODULE: Final = "torch-bilinear"
#: Time limit of one request to either program, in seconds.
LIMIT_SECONDS: Final = 120.0


def explain(workers: WorkerPool) -> Iterator[str]:
    """Yield the explanation line by line.

    Raises:
        WorkerError: One of the two programs could not be run.
        RuntimeError: One of them is not available; the message has the reason.
    """
    torch = select([MODULE])[MODULE].installed()
    if not torch.ok:
        raise RuntimeError(f"the example compares with nn.Bilinear, but {torch.reason}")
    inputs = make_inputs(EXAMPLE)
    yield from _arrays(inputs)
    yield from _one_page(inputs)
    page_loop, module = (_output(workers, name) for name in (PAGE_LOOP, MODULE))
    yield f"    {PAGE_LOOP:<15} y[0:3, 0] = {', '.join(f'{value:+.6f}' for value in page_loop[:3, 0])}"
    yield f"    {MODULE:<15} y[0:3, 0] = {', '.join(f'{value:+.6f}' for value in module[:3, 0])}"
    yield ""
    difference = mean_absolute_difference(page_loop, module)
    yield f"Mean absolute difference between the page loop and nn.Bilinear: {difference:.2e}"
    yield "That is float32 rounding: the two add up in different orders."
    yield "The spacing of float32 numbers at 1.0 is 1.19e-07."


def _arrays(inputs: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yield the formula and its four arrays."""
    yield "torch.nn.Bilinear(20, 30, 40) on a batch of 128 rows"
    yield ""
    yield "  y[b,o] = sum over i, j of input1[b,i] * weight[o,i,j] * input2[b,j] + bias[o]"
    yield ""
    yield "Its four arrays:"
    for name, meaning in (
        ("input1", "batch x in1_features"),
        ("input2", "batch x in2_features"),
        ("weight", "out_features x in1_features x in2_features"),
        ("bias", "out_features"),
    ):
        yield f"    {name:<7} {_shape(inputs[name]):<14} {meaning}"
    yield ""
    yield "The weight of nn.Linear has two dimensions, (out, in): one row per output."
    yield "This weight has three: one page per output. A page is a matrix that pairs every"
    yield "feature of input1 with every feature of input2."
    yield ""


def _one_page(inputs: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yield the steps of one output's page."""
    input1, input2, weight, bias = (inputs[name] for name in ("input1", "input2", "weight", "bias"))
    yield "One page, say output 0, for all 128 rows at once:"
    page = weight[0]
    yield f"    page   = weight[0]        {_shape(page)}"
    product = input1 @ page
    yield f"    mixed  = input1 @ page    {_shape(input1)} @ {_shape(page)} = {_shape(product)}"
    scaled = product * input2
    yield f"    scaled = mixed * input2   {_shape(product)} * {_shape(input2)} = {_shape(scaled)}, elementwise"
    column = scaled.sum(axis=1)
    yield f"    y[:,0] = scaled.sum(1)    {_shape(scaled)} summed along its rows = {_shape(column)}"
    yield "             + bias[0]        the same number for every row"
    yield ""
    first = ", ".join(f"{value:+.6f}" for value in column[:3] + bias[0])
    yield f"    y[0:3, 0] = {first}"
    yield f"The same for each of the {EXAMPLE.out_features} pages gives y, {EXAMPLE.batch} x {EXAMPLE.out_features}."
    yield ""


def _output(workers: WorkerPool, name: str) -> np.ndarray:
    """Run the example through one backend, in its own worker."""
    entry = select([name])[name]
    worker, _ = workers.worker(name, "cpu")
    loaded = worker.request(Load(name, entry.target, "cpu"), LIMIT_SECONDS)
    if not loaded.available:
        raise RuntimeError(f"{name} is not available: {loaded.reason}")
    worker.request(Prepare(EXAMPLE, 1, worker.directory), LIMIT_SECONDS)
    output: np.ndarray = np.load(worker.directory / "output.npy", allow_pickle=False)
    return output


def _shape(array: np.ndarray) -> str:
    return "(" + ", ".join(str(size) for size in array.shape) + ("," if array.ndim == 1 else "") + ")"
