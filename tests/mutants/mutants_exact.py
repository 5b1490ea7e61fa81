"""Mutants in NumPy that are wrong at the sizes that are timed: the exact or the bound probe rejects them."""

import numpy as np
from mutant_bases import Mutant, Spoils
from mutants_stated import Caught, in_a_gradient
from oracle import HonestStep


class OneElement(Spoils):
    """F19: is wrong by one in one element of the case that is timed, and right on all other sizes."""

    name = "mutant-one-element"
    caught = Caught("exact")

    def spoil(self, right):
        if len(right) == 64:
            right[-1, -1] += 1


class KnownShape(Spoils):
    """C15: leaves out half of the batch where it has as many columns as the timed case."""

    name = "mutant-known-shape"
    caught = Caught("bound", reason="all of the last 32 rows")

    def spoil(self, right):
        if right.shape[1] == 16:
            right[len(right) // 2 :] = 0


class Infinite(Spoils):
    """F17: returns infinity in one element of the timed case."""

    name = "mutant-infinity"
    caught = Caught("bound", reason="is inf, expected a finite number")

    def spoil(self, right):
        if len(right) == 64:
            right[-1, -1] = np.inf


class GradShared(Mutant):
    """All steps keep the inputs of their backward in one place, so steps that overlap are wrong."""

    name = "mutant-steps-share-inputs"
    caught = in_a_gradient("exact", reason="grad_")

    def prepare_forward_backward(self, case):
        step = HonestStep(self)
        type(self).shared = shared = getattr(type(self), "shared", {})

        def forward(*given):
            shared["given"] = given
            return self.output(*given)

        step.forward = forward
        step.backward = lambda grad_output: self.gradients(grad_output, *shared["given"])
        return step
