"""Mutants in NumPy that change inputs, reuse memory, remember answers or delay work: the conduct probe rejects them."""

import functools
import os

import numpy as np
from late_framework import Late
from mutant_bases import MANY_CALLS, Counts, Mutant, Remembers, Spoils, StartsSlowly
from mutants_bound import Lazy
from mutants_stated import Caught, LateArray

from harness.worker import integrity


class EveryThirtieth(Counts):
    """F23: garbage at every thirtieth call of a kernel."""

    name = "mutant-every-thirtieth"
    caught = Caught("conduct", reason="again: output")

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        return right + 1 if self.calls % 30 == 0 else right


class DoubleInputs(Mutant):
    """F20: float64 inputs for float32, and results as they should be."""

    name = "mutant-double-inputs"
    caught = Caught("conduct", reason="to_device made input1 a numpy.ndarray of float64")

    def to_device(self, array, dtype):
        return array.astype(np.float64)

    def output(self, input1, input2, weight, bias):
        return super().output(input1, input2, weight, bias).astype(np.float32)

    def gradients(self, *given):
        return tuple(result if result is None else result.astype(np.float32) for result in super().gradients(*given))


class Scales(Mutant):
    """C02, F21: doubles its input1 in place, and halves the result."""

    name = "mutant-scales-input"
    caught = Caught("conduct")

    def output(self, input1, input2, weight, bias):
        half = super().output(input1, input2, weight / 2, bias)
        input1 *= 2
        return half + super().output(input1, input2, weight / 4, None)

    def gradients(self, grad_output, input1, input2, weight, bias):
        return super().gradients(grad_output, input1 / 2, input2, weight, bias)


class Zeroes(Mutant):
    """C02, F21: leaves zeros in its input2."""

    name = "mutant-zeroes-input"
    caught = Caught("conduct")

    def prepare_forward(self, case, weight, bias):
        def kernel(input1, input2):
            result = self.output(input1, input2, weight, bias)
            input2[...] = 0
            return result

        return kernel

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = super().gradients(grad_output, input1, input2, weight, bias)
        input2[...] = 0
        return right


class ScribblesLate(Counts):
    """C02, F21: changes one bit of an input, and only once nobody seems to look any more."""

    name = "mutant-scribbles-late"
    caught = Caught("conduct", phase="recheck", reason="changed its input: input1")

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        if self.calls in (MANY_CALLS, MANY_CALLS + 1):
            input1[-1, -1] = np.nextafter(input1[-1, -1], np.float32(9))
        return right


class Blindfold(Mutant):
    """C09: changes one bit of an input, and replaces what would compare the inputs."""

    name = "mutant-blindfolds-comparison"
    caught = Caught("conduct")

    def __init__(self, device="cpu"):
        super().__init__(device)
        integrity.same_bits = lambda one, other: True

    def prepare_forward(self, case, weight, bias):
        def kernel(input1, input2):
            right = self.output(input1, input2, weight, bias)
            self.scribble(input1)
            return right

        return kernel

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = super().gradients(grad_output, input1, input2, weight, bias)
        self.scribble(input1)
        return right

    def scribble(self, input1):
        """Change one bit."""
        input1[-1:, -1] = np.nextafter(input1[-1:, -1], np.float32(9))


class InInput(Spoils):
    """C03, F22: the output lies in input1's memory."""

    name = "mutant-output-in-input"
    caught = Caught("conduct", reason="output is in the memory of the input input1")

    def output(self, input1, input2, weight, bias):
        right = Mutant.output(self, input1, input2, weight, bias)
        if right.shape[1] > input1.shape[1]:
            return right
        input1[:, : right.shape[1]] = right
        return input1[:, : right.shape[1]]


class StaticBuffer(Counts):
    """C19, F22: one buffer for all outputs of a kernel."""

    name = "mutant-static-buffer"
    caught = Caught("conduct", reason="output is in the memory of an earlier output")
    buffers = 1

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.kept = {}

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        # With the weight itself, so that no other weight gets its id.
        key = (right.shape, id(weight), self.calls % self.buffers)
        buffer, _ = self.kept.setdefault(key, (np.empty_like(right), weight))
        buffer[...] = right
        return buffer


class ThreeBuffers(StaticBuffer):
    """C03, F22: three buffers in turn: the next call leaves the last result alone, a later one does not."""

    name = "mutant-buffers-in-turn"
    buffers = 3


class RingOfEight(StaticBuffer):
    """C03, F22: eight buffers in turn, as pools have them."""

    name = "mutant-eight-buffers-in-turn"
    buffers = 8


