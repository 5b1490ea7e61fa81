"""The derivatives of the layer: those that are needed, in every mode of PyTorch, and from memory that lasts."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("numba", reason="numba is not installed")
from layer_twins import SIZES, inputs, leaves, twins  # noqa: E402  # after the skips

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
