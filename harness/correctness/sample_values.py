"""Values of a timed sample: those of the input sets in rotation, turned so that the right results follow from theirs.

A sample has new values, and each call differs from the last call on the same input set, so remembering cannot pay.
A reference for each of these calls would cost more than the sample. So the values are turned exactly:

* The rows of each input set are in an order that is drawn.
* Row b of input1 is multiplied by s1 2^k, of input2 by s2 2^-k, of grad_output by s1 s2; both signs are drawn.
* Before each call the signs of two rows are drawn again, one row in each half of the batch.
* In a batch of up to ``SMALL_BATCH`` rows all signs are, and k is drawn, too, one for all rows: few rows have few
  signs. Rows of different scale would be unfair to products that mix rows.

Then the output without the bias is multiplied by s1 s2, grad_input1 by s1 2^-k, grad_input2 by s2 2^k, and grad_weight
stays as it is. All factors are powers of two, so nothing is rounded but the sum with the bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

    Array = npt.NDArray[np.floating]

#: Most rows of a batch whose rows all change before each call.
SMALL_BATCH: Final = 8
#: Largest exponent k, by dtype; float16 has no room.
LARGEST: Final = {"float64": 300, "float32": 40, "bfloat16": 40, "float16": 0}
#: Most different changes of a sample.
CHANGES: Final = 4096
#: Most bytes of the rows of all changes of an input set, in float32; at least ``LEAST_CHANGES`` are made all the same.
CHANGES_BYTES: Final = 2 * 2**20
LEAST_CHANGES: Final = 16


class SampleValues:
    """The values of one sample. The worker and the run draw the same ones from the same number.

    Args:
        case: The case, of at least one row.
        secret: Number that the values are drawn from.
        calls: Number of calls in the sample.
        first: Number of the first call's input set.
        input_sets: Number of input sets in rotation.
    """

    def __init__(self, case: Case, secret: int, calls: int, first: int, input_sets: int) -> None:
        self.calls, self.first, self.input_sets = calls, first, input_sets
        self._case = case
        batch, generator = case.batch, np.random.default_rng([case.seed, secret])
        #: True if all rows change before each call, as one block; else two rows do, each a block.
        self.whole = batch <= SMALL_BATCH
        width = case.in1_features + case.in2_features + case.out_features
        rows = batch if self.whole else 2
        count = min(calls, CHANGES, max(LEAST_CHANGES, CHANGES_BYTES // (4 * rows * width)))
        begin = generator.integers(batch, size=count)
        #: Rows of each change, (count, rows).
        self.rows = np.stack([begin, (begin + batch // 2) % batch], axis=1)
        if self.whole:
            self.rows = np.tile(np.arange(batch), (count, 1))
        #: Number of the change before each call: all changes take turns before one comes again.
        self.changes = np.tile(generator.permutation(count), -(-calls // count))[:calls]
        self._orders = [generator.permutation(batch) for _ in range(input_sets)]
        self._begin = self._draw(generator, 1, batch)
        self._turns = self._draw(generator, count, rows)

    def begin(self, name: str, number: int, values: Array) -> Array:
        """Return an array of an input set as the sample begins.

        Args:
            name: Name of the array.
            number: Number of the input set.
            values: Its values in rotation.
        """
        return self._turned(name, values[self._orders[number]], self._begin[0])

    def changed_rows(self, name: str, number: int, values: Array) -> Array:
        """Return the rows of an array that each change writes, (changes, rows, features).

        Args:
            name: Name of the array.
            number: Number of the input set.
            values: Its values in rotation.
        """
        return self._turned(name, values[self._orders[number][self.rows]], self._turns)

    def inputs(self, number: int, last: int, values: Mapping[str, Array], changing: bool = True) -> dict[str, Array]:
        """Return the arrays of an input set as they are in, and after, a call.

        Args:
            number: Number of the input set.
            last: Number of the call, counted through all passes over the sample.
            values: Values in rotation, by name.
            changing: True if rows change before each call.
        """
        turns = self._now(number, last, changing)
        return {name: self._turned(name, array[self._orders[number]], turns) for name, array in values.items()}

    def originals(
        self, number: int, last: int, results: Mapping[str, Array], given: Mapping[str, Array], changing: bool = True
    ) -> dict[str, Array]:
        """Return what the results of a call say about those for the values in rotation.

        Args:
            number: Number of the call's input set.
            last: Number of the call, counted through all passes over the sample.
            results: Results of the call, in float64, by name.
            given: Values of bias and grad_output in rotation, by name, as far as there are any.
            changing: True if rows change before each call.
        """
        order, turns = self._orders[number], self._now(number, last, changing)
        exponent, first, second = (turns[:, column, None] for column in range(3))
        bias = given.get("bias", np.zeros(())).astype(np.float64)
        back = {
            "output": lambda array: first * second * (array - bias) + bias,
            "grad_input1": lambda array: np.ldexp(first * array, exponent),
            "grad_input2": lambda array: np.ldexp(second * array, -exponent),
        }
        originals = {name: np.array(array, dtype=np.float64) for name, array in results.items()}
        with np.errstate(all="ignore"):  # wrong results may be anything
            for name in back.keys() & results.keys():
                originals[name][order] = back[name](originals[name].copy())
            if "grad_bias" in results:
                grad_output = given["grad_output"].astype(np.float64)
                originals["grad_bias"] += (grad_output - first * second * grad_output[order]).sum(axis=0)
        return originals

    def _draw(self, generator: np.random.Generator, count: int, rows: int) -> npt.NDArray[np.integer]:
        """Return exponent and two signs of some rows, (count, rows, 3)."""
        drawn = generator.choice([-1, 1], size=(count, rows, 3))
        most = LARGEST[self._case.dtype] if self.whole else 0
        drawn[:, :, 0] = generator.integers(-most, most + 1, size=(count, 1))
        return drawn

    def _now(self, number: int, last: int, changing: bool) -> npt.NDArray[np.integer]:
        """Return exponent and signs of each row in a call, (batch, 3)."""
        turns = self._begin[0].copy()
        if changing:
            calls = np.arange(last % self.calls + 1)
            if last >= self.calls:
                calls = np.concatenate([np.arange(self.calls), calls])
            changes = self.changes[calls[(self.first + calls) % self.input_sets == number]]
            for change in changes[-1:] if self.whole else changes:
                turns[self.rows[change]] = self._turns[change]
        return turns

    @staticmethod
    def _turned(name: str, values: Array, turns: npt.NDArray[np.integer]) -> Array:
        """Return rows of an array multiplied by their factors."""
        exponent, first, second = (turns[..., column, None] for column in range(3))
        if name == "grad_output":
            return (values * (first * second)).astype(values.dtype)
        sign, power = (first, exponent) if name == "input1" else (second, -exponent)
        return np.ldexp(values * sign.astype(values.dtype), power)
