"""Mutants in NumPy that are wrong in a gradient alone: the edge cases reject them."""

import numpy as np
from mutant_bases import GradientMutant, Mutant
from mutants_stated import in_a_gradient
from oracle import HonestStep


class GradInput1Sign(GradientMutant):
    """grad_input1 has the wrong sign."""

    name = "mutant-grad-input1-sign"
    caught = in_a_gradient("edge_cases", reason="grad_input1")

    def spoil(self, grad_input1, grad_input2, grad_weight, grad_bias):
        return -grad_input1, grad_input2, grad_weight, grad_bias


class GradInput1OneElement(GradientMutant):
    """One element of grad_input1 is off by 1e-4 of the largest one, also for integers."""

    name = "mutant-grad-input1-one-element"
    caught = in_a_gradient("edge_cases", reason="grad_input1")

    def spoil(self, grad_input1, grad_input2, grad_weight, grad_bias):
        grad_input1[-1:, -1] += 1e-4 * abs(grad_input1).max(initial=0)
        return grad_input1, grad_input2, grad_weight, grad_bias


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


class GradBiasAliased(Mutant):
    """F22: with one row grad_bias is grad_output itself."""

    name = "mutant-grad-bias-is-grad-output"
    caught = in_a_gradient("edge_cases", reason="grad_bias is in the memory of the input grad_output")

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = super().gradients(grad_output, input1, input2, weight, bias)
        return *right[:3], grad_output[0] if len(grad_output) == 1 else right[3]


class GradOutputOnes(Mutant):
    """C05: takes grad_output for ones, as it is where the loss is a sum."""

    name = "mutant-grad-output-ones"
    caught = in_a_gradient("edge_cases", reason="grad_input1")

    def gradients(self, grad_output, input1, input2, weight, bias):
        return super().gradients(np.ones_like(grad_output), input1, input2, weight, bias)


class FirstWeight(Mutant):
    """The step keeps the first weight that it sees, but training changes the weight at every step."""

    name = "mutant-keeps-first-weight"
    caught = in_a_gradient("edge_cases")
    #: Numbers in the smallest weight that is treated so.
    least = 0

    def prepare_forward_backward(self, case):
        step, packed = HonestStep(self), []
        forward = step.forward

        def keeps(input1, input2, weight, bias):
            packed[:] = packed or [weight.copy()]
            return forward(input1, input2, packed[0] if weight.size >= self.least else weight, bias)

        step.forward = keeps
        return step


class WeightByPointer(Mutant):
    """The step packs the weight once for each address, so it misses what an optimizer changes in place."""

    name = "mutant-packs-weight-by-pointer"
    caught = in_a_gradient("edge_cases", reason="the weights may change at every step")
    #: Numbers in the smallest weight that is treated so.
    least = 0

    def prepare_forward_backward(self, case):
        step, packed = HonestStep(self), {}
        forward = step.forward

        def keeps(input1, input2, weight, bias):
            kept = packed.setdefault(weight.ctypes.data, (weight, weight.copy()))
            return forward(input1, input2, kept[1] if weight.size >= self.least else weight, bias)

        step.forward = keeps
        return step
