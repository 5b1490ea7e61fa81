"""Observe calls in a worker: the memory and type of results, changed inputs, replaced functions.

Results are described without being trusted or converted. Frameworks have no common interface for most of it, so each
question is put in each framework's own terms.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.correctness.conduct import Storage, same_bits
from harness.correctness.verdict import Facts
from harness.machine import threads
from harness.process.protocol import Affinity
from harness.worker.arrays import dtype_text, to_host

if TYPE_CHECKING:
    from harness.backend import Backend, NativeArray
    from harness.worker.arrays import DeviceArrays
    from harness.worker.calls import NativeArrays
    from harness.worker.prepared_case import PreparedCase

#: Functions that a backend must not replace: the clocks, and those that carry results and replies.
_WATCHED: Final[tuple[tuple[Any, str], ...]] = (
    *((time, name) for name in ("perf_counter", "perf_counter_ns", "monotonic", "time")),
    *((np, name) for name in ("save", "array_equal", "array")),
    (json, "dumps"),
    (os, "write"),
)


class Watch:
    """Remembers the functions of the clocks and the harness, and the CPUs of this process.

    It is made before a backend is loaded, and after all modules of the worker are imported.
    """

    def __init__(self) -> None:
        self._originals = {(id(owner), name): (owner, getattr(owner, name)) for owner, name in _WATCHED}
        for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "harness"]:
            self._remember(module)
        self._remember(sys.modules["__main__"])
        # The code of a function can be replaced, too.
        self._codes = {key: _code(original) for key, (_, original) in self._originals.items()}
        self._affinity = _affinity()

    def replaced(self) -> tuple[str, ...]:
        """Return the names of functions that were replaced."""
        names = (
            f"{owner.__name__}.{name}"
            for (_, name), (owner, original) in self._originals.items()
            if getattr(owner, name, None) is not original or _code(original) is not self._codes[id(owner), name]
        )
        return tuple(sorted(names))

    def affinity(self) -> Affinity:
        """Return the CPUs of this process when the watch was made, and now."""
        return Affinity(self._affinity, _affinity())

    def _remember(self, module: Any) -> None:
        """Remember the functions and classes of a harness module, and the functions of these classes."""
        for owner in [module, *(kind for kind in vars(module).values() if isinstance(kind, type) and _ours(kind))]:
            for name, member in list(vars(owner).items()):
                if callable(member) and _ours(member):
                    self._originals[id(owner), name] = (owner, getattr(owner, name))


def changed_inputs(prepared: PreparedCase) -> tuple[str, ...]:
    """Return the names of inputs and parameters that no longer hold their values, bit for bit."""
    prepared.restore()
    changed = list(dict.fromkeys(prepared.changed))
    for variation, inputs in enumerate(prepared.sets):
        arrays = inputs | (prepared.parameters if variation == 0 else {})
        names = changed_arrays(prepared.arrays, arrays, variation)
        changed += [name if variation == 0 else f"{name} of input set {variation}" for name in names]
    return tuple(changed)


def changed_arrays(arrays: DeviceArrays, given: NativeArrays, variation: int = 0, kind: str = "normal") -> list[str]:
    """Return the names of arrays that do not hold the values of a kind, bit for bit.

    Args:
        arrays: Arrays of the case.
        given: Inputs or parameters of a call, by name.
        variation: Number of the values.
        kind: Kind of the values.
    """
    values = arrays.values(tuple(given), variation, kind)
    return [name for name, array in given.items() if not same_bits(to_host(array, arrays.backend), values[name])]


def describe(result: NativeArray) -> Facts:
    """Return type, dtype, shape and device of a native result, without converting it."""
    dtype, shape, device = (getattr(result, name, None) for name in ("dtype", "shape", "device"))
    return Facts(
        type=type_name(result),
        dtype=None if dtype is None else dtype_text(dtype).rpartition(".")[2],  # torch says torch.float32
        shape=None if shape is None else tuple(int(size) for size in shape),
        device=None if device is None and not isinstance(result, np.ndarray) else _device_name(device),
    )


def facts(results: NativeArrays) -> dict[str, Facts]:
    """Return type, dtype, shape and device of results, by name."""
    return {name: describe(result) for name, result in results.items()}


def type_name(result: object) -> str:
    """Return the exact type with its module; a subclass is another type, and so is one that took another's name."""
    return _name(type(result))


def base_names(result: object) -> tuple[str, ...]:
    """Return the types from which an array's type is derived."""
    return tuple(_name(base) for base in type(result).__mro__[1:])


def home_made(result: object, backend: Backend) -> bool:
    """True if an array's type is from the backend's own package or folder."""
    modules = type(result).__module__, type(backend).__module__
    if len({module.partition(".")[0] for module in modules}) == 1:
        return True
    files = [getattr(sys.modules.get(module), "__file__", None) for module in modules]
    folders = {Path(file).parent for file in files if file}
    return None not in files and len(folders) == 1


def storage(array: NativeArray) -> Storage:
    """Return the memory that an array is stored in, from its first byte to its last; of size 0 if unknown."""
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
    interface = getattr(array, "__cuda_array_interface__", None)  # CuPy, Numba
    if interface is not None:
        return Storage(int(interface["data"][0]), int(array.nbytes))
    return Storage(0, 0)


def storages(results: NativeArrays) -> dict[str, Storage]:
    """Return the memory that results are stored in, by name."""
    return {name: storage(result) for name, result in results.items()}


def operators(call: Callable[[], object]) -> tuple[str, ...]:
    """Call, and return the operators of PyTorch that ran; none if PyTorch is not in this process."""
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


def _affinity() -> tuple[int, ...] | None:
    allowed = threads.affinity()
    return None if allowed is None else tuple(allowed)


def _name(kind: type) -> str:
    """Return a type's name, with a remark if that name leads to another type."""
    namesake: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        namesake = getattr(namesake, part, None)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name if namesake is None or namesake is kind else f"{name} (another type of that name)"


def _code(function: Any) -> object:
    """Return the code of a function; None of a built-in one or a class."""
    return getattr(function, "__code__", None)


def _ours(member: Any) -> bool:
    return str(getattr(member, "__module__", "")).partition(".")[0] in ("harness", "__main__")


def _device_name(device: object) -> str:
    """Return ``cpu`` or ``cuda``.

    PyTorch's devices have a type, JAX's a platform, arrays of NumPy before 2.0 no device. CuPy's has neither and is a
    GPU.
    """
    if type_name(device).startswith("cupy"):
        return "cuda"
    name = getattr(device, "type", None) or getattr(device, "platform", None) or device or "cpu"
    return {"gpu": "cuda"}.get(str(name), str(name))
