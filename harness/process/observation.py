"""What a worker sees of a backend's arrays and calls, without trusting or converting them.

Frameworks have no common word for most of it, so each question is asked in the few dialects there are.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.correctness.behaviour import Storage
from harness.correctness.gate import Facts

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.backend import Backend, NativeArray, Step

    Results = dict[str, NativeArray]

#: What a backend has no business replacing: the clocks, and what carries its answers.
_WATCHED: Final[tuple[tuple[Any, str], ...]] = (
    *((time, name) for name in ("perf_counter", "perf_counter_ns", "monotonic", "time")),
    *((np, name) for name in ("save", "array_equal", "array")),
    (json, "dumps"),
    (os, "write"),
)


class Watch:
    """Remembers what the clocks and the harness are made of; made before a backend is loaded."""

    def __init__(self) -> None:
        self._originals = {(id(owner), name): (owner, getattr(owner, name)) for owner, name in _WATCHED}
        for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "harness"]:
            self._remember(module)
        self._remember(sys.modules["__main__"])

    def replaced(self) -> list[str]:
        """Name what is no longer what it was."""
        return sorted(
            f"{owner.__name__}.{name}"
            for (_, name), (owner, original) in self._originals.items()
            if getattr(owner, name, None) is not original
        )

    def _remember(self, module: Any) -> None:
        """The functions and classes of a module of ours, and the functions of these classes."""
        for owner in [module, *(kind for kind in vars(module).values() if isinstance(kind, type) and _ours(kind))]:
            for name, found in list(vars(owner).items()):
                if callable(found) and _ours(found):
                    self._originals[id(owner), name] = (owner, getattr(owner, name))


def describe(result: NativeArray) -> Facts:
    """Say what a native result is, without converting it."""
    dtype, shape, device = (getattr(result, name, None) for name in ("dtype", "shape", "device"))
    return Facts(
        type=type_name(result),
        dtype=None if dtype is None else str(dtype).rpartition(".")[2],  # torch says torch.float32
        shape=None if shape is None else tuple(int(size) for size in shape),
        device=None if device is None and not isinstance(result, np.ndarray) else _device_name(device),
    )


def type_name(result: object) -> str:
    """The exact type, with its module: a subclass is another type, and so is one that took another's name."""
    return _name(type(result))


def base_names(result: object) -> list[str]:
    """The types that an array's type is derived from."""
    return [_name(base) for base in type(result).__mro__[1:]]


def to_host(result: NativeArray, backend: Backend) -> npt.NDArray[np.floating]:
    """Copy a result back as float32 or float64, by the framework's own means where it is known.

    The backend's ``to_numpy`` is asked for other frameworks only: it is the backend's code, and could do there what it
    should have done on the clock.
    """
    wide = str(result.dtype).endswith("float64")
    torch: Any = sys.modules.get("torch")
    if type(result) is np.ndarray:
        return np.array(result, dtype=np.float64 if wide else np.float32)
    if torch is not None and type(result) is torch.Tensor:
        moved = result.detach().to(device="cpu", dtype=torch.float64 if wide else torch.float32, copy=True)
        return np.asarray(moved.numpy())
    if hasattr(result, "unsafe_buffer_pointer"):  # JAX
        return np.array(result, dtype=np.float64 if wide else np.float32)
    return backend.to_numpy(result)


def storage(array: NativeArray) -> Storage:
    """Where an array lies in memory: from its first byte to its last."""
    if isinstance(array, np.ndarray):
        start = int(array.__array_interface__["data"][0])
        reach = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
        first, last = (sum(step for step in reach if (step < 0) == backward) for backward in (True, False))
        return Storage(start + first, last - first + array.itemsize if array.size else 0)
    if hasattr(array, "untyped_storage"):  # torch, which has no negative strides
        reached = sum((size - 1) * stride for size, stride in zip(array.shape, array.stride(), strict=True))
        return Storage(int(array.data_ptr()), (reached + 1) * int(array.element_size()) if array.numel() else 0)
    if hasattr(array, "unsafe_buffer_pointer"):  # JAX
        return Storage(int(array.unsafe_buffer_pointer()), int(array.nbytes))
    interface = getattr(array, "__cuda_array_interface__", None)  # CuPy, Numba, ...
    if interface is not None:
        return Storage(int(interface["data"][0]), int(array.nbytes))
    return Storage(0, 0)


def refill(target: NativeArray, values: NativeArray) -> NativeArray:
    """Write new values into an array's own memory; where arrays cannot be written (JAX), return the new array."""
    try:
        target[...] = values
    except TypeError:
        return values
    return target


def operators(call: Callable[[], object]) -> list[str]:
    """Call, and name the operators of PyTorch that ran, if PyTorch is in this process at all."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        call()
        torch = sys.modules.get("torch")  # imported by that call, perhaps
        if torch is None:
            return []
    with torch.autograd.profiler.profile() as profile:
        call()
    return sorted({str(event.name) for event in profile.function_events if str(event.name).startswith("aten::")})


def gradcheck(step: Step, given: list[NativeArray]) -> str | None:
    """Hold a step's backward against finite differences of its forward; None where arrays are not PyTorch's.

    Returns what PyTorch's gradcheck objects to; empty if nothing.

    Args:
        step: Prepared for float64.
        given: input1, input2, weight, and bias if there is one.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not isinstance(given[0], torch.Tensor):
        return None
    absent = [None] * (4 - len(given))

    def forward(context: Any, *arrays: Any) -> Any:
        context.save_for_backward(*arrays)
        with torch.enable_grad():  # a custom function's body is outside autograd, a step may use it
            return step.forward(*arrays, *absent)

    def backward(context: Any, grad_output: Any) -> Any:
        # gradcheck asks for several gradients after one forward; a step answers once, so it goes forward again.
        arrays = context.saved_tensors
        with torch.enable_grad():
            step.forward(*arrays, *absent)
            return step.backward(grad_output.contiguous())[: len(arrays)]

    bodies = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type("StepFunction", (torch.autograd.Function,), bodies)
    leaves = tuple(array.clone().requires_grad_() for array in given)
    try:
        torch.autograd.gradcheck(function.apply, leaves, check_undefined_grad=False)
    except sys.modules["torch.autograd.gradcheck"].GradcheckError as error:  # the package names its function the same
        return " ".join(str(error).split())[:400]
    return ""


def facts_as_json(results: Results) -> dict[str, Any]:
    """The facts of some results, as they travel."""
    return {name: dataclasses.asdict(describe(result)) for name, result in results.items()}


def storages_as_json(results: Results) -> dict[str, list[int]]:
    """The storages of some results, as they travel."""
    return {name: list(dataclasses.astuple(storage(result))) for name, result in results.items()}


def _name(kind: type) -> str:
    """A type's name; if that name leads to another type, it says so."""
    found: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name if found is None or found is kind else f"{name} (another type of that name)"


def _ours(found: Any) -> bool:
    return str(getattr(found, "__module__", "")).partition(".")[0] in ("harness", "__main__")


def _device_name(device: object) -> str:
    """``cpu`` or ``cuda``: torch devices have a type, JAX devices a platform, NumPy arrays (before 2.0) nothing."""
    name = getattr(device, "type", None) or getattr(device, "platform", None) or device or "cpu"
    return {"gpu": "cuda"}.get(str(name), str(name))
