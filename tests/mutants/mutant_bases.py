"""What the mutants in NumPy have in common.

``C`` and ``F`` numbers in their docstrings are those of the catalogues of cheats and of faults.
"""

import gc
import time

from oracle import HonestBackend

from harness import Support

#: Timed calls after which a mutant takes the gate for finished.
MANY_CALLS = 50


class Mutant(HonestBackend):
    """An honest backend that a mutant spoils; ``caught`` or ``ineffective`` states how its row ends."""

    #: The run of ``tests/test_mutants.py`` that measures it.
    run = "numpy"


class Counts(Mutant):
    """Counts its calls, from 1; a new kernel or step starts at 1 again."""

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


class CountsTimed(Mutant):
    """Counts the timed calls of a case, in which the garbage collector is off: so it knows that the gate is past.

    The kernel is prepared again before every sample, and a slow machine's sample may have fewer calls than
    ``MANY_CALLS``: so the count goes on in the next kernel of the same case.
    """

    calls = 0
    case = None

    def prepare_forward(self, case, weight, bias):
        self.begin(case)
        return super().prepare_forward(case, weight, bias)

    def prepare_forward_backward(self, case):
        self.begin(case)
        return super().prepare_forward_backward(case)

    def begin(self, case):
        """Count from 0 if this is another case than before."""
        if case != self.case:
            self.case, self.calls = case, 0

    def output(self, input1, input2, weight, bias):
        self.calls += not gc.isenabled()
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


class RoundsOperands(Mutant):
    """Rounds what it multiplies, and accumulates in float32."""

    def rounded(self, array):
        """Return the operand as it goes into the product."""
        raise NotImplementedError

    def output(self, input1, input2, weight, bias):
        return super().output(self.rounded(input1), self.rounded(input2), self.rounded(weight), bias)


class GradientMutant(Mutant):
    """Right forward; ``spoil`` changes the right gradients."""

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = super().gradients(grad_output, input1, input2, weight, bias)
        return self.spoil(*right)

    def spoil(self, grad_input1, grad_input2, grad_weight, grad_bias):
        """Return the wrong gradients, given the right ones."""
        raise NotImplementedError


class Remembers(Mutant):
    """Keeps every answer to a weight under a key, and the inputs with it, so that no address is reused."""

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.answers = {}

    def key(self, *arrays):
        """Return the key of these inputs."""
        raise NotImplementedError

    def output(self, input1, input2, weight, bias):
        key = (weight.tobytes(), None if bias is None else bias.tobytes(), self.key(input1, input2))
        if key not in self.answers:
            self.answers[key] = self.answer(input1, input2, weight, bias), (input1, input2)
        return self.answers[key][0].copy()

    def answer(self, input1, input2, weight, bias):
        """Compute an answer that is not stored."""
        return super().output(input1, input2, weight, bias)


class SupportsEights(Mutant):
    """Supports multiples of 8 alone, so most edge cases are left out."""

    def supports(self, case):
        eights = case.in1_features % 8 == case.in2_features % 8 == 0
        return super().supports(case) if eights else Support(False, "sizes must be multiples of 8")


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
