"""Arrays of one case on a backend's device: made, refilled, waited for and copied back.

An array of a known framework is handled by the framework's own means. The backend's ``to_device``, ``synchronize`` and
``to_numpy`` are its own code: they could do there what belongs on the clock, or forget to wait. They are called for
unknown frameworks only.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.correctness.inputs import make_inputs
from harness.timing.roofline import INPUT_SETS

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.backend import Backend, NativeArray
    from harness.case import Case
    from harness.worker.calls import NativeArrays

#: Arrays of a case that are not inputs: the same in every input set, unless a kind of inputs changes them.
PARAMETERS: Final[tuple[str, ...]] = ("weight", "bias")


class DeviceArrays:
    """Arrays of one case.

    Values of the input sets in rotation are drawn once and kept on the host, since drawing takes long. So are the
    latest other values: what has been called with them is compared with them afterwards.

    Args:
        backend: The backend; its device holds the arrays.
        case: The case.
    """

    def __init__(self, backend: Backend, case: Case) -> None:
        self.backend = backend
        self.case = case
        #: Names of the arrays that a call takes, without the parameters.
        self.inputs = tuple(name for name in case.shapes() if name not in PARAMETERS)
        #: Names of the parameters: weight, and bias if there is one.
        self.parameters = tuple(name for name in case.shapes() if name in PARAMETERS)
        self._drawn: dict[tuple[str, int], npt.NDArray[np.floating]] = {}
        #: Number and kind of the latest other values, and these by name.
        self._latest: tuple[int, str, dict[str, npt.NDArray[np.floating]]] = (0, "", {})

    @functools.cached_property
    def like(self) -> NativeArray:
        """Return the array that the backend's ``to_device`` made of a single zero; all others are made like it."""
        zero = np.zeros((1, 1), np.float64 if self.case.dtype == "float64" else np.float32)
        return self.backend.to_device(zero, self.case.dtype)

    @functools.cached_property
    def wait(self) -> Callable[[Any], None]:
        """Return a function that returns when a result exists."""
        return waiter(self.backend, self.like)

    def make(self, names: Sequence[str], variation: int = 0, kind: str = "normal") -> NativeArrays:
        """Make arrays in new memory of the device.

        Args:
            names: Names of the arrays, of ``case.shapes()``.
            variation: Number of the input set.
            kind: Kind of the values; see ``correctness/inputs.py``.
        """
        values = self.values(names, variation, kind)
        return {name: self.place(values[name]) for name in names}

    def refill(self, targets: NativeArrays, variation: int = 0, kind: str = "normal") -> NativeArrays:
        """Write values into the memory of arrays, and return those; where that is impossible (JAX), return new ones.

        Args:
            targets: Arrays on the device, by name.
            variation: Number of the input set.
            kind: Kind of the values; see ``correctness/inputs.py``.
        """
        return self.write(targets, self.values(tuple(targets), variation, kind))

    def write(self, targets: NativeArrays, values: Mapping[str, npt.NDArray[np.floating]]) -> NativeArrays:
        """Write host values into the memory of arrays, by name; where that is impossible (JAX), return new arrays."""
        return {name: refill(array, values[name], self.backend, self.case.dtype) for name, array in targets.items()}

    def host(self, results: NativeArrays) -> dict[str, npt.NDArray[np.floating]]:
        """Copy arrays to the host, as float32 or float64."""
        return {name: to_host(result, self.backend) for name, result in results.items()}

    def place(self, values: npt.NDArray[np.floating]) -> NativeArray:
        """Copy host values to the device; the backend sees them only if its framework is unknown."""
        array = place(values, self.like)
        return self.backend.to_device(np.array(values), self.case.dtype) if array is None else array

    def values(
        self, names: Sequence[str], variation: int = 0, kind: str = "normal"
    ) -> Mapping[str, npt.NDArray[np.floating]]:
        """Return values on the host, which cannot be written to."""
        if kind != "normal" or variation >= INPUT_SETS:
            return self._others(names, variation, kind)
        keys = {name: (name, 0 if name in PARAMETERS else variation) for name in names}
        missing = [name for name, key in keys.items() if key not in self._drawn]
        if missing:
            for name, array in make_inputs(self.case, variation, only=missing).items():
                array.setflags(write=False)
                self._drawn[keys[name]] = array
        return {name: self._drawn[key] for name, key in keys.items()}

    def forget(self) -> None:
        """Release the values on the host."""
        self._drawn.clear()
        self._latest = 0, "", {}

    def _others(self, names: Sequence[str], variation: int, kind: str) -> Mapping[str, npt.NDArray[np.floating]]:
        """Return values that are not in rotation; only the latest number and kind is kept."""
        if self._latest[:2] != (variation, kind):
            self._latest = variation, kind, {}
        latest = self._latest[2]
        if missing := [name for name in names if name not in latest]:
            latest |= make_inputs(self.case, variation, kind, missing)
            for array in latest.values():
                array.setflags(write=False)
        return {name: latest[name] for name in names}


