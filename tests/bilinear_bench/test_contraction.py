"""The three orders of contraction: each right, in any pieces, and the cheapest one chosen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from backends import contraction, numpy_contract

ORDERS = ("input1", "input2", "both")
SIZES = [(1, 1, 1, 1), (20, 30, 7, 5), (16, 5, 40, 3), (33, 8, 9, 30), (0, 3, 4, 5), (3, 4, 5, 0)]
RATES = contraction.Rates(contracted=60, multiplied=30, narrow=16, swapped=60)


def made(batch, in1, in2, out):
    """Operands, and the right output and gradients."""
    generator = np.random.default_rng(0)
    input1, input2, weight, gradient = (
        generator.standard_normal(shape) for shape in ((batch, in1), (batch, in2), (out, in1, in2), (batch, out))
    )
    return (input1, input2, weight, gradient), (
        np.einsum("bi,oij,bj->bo", input1, weight, input2),
        np.einsum("bo,oij,bj->bi", gradient, weight, input2),
        np.einsum("bo,oij,bi->bj", gradient, weight, input1),
        np.einsum("bo,bi,bj->oij", gradient, input1, input2),
    )


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("room", [1, 2000, 2**22])
def test_every_order_in_any_pieces_is_right_in_numpy(order, sizes, room, monkeypatch):
    monkeypatch.setattr(numpy_contract, "PIECE_BYTES", room)
    monkeypatch.setattr(numpy_contract, "PIECE_ROWS", 7)
    (*given, gradient), right = made(*sizes)
    np.testing.assert_allclose(numpy_contract.contract(order, *given), right[0], atol=1e-12)
    for got, expected in zip(numpy_contract.gradients(order, *given, gradient), right[1:], strict=True):
        assert got.flags.c_contiguous
        np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("room", [1, 2000, 2**22])
@pytest.mark.parametrize("onednn", [False, True])
def test_every_order_in_any_pieces_is_right_in_torch(order, sizes, room, onednn, monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from backends import torch_contract

    if onednn and not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(torch_contract, "PIECE_BYTES", {"cpu": room})
    monkeypatch.setattr(torch_contract, "PIECE_ROWS", 7)
    monkeypatch.setattr(torch_contract, "ONEDNN_FLOP", 0)
    monkeypatch.setattr(torch_contract, "_onednn_is_faster", lambda: onednn)
    given, right = made(*sizes)
    tensors = [torch.tensor(array, dtype=torch.float32) for array in given]
    output = torch_contract.contract(order, *tensors[:3])
    np.testing.assert_allclose(output, right[0], rtol=1e-4, atol=1e-4)
    for needed in itertools.product((True, False), repeat=3):
        found = torch_contract.gradients(order, *tensors, needed)
        for got, expected, need in zip(found, right[1:], needed, strict=True):
            assert (got is not None) == need
            if need:
                assert got.is_contiguous()
                np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_onednn_is_given_no_part_of_wider_rows_which_it_multiplies_a_hundred_times_slower(order, monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from backends import torch_contract

    given = []

    def linear(left, right, *_):
        given.append(right)
        return left @ right.t()

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", linear)
    monkeypatch.setattr(torch_contract, "PIECE_BYTES", {"cpu": 2000})
    monkeypatch.setattr(torch_contract, "PIECE_ROWS", 7)
    monkeypatch.setattr(torch_contract, "ONEDNN_FLOP", 0)
    monkeypatch.setattr(torch_contract, "_onednn_is_faster", lambda: True)
    tensors = [torch.tensor(array, dtype=torch.float32) for array in made(20, 30, 7, 5)[0]]
    torch_contract.contract(order, *tensors[:3])
    torch_contract.gradients(order, *tensors, (True, True, True))
    assert given
    assert all(right.is_contiguous() or right.t().is_contiguous() for right in given)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("least", [1, 1000])
def test_every_order_in_any_pieces_is_right_in_jax(order, sizes, least, monkeypatch):
    jax = pytest.importorskip("jax", reason="jax is not installed")
    from backends import jax_contract

    monkeypatch.setattr(jax_contract, "PIECE_BYTES", {"cpu": 2000, "gpu": 2000})
    monkeypatch.setattr(jax_contract, "LEAST_ROWS", least)
    monkeypatch.setattr(jax_contract, "first", lambda *_, **__: order)
    given, right = made(*sizes)
    output, pullback = jax.vjp(lambda *rows: jax_contract.bilinear("highest", *rows, None), *given[:3])
    for got, expected in zip((output, *pullback(jax.numpy.asarray(given[3]))), right, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_on_a_gpu_a_piece_has_all_rows_that_there_is_room_for(monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from backends import torch_contract

    monkeypatch.setattr(torch_contract, "PIECE_BYTES", {"cpu": 2**22, "meta": 2**28})
    rows = {
        device: torch_contract._piece(torch.empty(120_000, 1, device=device), width=8)[0] for device in ("cpu", "meta")
    }
    assert rows == {"cpu": torch_contract.PIECE_ROWS, "meta": 120_000}
    assert torch_contract._piece(torch.empty(120_000, 1, device="meta"), width=2**20) == (2**28 // 2**22, 1)


def test_derivatives_of_torch_contract_are_right_twice():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from backends import torch_contract

    shapes = ((4, 3), (4, 5), (2, 3, 5), (2,))
    given = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(torch_contract.bilinear, given)
    assert torch.autograd.gradgradcheck(torch_contract.bilinear, given)


@pytest.mark.parametrize(
    ("sizes", "order"),
    [
        ((4096, 512, 20, 4), "input1"),  # what comes between has 20 columns an output, not 512
        ((4096, 20, 512, 4), "input2"),
        ((4096, 32, 32, 128), "both"),  # 1024 numbers a row, not 4096
        ((2708, 512, 512, 1), "input2"),  # one column is no GEMM, and there is nothing to swap
        ((1, 64, 32, 50), "both"),  # a single row does not pay for swapping the weight
    ],
)
def test_the_cheapest_order_is_the_one_expected(sizes, order):
    assert contraction.first(sizes, backward=False, packed=False, rates=RATES) == order


def test_a_weight_that_is_laid_out_once_is_not_charged_for():
    sizes = (1, 64, 32, 50)
    again = contraction.costs(sizes, backward=False, packed=False, rates=RATES)
    once = contraction.costs(sizes, backward=False, packed=True, rates=RATES)
    assert once["input1"] < again["input1"]
    assert (once["input2"], once["both"]) == (again["input2"], again["both"])


@pytest.mark.parametrize(("total", "most"), [(0, 5), (1, 0), (10, 3), (10, 10), (10, 100), (7, 7)])
def test_pieces_are_even_and_cover_all(total, most):
    found = list(contraction.pieces(total, most))
    assert [number for piece in found for number in range(total)[piece]] == list(range(total))
    sizes = [piece.stop - piece.start for piece in found]
    assert not sizes or (max(sizes) <= max(1, most) and max(sizes) - min(sizes) <= 1)
