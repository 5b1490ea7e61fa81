"""Mutants in NumPy that remember answers or delay work: the conduct probe rejects them."""

import functools

import numpy as np
from late_framework import Late
from mutant_bases import Mutant, Remembers, StartsSlowly
from mutants_bound import Lazy
from mutants_stated import Caught, LateArray


class ByPointer(Remembers):
    """C04: remembers answers by the inputs' addresses."""

    name = "mutant-remembers-by-pointer"
    caught = Caught("exact", reason="changed elements, in place")

    def key(self, *arrays):
        return tuple(array.ctypes.data for array in arrays)


class ById(Remembers):
    """C04: remembers answers by the inputs' ids."""

    name = "mutant-remembers-by-id"
    caught = Caught("exact", reason="changed elements, in place")

    def key(self, *arrays):
        return tuple(map(id, arrays))


class ByContent(Remembers):
    """C04: remembers answers by the inputs' contents: no answer is wrong, and the timed calls are look-ups.

    New inputs take long: one einsum over all four axes, without an intermediate.
    """

    name = "mutant-remembers-by-content"
    caught = Caught("conduct", phase="recheck", reason="remembers answers")

    def key(self, *arrays):
        return tuple(array.tobytes() for array in arrays)

    def answer(self, input1, input2, weight, bias):
        right = np.einsum("bi,oij,bj->bo", input1, weight, input2)
        return right if bias is None else right + bias

    def gradients(self, grad_output, input1, input2, weight, bias):
        key = (weight.tobytes(), bias is None, self.key(grad_output, input1, input2))
        if key not in self.answers:
            self.answers[key] = super().gradients(grad_output, input1, input2, weight, bias)
        return tuple(result if result is None else result.copy() for result in self.answers[key])


class ByContentSlowStart(StartsSlowly, ByContent):
    """C04, C18: remembers answers, and sleeps in its first timed call so that it gets fewer samples."""

    name = "mutant-remembers-and-starts-slowly"


class LazyElsewhere(Lazy):
    """C07: makes inputs and results of a type of its own, which another module defines."""

    name = "mutant-own-array-elsewhere"
    caught = Caught("conduct")

    def to_device(self, array, dtype):
        return super().to_device(array, dtype).view(self.array_type)


class OwnArray(LateArray):
    """A type of the backend's own."""


class LazyOwn(LazyElsewhere):
    """C07: makes inputs and results of a type of its own."""

    name = "mutant-own-array"
    caught = Caught("conduct", reason="a type of its own")
    array_type = OwnArray


class Disguised(LateArray):
    """A type of the backend's own that calls itself numpy.ndarray."""


Disguised.__module__, Disguised.__qualname__ = "numpy", "ndarray"


class LazyDisguised(LazyElsewhere):
    """C07: makes inputs and results of a type of its own, which calls itself numpy.ndarray."""

    name = "mutant-own-array-in-disguise"
    array_type = Disguised


class LazyFramework(Mutant):
    """C07: makes arrays of another framework, which compute when they are copied to the host."""

    name = "mutant-lazy-framework"
    caught = Caught("conduct", reason="puts off its work")

    def to_device(self, array, dtype):
        made = np.array(array, dtype=dtype)
        return Late(made.shape, dtype, lambda: made)

    def output(self, input1, input2, weight, bias):
        def work():
            given = [np.array(array) for array in (input1, input2, weight)]
            right = np.einsum("bi,oij,bj->bo", given[0], given[2], given[1])  # four loops, which take long
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
