"""Mutants in NumPy whose output is wrong for some values: the edge cases reject them."""

import random

import numpy as np
from mutant_bases import Mutant, RoundsOperands, Spoils
from mutants_stated import Caught
from oracle import to_float16


class ThroughFloat16(Mutant):
    """Splits input1 into pairs of float16, which are exact enough, and infinite beyond 65504."""

    name = "mutant-float16-pairs"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        with np.errstate(all="ignore"):
            upper = to_float16(input1)
            return super().output(upper + to_float16(input1 - upper), input2, weight, bias)


class ThroughFloat16Input2(Mutant):
    """Splits input2 into pairs of float16, which are exact enough, and infinite beyond 65504."""

    name = "mutant-float16-pairs-of-input2"
    caught = Caught("edge_cases", reason="values near overflow come out right: large input2")

    def output(self, input1, input2, weight, bias):
        with np.errstate(all="ignore"):
            upper = to_float16(input2)
            return super().output(input1, upper + to_float16(input2 - upper), weight, bias)


class ZeroBelow(Mutant):
    """Takes everything below a millionth for zero."""

    name = "mutant-zero-below-a-millionth"
    caught = Caught("edge_cases", reason="values far below 1 come out right")

    def output(self, input1, input2, weight, bias):
        return super().output(np.where(abs(input1) < 1e-6, 0, input1).astype(input1.dtype), input2, weight, bias)


class NotANumber(Spoils):
    """F17: returns NaN in one element."""

    name = "mutant-nan"
    caught = Caught("edge_cases", reason="expected a finite number")

    def spoil(self, right):
        right[-1:, -1] = np.nan


class RandomUlp(Spoils):
    """F23: is off by one unit in the last place at random, for integers too."""

    name = "mutant-random-ulp"
    caught = Caught("edge_cases")

    def spoil(self, right):
        return np.nextafter(right, np.float32(np.inf) if random.random() < 0.5 else np.float32(-np.inf))


class Float16(RoundsOperands):
    """C13: rounds operands to float16."""

    name = "mutant-float16"
    caught = Caught("edge_cases", reason="near overflow")

    def rounded(self, array):
        return to_float16(array)


class Float16Sums(Mutant):
    """C13: accumulates in float16."""

    name = "mutant-float16-sums"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        with np.errstate(all="ignore"):
            pages = (np.matmul(input1, weight) * input2).astype(np.float16).sum(2, dtype=np.float16)
        right = np.ascontiguousarray(pages.T).astype(np.float32)
        return right if bias is None else right + bias


class Float32ForFloat64(Mutant):
    """C13: computes float64 cases in float32."""

    name = "mutant-float32-for-float64"
    caught = Caught("edge_cases", reason="near overflow")
    run = "float64"

    def output(self, input1, input2, weight, bias):
        with np.errstate(over="ignore", invalid="ignore"):
            arrays = [array if array is None else array.astype(np.float32) for array in (input1, input2, weight, bias)]
            return super().output(*arrays).astype(weight.dtype)
