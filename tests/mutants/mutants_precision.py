"""Mutants in NumPy that compute in a coarser arithmetic than the case has: the precision probe rejects them."""

import numpy as np
from mutant_bases import Mutant, RoundsOperands
from mutants_bound import GradInput1Sloppy
from mutants_edge_case_values import Float32ForFloat64
from mutants_stated import Caught, in_a_gradient
from oracle import to_bfloat16, to_float16, to_tf32


class SkipsSmall(Mutant):
    """C05: skips inputs below a hundredth of the largest, which small integers never are."""

    name = "mutant-skips-small"
    caught = Caught("precision")

    def output(self, input1, input2, weight, bias):
        small = abs(input1) < 0.01 * abs(input1).max(initial=0)
        return super().output(np.where(small, 0, input1).astype(input1.dtype), input2, weight, bias)


class Tf32(RoundsOperands):
    """C13: rounds operands to tf32."""

    name = "mutant-tf32"
    caught = Caught("precision", reason="was computed in tf32")

    def rounded(self, array):
        return to_tf32(array)


class BFloat16(RoundsOperands):
    """C13: rounds operands to bfloat16."""

    name = "mutant-bfloat16"
    caught = Caught("precision", reason="was computed in bfloat16")

    def rounded(self, array):
        return to_bfloat16(array)


class Float16WithinRange(Mutant):
    """C13: rounds operands to float16 after scaling each to at most 1, so that nothing overflows."""

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


class Float32WithinRange(Float32ForFloat64):
    """C13: computes float64 cases in float32 where the numbers fit."""

    name = "mutant-float32-where-it-fits"
    caught = Caught("precision", reason="was computed in float32, expected float64")

    def output(self, input1, input2, weight, bias):
        arrays = (input1, input2, weight)
        fits = all(np.isfinite(array).all() and 1e-6 < abs(array).max(initial=0) < 1e6 for array in arrays)
        return (super() if fits else super(Float32ForFloat64, self)).output(input1, input2, weight, bias)


class GradInput1Tf32(Mutant):
    """grad_input1 is computed from tf32 operands."""

    name = "mutant-grad-input1-tf32"
    caught = in_a_gradient("precision", reason="grad_input1 was computed in tf32")

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = super().gradients(grad_output, input1, input2, weight, bias)
        rounded = super().gradients(to_tf32(grad_output), input1, to_tf32(input2), to_tf32(weight), bias)
        return rounded[0], *right[1:]


class GradInput1Slightly(GradInput1Sloppy):
    """One element of grad_input1 is off by 4e-6 of its scale: within the bound, but not by float32's rounding."""

    name = "mutant-grad-input1-slightly"
    caught = in_a_gradient("precision", reason="grad_input1")
    share = 4e-6


class GradWeightBFloat16(Mutant):
    """grad_weight is computed from bfloat16 operands."""

    name = "mutant-grad-weight-bfloat16"
    caught = in_a_gradient("precision", reason="grad_weight was computed in bfloat16")

    def gradients(self, grad_output, input1, input2, weight, bias):
        right = super().gradients(grad_output, input1, input2, weight, bias)
        rounded = [to_bfloat16(array) for array in (grad_output, input1, input2)]
        return *right[:2], super().gradients(*rounded, weight, bias)[2], right[3]
