"""Backends in NumPy that are wrong, or cheat, on purpose; each says how it must be caught.

All share the honest computation of ``Honest`` and spoil one of its two methods. ``C`` and ``F`` numbers are those of
the catalogues of cheats and of faults.
"""

import functools
import gc
import json
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from late_framework import Late
from mutants_stated import Caught, Ineffective, LateArray, in_a_gradient

from harness import Backend, Support
from harness.timing.clock import Clock
from harness.worker import arrays, backend_worker

#: Too many calls for the gate (about 20 in all), soon over in timing.
MANY_CALLS = 50
#: How many times too short a lying clock's seconds are: more than any jitter.
LIE = 6.0


class Honest(Backend):
    """No fault: the control."""

    name = "mutant-control-honest"
    ineffective = Ineffective()
    #: Which of the test's runs it is in.
    run = "numpy"

    def prepare_forward(self, case, weight, bias):
        return lambda input1, input2: self.output(input1, input2, weight, bias)

    def prepare_forward_backward(self, case):
        return Step(self)

    def output(self, input1, input2, weight, bias):
        """Return output (b, o)."""
        pages = (np.matmul(input1, weight) * input2).sum(2, dtype=weight.dtype)  # (o, b)
        right = np.ascontiguousarray(pages.T)
        return right if bias is None else right + bias

    def gradients(self, grad_output, input1, input2, weight, bias):
        """Return the gradients of the arguments."""
        batch, (out, in1, in2) = len(input1), weight.shape
        outer = (grad_output @ weight.reshape(out, in1 * in2)).reshape(batch, in1, in2)
        scaled = grad_output.T[:, :, None] * input1  # (o, b, i)
        return (
            np.matmul(outer, input2[:, :, None])[:, :, 0],
            np.matmul(input1[:, None, :], outer)[:, 0, :],
            np.matmul(scaled.transpose(0, 2, 1), input2),
            None if bias is None else grad_output.sum(0),
        )


class Step:
    """One training step of a backend."""

    def __init__(self, backend):
        self.backend = backend

    def forward(self, input1, input2, weight, bias):
        self.given = input1, input2, weight, bias
        return self.backend.output(input1, input2, weight, bias)

    def backward(self, grad_output):
        return self.backend.gradients(grad_output, *self.given)


