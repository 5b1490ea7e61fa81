"""What PyTorch code does with a layer: each feature as a function of the layer's class, to be compared for two classes.

A feature returns tensors, numbers or words, which have to be the same for nn.Bilinear and ours; ``FEATURES`` holds them
with what ours does. ``docs/take-it-home.md`` has the table, written after a change by::

    python tests/bilinear_bench/torch_features.py

Length: one list, read from top to bottom.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.utils.parametrize
import torch.nn.utils.prune
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

D = torch.float64

#: What ours does, by its word in the table.
WORDS = {
    "faster": "the fused kernel or plain products compute, with the same result",
    "falls back": "PyTorch's own operations compute part or all of it, with the same result",
    "same": "the feature computes nothing, or reads what it inherits",
    "more": "ours gives more than nn.Bilinear",
    "raises": "both raise, in the same words",
}


@dataclasses.dataclass(frozen=True)
class Feature:
    """A feature of PyTorch.

    Attributes:
        group: Heading in the table.
        name: What the user does.
        ours: One of ``WORDS``.
        of: Returns what comes of it, for a class of layers.
    """

    group: str
    name: str
    ours: str
    of: Callable[[type], Any]

    def __str__(self) -> str:
        """Return the name, for the test's."""
        return self.name


FEATURES: list[Feature] = []


def feature(group: str, name: str, ours: str = "faster") -> Callable[[Callable[[type], Any]], Callable[[type], Any]]:
    """Add a function to ``FEATURES``."""

    def add(of: Callable[[type], Any]) -> Callable[[type], Any]:
        FEATURES.append(Feature(group, name, ours, of))
        return of

    return add


def layer(kind: type, *sizes: int, **options: Any) -> Any:
    """Return a layer with the same parameters for each class."""
    torch.manual_seed(0)
    return kind(*(sizes or (7, 5, 3)), **{"dtype": D, **options})


def rows(*shapes: tuple[int, ...], dtype: torch.dtype = D, leaf: bool = False) -> list[Any]:
    """Return random tensors, the same ones for each class."""
    random = torch.Generator().manual_seed(1)
    given = shapes or ((4, 7), (4, 5))
    return [torch.randn(shape, generator=random, dtype=D).to(dtype).requires_grad_(leaf) for shape in given]


def said(attempt: Callable[[], Any]) -> str:
    """Return the error of an attempt in words."""
    try:
        attempt()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


