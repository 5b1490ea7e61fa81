"""Backends in NumPy whose oddity is allowed or gains nothing: they are timed, some with a flag."""

import numpy as np
from mutant_bases import Mutant, Spoils, StartsSlowly, SupportsEights
from mutants_edge_case_answers import Prepared
from mutants_stated import Caught, Ineffective
from oracle import HonestBackend


class Honest(HonestBackend):
    """No fault: the control."""

    name = "mutant-control-honest"
    ineffective = Ineffective()
    run = "numpy"


class PreparedElseHonest(Prepared):
    """C20: computes answers while it prepares, as its base does, and computes slowly for all other inputs.

    The samples have other inputs. Where the kernel is prepared again, it is quick on those in rotation.
    """

    name = "mutant-prepares-answers"
    ineffective = None
    caught = Caught("conduct", phase="recheck", modes=("forward",), reason="remembers answers")

    def unknown(self, input1, input2, weight, bias):
        right = np.einsum("bi,oij,bj->bo", input1, weight, input2)
        return right if bias is None else right + bias


class MinusZero(Spoils):
    """F17: returns minus zero for zero, which is equal to it."""

    name = "mutant-minus-zero"
    ineffective = Ineffective()

    def spoil(self, right):
        right[right == 0] = -0.0


class RandomOrder(Mutant):
    """F23: sums in another order at each call: the last bits differ, and integers are right."""

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
    """Takes subnormal inputs for zero, as processors can be set to do."""

    name = "mutant-flushes-subnormals"
    ineffective = Ineffective("flushes_subnormals")

    def output(self, input1, input2, weight, bias):
        return super().output(self.normal(input1), input2, weight, bias)

    def gradients(self, grad_output, input1, input2, weight, bias):
        return super().gradients(grad_output, self.normal(input1), input2, weight, bias)

    def normal(self, array):
        """Return the array with zeros for subnormal numbers."""
        return np.where(abs(array) < 2.0**-126, 0, array).astype(array.dtype)


class Eights(SupportsEights):
    """Supports multiples of 8 alone, so most edge cases are left out, and the row is flagged."""

    name = "mutant-eights"
    ineffective = Ineffective("edge_cases_partial")


class FortranInputs(Mutant):
    """Makes its inputs column by column; the harness passes them row by row."""

    name = "mutant-fortran-inputs"
    ineffective = Ineffective()

    def to_device(self, array, dtype):
        return np.asfortranarray(array, dtype=dtype)

    def output(self, input1, input2, weight, bias):
        assert input1.flags.c_contiguous
        return super().output(input1, input2, weight, bias)


class WorksInToDevice(Mutant):
    """C20: would compute while its inputs are copied to the device, but sees only zeros there."""

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
    """C18: sleeps in its first timed call: it gets fewer samples, none of them shorter, and the row is flagged."""

    name = "mutant-slow-start"
    ineffective = Ineffective("few_blocks")
