"""Kind 1: right at small sizes and on small integers, and wrong on telling values from 64 rows on."""

import numpy as np
from mutants_by_kind import LARGE_ROWS, ByKind
from oracle import to_bfloat16, to_float16


class LargePath(ByKind):
    """Changes its operands from 64 rows on."""

    kind = 1

    def taken(self, array):
        """Return an operand as the path for large sizes takes it."""
        raise NotImplementedError

    def output(self, input1, input2, weight, bias):
        if len(input1) >= LARGE_ROWS:
            input1, input2 = self.taken(input1), self.taken(input2)
        return super().output(input1, input2, weight, bias)

    def gradients(self, grad_output, input1, input2, weight, bias):
        if len(input1) >= LARGE_ROWS:
            grad_output, input1, input2 = (self.taken(array) for array in (grad_output, input1, input2))
        return super().gradients(grad_output, input1, input2, weight, bias)


class ClipsLarge(LargePath):
    """Clips inputs to the range of float16, as a saturating conversion does."""

    name = "kind1-clips-large-values"

    def taken(self, array):
        return np.clip(array, -65504, 65504)


class FlushesSmall(LargePath):
    """Takes values below 1e-30 for zero, far above the subnormal ones."""

    name = "kind1-flushes-small-values"

    def taken(self, array):
        return np.where(abs(array) < 1e-30, 0, array).astype(array.dtype)


class FlushesSubnormals(LargePath):
    """Takes subnormal inputs for zero, as a processor's flags tell it to."""

    name = "kind1-flushes-subnormals"
    flag = "flushes_subnormals"

    def taken(self, array):
        return np.where(abs(array) < np.finfo(array.dtype).tiny, 0, array).astype(array.dtype)


class HidesNan(LargePath):
    """Takes NaN and infinity in its inputs for zero."""

    name = "kind1-hides-nan"
    flag = "nonfinite_differs"

    def taken(self, array):
        return np.where(np.isfinite(array), array, 0).astype(array.dtype)


class PrunesSmall(LargePath):
    """Drops entries below a millionth of the batch's largest: small rows vanish next to large ones."""

    name = "kind1-prunes-small-terms"

    def taken(self, array):
        return np.where(abs(array) < 1e-6 * abs(array).max(), 0, array).astype(array.dtype)


class ScalesAlike(LargePath):
    """Multiplies in pairs of float16 with one scale for all rows: small rows vanish next to large ones."""

    name = "kind1-one-scale-for-all-rows"

    def taken(self, array):
        largest = abs(array).max()
        if not np.isfinite(largest) or largest == 0:
            return array
        scale = 2.0 ** np.frexp(largest)[1]
        high = to_float16(array / scale)
        return ((high + to_float16(array / scale - high)) * scale).astype(array.dtype)


class BFloat16Pairs(LargePath):
    """Multiplies in pairs of bfloat16: 16 bits of a float32's 24."""

    name = "kind1-pairs-of-bfloat16"

    def taken(self, array):
        if array.dtype != np.float32:
            return array
        high = to_bfloat16(array)
        return high + to_bfloat16(array - high)


class Float32Pairs(LargePath):
    """Computes float64 from pairs of float32: 48 bits of 53, and float32's range."""

    name = "kind1-pairs-of-float32"
    run = "float64"

    def taken(self, array):
        with np.errstate(over="ignore", invalid="ignore"):
            high = array.astype(np.float32)
            return high + (array - high).astype(np.float32).astype(array.dtype)


class FirstRow(ByKind):
    """Computes one row for all where the first row equals the last: rows in between may differ."""

    name = "kind1-first-row-for-all"
    kind = 1

    def output(self, input1, input2, weight, bias):
        alike = all(np.array_equal(array[0], array[-1]) for array in (input1, input2)) if len(input1) else False
        if len(input1) < LARGE_ROWS or not alike:
            return super().output(input1, input2, weight, bias)
        one = super().output(input1[:1], input2[:1], weight, bias)
        return np.repeat(one, len(input1), axis=0)


class Padding(ByKind):
    """Takes rows whose input1 begins with zero for padding, and gives them the bias alone."""

    name = "kind1-zero-start-is-padding"
    kind = 1

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        # Random small integers are zero now and then, but not eight in a row.
        if len(input1) >= LARGE_ROWS and input1.shape[1] >= 8:
            right[~input1[:, :8].any(axis=1)] = 0 if bias is None else bias
        return right


class SkipsZeroRows(ByKind):
    """Skips rows of zeros: zero times infinity, which is NaN, becomes zero."""

    name = "kind1-zero-rows-are-skipped"
    kind = 1
    flag = "nonfinite_differs"

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        if len(input1) >= LARGE_ROWS:
            right[~input1.any(axis=1)] = 0 if bias is None else bias
        return right


class QuarterSquares(ByKind):
    """Multiplies by the difference of two squares, (x + y)^2 / 4 - (x - y)^2 / 4: right where x and y are alike."""

    name = "kind1-products-from-squares"
    kind = 1

    def output(self, input1, input2, weight, bias):
        if len(input1) < LARGE_ROWS:
            return super().output(input1, input2, weight, bias)
        inner = np.matmul(input1, weight)  # (o, b, j)
        with np.errstate(over="ignore", invalid="ignore"):
            products = (np.square(inner + input2) - np.square(inner - input2)) / 4
        right = np.ascontiguousarray(products.sum(2, dtype=weight.dtype).T)
        return right if bias is None else right + bias


class ClipsGradients(ByKind):
    """Clips grad_output to a thousand: right as long as gradients are small."""

    name = "kind1-clips-gradients"
    kind = 1
    modes = ("forward_backward",)

    def gradients(self, grad_output, input1, input2, weight, bias):
        if len(input1) >= LARGE_ROWS:
            grad_output = np.clip(grad_output, -1000, 1000)
        return super().gradients(grad_output, input1, input2, weight, bias)


class LossScaling(ByKind):
    """Multiplies grad_output by 2^40 and divides the gradients again: large gradients overflow on the way."""

    name = "kind1-scales-gradients-up"
    kind = 1
    modes = ("forward_backward",)

    def gradients(self, grad_output, input1, input2, weight, bias):
        if len(input1) < LARGE_ROWS:
            return super().gradients(grad_output, input1, input2, weight, bias)
        scale = grad_output.dtype.type(2.0**40)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = super().gradients(grad_output * scale, input1, input2, weight, bias)
            return tuple(None if array is None else array / scale for array in scaled)


class FlushesInPlace(ByKind):
    """Writes zeros over subnormal inputs, from 64 rows on."""

    name = "kind1-flushes-inputs-in-place"
    kind = 1

    def output(self, input1, input2, weight, bias):
        right = super().output(input1, input2, weight, bias)
        if len(input1) >= LARGE_ROWS:
            input1[abs(input1) < np.finfo(input1.dtype).tiny] = 0
        return right