def to_tf32(array):
    """Round float32 to 10 stored bits of mantissa."""
    return ((array.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def to_bfloat16(array):
    """Round float32 to 7 stored bits of mantissa."""
    return ((array.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


def to_float16(array):
    """Round float32 to 10 stored bits of mantissa and 5 of exponent."""
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(np.float32)


# Wrong in the output.


class Sign(Honest):
    """One sign flipped: the control that must be caught."""

    name = "mutant-control-sign"
    ineffective = None
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        return -super().output(input1, input2, weight, bias)


class Mutant(Honest):
    """What the mutants have in common."""

    ineffective = None


class Counts(Mutant):
    """Counts its calls, from 1; a new kernel or step begins anew."""

    calls = 0

    def prepare_forward(self, case, weight, bias):
        self.calls = 0
        return super().prepare_forward(case, weight, bias)

    def prepare_forward_backward(self, case):
        self.calls = 0
        return super().prepare_forward_backward(case)

    def output(self, input1, input2, weight, bias):
        self.calls += 1
        return super().output(input1, input2, weight, bias)


class Spoils(Mutant):
    """Computes the right output, then spoils it in place."""

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        replaced = self.spoil(right)
        return right if replaced is None else replaced

    def spoil(self, right):
        """Change the output, or return another."""
        raise NotImplementedError


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
    """C05: inputs have the mean zero, so the bias alone is the best guess."""

    name = "mutant-mean-zero"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        constant = np.zeros((len(input1), len(weight)), weight.dtype)
        return constant if bias is None else constant + bias


class SkipsSmall(Mutant):
    """C05: skips inputs that are nearly zero beside the others, which small integers never are."""

    name = "mutant-skips-small"
    caught = Caught("precision")

    def output(self, input1, input2, weight, bias):
        small = abs(input1) < 0.01 * abs(input1).max(initial=0)
        return super().output(np.where(small, 0, input1).astype(input1.dtype), input2, weight, bias)


class DropsTerm(Mutant):
    """Leaves out the last of the in1 x in2 terms."""

    name = "mutant-drops-term"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        short = weight.copy()
        short[:, -1, -1] = 0
        return super().output(input1, input2, short, bias)


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
    """F19: wrong in one element, and only where the batch is odd."""

    name = "mutant-odd-batch"
    caught = Caught("edge_cases")

    def spoil(self, right):
        if len(right) % 2:
            right[-1, -1] += 1


class OneElement(Spoils):
    """F19: wrong by one in one element of the case that is timed, and right on all other sizes."""

    name = "mutant-one-element"
    caught = Caught("exact")

    def spoil(self, right):
        if len(right) == 64:
            right[-1, -1] += 1


class LargeBatch(Spoils):
    """F19: beyond 100 rows it trusts fresh memory to be zero."""

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
    """Wrong where the batch is 1."""

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
    """Wrong where there is one output."""

    name = "mutant-out-one"
    caught = Caught("edge_cases")

    def spoil(self, right):
        if right.shape[1] == 1:
            right += 1


class SquareTransposed(Mutant):
    """Transposes the weight where in1 equals in2, and nobody could tell by the shapes."""

    name = "mutant-square-transposed"
    caught = Caught("edge_cases", reason="in1_features and in2_features may be equal")

    def output(self, input1, input2, weight, bias):
        square = weight.shape[1] == weight.shape[2]
        return super().output(input1, input2, weight.transpose(0, 2, 1) if square else weight, bias)


class KnownShape(Spoils):
    """C15: throws half of the batch away where the columns are those of the case that is timed."""

    name = "mutant-known-shape"
    caught = Caught("exact")

    def spoil(self, right):
        if right.shape[1] == 16:
            right[len(right) // 2 :] = 0


class SharedPack(Mutant):
    """Packs the weight where all its kernels find it: the one prepared last wins."""

    name = "mutant-shared-pack"
    caught = Caught("edge_cases", modes=("forward",))
    packed = None

    def prepare_forward(self, case, weight, bias):
        type(self).packed = weight.copy()
        return lambda input1, input2: self.output(input1, input2, self.packed, bias)


class ThroughFloat16(Mutant):
    """Splits its operands into pairs of float16: exact enough, and infinite beyond 65504."""

    name = "mutant-float16-pairs"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        with np.errstate(all="ignore"):
            upper = to_float16(input1)
            return super().output(upper + to_float16(input1 - upper), input2, weight, bias)


class ThroughFloat16Input2(Mutant):
    """Splits its second operand into pairs of float16, which are infinite beyond 65504."""

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
    """F17: NaN in one element."""

    name = "mutant-nan"
    caught = Caught("edge_cases", reason="expected a finite number")

    def spoil(self, right):
        right[-1:, -1] = np.nan


class Infinite(Spoils):
    """F17: infinity in one element of the case that is timed."""

    name = "mutant-infinity"
    caught = Caught("exact", reason="is inf, expected a finite number")

    def spoil(self, right):
        if len(right) == 64:
            right[-1, -1] = np.inf


class Uninitialised(Mutant):
    """C01: returns fresh memory, in the hope that somebody left the answer there."""

    name = "mutant-uninitialised"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        return np.empty((len(input1), len(weight)), weight.dtype)


class EveryThird(Counts):
    """F23: garbage at every third call."""

    name = "mutant-every-third"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        return right + 1 if self.calls % 3 == 0 else right


class EveryThirtieth(Counts):
    """F23: garbage at every thirtieth call of a kernel."""

    name = "mutant-every-thirtieth"
    caught = Caught("conduct", reason="again: output")

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        return right + 1 if self.calls % 30 == 0 else right


class RandomUlp(Spoils):
    """F23: off by one unit in the last place at random, integers as well."""

    name = "mutant-random-ulp"
    caught = Caught("edge_cases")

    def spoil(self, right):
        return np.nextafter(right, np.float32(np.inf) if random.random() < 0.5 else np.float32(-np.inf))


class Race(Mutant):
    """F25: two threads add to the same rows without a lock; right where there is one CPU.

    Each waits until the other has read, so that one sum is lost every time.
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


# Right numbers, in the wrong arithmetic.


class RoundsOperands(Mutant):
    """Rounds what it multiplies, and accumulates in float32."""

    def rounded(self, array):
        """Return the operand as it goes into the product."""
        raise NotImplementedError

    def output(self, input1, input2, weight, bias):
        return super().output(self.rounded(input1), self.rounded(input2), self.rounded(weight), bias)


class Tf32(RoundsOperands):
    """C13: operands in tf32."""

    name = "mutant-tf32"
    caught = Caught("precision", reason="was computed in tf32")

    def rounded(self, array):
        return to_tf32(array)


class BFloat16(RoundsOperands):
    """C13: operands in bfloat16."""

    name = "mutant-bfloat16"
    caught = Caught("precision", reason="was computed in bfloat16")

    def rounded(self, array):
        return to_bfloat16(array)


class Float16(RoundsOperands):
    """C13: operands in float16."""

    name = "mutant-float16"
    caught = Caught("edge_cases", reason="near overflow")

    def rounded(self, array):
        return to_float16(array)


class Float16WithinRange(Mutant):
    """C13: operands in float16 after scaling each to at most 1, so that nothing overflows."""

    name = "mutant-float16-scaled"
    caught = Caught("precision", reason="was computed in tf32")

    def output(self, input1, input2, weight, bias):
        operands = (input1, input2, weight)
        if not all(np.isfinite(array).all() and array.any() for array in operands):
            return super().output(input1, input2, weight, bias)
        exponents = [int(np.frexp(abs(array).max())[1]) for array in operands]
        scaled = [to_float16(np.ldexp(array, -exponent)) for array, exponent in zip(operands, exponents, strict=True)]
        right = np.ldexp(super().output(*scaled, None), sum(exponents))
        return right if bias is None else right + bias


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


class Float32WithinRange(Float32ForFloat64):
    """C13: computes float64 cases in float32 where the numbers fit."""

    name = "mutant-float32-where-it-fits"
    caught = Caught("precision", reason="was computed in float32, expected float64")

    def output(self, input1, input2, weight, bias):
        arrays = (input1, input2, weight)
        fits = all(np.isfinite(array).all() and 1e-6 < abs(array).max(initial=0) < 1e6 for array in arrays)
        return (super() if fits else super(Float32ForFloat64, self)).output(input1, input2, weight, bias)


# Wrong in a gradient alone.


class GradientMutant(Mutant):
    """Right forward; ``spoil`` changes the right gradients."""

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = super().gradients(grad_output, input1, input2, weight, bias)
        return self.spoil(*right)

    def spoil(self, grad_input1, grad_input2, grad_weight, grad_bias):
        """Return the wrong gradients, given the right ones."""
        raise NotImplementedError


class GradInput1Sign(GradientMutant):
    """grad_input1 has the wrong sign."""

    name = "mutant-grad-input1-sign"
    caught = in_a_gradient("edge_cases", reason="grad_input1")

    def spoil(self, grad_input1, grad_input2, grad_weight, grad_bias):
        return -grad_input1, grad_input2, grad_weight, grad_bias


class GradInput1Tf32(Mutant):
    """grad_input1 is computed from tf32 operands."""

    name = "mutant-grad-input1-tf32"
    caught = in_a_gradient("precision", reason="grad_input1 was computed in tf32")

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = super().gradients(grad_output, input1, input2, weight, bias)
        rounded = super().gradients(to_tf32(grad_output), input1, to_tf32(input2), to_tf32(weight), bias)
        return rounded[0], *right[1:]


class GradInput1OneElement(GradientMutant):
    """One element of grad_input1 is off by 1e-4 of its result's largest, integers too."""

    name = "mutant-grad-input1-one-element"
    caught = in_a_gradient("edge_cases", reason="grad_input1")

    def spoil(self, grad_input1, grad_input2, grad_weight, grad_bias):
        grad_input1[-1:, -1] += 1e-4 * abs(grad_input1).max(initial=0)
        return grad_input1, grad_input2, grad_weight, grad_bias


class GradInput1Sloppy(GradientMutant):
    """One element of grad_input1 is off by a twentieth of its scale, but integers are right."""

    name = "mutant-grad-input1-sloppy"
    caught = in_a_gradient("bound", reason="grad_input1")
    share = 0.05

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = Mutant.gradients(self, grad_output, input1, input2, weight, bias)
        if np.array_equal(np.rint(grad_output), grad_output) or not np.isfinite(input1).all():
            return right
        scale = Mutant.gradients(self, *(abs(array) for array in (grad_output, input1, input2, weight)), None)[0]
        right[0][-1, -1] += self.share * scale[-1, -1]
        return right


class GradInput1Slightly(GradInput1Sloppy):
    """The same by 4e-6 of its scale: within the bound of so many terms, and not float32's doing."""

    name = "mutant-grad-input1-slightly"
    caught = in_a_gradient("precision", reason="grad_input1")
    share = 4e-6


class GradInput2Stale(Mutant):
    """grad_input2 is computed with the input1 of the forward before."""

    name = "mutant-grad-input2-stale"
    caught = in_a_gradient("edge_cases", reason="grad_input2")
    earlier = None

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = super().gradients(grad_output, input1, input2, weight, bias)
        stale = input1 if self.earlier is None or self.earlier.shape != input1.shape else self.earlier
        self.earlier = input1.copy()
        return right[0], super().gradients(grad_output, stale, input2, weight, bias)[1], *right[2:]


class GradInput2Factor(Mutant):
    """grad_input2 lacks the factor input1."""

    name = "mutant-grad-input2-factor"
    caught = in_a_gradient("edge_cases", reason="grad_input2")

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = super().gradients(grad_output, input1, input2, weight, bias)
        return right[0], super().gradients(grad_output, np.ones_like(input1), input2, weight, bias)[1], *right[2:]


class GradInput2Missing(GradientMutant):
    """F20: grad_input2 is None."""

    name = "mutant-grad-input2-none"
    caught = in_a_gradient("bound", reason="returned grad_bias, grad_input1, grad_weight, output")

    def spoil(self, grad_input1, grad_input2, grad_weight, grad_bias):
        return grad_input1, None, grad_weight, grad_bias


class GradWeightTransposed(Mutant):
    """grad_weight has input1 and input2 in each other's place."""

    name = "mutant-grad-weight-roles"
    caught = in_a_gradient("edge_cases", reason="grad_weight")

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = super().gradients(grad_output, input1, input2, weight, bias)
        swapped = super().gradients(grad_output, input2, input1, weight.transpose(0, 2, 1), bias)[2]
        return *right[:2], swapped.reshape(weight.shape), right[3]


class GradWeightLastRow(Mutant):
    """grad_weight leaves out the last row of the batch."""

    name = "mutant-grad-weight-last-row"
    caught = in_a_gradient("edge_cases", reason="grad_weight")

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = super().gradients(grad_output, input1, input2, weight, bias)
        short = super().gradients(grad_output[:-1], input1[:-1], input2[:-1], weight, bias)[2]
        return *right[:2], short, right[3]


class GradWeightBFloat16(Mutant):
    """grad_weight is computed from bfloat16 operands."""

    name = "mutant-grad-weight-bfloat16"
    caught = in_a_gradient("precision", reason="grad_weight was computed in bfloat16")

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = super().gradients(grad_output, input1, input2, weight, bias)
        rounded = [to_bfloat16(array) for array in (grad_output, input1, input2)]
        return *right[:2], super().gradients(*rounded, weight, bias)[2], right[3]


class GradWeightAccumulates(GradientMutant):
    """grad_weight is added to what earlier calls left."""

    name = "mutant-grad-weight-accumulates"
    caught = in_a_gradient("edge_cases", reason="grad_weight")

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.sums = {}

    def spoil(self, grad_input1, grad_input2, grad_weight, grad_bias):
        total = self.sums.setdefault(grad_weight.shape, np.zeros_like(grad_weight))
        total += grad_weight
        return grad_input1, grad_input2, total.copy(), grad_bias


class GradBiasMean(GradientMutant):
    """grad_bias is the mean over the batch, not the sum."""

    name = "mutant-grad-bias-mean"
    caught = in_a_gradient("edge_cases", reason="grad_bias")

    def spoil(self, grad_input1, grad_input2, grad_weight, grad_bias):
        mean = None if grad_bias is None else grad_bias / np.float32(max(len(grad_input1), 1))
        return grad_input1, grad_input2, grad_weight, mean


class GradBiasShape(GradientMutant):
    """F20: grad_bias is (1, o), which would broadcast."""

    name = "mutant-grad-bias-shape"
    caught = in_a_gradient("bound", reason="grad_bias has shape 1x16, expected 16")

    def spoil(self, grad_input1, grad_input2, grad_weight, grad_bias):
        return grad_input1, grad_input2, grad_weight, None if grad_bias is None else grad_bias[None]


class GradBiasAliased(Mutant):
    """F22: with one row grad_bias is grad_output itself."""

    name = "mutant-grad-bias-is-grad-output"
    caught = in_a_gradient("edge_cases", reason="grad_bias lies in the memory of the input grad_output")

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = super().gradients(grad_output, input1, input2, weight, bias)
        return *right[:3], grad_output[0] if len(grad_output) == 1 else right[3]


class GradOutputOnes(Mutant):
    """C05: takes grad_output for ones, as the loss of an example has it."""

    name = "mutant-grad-output-ones"
    caught = in_a_gradient("edge_cases", reason="grad_input1")

    def gradients(self, grad_output, input1, input2, weight, bias):
        return super().gradients(np.ones_like(grad_output), input1, input2, weight, bias)


class GradShared(Mutant):
    """All steps keep what backward needs in one place: right as long as no two of them overlap."""

    name = "mutant-steps-share-inputs"
    caught = in_a_gradient("exact", reason="grad_")

    def prepare_forward_backward(self, case):
        step = Step(self)
        type(self).shared = shared = getattr(type(self), "shared", {})

        def forward(*given):
            shared["given"] = given
            return self.output(*given)

        step.forward = forward
        step.backward = lambda grad_output: self.gradients(grad_output, *shared["given"])
        return step


class GradList(GradientMutant):
    """F20: the gradients come in a list."""

    name = "mutant-gradients-in-a-list"
    caught = Caught(status="failed", phase="prepare", modes=("forward_backward",), reason="backward returned list")

    def spoil(self, *gradients):
        return list(gradients)


class FirstWeight(Mutant):
    """The step keeps the first weight that it sees: in training the weight changes at every step."""

    name = "mutant-keeps-first-weight"
    caught = in_a_gradient("edge_cases")
    #: Size of the smallest weight that it does so with.
    least = 0

    def prepare_forward_backward(self, case):
        step, packed = Step(self), []
        forward = step.forward

        def keeps(input1, input2, weight, bias):
            packed[:] = packed or [weight.copy()]
            return forward(input1, input2, packed[0] if weight.size >= self.least else weight, bias)

        step.forward = keeps
        return step


class WeightByPointer(Mutant):
    """The step packs the weight once for each address: an optimizer's step in place goes unseen."""

    name = "mutant-packs-weight-by-pointer"
    caught = in_a_gradient("edge_cases", reason="the weights may change at every step")
    #: Size of the smallest weight that it does so with.
    least = 0

    def prepare_forward_backward(self, case):
        step, packed = Step(self), {}
        forward = step.forward

        def keeps(input1, input2, weight, bias):
            kept = packed.setdefault(weight.ctypes.data, (weight, weight.copy()))
            return forward(input1, input2, kept[1] if weight.size >= self.least else weight, bias)

        step.forward = keeps
        return step


class FirstWeightLarge(FirstWeight):
    """Keeps its first weight where the weight is too large for the trials to be about it."""

    name = "mutant-keeps-first-weight-if-large"
    caught = in_a_gradient("bound", phase="recheck")
    least = 4096


class WeightByPointerLarge(WeightByPointer):
    """Packs once for each address where the weight is too large for the trials to be about it."""

    name = "mutant-packs-weight-by-pointer-if-large"
    caught = in_a_gradient("bound", phase="recheck")
    least = 4096


class FirstWeightOfEights(FirstWeight):
    """The step keeps its first weight, and does multiples of eight alone, so that most trials cannot ask it."""

    name = "mutant-keeps-first-weight-of-eights"
    caught = in_a_gradient("bound", phase="recheck")

    def supports(self, case):
        eights = case.in1_features % 8 == case.in2_features % 8 == 0
        return super().supports(case) if eights else Support(False, "sizes must be multiples of 8")


# Not what was asked for.


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


class Broadcasts(Spoils):
    """F20: one row, which would broadcast."""

    name = "mutant-broadcasts"
    caught = Caught("bound", reason="output has shape 1x16, expected 64x16")

    def spoil(self, right):
        return right[:1].copy()


class Double(Spoils):
    """F20: float64 for float32."""

    name = "mutant-double"
    caught = Caught("bound", reason="dtype float64, expected float32")

    def spoil(self, right):
        return right.astype(np.float64)


class InTuple(Spoils):
    """F20: the output in a tuple."""

    name = "mutant-tuple"
    caught = Caught("bound", reason="output is a builtins.tuple, expected an array")

    def spoil(self, right):
        return (right,)


class InList(Spoils):
    """F20: the output as a list of rows."""

    name = "mutant-list"
    caught = Caught("bound", reason="output is a builtins.list, expected an array")

    def spoil(self, right):
        return list(right)


class Nothing(Mutant):
    """F20: None."""

    name = "mutant-none"
    caught = Caught("bound", reason="output")

    def output(self, input1, input2, weight, bias):
        return None


# Inputs and outputs that are not left alone.


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
        backend_worker.same_bits = lambda one, other: True

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
    caught = Caught("conduct", reason="output lies in the memory of the input input1")

    def output(self, input1, input2, weight, bias):
        right = Mutant.output(self, input1, input2, weight, bias)
        if right.shape[1] > input1.shape[1]:
            return right
        input1[:, : right.shape[1]] = right
        return input1[:, : right.shape[1]]


class StaticBuffer(Counts):
    """C19, F22: one buffer for all outputs of a kernel."""

    name = "mutant-static-buffer"
    caught = Caught("conduct", reason="output lies in the memory of an earlier output")
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


# Answers that were not computed.


class Remembers(Mutant):
    """Keeps every answer to a weight under a key; holds the inputs it was asked with, so that no address comes back."""

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.answers = {}

    def key(self, *arrays):
        """Return what tells one question from another."""
        raise NotImplementedError

    def output(self, input1, input2, weight, bias):
        key = (weight.tobytes(), self.key(input1, input2))
        if key not in self.answers:
            self.answers[key] = self.answer(input1, input2, weight, bias), (input1, input2)
        return self.answers[key][0].copy()

    def answer(self, input1, input2, weight, bias):
        """Compute what is not yet known."""
        return super().output(input1, input2, weight, bias)


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


class ByPointerLater(Counts):
    """C04: once it is warm it answers by the inputs' addresses, as a captured graph does that nobody refills."""

    name = "mutant-remembers-by-pointer-after-50"
    caught = Caught("bound", phase="recheck")

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.answers = {}

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        if self.calls <= MANY_CALLS:
            return right
        key = input1.ctypes.data, weight.ctypes.data
        return self.answers.setdefault(key, (right, input1, weight))[0].copy()


class ByShape(Remembers):
    """C04: remembers answers by the inputs' shapes."""

    name = "mutant-remembers-by-shape"
    caught = Caught("edge_cases", reason="other inputs give other results")

    def key(self, *arrays):
        return tuple(array.shape for array in arrays)


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


class StartsSlowly(Mutant):
    """Sleeps in the first timed call of a kernel; timed calls run with the garbage collector off."""

    asleep = False

    def prepare_forward(self, case, weight, bias):
        self.asleep = False
        return super().prepare_forward(case, weight, bias)

    def prepare_forward_backward(self, case):
        self.asleep = False
        return super().prepare_forward_backward(case)

    def output(self, input1, input2, weight, bias):
        if not gc.isenabled() and not self.asleep:
            self.asleep = True
            time.sleep(0.3)
        return super().output(input1, input2, weight, bias)


class ByContentSlowStart(StartsSlowly, ByContent):
    """C04, C18: the same, and sleeps in the first timed call to be taken for slow and looked at less."""

    name = "mutant-remembers-and-starts-slowly"


class Prepared(Mutant):
    """C20: computes answers while it prepares, from inputs that it finds lying about; garbage for all others."""

    name = "mutant-prepares-answers-or-garbage"
    caught = Caught("edge_cases", modes=("forward",))

    def prepare_forward(self, case, weight, bias):
        shapes = (case.batch, case.in1_features), (case.batch, case.in2_features)
        known = {}
        # A dictionary of arrays is nothing that the collector tracks; a list of such is.
        candidates = [item for found in gc.get_objects() if type(found) is list for item in found]
        for found in candidates:
            if type(found) is dict and "input1" in found and "input2" in found:
                one, two = found["input1"], found["input2"]
                if (one.shape, two.shape) == shapes:
                    known[one.tobytes(), two.tobytes()] = self.output(one, two, weight, bias)

        def kernel(input1, input2):
            answer = known.get((input1.tobytes(), input2.tobytes()))
            return self.unknown(input1, input2, weight, bias) if answer is None else answer.copy()

        return kernel

    def unknown(self, input1, input2, weight, bias):
        """Answer what it was not prepared for."""
        return np.ones((len(input1), len(weight)), weight.dtype)


class PreparedElseHonest(Prepared):
    """C20: the same, and honest for all others, which takes it longer."""

    name = "mutant-prepares-answers"
    caught = None
    ineffective = Ineffective()  # there are no inputs yet while it prepares: it finds nothing, and computes

    def unknown(self, input1, input2, weight, bias):
        right = np.einsum("bi,oij,bj->bo", input1, weight, input2)
        return right if bias is None else right + bias


class OneLate(Mutant):
    """C08: returns the answer to the call before."""

    name = "mutant-one-call-late"
    caught = Caught("edge_cases")
    earlier = None

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        earlier, self.earlier = self.earlier, right
        return right.copy() if earlier is None or earlier.shape != right.shape else earlier


class OneLateLater(Counts):
    """C06, C08, F24: the same, after so many honest calls that the gate is past."""

    name = "mutant-one-call-late-after-50"
    caught = Caught("bound", phase="timing", reason="in a timed ")
    run = "late"
    earlier = None

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        earlier, self.earlier = self.earlier, right
        return earlier if self.calls > MANY_CALLS else right.copy()


class GarbageLater(Counts):
    """C06, F24: honest for its first calls, then garbage."""

    name = "mutant-garbage-after-50"
    caught = Caught("bound", phase="timing", reason="in a timed ")
    run = "late"

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        return np.ones_like(right) if self.calls > MANY_CALLS else right


class KnowsWhenTimed(Mutant):
    """C06: garbage whenever the garbage collector is off, as it is while the clock runs."""

    name = "mutant-knows-when-timed"
    caught = Caught("bound", phase="timing", reason="in a timed sample")
    run = "late"

    def output(self, input1, input2, weight, bias):
        if not gc.isenabled():
            return np.ones((len(input1), len(weight)), weight.dtype)
        return super().output(input1, input2, weight, bias)


class KnowsItsInputs(Counts):
    """C06: honest as long as it learns which inputs are in rotation, then wrong for all others."""

    name = "mutant-knows-its-inputs"
    caught = Caught("bound", phase="recheck")

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.seen = set()

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        if self.calls <= MANY_CALLS:
            self.seen.add(input1.tobytes())
        elif input1.tobytes() not in self.seen:
            return np.roll(right, 1, axis=0)
        return right


class ForwardAlone(Mutant):
    """C06: a forward that follows a forward is only there to be timed alone, and returns fresh memory."""

    name = "mutant-forward-alone"
    caught = in_a_gradient("bound", phase="timing")
    run = "late"

    def prepare_forward_backward(self, case):
        step, waiting = Step(self), []
        forward, backward = step.forward, step.backward

        def cheats(input1, input2, weight, bias):
            if waiting:
                return np.empty((len(input1), len(weight)), weight.dtype)
            waiting.append(True)
            return forward(input1, input2, weight, bias)

        def honest(grad_output):
            waiting.clear()
            return backward(grad_output)

        step.forward, step.backward = cheats, honest
        return step


# Work that is put off.


class Lazy(Mutant):
    """C07: returns a subclass of the array that computes once it is looked at."""

    name = "mutant-lazy-subclass"
    caught = Caught("bound", reason="output is a mutants_stated.LateArray, expected a numpy.ndarray")
    array_type = LateArray

    def output(self, input1, input2, weight, bias):
        # Copies: what is put off must not see how the inputs change later.
        given = np.array(input1), np.array(input2), np.asarray(weight), bias if bias is None else np.asarray(bias)
        late = np.empty((len(input1), len(weight)), weight.dtype).view(self.array_type)
        late.work = lambda: super(Lazy, self).output(*given)
        return late

    def gradients(self, grad_output, input1, input2, weight, bias):
        given = (grad_output, input1, input2, weight, bias)
        right = super().gradients(*(array if array is None else np.asarray(array) for array in given))
        return tuple(result if result is None else result.view(self.array_type) for result in right)

    def to_numpy(self, result):
        work = getattr(result, "work", None)
        return np.array(result if work is None else work())


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


class Holder(bytearray):
    """Memory of an array that knows what should be in it."""


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


class WorksInToNumpy(Mutant):
    """C07: returns a plain array with nothing in it, and computes when it is converted, after the clock."""

    name = "mutant-works-in-to-numpy"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        shape = len(input1), len(weight)
        holder = Holder(max(shape[0] * shape[1], 1) * weight.itemsize)
        holder.given = input1.copy(), input2.copy(), weight, bias
        return np.ndarray(shape, weight.dtype, buffer=holder)

    def to_numpy(self, result):
        if isinstance(result.base, Holder):
            return super().output(*result.base.given)
        return super().to_numpy(result)


class Background(Mutant):
    """C07: a thread fills the returned array, once the next call has come or half a second has passed."""

    name = "mutant-background-thread"
    caught = Caught("edge_cases")
    next_call = None

    def output(self, input1, input2, weight, bias):
        if self.next_call is not None:
            self.next_call.set()
        self.next_call = event = threading.Event()
        late = np.empty((len(input1), len(weight)), weight.dtype)
        right = super().output(input1, input2, weight, bias)

        def fill():
            event.wait(0.5)
            late[...] = right

        threading.Thread(target=fill, daemon=True).start()
        return late


# Clocks, pipes, expected answers.


class PerfCounter(Mutant):
    """C09: replaces time.perf_counter by a slow clock."""

    name = "mutant-replaces-perf-counter"
    caught = Caught("conduct", reason="replaced time.perf_counter")

    def __init__(self, device="cpu"):
        super().__init__(device)
        original = time.perf_counter
        time.perf_counter = lambda: original() / LIE


def lie_in_samples():
    """Make Clock.sample return too few seconds."""
    original = Clock.sample

    def liar(self, *arguments, **named):
        seconds, kept = original(self, *arguments, **named)
        return seconds / LIE, kept

    Clock.sample = liar


class ClockSample(Mutant):
    """C09: replaces Clock.sample by a liar."""

    name = "mutant-replaces-sample"
    caught = Caught("conduct", reason="replaced Clock.sample")

    def __init__(self, device="cpu"):
        super().__init__(device)
        lie_in_samples()


class SilencedWatch(Mutant):
    """C09: the same, and replaces what would notice."""

    name = "mutant-replaces-the-watch"
    caught = Caught("conduct", phase="timing", reason="its samples say")

    def __init__(self, device="cpu"):
        super().__init__(device)
        lie_in_samples()
        arrays.Watch.replaced = lambda watch: []


class ClockInstance(Mutant):
    """C09: finds the worker's clock in memory and gives it another source of time."""

    name = "mutant-slows-the-clock"
    caught = Caught("conduct", phase="timing", reason="its samples say")
    lie = LIE

    def __init__(self, device="cpu"):
        super().__init__(device)
        lie = self.lie
        for found in gc.get_objects():
            if type(found) is Clock:
                found._now = lambda: time.perf_counter() / lie


class ClockHalf(ClockInstance):
    """C09: the same, by half: few enough that the parent might not notice."""

    name = "mutant-slows-the-clock-by-half"
    lie = 2.0


class ForgesSeconds(Mutant):
    """C10: replaces what sends the worker's replies, numbers and all, and shortens the seconds in them."""

    name = "mutant-forges-replies"
    caught = Caught("conduct", reason="replaced __main__._send")

    def __init__(self, device="cpu"):
        super().__init__(device)
        worker = sys.modules["__main__"]
        original = worker._send

        def send(replies, reply):
            for key in ("seconds", "forward_seconds"):
                if isinstance(reply.get(key), float):
                    reply[key] /= LIE
            if "stretches" in reply:
                reply["stretches"] = [(calls, seconds / LIE) for calls, seconds in reply["stretches"]]
            original(replies, reply)

        worker._send = send


class ForgesBlindly(Mutant):
    """C10: writes what looks like a reply into every pipe that it can find."""

    name = "mutant-forges-blindly"
    caught = Caught(status="failed", phase="prepare", reason="broke the protocol")

    def output(self, input1, input2, weight, bias):
        for path in Path("/proc/self/fd").iterdir():
            try:
                os.write(int(path.name), b'{"id": 2, "ok": true, "prepare_seconds": 0.0, "first_call_seconds": 0.0}\n')
            except OSError:
                continue
        return super().output(input1, input2, weight, bias)


class ForgesAndExits(Mutant):
    """C10: writes a reply with the number of the request, which it finds on the stack, and leaves."""

    name = "mutant-forges-and-exits"
    caught = Caught(status="failed", phase="prepare", reason="exited with code 0")

    def output(self, input1, input2, weight, bias):
        frame = sys._getframe()
        while frame is not None and "nonce" not in frame.f_locals:
            frame = frame.f_back
        forged = json.dumps({"id": frame.f_locals["nonce"], "ok": False, "error": "exited with code 0", "where": ""})
        os.write(frame.f_locals["replies"].fileno(), forged.encode() + b"\n")
        os._exit(0)


class LeavesItsCpu(Counts):
    """C16, F25: takes all CPUs of the machine once nobody seems to count them any more."""

    name = "mutant-leaves-its-cpu"
    caught = Caught("conduct", phase="recheck", reason="runs on the CPUs")

    def output(self, input1, input2, weight, bias):
        if self.calls == MANY_CALLS:
            os.sched_setaffinity(0, range(os.cpu_count()))
        return super().output(input1, input2, weight, bias)


class LooksForAnswers(Mutant):
    """C11: looks for the expected answer in memory and in the folder for temporary files; garbage if there is none."""

    name = "mutant-looks-for-answers"
    caught = Caught("edge_cases")

    def output(self, input1, input2, weight, bias):
        shape = len(input1), len(weight)
        for path in Path(tempfile.gettempdir()).glob("bilinear-bench-*/*/expected/output.npy"):
            found = np.load(path)
            if found.shape == shape:
                return found.astype(weight.dtype)
        for known in gc.get_objects():
            if type(known).__name__ == "Expected" and known.values["output"].shape == shape:
                return known.values["output"].astype(weight.dtype)
        return np.ones(shape, weight.dtype)


class SpoilsAnswers(Mutant):
    """C12: writes NaN wherever an expected answer might be, and returns NaN."""

    name = "mutant-expects-nan"
    caught = Caught("edge_cases", reason="expected a finite number")

    def output(self, input1, input2, weight, bias):
        for known in gc.get_objects():
            if isinstance(known, dict) and isinstance(known.get("output"), np.ndarray):
                known["output"].fill(np.nan)
        return np.full((len(input1), len(weight)), np.nan, weight.dtype)


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


# Nothing to object to: what they do is allowed, or gains nothing.


class MinusZero(Spoils):
    """F17: returns minus zero for zero, which is equal to it."""

    name = "mutant-minus-zero"
    ineffective = Ineffective()

    def spoil(self, right):
        right[right == 0] = -0.0


class RandomOrder(Mutant):
    """F23: sums in another order at each call: off by a unit in the last place or so, and integers are right."""

    name = "mutant-random-order"
    ineffective = Ineffective("nondeterministic")

    def output(self, input1, input2, weight, bias):
        order = np.random.default_rng().permutation(input2.shape[1])
        return super().output(input1, np.ascontiguousarray(input2[:, order]), weight[:, :, order], bias)


class HidesNan(Mutant):
    """F18: takes NaN and infinity in its inputs for zero."""

    name = "mutant-hides-nan"
    ineffective = Ineffective("nonfinite_differs")

    def output(self, input1, input2, weight, bias):
        finite = [np.where(np.isfinite(array), array, 0).astype(array.dtype) for array in (input1, input2)]
        return super().output(*finite, weight, bias)


class Flushes(Mutant):
    """Takes subnormal inputs for zero, as some processors are told to."""

    name = "mutant-flushes-subnormals"
    ineffective = Ineffective("flushes_subnormals")

    def output(self, input1, input2, weight, bias):
        return super().output(self.normal(input1), input2, weight, bias)

    def gradients(self, grad_output, input1, input2, weight, bias):
        return super().gradients(grad_output, self.normal(input1), input2, weight, bias)

    def normal(self, array):
        """Flush to zero."""
        return np.where(abs(array) < 2.0**-126, 0, array).astype(array.dtype)


class Eights(Mutant):
    """Does multiples of eight alone, so that most trials cannot ask it, and the row says so."""

    name = "mutant-eights"
    ineffective = Ineffective("edge_cases_partial")

    def supports(self, case):
        eights = case.in1_features % 8 == case.in2_features % 8 == 0
        return super().supports(case) if eights else Support(False, "sizes must be multiples of 8")


class FortranInputs(Mutant):
    """Wants its inputs column by column: the harness makes them, row by row."""

    name = "mutant-fortran-inputs"
    ineffective = Ineffective()

    def to_device(self, array, dtype):
        return np.asfortranarray(array, dtype=dtype)

    def output(self, input1, input2, weight, bias):
        assert input1.flags.c_contiguous
        return super().output(input1, input2, weight, bias)


class WorksInToDevice(Mutant):
    """C20: would compute while its inputs are copied, but never sees them there."""

    name = "mutant-works-in-to-device"
    ineffective = Ineffective()

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.seen = []

    def to_device(self, array, dtype):
        self.seen.append(array)
        assert not array.any()
        return super().to_device(array, dtype)


class SlowStart(StartsSlowly):
    """C18: sleeps in its first timed call to get fewer samples: it gets fewer, none is shorter, and the row says so."""

    name = "mutant-slow-start"
    ineffective = Ineffective("few_blocks")
