"""Values of a timed sample: those of the input sets in rotation, turned so that the right results follow from theirs.

A sample has new values, and each call differs from the last call on the same input set, so remembering cannot pay.
A reference for each of these calls would cost more than the sample. So the values are turned exactly:

* The rows of each input set are in an order that is drawn.
* Row b of input1 is multiplied by s1 2^k, of input2 by s2 2^-k, of grad_output by s1 s2; both signs are drawn.
* Before each call two rows change their signs: one in the first half of the batch in input1, one in the second half in
  input2, and both in grad_output. Which rows these are is drawn.
* In a batch of up to ``SMALL_BATCH`` rows all signs are drawn before each call, and k, too, one for all rows: few rows
  have few signs. Rows of different scale would be unfair to products that mix rows.

Then the output without the bias is multiplied by s1 s2, grad_input1 by s1 2^-k, grad_input2 by s2 2^k, and grad_weight
stays as it is. All factors are powers of two, so nothing is rounded but the sum with the bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

    Array = npt.NDArray[np.floating]
    Turns = npt.NDArray[np.integer]

#: Most rows of a batch whose rows all change before each call.
SMALL_BATCH: Final = 32
#: Largest exponent k, by dtype; float16 has no room.
LARGEST: Final = {"float64": 300, "float32": 40, "bfloat16": 40, "float16": 0}
#: Most different changes of a sample.
CHANGES: Final = 4096
#: Most bytes of the rows of all changes of an input set, in float32; at least ``LEAST_CHANGES`` are made all the same.
CHANGES_BYTES: Final = 4 * 2**20
LEAST_CHANGES: Final = 16
#: Which of a change's two rows are written, by the array; in a small batch all rows are.
_WRITTEN: Final = {"input1": slice(0, 1), "input2": slice(1, 2), "grad_output": slice(0, 2)}


class SampleValues:
    """The values of one sample. The worker and the run draw the same ones from the same number.

    Args:
        case: The case, of at least one row.
        secret: Number that the values are drawn from, at least 0.
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
        rows = batch if self.whole else 2
        width = case.in1_features + case.in2_features + case.out_features
        most = min(CHANGES, max(LEAST_CHANGES, CHANGES_BYTES // (4 * rows * width)))
        #: Number of different changes; each belongs to one input set.
        self.count = calls if calls <= most else most // input_sets * input_sets
        self._orders = [generator.permutation(batch) for _ in range(input_sets)]
        #: Exponent and two signs of each row as the sample begins, (input sets, batch, 3), and after each change,
        #: (changes, rows, 3); rows of each change, (changes, rows).
        self._begin = self._draw(generator, input_sets, batch)
        self.rows = np.tile(np.arange(batch), (self.count, 1))
        self._turns = self._draw(generator, self.count, batch)
        if not self.whole:
            self._draw_rows(generator)

    def begin(self, name: str, number: int, values: Array) -> Array:
        """Return an array of an input set as the sample begins.

        Args:
            name: Name of the array.
            number: Number of the input set.
            values: Its values in rotation.
        """
        return self._turned(name, values[self._orders[number]], self._begin[number])

    def written(self, name: str) -> npt.NDArray[np.integer]:
        """Return the numbers of the rows of an array that each change writes, (changes, rows)."""
        return self.rows if self.whole else self.rows[:, _WRITTEN[name]]

    def changed_rows(self, name: str, number: int, values: Array) -> Array:
        """Return the rows of an array that each change writes, (changes, rows, features).

        Args:
            name: Name of the array.
            number: Number of the input set.
            values: Its values in rotation.
        """
        turns = self._turns if self.whole else self._turns[:, _WRITTEN[name]]
        return self._turned(name, values[self._orders[number][self.written(name)]], turns)

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
        back: dict[str, Callable[[Array], Array]] = {
            "output": lambda array: first * second * (array - bias) + bias,
            "grad_input1": lambda array: self._scaled(first * array, exponent),
            "grad_input2": lambda array: self._scaled(second * array, -exponent),
        }
        originals: dict[str, Array] = {name: np.array(array, dtype=np.float64) for name, array in results.items()}
        with np.errstate(all="ignore"):  # wrong results may be anything
            for name in back.keys() & results.keys():
                originals[name][order] = back[name](originals[name].copy())
            if "grad_bias" in results:
                grad_output = given["grad_output"].astype(np.float64)
                originals["grad_bias"] += (grad_output - first * second * grad_output[order]).sum(axis=0)
        return originals

    def _draw(self, generator: np.random.Generator, count: int, rows: int) -> Turns:
        """Return exponent and two signs of some rows, (count, rows, 3)."""
        drawn: Turns = generator.choice([-1, 1], size=(count, rows, 3))
        most = LARGEST[self._case.dtype] if self.whole else 0
        drawn[:, :, 0] = generator.integers(-most, most + 1, size=(count, 1))
        return drawn

    def _draw_rows(self, generator: np.random.Generator) -> None:
        """Draw the two rows of each change, and turn their signs."""
        half = self._case.batch // 2
        first = generator.integers(half, size=self.count)
        second = generator.integers(half, self._case.batch, size=self.count)
        self.rows = np.stack([first, second], axis=1)
        number = (self.first + np.arange(self.count)) % self.input_sets
        self._turns = self._begin[number[:, None], self.rows]
        for column in range(2):
            row = self.rows[:, column]
            turned = 1 + _earlier_ones(number * self._case.batch + row)
            self._turns[:, column, 1 + column] *= (-1) ** turned

    def _now(self, number: int, last: int, changing: bool) -> Turns:
        """Return exponent and signs of each row in a call, (batch, 3)."""
        turns: Turns = self._begin[number].copy()
        if changing:
            calls = np.arange(last % self.calls + 1)
            if last >= self.calls:
                calls = np.concatenate([np.arange(self.calls), calls])
            changes = calls[(self.first + calls) % self.input_sets == number] % self.count
            changes = changes[-1:] if self.whole else changes
            turns[self.rows[changes]] = self._turns[changes]  # of a row's changes the last one stays
        return turns

    def _turned(self, name: str, values: Array, turns: Turns) -> Array:
        """Return rows of an array multiplied by their factors."""
        exponent, first, second = (turns[..., column, None] for column in range(3))
        if name == "grad_output":
            return values * (first * second).astype(values.dtype)
        sign, power = (first, exponent) if name == "input1" else (second, -exponent)
        return self._scaled(values * sign.astype(values.dtype), power)

    def _scaled(self, values: Array, power: Turns) -> Array:
        """Return values times powers of two; those of a large batch are 1, and ldexp takes longer than all else."""
        scaled: Array = np.ldexp(values, power) if self.whole else values
        return scaled


def _earlier_ones(keys: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """Return for each key how often it comes before."""
    order = np.argsort(keys, kind="stable")
    begins = np.searchsorted(keys[order], keys[order])
    earlier = np.empty(len(keys), int)
    earlier[order] = np.arange(len(keys)) - begins
    return earlier
