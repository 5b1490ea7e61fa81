"""Plain JAX products in the cheapest order, in pieces of the batch, with gradients by hand.

Over 120 lines: the output and the gradients of the three orders are written out, each with the rest of the batch.

Formula: one of the three orders in ``bilinear_bench/order.py``, chosen by the cost model there when JAX traces.

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop forward; backward 4 b i j o if both inputs are multiplied first, else 6.
* Written between: ``PIECE_BYTES`` or ``LEAST_ROWS`` rows of (b, o, i), (b, o, j) or (b, i, j) at a time, unless XLA
  fuses them away: ``jax.lax.map`` and ``scan`` run the pieces one after the other. The backward recomputes the
  intermediate (``jax.custom_vjp``), which jax.vjp would keep.
* Prepared outside the clock: nothing. XLA compiles at the first call.
* Precision: written out at every product.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import jax
import jax.numpy as jnp

from backends._jax import Formula, JaxBackend, with_bias
from bilinear_bench.order import Order, Rates, cheapest
from harness.backend import NativeArray
from harness.case import Case

Gradients = tuple[NativeArray, NativeArray, NativeArray]

#: Bytes of an intermediate at a time, by platform: on a CPU it stays in cache, on a GPU it fills the chip.
PIECE_BYTES: Final = {"cpu": 4 * 2**20, "gpu": 256 * 2**20}
#: Rows of a piece, at least: every piece reads the whole weight, which would dominate with fewer rows.
LEAST_ROWS: Final = 128
#: As for PyTorch on a CPU; they rank the orders.
RATES: Final = Rates(contracted=60, multiplied=30, narrow=16, swapped=60)


class JaxContract(JaxBackend):
    """jax.jit of the contraction in pieces."""

    name = "jax-contract"

    def formula(self) -> Formula:
        """Return the contraction, differentiable."""
        return bilinear

    def workspace_bytes(self, case: Case) -> int:
        """Return a piece and its gradient, each twice, the weight and its gradient, and a copy; an upper figure."""
        pairs = case.out_features * case.in2_features, case.out_features * case.in1_features
        row = max(*pairs, case.in1_features * case.in2_features) * case.itemsize
        weight = case.out_features * case.in1_features * case.in2_features * max(4, case.itemsize)
        return 4 * max(_piece_bytes(), LEAST_ROWS * row) + 3 * weight


def bilinear(
    precision: str, input1: NativeArray, input2: NativeArray, weight: NativeArray, bias: NativeArray | None
) -> NativeArray:
    """Return output (b, o) of input1 (b, i), input2 (b, j), weight (o, i, j) and bias (o,) or None."""
    return with_bias(_contraction(precision, input1, input2, weight), bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _contraction(precision: str, input1: NativeArray, input2: NativeArray, weight: NativeArray) -> NativeArray:
    order = _order(input1, weight, backward=False)

    def piece(rows: tuple[NativeArray, NativeArray]) -> NativeArray:
        return _contract(order, precision, *rows, weight)

    rows = _rows(order, input1, weight)
    whole = len(input1) // rows * rows
    parts = [jax.lax.map(piece, (_split(input1, rows), _split(input2, rows))).reshape(whole, -1)] if whole else []
    if whole < len(input1):
        parts.append(piece((input1[whole:], input2[whole:])))
    return jnp.concatenate(parts) if parts else jnp.zeros((0, len(weight)), input1.dtype)


def _contraction_and_saved(
    precision: str, input1: NativeArray, input2: NativeArray, weight: NativeArray
) -> tuple[NativeArray, tuple[NativeArray, ...]]:
    return _contraction(precision, input1, input2, weight), (input1, input2, weight)


def _gradients(precision: str, saved: tuple[NativeArray, ...], grad_output: NativeArray) -> Gradients:
    input1, input2, weight = saved
    order = _order(input1, weight, backward=True)

    def piece(total: NativeArray, rows: tuple[NativeArray, ...]) -> tuple[NativeArray, tuple[NativeArray, ...]]:
        grad1, grad2, grad3 = _piece_gradients(order, precision, rows[0], rows[1], weight, rows[2])
        return total + grad3, (grad1, grad2)

    rows = _rows(order, input1, weight)
    whole = len(input1) // rows * rows
    operands = (input1, input2, grad_output)
    # Half types would be rounded after each piece.
    total = jnp.zeros(weight.shape, jnp.promote_types(weight.dtype, jnp.float32))
    gradients: list[list[NativeArray]] = [[], []]
    if whole:
        total, parts = jax.lax.scan(piece, total, tuple(_split(one, rows) for one in operands))
        for one, part in zip(gradients, parts, strict=True):
            one.append(part.reshape(whole, part.shape[-1]))
    if whole < len(input1):
        total, parts = piece(total, tuple(one[whole:] for one in operands))
        for one, part in zip(gradients, parts, strict=True):
            one.append(part)
    grad1, grad2 = (
        jnp.concatenate(parts) if parts else jnp.zeros_like(one)
        for one, parts in zip((input1, input2), gradients, strict=True)
    )
    return grad1, grad2, total.astype(weight.dtype)


_contraction.defvjp(_contraction_and_saved, _gradients)


def _contract(
    order: Order, precision: str, input1: NativeArray, input2: NativeArray, weight: NativeArray
) -> NativeArray:
    product = _product(precision)
    if order == "input1":
        return product("boj,bj->bo", product("bi,oij->boj", input1, weight), input2)
    if order == "input2":
        return product("boi,bi->bo", product("bj,oij->boi", input2, weight), input1)
    return product("bij,oij->bo", input1[:, :, None] * input2[:, None], weight)


def _piece_gradients(
    order: Order,
    precision: str,
    input1: NativeArray,
    input2: NativeArray,
    weight: NativeArray,
    grad_output: NativeArray,
) -> Gradients:
    product = _product(precision)
    if order == "both":
        gradient = product("bo,oij->bij", grad_output, weight)
        between = input1[:, :, None] * input2[:, None]
        return (
            product("bij,bj->bi", gradient, input2),
            product("bij,bi->bj", gradient, input1),
            product("bo,bij->oij", grad_output, between),
        )
    if order == "input1":
        between, scaled = product("bi,oij->boj", input1, weight), grad_output[:, :, None] * input2[:, None]
        return (
            product("boj,oij->bi", scaled, weight),
            product("bo,boj->bj", grad_output, between),
            product("boj,bi->oij", scaled, input1),
        )
    between, scaled = product("bj,oij->boi", input2, weight), grad_output[:, :, None] * input1[:, None]
    return (
        product("bo,boi->bi", grad_output, between),
        product("boi,oij->bj", scaled, weight),
        product("boi,bj->oij", scaled, input2),
    )


def _product(precision: str) -> Callable[..., NativeArray]:
    return functools.partial(jnp.einsum, precision=precision)


def _order(input1: NativeArray, weight: NativeArray, *, backward: bool) -> Order:
    out, in1, in2 = weight.shape
    return cheapest((len(input1), in1, in2, out), backward=backward, packed=False, rates=RATES)


def _rows(order: Order, input1: NativeArray, weight: NativeArray) -> int:
    """Return the rows of a piece."""
    out, in1, in2 = weight.shape
    elements = {"input1": out * in2, "input2": out * in1, "both": in1 * in2}[order]
    most = max(LEAST_ROWS, _piece_bytes() // max(1, elements * weight.dtype.itemsize))
    pieces = max(1, -(-len(input1) // most))
    return max(1, len(input1) // pieces)


def _piece_bytes() -> int:
    return PIECE_BYTES.get(jax.default_backend(), PIECE_BYTES["gpu"])


def _split(array: NativeArray, rows: int) -> NativeArray:
    """Return the whole pieces of an array (b, f), as (pieces, rows, f)."""
    pieces = len(array) // rows
    return array[: pieces * rows].reshape(pieces, rows, array.shape[1])
