"""Mutants in NumPy that return stored, late or stolen answers: the edge cases reject them."""

import gc
import tempfile
import threading
from pathlib import Path

import numpy as np
from mutant_bases import Mutant, Remembers
from mutants_stated import Caught


class SharedPack(Mutant):
    """Packs the weight in one place for all its kernels: each computes with the weight packed last."""

    name = "mutant-shared-pack"
    caught = Caught("edge_cases", modes=("forward",))
    packed = None

    def prepare_forward(self, case, weight, bias):
        type(self).packed = weight.copy()
        return lambda input1, input2: self.output(input1, input2, self.packed, bias)


class ByShape(Remembers):
    """C04: remembers answers by the inputs' shapes."""

    name = "mutant-remembers-by-shape"
    caught = Caught("edge_cases", reason="equals the answer to an earlier call")

    def key(self, *arrays):
        return tuple(array.shape for array in arrays)


class Prepared(Mutant):
    """C20: computes answers while it prepares, from inputs that it finds in memory, and garbage for all others."""

    name = "mutant-prepares-answers-or-garbage"
    caught = Caught("edge_cases", modes=("forward",))

    def prepare_forward(self, case, weight, bias):
        shapes = (case.batch, case.in1_features), (case.batch, case.in2_features)
        known = {}
        # The collector tracks no dictionary of arrays, but a list of such dictionaries.
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
    """Memory of an array, with the inputs of the values that it has to hold."""


class WorksInToNumpy(Mutant):
    """C07: returns an unfilled array, and computes when that is converted, outside the timed calls."""

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
    """C07: fills the returned array in a thread, at the next call or after half a second."""

    name = "mutant-background-thread"
    caught = Caught("conduct", reason="changed after it had been returned")
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
    """C11: returns the expected answer if it finds that in memory or in a temporary file, and else garbage."""

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