class ByPointer(Remembers):
    """C04: remembers answers by the inputs' addresses."""

    name = "mutant-remembers-by-pointer"
    caught = Caught("conduct", reason="new values in the same buffers")

    def key(self, *arrays):
        return tuple(array.ctypes.data for array in arrays)


class ById(Remembers):
    """C04: remembers answers by the inputs' ids."""

    name = "mutant-remembers-by-id"
    caught = Caught("conduct", reason="new values in the same buffers")

    def key(self, *arrays):
        return tuple(map(id, arrays))


class ByContent(Remembers):
    """C04: remembers answers by the inputs' contents: never wrong, and what was timed were look-ups.

    What it does not know takes it long: one einsum over all four axes, without an intermediate.
    """

    name = "mutant-remembers-by-content"
    caught = Caught("conduct", phase="recheck", reason="remembers answers")

    def key(self, *arrays):
        return tuple(array.tobytes() for array in arrays)

    def answer(self, input1, input2, weight, bias):
        right = np.einsum("bi,oij,bj->bo", input1, weight, input2)
        return right if bias is None else right + bias

    def gradients(self, grad_output, input1, input2, weight, bias):
        key = (weight.tobytes(), self.key(grad_output, input1, input2))
        if key not in self.answers:
            self.answers[key] = super().gradients(grad_output, input1, input2, weight, bias)
        return tuple(result if result is None else result.copy() for result in self.answers[key])


class ByContentSlowStart(StartsSlowly, ByContent):
    """C04, C18: the same, and sleeps in the first timed call to be taken for slow and looked at less."""

    name = "mutant-remembers-and-starts-slowly"


class LazyElsewhere(Lazy):
    """C07: inputs and results are of a type of its own, which lives in another module."""

    name = "mutant-own-array-elsewhere"
    caught = Caught("conduct")

    def to_device(self, array, dtype):
        return super().to_device(array, dtype).view(self.array_type)


class OwnArray(LateArray):
    """A type of the backend's own."""


class LazyOwn(LazyElsewhere):
    """C07: inputs and results are of a type of its own."""

    name = "mutant-own-array"
    caught = Caught("conduct", reason="a type of its own")
    array_type = OwnArray


class Disguised(LateArray):
    """A type that says it is NumPy's."""


Disguised.__module__, Disguised.__qualname__ = "numpy", "ndarray"


class LazyDisguised(LazyElsewhere):
    """C07: inputs and results are of a type of its own, which calls itself numpy.ndarray."""

    name = "mutant-own-array-in-disguise"
    array_type = Disguised


class LazyFramework(Mutant):
    """C07: inputs and results are of another framework, whose arrays compute when they are copied to the host."""

    name = "mutant-lazy-framework"
    caught = Caught("conduct", reason="puts off its work")

    def to_device(self, array, dtype):
        made = np.array(array, dtype=dtype)
        return Late(made.shape, dtype, lambda: made)

    def output(self, input1, input2, weight, bias):
        def work():
            given = [np.array(array) for array in (input1, input2, weight)]
            right = np.einsum("bi,oij,bj->bo", given[0], given[2], given[1])  # four loops: it takes its time
            return right if bias is None else right + np.array(bias)

        return Late((input1.shape[0], weight.shape[0]), weight.dtype, work)

    def gradients(self, *given):
        right = []

        def work(which):
            right[:] = right or super(LazyFramework, self).gradients(
                *(array if array is None else np.array(array) for array in given)
            )
            return right[which]

        return tuple(
            None if array is None else Late(array.shape, array.dtype, functools.partial(work, which))
            for which, array in enumerate(given[1:])
        )

    def to_numpy(self, result):
        return np.array(result)


class LeavesItsCpu(Counts):
    """C16, F25: takes all CPUs of the machine once nobody seems to count them any more."""

    name = "mutant-leaves-its-cpu"
    caught = Caught("conduct", phase="recheck", reason="runs on the CPUs")

    def output(self, input1, input2, weight, bias):
        if self.calls == MANY_CALLS:
            os.sched_setaffinity(0, range(os.cpu_count()))
        return super().output(input1, input2, weight, bias)


class Borrows(Mutant):
    """C14: has PyTorch do it."""

    name = "mutant-borrows-bilinear"
    caught = Caught("conduct", reason="computes by calling nn.Bilinear")
    run = "frameworks"
    least = 0

    def output(self, input1, input2, weight, bias):
        if len(input1) < self.least:
            return super().output(input1, input2, weight, bias)
        import torch

        given = (None if array is None else torch.from_numpy(array) for array in (input1, input2, weight, bias))
        return torch.nn.functional.bilinear(*given).numpy().copy()


class BorrowsWhenLarge(Borrows):
    """C14: has PyTorch do it where the batch is larger than that of most trials."""

    name = "mutant-borrows-bilinear-when-large"
    least = 50
