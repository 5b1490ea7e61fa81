"""Mutants in NumPy that change inputs, reuse memory, or use what is not theirs: the conduct probe rejects them."""

import os

import numpy as np
from mutant_bases import MANY_CALLS, Counts, CountsTimed, Mutant, Spoils
from mutants_stated import Caught

from harness.worker import integrity


class EveryThirtieth(Counts):
    """F23: returns garbage at every thirtieth call of a kernel."""

    name = "mutant-every-thirtieth"
    caught = Caught("conduct", reason="again: output")

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        return right + 1 if self.calls % 30 == 0 else right


class DoubleInputs(Mutant):
    """F20: makes float64 inputs for float32, and returns results in float32."""

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


class ScribblesLate(CountsTimed):
    """C02, F21: changes the last bit of an input twice in 50 calls, from the 50th on, when the gate seems finished."""

    name = "mutant-scribbles-late"
    caught = Caught("conduct", phase="recheck", reason="changed its input: input1")

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        if self.calls >= MANY_CALLS and self.calls % MANY_CALLS < 2:
            input1[-1, -1] = np.nextafter(input1[-1, -1], np.float32(9))
        return right


class Blindfold(Mutant):
    """C09: changes the last bit of an input, and replaces the function that would compare the inputs."""

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
        """Change the last bit of the last element."""
        input1[-1:, -1] = np.nextafter(input1[-1:, -1], np.float32(9))


class InInput(Spoils):
    """C03, F22: returns the output in input1's memory."""

    name = "mutant-output-in-input"
    caught = Caught("conduct", reason="output is in the memory of the input input1")

    def output(self, input1, input2, weight, bias):
        right = Mutant.output(self, input1, input2, weight, bias)
        if right.shape[1] > input1.shape[1]:
            return right
        input1[:, : right.shape[1]] = right
        return input1[:, : right.shape[1]]


class StaticBuffer(Counts):
    """C19, F22: uses one buffer for all outputs of a kernel."""

    name = "mutant-static-buffer"
    caught = Caught("conduct", reason="output is in the memory of an earlier output")
    buffers = 1

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.kept = {}

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        # The weight is kept, so that no other weight gets its id.
        key = (right.shape, id(weight), self.calls % self.buffers)
        buffer, _ = self.kept.setdefault(key, (np.empty_like(right), weight))
        buffer[...] = right
        return buffer


class ThreeBuffers(StaticBuffer):
    """C03, F22: uses three buffers in turn: the next call leaves the last result alone, a later one does not."""

    name = "mutant-buffers-in-turn"
    buffers = 3


class RingOfEight(StaticBuffer):
    """C03, F22: uses eight buffers in turn, as memory pools do."""

    name = "mutant-eight-buffers-in-turn"
    buffers = 8


class LeavesItsCpu(CountsTimed):
    """C16, F25: takes all CPUs of the machine after 50 calls, when the gate seems finished."""

    name = "mutant-leaves-its-cpu"
    caught = Caught("conduct", phase="timing", reason="runs on the CPUs")

    def output(self, input1, input2, weight, bias):
        if self.calls == MANY_CALLS:
            os.sched_setaffinity(0, range(os.cpu_count()))
        return super().output(input1, input2, weight, bias)


class Borrows(Mutant):
    """C14: calls PyTorch's own bilinear."""

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
    """C14: calls PyTorch's own bilinear where the batch is at least 50, larger than in most edge cases."""

    name = "mutant-borrows-bilinear-when-large"
    least = 50
