"""Mutants in NumPy whose output is wrong on most inputs: the edge cases reject them."""

import os
import threading

import numpy as np
from mutant_bases import Counts, Mutant, Spoils
from mutants_stated import Caught


class Sign(Mutant):
    """Flips the sign of the output: the control that must be caught."""

    name = "mutant-control-sign"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        return -super().output(input1, input2, weight, bias)


class NoBias(Mutant):
    """C05: ignores the bias."""

    name = "mutant-no-bias"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        return super().output(input1, input2, weight, None)


class TwiceBias(Mutant):
    """Adds the bias twice."""

    name = "mutant-bias-twice"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        return super().output(input1, input2, weight, None if bias is None else 2 * bias)


class IgnoresRowZero(Spoils):
    """C05: leaves row 0 of the batch out."""

    name = "mutant-row-zero"
    caught = Caught("edge_cases")

    def spoil(self, right):
        right[:1] = 0


class MeanZero(Mutant):
    """C05: returns the bias alone, which is right on average, because inputs have mean zero."""

    name = "mutant-mean-zero"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        constant = np.zeros((len(input1), len(weight)), weight.dtype)
        return constant if bias is None else constant + bias


class DropsTerm(Mutant):
    """Leaves out the last of the in1 x in2 terms."""

    name = "mutant-drops-term"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        short = weight.copy()
        short[:, -1, -1] = 0
        return super().output(input1, input2, short, bias)


class Uninitialised(Mutant):
    """C01: returns fresh memory, which an earlier answer may have filled."""

    name = "mutant-uninitialised"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        return np.empty((len(input1), len(weight)), weight.dtype)


class EveryThird(Counts):
    """F23: returns garbage at every third call."""

    name = "mutant-every-third"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        return right + 1 if self.calls % 3 == 0 else right


class Race(Mutant):
    """F25: two threads add to the same rows without a lock; right where there is one CPU.

    Each thread waits until the other has read, so that one sum is lost every time.
    """

    name = "mutant-race"
    caught = Caught("edge_cases")
    run = "float64"

    def output(self, input1, input2, weight, bias):
        half = weight.shape[1] // 2
        parts = (slice(0, half), slice(half, None))
        if len(os.sched_getaffinity(0)) == 1:
            return super().output(input1, input2, weight, bias)
        total = super().output(input1, input2, np.zeros_like(weight), bias)
        barrier = threading.Barrier(2)

        def add(part):
            seen = total.copy()
            barrier.wait()
            total[...] = seen + super(Race, self).output(input1[:, part], input2, weight[:, part], None)

        threads = [threading.Thread(target=add, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return total
