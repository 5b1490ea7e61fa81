"""The derivatives of the layer: those that are needed, in every mode of PyTorch, and from memory that lasts."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("numba", reason="numba is not installed")
from layer_twins import SIZES, inputs, leaves, twins  # noqa: E402  # after the skips

from bilinear_bench import operator  # noqa: E402
from bilinear_bench.cpu.few_outputs import FewOutputsPlan  # noqa: E402
from bilinear_bench.cpu.grad_weight import GradWeightPlan  # noqa: E402
from bilinear_bench.cpu.page_groups import PageGroupsPlan  # noqa: E402
from bilinear_bench.cpu.small_batch import SmallGradInputsPlan  # noqa: E402
from bilinear_bench.layer import Bilinear  # noqa: E402


def test_only_required_gradients_are_computed(monkeypatch):
    made = []
    for kind in (FewOutputsPlan, SmallGradInputsPlan, GradWeightPlan, PageGroupsPlan):
        name, run = "weight" if kind in (GradWeightPlan, PageGroupsPlan) else "inputs", kind.run
        monkeypatch.setattr(kind, "run", lambda *a, _run=run, _name=name: made.append(_name) or _run(*a))
    module = Bilinear(*SIZES, dtype=torch.float64)
    given = inputs(4)
    module(*given).sum().backward()
    assert made == ["weight"]
    module.requires_grad_(False)
    one, other = leaves(*given)
    module(one, other.detach()).sum().backward()
    assert made == ["weight", "inputs"]
    assert one.grad is not None


def test_first_and_second_derivatives_are_right():
    given = leaves(*inputs(4), torch.randn(3, 7, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64))
    assert torch.autograd.gradcheck(operator.bilinear, given)
    assert torch.autograd.gradgradcheck(operator.bilinear, given)


def test_stored_forward_tiles_last_as_long_as_their_graph():
    ours, right = twins(*SIZES, dtype=torch.float64)  # with three outputs the forward stores its tiles
    given = [leaves(*inputs(33)) for _ in range(2)]
    outputs = [ours(*pair).square().sum() for pair in given]
    for output in (*outputs, outputs[0]):
        output.backward(retain_graph=True)
    ours_again = [one.grad for pair in given for one in pair]
    for pair in given:
        for one in pair:
            one.grad = None
    for pair, times in zip(given, (2, 1), strict=True):
        (times * right(*pair).square().sum()).backward()
    for got, one in zip(ours_again, [one for pair in given for one in pair], strict=True):
        torch.testing.assert_close(got, one.grad)


def test_a_default_device_does_not_move_the_forward_tiles():
    module, given = Bilinear(*SIZES, dtype=torch.float64), leaves(*inputs(33))
    with torch.device("meta"):
        module(*given).sum().backward()
    assert given[0].grad.device.type == "cpu"


def test_an_input_that_is_changed_before_the_backward_is_an_error():
    module = Bilinear(*SIZES)
    one, other = torch.randn(4, 7), torch.randn(4, 5)
    output = module(one, other)
    one.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # PyTorch's own, at the first dual number
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # nn.functional.bilinear's under vmap
def test_forward_mode_and_torch_func_see_nn_bilinear():
    one, other = inputs(4)
    weight = torch.randn(3, 7, 5, dtype=torch.float64)
    right = torch.nn.functional.bilinear

    def of(function):
        pushed = torch.func.jvp(lambda x: function(x, other, weight), (one,), (one,))[1]
        pulled = torch.func.grad(lambda w: function(one, other, w).sum())(weight)
        mapped = torch.func.vmap(lambda x, y: function(x, y, weight))(one, other)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(one, one)
            tangent = torch.autograd.forward_ad.unpack_dual(function(dual, other, weight)).tangent
        return pushed, pulled, mapped, tangent

    for got, expected in zip(of(operator.bilinear), of(right), strict=True):
        torch.testing.assert_close(got, expected)
