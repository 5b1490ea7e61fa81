"""The registered operators: PyTorch's own checks of operators, their rules, and errors for who calls them directly."""

from __future__ import annotations

import pytest
from command_line import python

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("numba", reason="numba is not installed")
from layer_twins import leaves  # noqa: E402  # after the skips

from bilinear_bench.registered import OPS, PLAIN  # noqa: E402

#: Arguments of each operator, by name: grad_output (b, o), input1 (b, i), input2 (b, j), weight (o, i, j), bias (o,).
AXES = {"g": "bo", "x": "bi", "y": "bj", "w": "oij", "c": "o"}
ARGUMENTS = {"bilinear": "xywc", "grad_inputs": "gxyw", "grad_weight": "gxy"}
SIZES = {"b": 4, "o": 3, "i": 7, "j": 5}


def arguments(name, *leading, dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(*leading, *(SIZES[a] for a in AXES[one]), dtype=dtype) for one in ARGUMENTS[name]]


def outputs(found):
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_pytorchs_check_of_operators_passes(name, dtype):
    for given in (arguments(name, dtype=dtype), leaves(*arguments(name, dtype=dtype))):
        torch.library.opcheck(getattr(OPS, name).default, tuple(given))


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("out", [3, 40])
def test_strides_of_arguments_are_not_for_results(name, dtype, out, monkeypatch):
    monkeypatch.setitem(SIZES, "o", out)  # with many outputs the order of contraction is another
    given = [one.mT.contiguous().mT if one.dim() > 1 else one for one in arguments(name, dtype=dtype)]
    torch.library.opcheck(getattr(OPS, name).default, tuple(given))
    assert all(one.is_contiguous() for one in outputs(getattr(OPS, name)(*given)))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_operators_are_what_plain_pytorch_computes(name):
    given = arguments(name)
    for got, right in zip(outputs(getattr(OPS, name)(*given)), outputs(PLAIN[name](*given)), strict=True):
        torch.testing.assert_close(got, right)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_their_derivatives_are_right_twice(name):
    operator, given = getattr(OPS, name), leaves(*arguments(name))
    assert torch.autograd.gradcheck(operator, given, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(operator, given)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_each_derivative_alone_is_right(name):
    operator, given = getattr(OPS, name), arguments(name)
    for n, one in enumerate(given):
        found = []
        for function in (operator, PLAIN[name]):
            leaf = one.clone().requires_grad_()
            results = outputs(function(*given[:n], leaf, *given[n + 1 :]))
            loss = sum(r.pow(3).sum() for r in results)
            first = torch.autograd.grad(loss, leaf, create_graph=True)[0]
            found.append((first, torch.autograd.grad(first.square().sum(), leaf)[0]))
        for got, right in zip(*found, strict=True):
            torch.testing.assert_close(got, right)


@pytest.mark.parametrize("name", ["grad_inputs"])
@pytest.mark.parametrize("kept", [0, 1])
def test_a_result_that_is_not_needed_has_no_part_in_a_derivative(name, kept):
    found = []
    for function in (getattr(OPS, name), PLAIN[name]):
        given = leaves(*arguments(name))
        result = function(*given)[kept]
        found.append(torch.autograd.grad(result.square().sum(), given, allow_unused=True))
    for got, right in zip(*found, strict=True):
        torch.testing.assert_close(torch.zeros_like(got) if right is None else right, got)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_vmap_maps_any_of_the_arguments_along_any_axis(name):
    operator = getattr(OPS, name)
    count, plain = len(ARGUMENTS[name]), arguments(name)
    mapped = arguments(name, 2)
    for choice in range(1, 2**count):
        chosen = [bool(choice >> n & 1) for n in range(count)]
        given = [m.movedim(0, -1) if c else p for c, m, p in zip(chosen, mapped, plain, strict=True)]
        dims = tuple(-1 if c else None for c in chosen)
        found = outputs(torch.func.vmap(operator, in_dims=dims)(*given))
        for n in range(2):
            right = operator(*(m[n] if c else p for c, m, p in zip(chosen, mapped, plain, strict=True)))
            for got, expected in zip(found, outputs(right), strict=True):
                torch.testing.assert_close(got[n], expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, at the first dual number
@pytest.mark.parametrize("name", ARGUMENTS)
def test_forward_mode_on_an_operator_has_its_tangent(name):
    given = arguments(name)
    found = [torch.func.jvp(f, tuple(given), tuple(given))[1] for f in (getattr(OPS, name), PLAIN[name])]
    for got, right in zip(*map(outputs, found), strict=True):
        torch.testing.assert_close(got, right)


def test_the_flop_of_a_step_are_three_contractions():
    from torch.utils.flop_counter import FlopCounterMode

    given = leaves(*arguments("bilinear"))
    with FlopCounterMode(display=False) as counter:
        OPS.bilinear(*given).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 4 * 3 * 7 * 5


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_operator_that_is_given_what_does_not_fit_says_what(name):
    given = arguments(name)
    words = "expected tensors of one floating-point dtype on one device that fit, got .*float64 on cpu"
    for wrong in (given[0][0], given[0].float(), given[0].long(), given[0][:-1]):
        with pytest.raises(RuntimeError, match=words):
            getattr(OPS, name)(wrong, *given[1:])


SAVED = """
import sys, torch
from bilinear_bench import Bilinear
m, given = Bilinear(7, 5, 3).eval(), (torch.ones(4, 7), torch.ones(4, 5))
torch.export.save(torch.export.export(m, given), sys.argv[1])
"""
LOADED = """
import sys, torch
from bilinear_bench import Bilinear
assert torch.export.load(sys.argv[1]).module()(torch.ones(4, 7), torch.ones(4, 5)).shape == (4, 3)
"""


@pytest.mark.slow
def test_an_exported_program_loads_in_another_process(tmp_path):
    for program in (SAVED, LOADED):
        ended = python(program, str(tmp_path / "program.pt2"))
        assert ended.returncode == 0, ended.stderr
