"""Backends in Numba that are wrong on purpose; each says how it must be caught."""

import numba
import numpy as np
from mutants_stated import Caught, in_a_gradient
from oracle import HonestBackend


class NumbaMutant(HonestBackend):
    """Honest loops; a mutant changes their inputs or their results."""

    run = "frameworks"
    #: True if the sums of a row start at zero, and not at the values in memory.
    clears = True

    def rows(self, batch):
        """Return the number of rows of the batch that are computed."""
        return batch

    def output(self, input1, input2, weight, bias):
        """Return output (b, o)."""
        addend = np.zeros(len(weight), weight.dtype) if bias is None else bias
        output = np.empty((len(input1), len(weight)), weight.dtype)
        loops(input1, input2, weight, addend, output, self.rows(len(input1)), self.clears)
        return output

    def gradients(self, grad_output, input1, input2, weight, bias):
        """Return the gradients of the arguments."""
        made = np.zeros_like(input1), np.zeros_like(input2), np.zeros_like(weight)
        gradient_loops(grad_output, input1, input2, weight, *made)
        return *made, None if bias is None else grad_output.sum(0)


@numba.njit(cache=True)
def loops(input1, input2, weight, bias, output, rows, clears):
    pages, in1, in2 = weight.shape
    for b in range(rows):
        row = np.empty(in2, input1.dtype)
        for o in range(pages):
            if clears:
                row[:] = 0
            for i in range(in1):
                for j in range(in2):
                    row[j] += input1[b, i] * weight[o, i, j]
            total = input1.dtype.type(0)
            for j in range(in2):
                total += row[j] * input2[b, j]
            output[b, o] = total + bias[o]


@numba.njit(cache=True)
def gradient_loops(grad_output, input1, input2, weight, grad_input1, grad_input2, grad_weight):
    pages, in1, in2 = weight.shape
    for b in range(len(input1)):
        for o in range(pages):
            for i in range(in1):
                for j in range(in2):
                    factor = grad_output[b, o] * weight[o, i, j]
                    grad_input1[b, i] += factor * input2[b, j]
                    grad_input2[b, j] += factor * input1[b, i]
                    grad_weight[o, i, j] += grad_output[b, o] * input1[b, i] * input2[b, j]


class NumbaLastTile(NumbaMutant):
    """F19: computes blocks of eight rows, and leaves the last rows unfilled."""

    name = "mutant-numba-last-tile"
    caught = Caught("edge_cases")

    def rows(self, batch):
        return batch // 8 * 8


class NumbaUncleared(NumbaMutant):
    """The sums of a row start with the values in memory, which the page before left."""

    name = "mutant-numba-uncleared"
    caught = Caught("edge_cases")
    clears = False


class NumbaGradWeight(NumbaMutant):
    """Right forward; grad_weight has the wrong sign."""

    name = "mutant-numba-grad-weight-sign"
    caught = in_a_gradient("edge_cases", reason="grad_weight")

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = super().gradients(grad_output, input1, input2, weight, bias)
        return *right[:2], -right[2], right[3]
