"""Honest ways to compute all results of a step, in any arithmetic.

Each takes the inputs by name, and two roundings: ``operand`` of what goes into a product, ``store`` of what is written
to memory.
"""

from __future__ import annotations

import numpy as np
import oracle

from harness.case import Case

#: Any step with a bias: it has all results.
STEP = Case(1, 1, 1, 1, mode="forward_backward")
NAMES = ("input1", "input2", "weight", "bias", "grad_output")


def exactly(array):
    return array


def einsum(inputs, operand=exactly, store=exactly):
    """Compute each result by one einsum; operands are not rounded."""
    return {name: store(result) for name, result in oracle.results(STEP, inputs).items()}


def two_products(inputs, operand=exactly, store=exactly, result=None):
    """Contract one axis after the other; ``result`` rounds the results, which else are stored like all other values."""
    result = result or store
    x1, x2, weight, bias, g = (inputs[name] for name in NAMES)
    x1, x2, weight, products = operand(x1), operand(x2), operand(weight), operand(g)
    between = store(np.einsum("bo,oij->bij", products, weight))
    return {
        "output": result(np.einsum("boj,bj->bo", store(np.einsum("bi,oij->boj", x1, weight)), x2) + bias),
        "grad_input1": result(np.einsum("bij,bj->bi", between, x2)),
        "grad_input2": result(np.einsum("bij,bi->bj", between, x1)),
        "grad_weight": result(np.einsum("bio,bj->oij", store(x1[:, :, None] * products[:, None, :]), x2)),
        "grad_bias": result(g.sum(0)),
    }


def bias_added_later(inputs, store):
    """Add the bias to a stored result and store the sum, as nn.Bilinear does."""
    without = two_products(inputs | {"bias": np.zeros_like(inputs["bias"])}, store=store)
    return without | {"output": store(without["output"] + inputs["bias"])}


def page_loop(inputs, operand=exactly, store=exactly):
    """Compute page by page, as nn.Bilinear does; the gradients of the inputs are stored after each page."""
    x1, x2, weight, bias, g = (inputs[name] for name in NAMES)
    output, grad_weight = np.empty_like(g), np.empty_like(weight)
    grad_input1, grad_input2 = np.zeros_like(x1), np.zeros_like(x2)
    for page in range(len(weight)):
        gradient = g[:, page, None]
        output[:, page] = store((operand(store(operand(x1) @ operand(weight[page]))) * operand(x2)).sum(1))
        grad_input1 = store(grad_input1 + store(gradient * store(operand(x2) @ operand(weight[page]).T)))
        grad_input2 = store(grad_input2 + store(gradient * store(operand(x1) @ operand(weight[page]))))
        grad_weight[page] = store(operand(store(gradient * x1)).T @ operand(x2))
    return {
        "output": store(output + bias),
        "grad_input1": grad_input1,
        "grad_input2": grad_input2,
        "grad_weight": grad_weight,
        "grad_bias": store(g.sum(0)),
    }


def outer_product(inputs, operand=exactly, store=exactly):
    """Multiply the outer product of the inputs by the flat weight, forward and backward."""
    x1, x2, weight, bias, g = (inputs[name] for name in NAMES)
    (pages, in1, in2), batch = weight.shape, len(x1)
    outer = operand(store(x1[:, :, None] * x2[:, None, :]).reshape(batch, in1 * in2))
    flat = operand(weight.reshape(pages, in1 * in2))
    gradient = operand(store(operand(g) @ flat)).reshape(batch, in1, in2)
    return {
        "output": store(store(outer @ flat.T) + bias),
        "grad_input1": store(gradient @ operand(x2)[:, :, None])[:, :, 0],
        "grad_input2": store(operand(x1)[:, None, :] @ gradient)[:, 0, :],
        "grad_weight": store(operand(g).T @ outer).reshape(pages, in1, in2),
        "grad_bias": store(g.sum(0)),
    }


def sequential_sum(inputs, operand=exactly, store=exactly):
    """Add one term after the other over all axes, the least exact order that is right."""
    x1, x2, weight, g = (operand(inputs[name]) for name in NAMES if name != "bias")

    def added_up(subscripts, shape, *arrays):
        return np.add.accumulate(np.einsum(subscripts, *arrays).reshape(-1, *shape))[-1]

    results = {
        "output": added_up("bi,oij,bj->ijbo", g.shape, x1, weight, x2) + inputs["bias"],
        "grad_input1": added_up("bo,oij,bj->ojbi", x1.shape, g, weight, x2),
        "grad_input2": added_up("bo,oij,bi->oibj", x2.shape, g, weight, x1),
        "grad_weight": added_up("bo,bi,bj->boij", weight.shape, g, x1, x2),
        "grad_bias": np.add.accumulate(inputs["grad_output"])[-1],
    }
    return {name: store(result) for name, result in results.items()}