class Net(torch.nn.Module):
    """A model that holds the layer."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.pair = layer(kind)

    def forward(self, x: Any, y: Any) -> Any:
        return self.pair(x, y).relu()


GRADIENTS, TWICE, FORWARD = "Gradients", "Gradients of gradients", "Forward mode and torch.func"
TRACING, WATCHING, MEMORY = "Compiling and tracing", "Watching", "Memory and storage"
NUMBERS, LAYER, TENSORS = "Numbers", "The module", "Tensors"


@feature(GRADIENTS, "backward: gradients of inputs, weight and bias")
def _(kind: type) -> Any:
    m, given = layer(kind), rows(leaf=True)
    return torch.autograd.grad(m(*given).square().sum(), [*given, *m.parameters()])


@feature(GRADIENTS, "frozen parameters")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind).requires_grad_(False), rows(leaf=True)
    return torch.autograd.grad(m(x, y.detach()).square().sum(), x)


@feature(GRADIENTS, "a frozen first input")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind).requires_grad_(False), rows(leaf=True)
    return torch.autograd.grad(m(x.detach(), y).square().sum(), y)


@feature(GRADIENTS, "nothing but the bias is trained")
def _(kind: type) -> Any:
    m = layer(kind)
    m.weight.requires_grad_(False)
    m(*rows()).square().sum().backward()
    return m.bias.grad


@feature(GRADIENTS, "without bias")
def _(kind: type) -> Any:
    m, given = layer(kind, bias=False), rows(leaf=True)
    return torch.autograd.grad(m(*given).square().sum(), [*given, m.weight])


@feature(GRADIENTS, "both inputs are one tensor")
def _(kind: type) -> Any:
    m, (x,) = layer(kind, 5, 5, 3), rows((4, 5), leaf=True)
    return torch.autograd.grad(m(x, x).square().sum(), x)


@feature(GRADIENTS, "a gradient that comes as None stays None")
def _(kind: type) -> Any:
    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, _: Any) -> None:
            return None

    m = layer(kind)
    Nothing.apply(m(*rows())).sum().backward()
    return [str(one.grad) for one in m.parameters()]


@feature(GRADIENTS, "the bias is changed in place before backward")
def _(kind: type) -> Any:
    m, given = layer(kind), rows(leaf=True)
    output = m(*given)
    with torch.no_grad():
        m.bias.add_(1)
    output.sum().backward()
    return [one.grad for one in given]


@feature(GRADIENTS, "an input that no gradient needs is changed in place")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind).requires_grad_(False), rows(leaf=True)
    hidden = x * 1
    output = m(hidden, y.detach())
    with torch.no_grad():
        hidden.add_(1)
    return torch.autograd.grad(output.sum(), x)


@feature(GRADIENTS, "an input that a gradient needs is changed in place", "raises")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind), rows()
    output = m(x, y)
    x.add_(1)
    return said(output.sum().backward).partition("[")[0]


@feature(GRADIENTS, "retain_graph, and a second backward without it")
def _(kind: type) -> Any:
    m, given = layer(kind), rows((40, 7), (40, 5), leaf=True)
    output = m(*given).sum()
    output.backward(retain_graph=True)
    output.backward()
    return m.weight.grad, given[0].grad, said(output.backward).partition(".")[0]


@feature(GRADIENTS, "hooks on parameters and tensors")
def _(kind: type) -> Any:
    m, given, seen = layer(kind), rows(leaf=True), []
    m.weight.register_hook(lambda grad: (seen.append(1), grad * 0.5)[1])
    given[0].register_hook(lambda grad: grad * 2)
    m(*given).sum().backward()
    return m.weight.grad, given[0].grad, len(seen)


@feature(GRADIENTS, "activation checkpointing")
def _(kind: type) -> Any:
    m, given = layer(kind), rows((40, 7), (40, 5), leaf=True)
    checkpoint(m, *given, use_reentrant=False).square().sum().backward()
    loss = checkpoint(m, *given, use_reentrant=False).square().sum()
    with torch.profiler.profile():
        loss.backward()
    return m.weight.grad, given[0].grad


@feature(GRADIENTS, "offloading of saved tensors (save_on_cpu, saved_tensors_hooks)")
def _(kind: type) -> Any:
    m, given = layer(kind), rows((40, 7), (40, 5), leaf=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda one: one.clone(), lambda one: one):
        output = m(*given)
    output.square().sum().backward()
    return m.weight.grad, given[0].grad


@feature(GRADIENTS, "an optimizer's steps (AdamW, foreach)")
def _(kind: type) -> Any:
    m, given = layer(kind), rows()
    optimizer = torch.optim.AdamW(m.parameters(), foreach=True)
    for _ in range(3):
        optimizer.zero_grad()
        m(*given).square().sum().backward()
        optimizer.step()
    return list(m.parameters())


@feature(TWICE, "create_graph=True, and a gradient penalty")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind), rows(leaf=True)
    penalty = torch.autograd.grad(m(x, y).square().sum(), x, create_graph=True)[0].square().sum()
    return torch.autograd.grad(penalty, [x, y, *m.parameters()])


@feature(TWICE, "the same where one input comes from the other")
def _(kind: type) -> Any:
    m, (x,) = layer(kind, 5, 5, 3), rows((4, 5), leaf=True)
    found = [
        torch.autograd.grad(m(x, of(x)).square().sum(), x, create_graph=True)[0] for of in (torch.tanh, lambda x: x)
    ]
    return found, torch.autograd.grad(sum(one.square().sum() for one in found), [x, m.weight])


@feature(TWICE, "a weight that is made from an input (functional_call)")
def _(kind: type) -> Any:
    m, (x, y, mix) = layer(kind), rows((4, 7), (4, 5), (7, 105), leaf=True)
    weight = (x.mean(0) @ mix).view(3, 7, 5)
    output = torch.func.functional_call(m, {"weight": weight}, (x, y))
    return torch.autograd.grad(output.square().sum(), x, create_graph=True)


@feature(TWICE, "hooks under create_graph fire once")
def _(kind: type) -> Any:
    m, given, seen = layer(kind), rows(leaf=True), []
    m.weight.register_hook(lambda grad: (seen.append(1), grad * 0.5)[1])
    m(*given).square().sum().backward(create_graph=True)
    return m.weight.grad, len(seen)


@feature(TWICE, "third derivatives")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind), rows(leaf=True)
    first = torch.autograd.grad(m(x, y).pow(3).sum(), x, create_graph=True)[0]
    second = torch.autograd.grad(first.pow(2).sum(), m.weight, create_graph=True)[0]
    return torch.autograd.grad(second.sum(), [x, y])


@feature(TWICE, "gradcheck and gradgradcheck")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind), rows(leaf=True)
    return torch.autograd.gradcheck(m, (x, y)), torch.autograd.gradgradcheck(m, (x, y), check_batched_grad=True)


@feature(TWICE, "batched gradients (is_grads_batched)")
def _(kind: type) -> Any:
    m, given = layer(kind), rows(leaf=True)
    return torch.autograd.grad(
        m(*given), [given[0], m.weight], torch.eye(12, dtype=D).view(12, 4, 3), is_grads_batched=True
    )


@feature(TWICE, "jacobian and hessian with vectorize=True")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind), rows()
    jacobian = torch.autograd.functional.jacobian(lambda one: m(one, y), x, vectorize=True)
    return jacobian, torch.autograd.functional.hessian(lambda one: m(one, y).square().sum(), x, vectorize=True)


@feature(TWICE, "torch.func.vmap over autograd.grad")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind), rows(leaf=True)
    output = m(x, y)
    eye = torch.eye(12, dtype=D).view(12, 4, 3)
    return torch.func.vmap(lambda one: torch.autograd.grad(output, x, one, retain_graph=True)[0])(eye)


@feature(FORWARD, "dual numbers", "falls back")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind), rows()
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(m(forward_ad.make_dual(x, x + 1), y)).tangent


@feature(FORWARD, "dual numbers through a backward", "falls back")
def _(kind: type) -> Any:
    m, given = layer(kind), rows(leaf=True)
    output = m(*given)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.ones_like(output), torch.full_like(output, 2))
        found = torch.autograd.grad(output, [*given, *m.parameters()], dual)
        return [forward_ad.unpack_dual(one).tangent for one in found]


@feature(FORWARD, "jvp", "falls back")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind), rows()
    return torch.func.jvp(lambda one: m(one, y), (x,), (x + 1,))


@feature(FORWARD, "grad", "falls back")
def _(kind: type) -> Any:
    m, given = layer(kind), rows()
    return torch.func.grad(lambda w: torch.func.functional_call(m, w, tuple(given)).square().sum())(
        dict(m.named_parameters())
    )


@feature(FORWARD, "vmap over inputs")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind), rows((6, 4, 7), (4, 6, 5))
    with torch.no_grad():
        return torch.func.vmap(m, in_dims=(0, 1))(x, y)


@feature(FORWARD, "vmap over the weights of an ensemble")
def _(kind: type) -> Any:
    models = [layer(kind), layer(kind)]
    with torch.no_grad():
        models[1].weight.mul_(2)
    parameters, buffers = torch.func.stack_module_state(models)
    given = tuple(rows())
    with torch.no_grad():
        return torch.func.vmap(lambda p, b: torch.func.functional_call(models[0], (p, b), given))(parameters, buffers)


@feature(FORWARD, "gradients for each sample (vmap over grad)", "falls back")
def _(kind: type) -> Any:
    m, given = layer(kind), rows()

    def loss(p: Any, x: Any, y: Any) -> Any:
        return torch.func.functional_call(m, p, (x[None], y[None])).square().sum()

    return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(dict(m.named_parameters()), *given)


@feature(FORWARD, "jacrev, jacfwd and hessian", "falls back")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind), rows()

    def of(one: Any) -> Any:
        return m(one, y).square().sum()

    return torch.func.jacrev(of)(x), torch.func.jacfwd(of)(x), torch.func.hessian(of)(x)


@feature(FORWARD, "vjp, also twice", "falls back")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind), rows()

    def pulled(one: Any) -> Any:
        return torch.func.vjp(lambda z: m(z, y), one)[1](torch.ones(4, 3, dtype=D))[0]

    return pulled(x), torch.func.vjp(pulled, x)[1](x)[0]


@feature(TRACING, "torch.compile(fullgraph=True)")
def _(kind: type) -> Any:
    return torch.compile(layer(kind), backend="aot_eager", fullgraph=True)(*rows())


@feature(TRACING, "torch.compile of a training step")
def _(kind: type) -> Any:
    m, given = layer(kind), rows(leaf=True)
    torch.compile(m, backend="aot_eager", fullgraph=True)(*given).square().sum().backward()
    return [one.grad for one in (*given, *m.parameters())]


@feature(TRACING, "a batch that is dynamic from the second size on")
def _(kind: type) -> Any:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(layer(kind), backend="eager", fullgraph=True)
    outputs = [compiled(*rows((batch, 7), (batch, 5))) for batch in range(3, 12)]
    return outputs, torch._dynamo.utils.counters["stats"]["unique_graphs"]


@feature(TRACING, "compiled autograd")
def _(kind: type) -> Any:
    import torch._dynamo.compiled_autograd as compiled_autograd

    torch._dynamo.reset()
    m, given = layer(kind), rows(leaf=True)
    with compiled_autograd._enable(torch.compile(backend="aot_eager", fullgraph=True)):
        m(*given).square().sum().backward()
    return [one.grad for one in (*given, *m.parameters())]


def _exported(kind: type, strict: bool) -> Any:
    size = torch.export.Dim("batch", min=2, max=4096)
    shapes = ({0: size}, {0: size})
    program = torch.export.export(Net(kind), tuple(rows()), dynamic_shapes=shapes, strict=strict)
    return program.module()(*rows((9, 7), (9, 5)))


@feature(TRACING, "torch.export, strict, with a dynamic batch")
def _(kind: type) -> Any:
    return _exported(kind, strict=True)


@feature(TRACING, "torch.export, not strict, with a dynamic batch")
def _(kind: type) -> Any:
    return _exported(kind, strict=False)


@feature(TRACING, "make_fx, with real, fake and symbolic tensors")
def _(kind: type) -> Any:
    m = layer(kind).requires_grad_(False)
    parameters = dict(m.named_parameters())

    def of(w: Any, x: Any, y: Any) -> Any:
        return torch.func.functional_call(m, w, (x, y))

    modes = "real", "fake", "symbolic"
    return [make_fx(of, tracing_mode=mode)(parameters, *rows())(parameters, *rows()) for mode in modes]


@feature(TRACING, "torch.fx.symbolic_trace")
def _(kind: type) -> Any:
    return torch.fx.symbolic_trace(Net(kind))(*rows())


@feature(TRACING, "torch.jit.trace, for other batch sizes, saved")
def _(kind: type) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(layer(kind), tuple(rows()))
        torch.jit.save(traced, saved := io.BytesIO())
        return torch.jit.load(io.BytesIO(saved.getvalue()))(*rows((9, 7), (9, 5)))


@feature(TRACING, "torch.jit.script", "same")
def _(kind: type) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(layer(kind))(*rows())


@feature(WATCHING, "FakeTensorMode, fake and real tensors", "same")
def _(kind: type) -> Any:
    m = layer(kind)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return [str(m(*given).shape) for given in (rows(), [mode.from_tensor(one) for one in rows()])]


@feature(WATCHING, "tensors and modules on the device `meta`", "falls back")
def _(kind: type) -> Any:
    output = layer(kind, device="meta")(*(one.to("meta") for one in rows()))
    return str(output.shape), str(output.device)


@feature(WATCHING, "a dispatch mode sees one operator for each contraction")
def _(kind: type) -> Any:
    class Watch(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            Watch.seen += "linear" in str(function)
            return function(*args, **(kwargs or {}))

    with Watch(), torch.no_grad():
        output = layer(kind)(*rows())
    return output, Watch.seen


@feature(WATCHING, "FlopCounterMode counts the work", "more")
def _(kind: type) -> Any:
    from torch.utils.flop_counter import FlopCounterMode

    m, given = layer(kind), rows(leaf=True)
    with FlopCounterMode(display=False) as counter:
        m(*given).sum().backward()
    return counter.get_total_flops()


@feature(WATCHING, "the profiler names the operator")
def _(kind: type) -> Any:
    m, given = layer(kind), rows()
    with torch.profiler.profile() as profile, torch.no_grad():
        m(*given)
    return any("linear" in event.key for event in profile.key_averages())


@feature(WATCHING, "torch.overrides: a subclass that redefines operations", "falls back")
def _(kind: type) -> Any:
    class Logged(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(function.__name__)
            return super().__torch_function__(function, types, args, kwargs or {})

    seen: list[str] = []
    x, y = rows()
    return layer(kind)(x.as_subclass(Logged), y).as_subclass(torch.Tensor), "bilinear" in seen


@feature(WATCHING, "a function mode sees one function")
def _(kind: type) -> Any:
    class Watch(TorchFunctionMode):
        seen = 0

        def __torch_function__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            Watch.seen += function.__name__ == "bilinear"
            return function(*args, **(kwargs or {}))

    m, given = layer(kind), rows()
    with Watch():
        output = m(*given)
    return output, Watch.seen


@feature(MEMORY, "outputs and gradients are resized and freed")
def _(kind: type) -> Any:
    m, given = layer(kind), rows()
    output = m(*given)
    output.sum().backward()
    output.detach().resize_(9, 9)
    m.weight.grad.untyped_storage().resize_(0)
    return m.weight.grad.untyped_storage().nbytes()


@feature(MEMORY, "inputs, weight and grad_output are resized afterwards (FSDP, offloading)")
def _(kind: type) -> Any:
    m, (x, y), grad = layer(kind), rows(), torch.ones(4, 3, dtype=D)
    m(x, y).backward(grad)
    for one in (x, y, grad, m.weight.data):
        one.untyped_storage().resize_(0)
    return m.weight.grad


@feature(MEMORY, "share_memory, also of an output")
def _(kind: type) -> Any:
    output = layer(kind).share_memory()(*rows()).detach()
    return output.share_memory_(), output.is_shared()


@feature(MEMORY, "inference_mode and no_grad")
def _(kind: type) -> Any:
    m, given = layer(kind), rows()
    with torch.inference_mode():
        first = m(*given)
    with torch.no_grad():
        second = m(*given)
    return first.clone(), first.is_inference(), second, second.requires_grad


@feature(MEMORY, "a default device does not move anything")
def _(kind: type) -> Any:
    m, given = layer(kind), rows((33, 7), (33, 5), leaf=True)
    with torch.device("meta"):
        m(*given).sum().backward()
    return m.weight.grad, given[0].grad


@feature(NUMBERS, "float32")
def _(kind: type) -> Any:
    return layer(kind, dtype=torch.float32)(*rows(dtype=torch.float32))


@feature(NUMBERS, "bfloat16 and float16, with gradients")
def _(kind: type) -> Any:
    found = []
    for dtype in (torch.bfloat16, torch.float16):
        m, given = layer(kind, dtype=dtype), rows(dtype=dtype, leaf=True)
        output = m(*given)
        found += [output, *torch.autograd.grad(output.sum(), [*given, m.weight])]
    return found


@feature(NUMBERS, "complex numbers", "falls back")
def _(kind: type) -> Any:
    with torch.no_grad():  # PyTorch has no gradients here
        return layer(kind, dtype=torch.complex128)(*rows(dtype=torch.complex128))


@feature(NUMBERS, "autocast: the output stays float32 (with ours the sums, too)")
def _(kind: type) -> Any:
    m, given = layer(kind, dtype=torch.float32), rows(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = m(*given)
        output.sum().backward()
    return str(output.dtype), output.bfloat16(), m.weight.grad.bfloat16()  # nn.Bilinear sums up bfloat16 products


@feature(NUMBERS, "NaN and infinity in single rows", "falls back")
def _(kind: type) -> Any:
    x, y = rows((40, 7), (40, 5))
    x[3, 2], y[5, 1] = torch.nan, torch.inf
    return layer(kind)(x, y)


@feature(NUMBERS, "finite where an intermediate sum is infinite in another order", "falls back")
def _(kind: type) -> Any:
    m = layer(kind, 8, 8, 3, dtype=torch.float32, bias=False)
    with torch.no_grad():
        m.weight.fill_(1e10)
    return m(torch.full((40, 8), 1e-30), torch.full((40, 8), 1e30))


@feature(TENSORS, "leading dimensions, and none")
def _(kind: type) -> Any:
    return [layer(kind)(*rows((*lead, 7), (*lead, 5))) for lead in ((), (2, 3), (2, 1, 4))]


@feature(TENSORS, "an output with leading dimensions is no view")
def _(kind: type) -> Any:
    with torch.no_grad():
        output = layer(kind)(*rows((1, 4, 7), (1, 4, 5)))
    output += torch.ones(3, dtype=D, requires_grad=True)
    return output


@feature(TENSORS, "an empty batch, with gradients")
def _(kind: type) -> Any:
    m, given = layer(kind), rows((0, 7), (0, 5), leaf=True)
    output = m(*given)
    return output, *torch.autograd.grad(output.sum(), [*given, *m.parameters()])


@feature(TENSORS, "views, strides, expanded rows and gradients")
def _(kind: type) -> Any:
    m, (x, y, one) = layer(kind), rows((7, 9), (18, 5), (1, 5))
    output = m(x.t(), y[::2])
    output.sum().backward()
    return output, m.weight.grad, m(x.t(), one.expand(9, 5))


@feature(TENSORS, "views with a negative bit")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind), rows(leaf=True)
    output = m(torch._neg_view(x), y)
    return output, *torch.autograd.grad(output, [x, y], torch._neg_view(torch.ones(4, 3, dtype=D)))


@feature(TENSORS, "sizes, dtypes and arguments that do not fit", "raises")
def _(kind: type) -> Any:
    m, (x, y) = layer(kind), rows()
    attempts = ((y, x), (x[:2], y), (x.float(), y), (x.numpy(), y), (None, y), (x, [1.0]))
    return [said(lambda given=given: m(*given)) for given in attempts]


@feature(LAYER, "state_dict, repr, and equal first parameters", "same")
def _(kind: type) -> Any:
    m = layer(kind)
    return repr(m), dict(m.state_dict())


@feature(LAYER, "sizes that nn.Bilinear refuses", "raises")
def _(kind: type) -> Any:
    return said(lambda: kind(0, 3, 4))


@feature(LAYER, "torch.save, pickle and deepcopy")
def _(kind: type) -> Any:
    m, given = layer(kind), rows()
    torch.save(m.state_dict(), saved := io.BytesIO())
    other = kind(7, 5, 3, dtype=D)
    other.load_state_dict(torch.load(io.BytesIO(saved.getvalue())))
    return [one(*given) for one in (other, copy.deepcopy(m), pickle.loads(pickle.dumps(m)))]  # noqa: S301  # our own


@feature(LAYER, "to, double, half and back")
def _(kind: type) -> Any:
    return layer(kind, dtype=torch.float32).half().double()(*rows())


@feature(LAYER, "parametrizations: weight_norm, spectral_norm")
def _(kind: type) -> Any:
    m = torch.nn.utils.parametrizations.weight_norm(layer(kind))
    other = torch.nn.utils.parametrizations.spectral_norm(layer(kind))
    output = m(*rows()) + other(*rows())
    output.sum().backward()
    return output, m.parametrizations.weight.original1.grad


@feature(LAYER, "pruning")
def _(kind: type) -> Any:
    m = layer(kind)
    torch.nn.utils.prune.l1_unstructured(m, "weight", amount=0.5)
    return m(*rows())


@feature(LAYER, "forward hooks, and forward pre-hooks")
def _(kind: type) -> Any:
    m = layer(kind)
    m.register_forward_pre_hook(lambda _, given: (given[0] * 2, given[1]))
    m.register_forward_hook(lambda _, __, output: output + 1)
    return m(*rows())


@feature(LAYER, "inside nn.Sequential-like containers, and torch.nn.utils.parameters_to_vector")
def _(kind: type) -> Any:
    net = torch.nn.ModuleDict({"pair": layer(kind)})
    vector = torch.nn.utils.parameters_to_vector(net.parameters())
    torch.nn.utils.vector_to_parameters(vector * 2, net.parameters())
    return net["pair"](*rows())


def rendered() -> str:
    """Return the table of ``docs/take-it-home.md``."""
    lines = ["| feature | nn.Bilinear | ours |", "| --- | --- | --- |"]
    group = ""
    for one in FEATURES:
        if one.group != group:
            group = one.group
            lines.append(f"| **{group}** | | |")
        theirs = {"raises": "raises", "more": "counts 0"}.get(one.ours, "works")
        lines.append(f"| {one.name} | {theirs} | {one.ours} |")
    return "\n".join(lines)


if __name__ == "__main__":
    page = Path(__file__).parents[2] / "docs" / "take-it-home.md"
    page.write_text(re.sub(r"\| feature .*?(?=\n\n)", lambda _: rendered(), page.read_text(), flags=re.DOTALL))