def framework(array: NativeArray) -> str | None:
    """Return the known framework that an array belongs to: numpy, torch, jax or cupy; None for any other."""
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
    """Make an array of host values with the type, dtype and device of another; None if its framework is unknown.

    Args:
        values: float32 or float64 values, exact in the other's dtype.
        like: An array that the backend's ``to_device`` has made.
    """
    match framework(like):
        case "numpy":
            return np.array(values, dtype=like.dtype, order="C")
        case "torch":
            return sys.modules["torch"].tensor(values, dtype=like.dtype, device=like.device)
        case "jax":
            # On a CPU device_put may keep using the host array, so it gets a copy of its own.
            return sys.modules["jax"].device_put(np.array(values, dtype=like.dtype), like.device)
        case "cupy":
            with like.device:
                return sys.modules["cupy"].array(np.array(values, dtype=like.dtype, order="C"))
    return None


def waiter(backend: Backend, like: NativeArray) -> Callable[[Any], None]:
    """Return the function that waits until a result, or each result of a tuple, exists; the clock calls it."""
    match framework(like):
        case "numpy":
            return _return_at_once
        case "torch":
            torch: Any = sys.modules["torch"]
            return _return_at_once if like.device.type == "cpu" else lambda result: torch.cuda.synchronize(like.device)
        case "jax":
            ready: Callable[[Any], None] = sys.modules["jax"].block_until_ready
            return ready
        case "cupy":
            return lambda result: like.device.synchronize()
    return backend.synchronize


def _return_at_once(result: Any) -> None:
    """Return at once: a result that a CPU library has returned exists."""


def dtype_text(dtype: object) -> str:
    """Return a dtype as text, as in ``float32`` or ``torch.float32``; NumPy takes 30 us to write one."""
    return _numpy_text(dtype) if isinstance(dtype, np.dtype) else str(dtype)


@functools.cache
def _numpy_text(dtype: np.dtype[Any]) -> str:
    return str(dtype)


def to_host(result: NativeArray, backend: Backend) -> npt.NDArray[np.floating]:
    """Copy a result back as float32 or float64."""
    wide = dtype_text(result.dtype).endswith("float64")
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


def copied(results: Any) -> Any:
    """Copy a result, or each of a tuple, with what its memory holds now; one that cannot be written to is returned."""
    if isinstance(results, tuple):
        return tuple(copied(result) for result in results)
    match framework(results):
        case "numpy" | "cupy":
            return results.copy()
        case "torch":
            return results.detach().clone()
    return results


def refill(target: NativeArray, values: npt.NDArray[np.floating], backend: Backend, dtype: str) -> NativeArray:
    """Write host values into an array's own memory; where arrays cannot be written (JAX), return a new array."""
    known = framework(target)
    if known == "numpy":
        target[...] = values
        return target
    if known == "torch":
        with warnings.catch_warnings():
            # PyTorch warns of read-only values, which are only read here.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
            return target.copy_(sys.modules["torch"].from_numpy(values))
    if known == "cupy":
        target.set(np.array(values, dtype=target.dtype, order="C"))
        return target
    array = place(values, target)
    if array is not None:
        return array
    try:
        target[...] = (new := backend.to_device(np.array(values), dtype))
    except TypeError:
        return new
    return target
