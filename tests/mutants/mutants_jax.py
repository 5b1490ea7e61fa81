"""Backends in JAX that are wrong on purpose; each says how it must be caught."""

import functools

import jax
import jax.numpy as jnp
from mutants_stated import Caught, Ineffective, in_a_gradient

from backends.jax_jit import JaxJit
from harness import Backend


class JaxMutant(JaxJit):
    """An honest backend; a mutant overrides the formula or the gradients."""

    run = "frameworks"

    def formula(self, input1, input2, weight, bias):
        """Return output (b, o)."""
        output = jnp.einsum("bi,oij,bj->bo", input1, weight, input2, precision="highest")
        return output if bias is None else output + bias

    def prepare_forward(self, case, weight, bias):
        compiled = jax.jit(functools.partial(self.formula))
        return lambda input1, input2: compiled(input1, input2, weight, bias)

    def prepare_forward_backward(self, case):
        return JaxStep(self)

    def gradients(self, right):
        """Return what the step returns, given the right gradients."""
        return right


class JaxStep:
    """One training step, whose backward computes the forward again."""

    def __init__(self, backend):
        self.backend = backend
        self.compiled = jax.jit(functools.partial(backend.formula))
        self.pulled = jax.jit(lambda given, grad_output: jax.vjp(backend.formula, *given)[1](grad_output))

    def forward(self, *given):
        self.given = given
        return self.compiled(*given)

    def backward(self, grad_output):
        return self.backend.gradients(self.pulled(self.given, grad_output))


class JaxBFloat16(JaxMutant):
    """C13: rounds operands to bfloat16."""

    name = "mutant-jax-bfloat16"
    caught = Caught("precision", reason="was computed in bfloat16")

    def formula(self, input1, input2, weight, bias):
        return super().formula(*map(self.rounded, (input1, input2, weight)), bias)

    def rounded(self, array):
        """Round to bfloat16; the gradient passes unrounded, so that integers stay exact."""
        # XLA may drop a cast to bfloat16 and back.
        return array + jax.lax.stop_gradient(jax.lax.reduce_precision(array, 8, 7) - array)


class JaxNeverWaits(JaxMutant):
    """C07: has no synchronize of its own, so the harness alone waits for its results."""

    name = "mutant-jax-never-waits"
    ineffective = Ineffective()
    synchronize = Backend.synchronize


class JaxFrozen(JaxMutant):
    """C04: compiles the first input1 in as a constant."""

    name = "mutant-jax-frozen-input"
    caught = Caught(
        "edge_cases", modes=("forward",), otherwise="unsupported", reason="equals the answer to an earlier call"
    )
    prepare_forward_backward = Backend.prepare_forward_backward

    def prepare_forward(self, case, weight, bias):
        kept = []

        def kernel(input1, input2):
            if not kept:
                kept.append(jax.jit(lambda second: self.formula(input1, second, weight, bias)))
            return kept[0](input2)

        return kernel


class JaxGradInput2(JaxMutant):
    """Right forward; grad_input2 has the wrong sign."""

    name = "mutant-jax-grad-input2-sign"
    caught = in_a_gradient("edge_cases", reason="grad_input2")

    def gradients(self, right):
        return right[0], -right[1], *right[2:]


class JaxDeletes(JaxMutant):
    """C02, F21: deletes its input1, which can then be neither described nor passed again."""

    name = "mutant-jax-deletes-input"
    caught = Caught(status="failed", phase="prepare", modes=("forward",), otherwise="unsupported", reason="deleted")
    prepare_forward_backward = Backend.prepare_forward_backward

    def prepare_forward(self, case, weight, bias):
        kernel = super().prepare_forward(case, weight, bias)

        def deletes(input1, input2):
            output = kernel(input1, input2)
            output.block_until_ready()
            input1.delete()
            return output

        return deletes
