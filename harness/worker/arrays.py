"""What a worker sees of a backend's arrays and calls, without trusting or converting them.

Frameworks have no common word for most of it, so each question is asked in the few dialects there are.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.correctness.conduct import Storage
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


def home_made(result: object, backend: Backend) -> bool:
    """Whether an array's type was written where the backend was: in its package, or in a file beside it."""
    kind, maker = type(result).__module__, type(backend).__module__
    if kind.partition(".")[0] == maker.partition(".")[0]:
        return True
    places = [getattr(sys.modules.get(module), "__file__", None) for module in (kind, maker)]
    folders = {Path(place).parent for place in places if place}
    return None not in places and len(folders) == 1


def framework(array: NativeArray) -> str | None:
    """Which framework that is known here an array belongs to: numpy, torch, jax, cupy, or None.

    A known array is made, waited for and copied back by the framework's own means. The backend's ``to_device``,
    ``synchronize`` and ``to_numpy`` are its own code, which could do there what it should do on the clock, or forget to
    wait; they are asked for other frameworks only.
    """
    torch, jax, cupy = (sys.modules.get(name) for name in ("torch", "jax", "cupy"))
    if type(array) is np.ndarray:
        return "numpy"
    if torch is not None and type(array) is torch.Tensor:
        return "torch"
    if jax is not None and isinstance(array, jax.Array):
        return "jax"
    if cupy is not None and type(array) is cupy.ndarray:
        return "cupy"
    return None


def place(values: npt.NDArray[np.floating], like: NativeArray) -> NativeArray | None:
    """Make an array of host values, of the type, dtype and device of another; None if its framework is not known.

    Args:
        values: float32 or float64; exact in the other's dtype.
        like: An array that the backend's ``to_device`` has made.
    """
    match framework(like):
        case "numpy":
            return np.array(values, dtype=like.dtype, order="C")
        case "torch":
            return sys.modules["torch"].tensor(values, dtype=like.dtype, device=like.device)
        case "jax":
            # On a CPU device_put may keep using the host array, so it gets one that nobody else has.
            return sys.modules["jax"].device_put(np.array(values, dtype=like.dtype), like.device)
        case "cupy":
            with like.device:
                return sys.modules["cupy"].array(np.array(values, dtype=like.dtype, order="C"))
    return None


def waiter(backend: Backend, like: NativeArray) -> Callable[[Any], None]:
    """Return what waits until a result exists, given a result or a tuple of some: what the clock calls after a call."""
    match framework(like):
        case "numpy":
            return _is_there
        case "torch":
            torch: Any = sys.modules["torch"]
            return _is_there if like.device.type == "cpu" else lambda result: torch.cuda.synchronize(like.device)
        case "jax":
            ready: Callable[[Any], None] = sys.modules["jax"].block_until_ready
            return ready
        case "cupy":
            return lambda result: like.device.synchronize()
    return backend.synchronize


def _is_there(result: Any) -> None:
    """What a CPU library has returned exists."""


def to_host(result: NativeArray, backend: Backend) -> npt.NDArray[np.floating]:
    """Copy a result back as float32 or float64."""
    wide = str(result.dtype).endswith("float64")
    match framework(result):
        case "torch":
            torch: Any = sys.modules["torch"]
            moved = result.detach().to(device="cpu", dtype=torch.float64 if wide else torch.float32, copy=True)
            return np.asarray(moved.numpy())
        case "cupy":
            return np.asarray(result.get(), dtype=np.float64 if wide else np.float32)
        case None:
            return backend.to_numpy(result)
    return np.array(result, dtype=np.float64 if wide else np.float32)


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


def refill(target: NativeArray, values: npt.NDArray[np.floating], backend: Backend, dtype: str) -> NativeArray:
    """Write host values into an array's own memory; where arrays cannot be written (JAX), return a new array."""
    known = framework(target)
    if known == "numpy":
        target[...] = values
        return target
    if known == "torch":
        with warnings.catch_warnings():
            # What one must not write into is only read here.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
            return target.copy_(sys.modules["torch"].from_numpy(values))
    if known == "cupy":
        target.set(np.array(values, dtype=target.dtype, order="C"))
        return target
    made = place(values, target)
    if made is not None:
        return made
    try:
        target[...] = (new := backend.to_device(np.array(values), dtype))
    except TypeError:
        return new
    return target


def operators(call: Callable[[], object]) -> tuple[str, ...]:
    """Call, and name the operators of PyTorch that ran, if PyTorch is in this process at all."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        call()
        torch = sys.modules.get("torch")  # imported by that call, perhaps
        if torch is None:
            return ()
    with torch.autograd.profiler.profile() as profile:
        call()
    names = {str(event.name) for event in profile.function_events}
    return tuple(sorted(name for name in names if name.startswith("aten::")))


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
        # Sums in another order at each call are no fault: behaviour.py remarks on them.
        torch.autograd.gradcheck(function.apply, leaves, check_undefined_grad=False, nondet_tol=1e-7)
    except sys.modules["torch.autograd.gradcheck"].GradcheckError as error:  # the package names its function the same
        return " ".join(str(error).split())[:400]
    return ""


def facts(results: Results) -> dict[str, Facts]:
    """Return what some results say of themselves, by name."""
    return {name: describe(result) for name, result in results.items()}


def storages(results: Results) -> dict[str, Storage]:
    """Return where some results are stored, by name."""
    return {name: storage(result) for name, result in results.items()}


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
    """``cpu`` or ``cuda``: torch devices have a type, JAX devices a platform, NumPy arrays (before 2.0) nothing.

    CuPy's device has neither, and is a GPU.
    """
    if type_name(device).startswith("cupy"):
        return "cuda"
    name = getattr(device, "type", None) or getattr(device, "platform", None) or device or "cpu"
    return {"gpu": "cuda"}.get(str(name), str(name))
