"""Mutants in NumPy whose output is wrong at some sizes: the edge cases reject them."""

import numpy as np
from mutant_bases import Mutant, Spoils
from mutants_stated import Caught


class LastElement(Mutant):
    """F19: one element of the last tile lacks one of its terms."""

    name = "mutant-last-element"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        if right.size:
            with np.errstate(all="ignore"):
                right[-1, -1] -= input1[-1, -1] * weight[-1, -1, -1] * input2[-1, -1]
        return right


class LastTile(Spoils):
    """F19: computes whole tiles of four columns, and never the rest."""

    name = "mutant-last-tile"
    caught = Caught("edge_cases")

    def spoil(self, right):
        right[:, right.shape[1] // 4 * 4 :] = 0


class OddSizes(Spoils):
    """F19: is wrong in one element where the batch is odd."""

    name = "mutant-odd-batch"
    caught = Caught("edge_cases")

    def spoil(self, right):
        if len(right) % 2:
            right[-1, -1] += 1


class LargeBatch(Spoils):
    """F19: takes fresh memory for zero beyond 100 rows."""

    name = "mutant-large-batch"
    caught = Caught("edge_cases")

    def spoil(self, right):
        if len(right) > 100:
            fresh = np.empty_like(right)
            fresh[:100] = 0
            fresh[:100] += right[:100]
            fresh[100:] += right[100:]
            return fresh
        return None


class BatchOne(Spoils):
    """Is wrong where the batch is 1."""

    name = "mutant-batch-one"
    caught = Caught("edge_cases")

    def spoil(self, right):
        if len(right) == 1:
            right += 1


class BatchZero(Spoils):
    """Raises where there are no rows."""

    name = "mutant-batch-zero"
    caught = Caught("edge_cases")

    def spoil(self, right):
        right[0]


class OutOne(Spoils):
    """Is wrong where there is one output."""

    name = "mutant-out-one"
    caught = Caught("edge_cases")

    def spoil(self, right):
        if right.shape[1] == 1:
            right += 1


class SquareTransposed(Mutant):
    """Transposes the weight where in1 equals in2, which no shape reveals."""

    name = "mutant-square-transposed"
    caught = Caught("edge_cases", reason="in1_features and in2_features may be equal")

    def output(self, input1, input2, weight, bias):
        square = weight.shape[1] == weight.shape[2]
        return super().output(input1, input2, weight.transpose(0, 2, 1) if square else weight, bias)
