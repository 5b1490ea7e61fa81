"""The layer can replace nn.Bilinear: it does the same."""

from __future__ import annotations

import copy
import io
import threading

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("numba", reason="numba is not installed")
from layer_twins import SIZES, inputs, leaves, twins  # noqa: E402  # after the skips

from bilinear_bench import operator  # noqa: E402
from bilinear_bench.layer import Bilinear  # noqa: E402


@pytest.mark.parametrize("bias", [True, False])
def test_it_prints_saves_and_loads_as_nn_bilinear(bias):
    ours, theirs = twins(*SIZES, bias=bias, dtype=torch.float64)
    assert isinstance(ours, torch.nn.Bilinear)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))
    saved = io.BytesIO()
    torch.save(theirs.state_dict(), saved)
    saved.seek(0)
    loaded = Bilinear(*SIZES, bias=bias, dtype=torch.float64)
    loaded.load_state_dict(torch.load(saved))
    given = inputs(4)
    torch.testing.assert_close(copy.deepcopy(loaded)(*given), theirs(*given))


@pytest.mark.parametrize("leading", [(), (1,), (33,), (2, 3), (2, 0, 3), (0,), (2, 1, 5, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_leading_dimensions_and_gradients_are_nn_bilinears(leading, bias):
    ours, theirs = twins(*SIZES, bias=bias, dtype=torch.float64)
    given = inputs(*leading)
    found = []
    for module in (ours, theirs):
        mine = leaves(*given)
        output = module(*mine)
        gradients = torch.autograd.grad(output.square().sum(), [*mine, *module.parameters()])
        found.append((output, *gradients))
    for got, right in zip(*found, strict=True):
        assert got.shape == right.shape
        torch.testing.assert_close(got, right)


def test_inputs_that_are_not_contiguous_are_right():
    ours, theirs = twins(*SIZES)
    given = torch.randn(7, 9).t(), torch.randn(18, 5)[::2]
    torch.testing.assert_close(ours(*given), theirs(*given))
    weight = torch.randn(3, 5, 7).transpose(1, 2)
    torch.testing.assert_close(operator.bilinear(*given, weight), torch.nn.functional.bilinear(*given, weight))


@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 3), (3, 4), (5, 3, 4), (5,)],
        [(2, 3), (2, 1, 4), (5, 3, 4), (5,)],
        [(2, 6), (2, 4), (5, 3, 4), (5,)],
        [(2, 3), (2, 6), (5, 3, 4), (5,)],
        [(1, 3), (2, 4), (5, 3, 4), (5,)],
        [(2, 3), (2, 4), (5, 3, 4), (4,)],
        [(2, 3), (2, 4), (3, 4), (5,)],
        [(), (), (5, 3, 4), (5,)],
        [(2, 0), (2, 4), (5, 0, 4), (5,)],
    ],
)
def test_errors_are_nn_bilinears_in_the_same_words(shapes):
    given = [torch.ones(shape) for shape in shapes]
    with pytest.raises((RuntimeError, IndexError)) as theirs:
        torch.nn.functional.bilinear(*given)
    with pytest.raises(type(theirs.value)) as ours:
        operator.bilinear(*given)
    assert str(ours.value) == str(theirs.value)


def test_dtypes_that_differ_are_refused_in_the_same_words():
    with pytest.raises(RuntimeError, match="All tensors must have the same dtype, got input1: double"):
        operator.bilinear(torch.ones(2, 3).double(), torch.ones(2, 4), torch.ones(5, 3, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.complex64])
def test_other_dtypes_are_nn_bilinears(dtype):
    given = [torch.arange(1, 1 + size).reshape(shape).to(dtype) for size, shape in ((6, (2, 3)), (8, (2, 4)))]
    weight = torch.ones(5, 3, 4, dtype=dtype)
    got, right = operator.bilinear(*given, weight), torch.nn.functional.bilinear(*given, weight)
    assert got.dtype == dtype
    torch.testing.assert_close(got, right)


def test_under_autocast_float32_stays_float32():
    ours, theirs = twins(64, 48, 16)
    given = torch.randn(40, 64), torch.randn(40, 48)
    right = torch.autograd.grad(theirs(*given).sum(), theirs.weight)[0]
    for function in (ours, lambda *rows: operator.contracted(*rows, ours.weight, ours.bias)):
        with torch.autocast("cpu", torch.bfloat16):
            output = function(*given)
            gradient = torch.autograd.grad(output.sum(), ours.weight)[0]
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, theirs(*given), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient, right, rtol=1e-5, atol=1e-5)


def test_python_threads_do_not_disturb_each_other():
    module = Bilinear(40, 40, 40).requires_grad_(False)
    given = [(torch.randn(128, 40), torch.randn(128, 40)) for _ in range(4)]
    right = [module(*one) for one in given]
    wrong = []

    def work(number):
        for _ in range(20):
            if not torch.equal(module(*given[number]), right[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert wrong == []
