"""Honest backends of unusual techniques: the gate must pass every one of them."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from oracle import HonestBackend


class Float64Sums(HonestBackend):
    """Multiplies and adds in float64, and rounds the results once."""

    name = "unusual-float64-sums"

    def output(self, *given):
        dtype = given[2].dtype
        return super().output(*(self.wide(array) for array in given)).astype(dtype)

    def gradients(self, *given):
        dtype = given[3].dtype
        right = super().gradients(*(self.wide(array) for array in given))
        return tuple(None if array is None else array.astype(dtype) for array in right)

    @staticmethod
    def wide(array):
        """Return an array in float64."""
        return None if array is None else array.astype(np.float64)


class Sums(HonestBackend):
    """Adds the products of the forward by ``add``, along the last axis."""

    def add(self, terms):
        """Return the sum along the last axis."""
        raise NotImplementedError

    def output(self, input1, input2, weight, bias):
        right = np.empty((len(input1), len(weight)), weight.dtype)
        for page, values in enumerate(weight):
            right[:, page] = self.add((input1 @ values) * input2)
        return right if bias is None else right + bias


class Compensated(Sums):
    """Adds with Neumaier's compensation."""

    name = "unusual-compensated-sums"

    def add(self, terms):
        total, lost = np.zeros_like(terms[:, 0]), np.zeros_like(terms[:, 0])
        for term in terms.T:
            new = total + term
            with np.errstate(invalid="ignore"):  # infinity less infinity
                left = np.where(abs(total) >= abs(term), (total - new) + term, (term - new) + total)
            lost += np.where(np.isfinite(new), left, 0)
            total = new
        return total + lost


class Pairwise(Sums):
    """Adds in pairs, and pairs of pairs."""

    name = "unusual-pairwise-sums"

    def add(self, terms):
        while terms.shape[1] > 1:
            odd = terms[:, -1:] if terms.shape[1] % 2 else terms[:, :0]
            terms = np.concatenate([terms[:, : terms.shape[1] // 2 * 2 : 2] + terms[:, 1::2], odd], axis=1)
        return terms[:, 0]


class Sequential(Sums):
    """Adds one after the other, all products of a page."""

    name = "unusual-sequential-sums"

    def output(self, input1, input2, weight, bias):
        right = np.empty((len(input1), len(weight)), weight.dtype)
        for page, values in enumerate(weight):
            terms = (input1[:, :, None] * values) * input2[:, None, :]  # (b, i, j)
            right[:, page] = np.cumsum(terms.reshape(len(input1), values.size), axis=1, dtype=weight.dtype)[:, -1]
        return right if bias is None else right + bias


class Blocked(HonestBackend):
    """Adds blocks of seven features of input2, one block after the other."""

    name = "unusual-blocked-sums"
    width = 7

    def output(self, input1, input2, weight, bias):
        right = np.zeros((len(input1), len(weight)), weight.dtype)
        for start in range(0, input2.shape[1], self.width):
            block = slice(start, start + self.width)
            right += super().output(input1, np.ascontiguousarray(input2[:, block]), weight[:, :, block], None)
        return right if bias is None else right + bias


class Pool(HonestBackend):
    """Has a pool with a thread for each CPU that the process may use."""

    name = "unusual-pool"
    pool = None

    def output(self, input1, input2, weight, bias):
        if self.pool is None:
            self.pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        pages = np.array_split(np.arange(len(weight)), self.pool._max_workers)
        compute = super().output
        parts = list(self.pool.map(lambda part: compute(input1, input2, weight[part], None), pages))
        right = np.concatenate(parts, axis=1)
        return right if bias is None else right + bias


class FortranOrder(HonestBackend):
    """Returns results column by column."""

    name = "unusual-fortran-order"

    def output(self, *given):
        return np.asfortranarray(super().output(*given))

    def gradients(self, *given):
        return tuple(None if array is None else np.asfortranarray(array) for array in super().gradients(*given))


class Views(HonestBackend):
    """Returns views of the middle of new memory, which is a little larger."""

    name = "unusual-views"

    def output(self, *given):
        return self.view(super().output(*given))

    def gradients(self, *given):
        return tuple(None if array is None else self.view(array) for array in super().gradients(*given))

    @staticmethod
    def view(array):
        """Return the same values as a view of a larger array."""
        base = np.empty((len(array) + 2, *array.shape[1:]), array.dtype)
        base[1:-1] = array
        return base[1:-1]


class Strassen(HonestBackend):
    """Multiplies input1 and each page by Strassen's seven products, one level deep."""

    name = "unusual-strassen"

    def output(self, input1, input2, weight, bias):
        right = np.empty((len(input1), len(weight)), weight.dtype)
        with np.errstate(all="ignore"):
            for page, values in enumerate(weight):
                right[:, page] = (strassen(input1, values) * input2).sum(1)
        return right if bias is None else right + bias


def strassen(one, other):
    """Return ``one @ other`` by seven products of halves; odd sizes get a row or column of zeros."""
    (rows, inner), columns = one.shape, other.shape[1]
    one = np.pad(one, [(0, rows % 2), (0, inner % 2)])
    other = np.pad(other, [(0, inner % 2), (0, columns % 2)])
    (a11, a12), (a21, a22) = (np.hsplit(half, 2) for half in np.vsplit(one, 2))
    (b11, b12), (b21, b22) = (np.hsplit(half, 2) for half in np.vsplit(other, 2))
    m1, m2, m3 = (a11 + a22) @ (b11 + b22), (a21 + a22) @ b11, a11 @ (b12 - b22)
    m4, m5 = a22 @ (b21 - b11), (a11 + a12) @ b22
    m6, m7 = (a21 - a11) @ (b11 + b12), (a12 - a22) @ (b21 + b22)
    product = np.block([[m1 + m4 - m5 + m7, m3 + m5], [m2 + m4, m1 - m2 + m3 + m6]])
    return product[:rows, :columns]
