"""The three orders of contraction: each is correct in pieces of any size, and the cheapest is chosen."""

from __future__ import annotations

import itertools

import numpy as np
import oracle
import pytest

from backends import numpy_contract
from bilinear_bench import order as orders
from harness.case import Case
from harness.correctness.inputs import make_inputs

ORDERS = ("input1", "input2", "both")
SIZES = [(1, 1, 1, 1), (20, 30, 7, 5), (16, 5, 40, 3), (33, 8, 9, 30), (0, 3, 4, 5), (3, 4, 5, 0)]
RATES = orders.Rates(contracted=60, multiplied=30, narrow=16, swapped=60)


def problem(batch, in1, in2, out):
    """Return operands, and the correct output and gradients."""
    case = Case(batch, in1, in2, out, bias=False, dtype="float64", mode="forward_backward")
    inputs = make_inputs(case)
    return tuple(inputs.values()), tuple(oracle.results(case, inputs).values())


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("room", [1, 2000, 2**22])
def test_every_order_in_any_pieces_is_correct_in_numpy(order, sizes, room, monkeypatch):
    monkeypatch.setattr(numpy_contract, "PIECE_BYTES", room)
    monkeypatch.setattr(numpy_contract, "PIECE_ROWS", 7)
    (*operands, gradient), results = problem(*sizes)
    np.testing.assert_allclose(numpy_contract.contract(order, *operands), results[0], atol=1e-12)
    for got, expected in zip(numpy_contract.gradients(order, *operands, gradient), results[1:], strict=True):
        assert got.flags.c_contiguous
        np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("room", [1, 2000, 2**22])
@pytest.mark.parametrize("onednn", [False, True])
def test_every_order_in_any_pieces_is_correct_in_torch(order, sizes, room, onednn, monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from bilinear_bench import contraction, gemm

    if onednn and not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(contraction, "PIECE_BYTES", {"cpu": room})
    monkeypatch.setattr(contraction, "PIECE_ROWS", 7)
    monkeypatch.setattr(gemm, "ONEDNN_FLOP", 0)
    monkeypatch.setattr(gemm, "onednn_is_faster", lambda: onednn)
    operands, results = problem(*sizes)
    tensors = [torch.tensor(array, dtype=torch.float32) for array in operands]
    output = contraction.contract(order, *tensors[:3])
    np.testing.assert_allclose(output, results[0], rtol=1e-4, atol=1e-4)
    for needed in itertools.product((True, False), repeat=3):
        gradients = contraction.gradients(*tensors, needed, order=order)
        for got, expected, need in zip(gradients, results[1:], needed, strict=True):
            assert (got is not None) == need
            if need:
                assert got.is_contiguous()
                np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_onednn_gets_no_part_of_wider_rows(order, monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from bilinear_bench import contraction, gemm

    right_operands = []

    def linear(left, right, *_):
        right_operands.append(right)
        return left @ right.t()

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", linear)
    monkeypatch.setattr(contraction, "PIECE_BYTES", {"cpu": 2000})
    monkeypatch.setattr(contraction, "PIECE_ROWS", 7)
    monkeypatch.setattr(gemm, "ONEDNN_FLOP", 0)
    monkeypatch.setattr(gemm, "onednn_is_faster", lambda: True)
    tensors = [torch.tensor(array, dtype=torch.float32) for array in problem(20, 30, 7, 5)[0]]
    contraction.contract(order, *tensors[:3])
    contraction.gradients(*tensors, (True, True, True), order=order)
    assert right_operands
    assert all(right.is_contiguous() or right.t().is_contiguous() for right in right_operands)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("least", [1, 1000])
def test_every_order_in_any_pieces_is_correct_in_jax(order, sizes, least, monkeypatch):
    jax = pytest.importorskip("jax", reason="jax is not installed")
    from backends import jax_contract

    monkeypatch.setattr(jax_contract, "PIECE_BYTES", {"cpu": 2000, "gpu": 2000})
    monkeypatch.setattr(jax_contract, "LEAST_ROWS", least)
    monkeypatch.setattr(jax_contract, "cheapest", lambda *_, **__: order)
    operands, results = problem(*sizes)
    output, pullback = jax.vjp(lambda *rows: jax_contract.bilinear("highest", *rows, None), *operands[:3])
    for got, expected in zip((output, *pullback(jax.numpy.asarray(operands[3]))), results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_a_piece_on_a_gpu_has_all_rows_that_fit(monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from bilinear_bench import contraction

    monkeypatch.setattr(contraction, "PIECE_BYTES", {"cpu": 2**22, "meta": 2**28})
    rows = {
        device: contraction._piece(torch.empty(120_000, 1, device=device), width=8)[0] for device in ("cpu", "meta")
    }
    assert rows == {"cpu": contraction.PIECE_ROWS, "meta": 120_000}
    assert contraction._piece(torch.empty(120_000, 1, device="meta"), width=2**20) == (2**28 // 2**22, 1)


def test_first_and_second_derivatives_are_correct():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from bilinear_bench.operator import contracted

    shapes = ((4, 3), (4, 5), (2, 3, 5), (2,))
    operands = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(contracted, operands)
    assert torch.autograd.gradgradcheck(contracted, operands)


@pytest.mark.parametrize(
    ("sizes", "order"),
    [
        ((4096, 512, 20, 4), "input1"),  # the intermediate has 20 columns an output, not 512
        ((4096, 20, 512, 4), "input2"),
        ((4096, 32, 32, 128), "both"),  # 1024 numbers a row, not 4096
        ((2708, 512, 512, 1), "input2"),  # one column is no GEMM, and there is nothing to swap
        ((1, 64, 32, 50), "both"),  # swapping the weight costs more than a single row gains
    ],
)
def test_the_cheapest_order_is_chosen(sizes, order):
    assert orders.cheapest(sizes, backward=False, packed=False, rates=RATES) == order


def test_a_weight_packed_ahead_costs_no_swap():
    sizes = (1, 64, 32, 50)
    again = orders.costs(sizes, backward=False, packed=False, rates=RATES)
    once = orders.costs(sizes, backward=False, packed=True, rates=RATES)
    assert once["input1"] < again["input1"]
    assert (once["input2"], once["both"]) == (again["input2"], again["both"])


@pytest.mark.parametrize(("total", "most"), [(0, 5), (1, 0), (10, 3), (10, 10), (10, 100), (7, 7)])
def test_pieces_are_even_and_cover_all(total, most):
    pieces = list(orders.pieces(total, most))
    assert [number for piece in pieces for number in range(total)[piece]] == list(range(total))
    sizes = [piece.stop - piece.start for piece in pieces]
    assert not sizes or (max(sizes) <= max(1, most) and max(sizes) - min(sizes) <= 1)
