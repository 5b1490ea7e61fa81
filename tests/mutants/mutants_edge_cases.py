"""Mutants in NumPy whose output is wrong at odd sizes or special values: the edge cases reject them."""

import gc
import os
import random
import tempfile
import threading
from pathlib import Path

import numpy as np
from mutant_bases import Counts, Mutant, Remembers, RoundsOperands, Spoils
from mutants_stated import Caught
from oracle import to_float16


class Sign(Mutant):
    """Flips one sign: the control that must be caught."""

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
    """C05: inputs have the mean zero, so the bias alone is the best guess."""

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
    """Transposes the weight where in1 equals in2, which no shape reveals."""

    name = "mutant-square-transposed"
    caught = Caught("edge_cases", reason="in1_features and in2_features may be equal")

    def output(self, input1, input2, weight, bias):
        square = weight.shape[1] == weight.shape[2]
        return super().output(input1, input2, weight.transpose(0, 2, 1) if square else weight, bias)


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


class Uninitialised(Mutant):
    """C01: returns fresh memory, which an earlier answer may have filled."""

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


class RandomUlp(Spoils):
    """F23: off by one unit in the last place at random, for integers too."""

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


class Float16(RoundsOperands):
    """C13: operands in float16."""

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


class ByShape(Remembers):
    """C04: remembers answers by the inputs' shapes."""

    name = "mutant-remembers-by-shape"
    caught = Caught("edge_cases", reason="other inputs give other results")

    def key(self, *arrays):
        return tuple(array.shape for array in arrays)


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


class OneLate(Mutant):
    """C08: returns the answer to the call before."""

    name = "mutant-one-call-late"
    caught = Caught("edge_cases")
    earlier = None

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        earlier, self.earlier = self.earlier, right
        return right.copy() if earlier is None or earlier.shape != right.shape else earlier


class Holder(bytearray):
    """Memory of an array that knows what should be in it."""


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
