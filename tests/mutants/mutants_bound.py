"""Mutants in NumPy whose results have the wrong form or values: the bound probe rejects them, some after timing."""

import gc

import numpy as np
from mutant_bases import MANY_CALLS, CountsTimed, GradientMutant, Mutant, Spoils, SupportsEights
from mutants_edge_case_gradients import FirstWeight, WeightByPointer
from mutants_stated import Caught, LateArray, in_a_gradient
from oracle import HonestStep


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


class GradInput2Missing(GradientMutant):
    """F20: returns None for grad_input2."""

    name = "mutant-grad-input2-none"
    caught = in_a_gradient("bound", reason="grad_input2 is None, expected an array")

    def spoil(self, grad_input1, grad_input2, grad_weight, grad_bias):
        return grad_input1, None, grad_weight, grad_bias


class GradBiasShape(GradientMutant):
    """F20: returns grad_bias as (1, o), which would broadcast."""

    name = "mutant-grad-bias-shape"
    caught = in_a_gradient("bound", reason="grad_bias has shape 1x16, expected 16")

    def spoil(self, grad_input1, grad_input2, grad_weight, grad_bias):
        return grad_input1, grad_input2, grad_weight, None if grad_bias is None else grad_bias[None]


class FirstWeightLarge(FirstWeight):
    """Keeps its first weight if that has at least 4096 numbers, more than edge cases of a changed weight have."""

    name = "mutant-keeps-first-weight-if-large"
    caught = in_a_gradient("exact")
    least = 4096


class WeightByPointerLarge(WeightByPointer):
    """Packs the weight once for each address if the weight has at least 4096 numbers."""

    name = "mutant-packs-weight-by-pointer-if-large"
    caught = in_a_gradient("exact")
    least = 4096


class FirstWeightOfEights(SupportsEights, FirstWeight):
    """The step keeps its first weight, and supports multiples of 8 alone, so most edge cases are left out."""

    name = "mutant-keeps-first-weight-of-eights"
    caught = in_a_gradient("exact")


class Broadcasts(Spoils):
    """F20: returns one row, which would broadcast."""

    name = "mutant-broadcasts"
    caught = Caught("bound", reason="output has shape 1x16, expected 64x16")

    def spoil(self, right):
        return right[:1].copy()


class Double(Spoils):
    """F20: returns float64 for float32."""

    name = "mutant-double"
    caught = Caught("bound", reason="dtype float64, expected float32")

    def spoil(self, right):
        return right.astype(np.float64)


class InTuple(Spoils):
    """F20: returns the output in a tuple."""

    name = "mutant-tuple"
    caught = Caught("bound", reason="output is a tuple, expected an array")

    def spoil(self, right):
        return (right,)


class InList(Spoils):
    """F20: returns the output as a list of rows."""

    name = "mutant-list"
    caught = Caught("bound", reason="output is a list, expected an array")

    def spoil(self, right):
        return list(right)


class Nothing(Mutant):
    """F20: returns None."""

    name = "mutant-none"
    caught = Caught("bound", reason="output")

    def output(self, input1, input2, weight, bias):
        return None


class ByPointerLater(CountsTimed):
    """C04: after 50 calls answers by the inputs' addresses, like a captured graph whose inputs are not refilled."""

    name = "mutant-remembers-by-pointer-after-50"
    caught = Caught("bound", phase="timing recheck")

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.answers = {}

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        if self.calls <= MANY_CALLS:
            return right
        key = input1.ctypes.data, weight.ctypes.data
        return self.answers.setdefault(key, (right, input1, weight))[0].copy()


class OneLateLater(CountsTimed):
    """C06, C08, F24: after 50 honest calls returns the answer to the call before."""

    name = "mutant-one-call-late-after-50"
    caught = Caught("bound", phase="timing", reason="in a timed ")
    run = "late"
    earlier = None

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        earlier, self.earlier = self.earlier, right
        return earlier if self.calls > MANY_CALLS else right.copy()


class GarbageLater(CountsTimed):
    """C06, F24: returns garbage after 50 honest calls."""

    name = "mutant-garbage-after-50"
    caught = Caught("bound", phase="timing", reason="in a timed ")
    run = "late"

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        return np.ones_like(right) if self.calls > MANY_CALLS else right


class KnowsWhenTimed(Mutant):
    """C06: returns garbage while the garbage collector is off, as it is while the clock runs."""

    name = "mutant-knows-when-timed"
    caught = Caught("bound", phase="timing recheck")
    run = "late"

    def output(self, input1, input2, weight, bias):
        if not gc.isenabled():
            return np.ones((len(input1), len(weight)), weight.dtype)
        return super().output(input1, input2, weight, bias)


class KnowsItsInputs(CountsTimed):
    """C06: learns in 50 honest calls which inputs are in rotation; from then on it is wrong for all others."""

    name = "mutant-knows-its-inputs"
    caught = Caught("bound", phase="timing recheck")

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
    """C06: takes a forward that follows a forward for one that is timed alone, and returns fresh memory."""

    name = "mutant-forward-alone"
    caught = in_a_gradient("bound", phase="timing")
    run = "late"

    def prepare_forward_backward(self, case):
        step, waiting = HonestStep(self), []
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


class Lazy(Mutant):
    """C07: returns a subclass of the array that computes when it is copied to the host."""

    name = "mutant-lazy-subclass"
    caught = Caught("bound", reason="output is a mutants_stated.LateArray, expected a numpy.ndarray")
    array_type = LateArray

    def output(self, input1, input2, weight, bias):
        # Copies, because the inputs change before the work is done.
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
