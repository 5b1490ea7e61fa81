"""The one interface that a backend implements.

Requirements that shaped it:

* The clock times one callable that contains nothing but the kernel: preparing returns it, and the harness calls it.
* Inference and training differ. In inference the weights stay, so a backend may pack them once (``prepare_forward`` is
  timed apart). In training they change at every step, so nothing may be packed ahead.
* A minimal backend is one class with one attribute and one method; every default fits NumPy.
* A backend that cannot do a case says so with a reason, never by an exception; the reason is printed.
"""

from __future__ import annotations

import dataclasses
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from harness.case import Case

#: An array of the backend's own framework, on the backend's own device.
NativeArray = Any
#: ``(input1 (b, i), input2 (b, j)) -> output (b, o)``, the weights already inside.
Kernel = Callable[[NativeArray, NativeArray], NativeArray]


@dataclasses.dataclass(frozen=True, slots=True)
class Support:
    """A yes, or a no with its reason.

    Attributes:
        ok: True for yes.
        reason: Reason for a no, in a few words.
    """

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


class Step(Protocol):
    """One training step. ``backward`` belongs to the last ``forward``; nothing is kept beyond such a pair."""

    def forward(
        self, input1: NativeArray, input2: NativeArray, weight: NativeArray, bias: NativeArray | None
    ) -> NativeArray:
        """Return output (b, o) of input1 (b, i), input2 (b, j), weight (o, i, j) and bias (o,) or None."""
        ...

    def backward(self, grad_output: NativeArray) -> tuple[NativeArray, NativeArray, NativeArray, NativeArray | None]:
        """Return the gradients of input1 (b, i), input2 (b, j), weight (o, i, j), bias (o,) or None without bias."""
        ...


class Backend(ABC):
    """An implementation of ``bi,oij,bj->bo`` (plus bias) on one device.

    Write ``name`` and ``prepare_forward``. Add ``prepare_forward_backward`` for training. Override the other methods if
    the defaults, which fit NumPy, do not fit.

    The harness promises:

    * Arrays are contiguous: inputs (b, i) and (b, j), weight (o, i, j), bias (o,).
    * Each array has the case's dtype, and the type and device of the arrays that ``to_device`` returns.
    * One thread calls. A weight does not change while a kernel that was prepared with it is in use. Its memory may hold
      another weight after that, and a kernel prepared again.

    A kernel, or a step, promises:

    * It changes none of its inputs.
    * It keeps nothing beyond a call; a step keeps nothing beyond one pair of ``forward`` and ``backward``.
    * No later call overwrites the storage of a result that is still in use.
    * Two kernels that were prepared with different weights are independent.

    Attributes:
        name: Name as in ``<framework>-<technique>``; equals the name of the entry point.
        devices: Devices that the backend supports: ``cpu``, ``cuda``.
        device: Device of this instance.
    """

    name: ClassVar[str]
    devices: ClassVar[tuple[str, ...]] = ("cpu",)

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    # Questions; cheap, without side effects.

    @classmethod
    def available(cls, device: str) -> Support:
        """Return yes if this machine has the libraries and the hardware for ``device``."""
        return Support(True)

    def supports(self, case: Case) -> Support:
        """Return yes if this backend can do the case's dtype, precision, mode and sizes.

        The default fits NumPy: float32 and float64 in full precision, and ``forward_backward`` if
        ``prepare_forward_backward`` is overridden.
        """
        if case.dtype not in ("float32", "float64"):
            return Support(False, f"{self.name} has no {case.dtype}")
        return self.supports_mode_and_precision(case)

    def supports_mode_and_precision(self, case: Case) -> Support:
        """Return the part of ``supports`` that does not depend on the dtype, for backends with other dtypes."""
        if case.precision == "tf32" and self.device == "cpu":
            return Support(False, "a CPU has no tf32")
        overridden = type(self).prepare_forward_backward is not Backend.prepare_forward_backward
        if case.mode == "forward_backward" and not overridden:
            return Support(False, f"{self.name} has no backward")
        return Support(True)

    @classmethod
    def timeable(cls, device: str) -> Support:
        """Return no if times on ``device`` mean nothing, as in a simulator: then it is only checked."""
        return Support(True)

    def tuning(self, case: Case) -> str:
        """Return the parameters chosen for a prepared case (tiles, an order), for the record; empty without any."""
        return ""

    def workspace_bytes(self, case: Case) -> int:
        """Predict the memory of one call, in bytes, without inputs, parameters and results.

        The harness adds up the workers of a case before it starts them. The default is one page of the page loop,
        ``x1 @ W[k]`` of shape (b, j).
        """
        return case.batch * case.in2_features * case.itemsize

    def version(self) -> str:
        """Return the version of the framework, for the record."""
        import numpy as np

        return f"numpy {np.__version__}"

    # The work.

    @abstractmethod
    def prepare_forward(self, case: Case, weight: NativeArray, bias: NativeArray | None) -> Kernel:
        """Return the kernel for inference with this weight (o, i, j) and bias (o,) or None.

        It is called once per case, and may pack and compile. Its time is in the column ``prepare_seconds``.
        """

    def prepare_forward_backward(self, case: Case) -> Step:
        """Return the training step. It is called once per case; its time is in the column ``prepare_seconds``."""
        raise NotImplementedError(f"{self.name} has no backward")

    # Around the clock.

    def to_device(self, array: npt.NDArray[np.floating], dtype: str) -> NativeArray:
        """Copy a host array to the device as ``dtype``; its values are exactly representable there.

        For NumPy, PyTorch and JAX the harness copies only a single zero with this method. It then makes arrays of that
        type on that device itself. For other frameworks every array is copied with this method.
        """
        import numpy as np

        return np.array(array, dtype=dtype, order="C")

    def synchronize(self, result: NativeArray) -> None:  # noqa: B027  # a default, not an omission: NumPy computes at once
        """Return when ``result`` exists. The clock calls it after each call, never a kernel.

        It is called for other frameworks only; for results of NumPy, PyTorch and JAX the harness waits itself.

        Args:
            result: Return value of the kernel; of a step the tuple of output and gradients (some may be None).
        """

    def to_numpy(self, result: NativeArray) -> npt.NDArray[np.floating]:
        """Copy a result back to a host array of float32 or float64.

        It is called for other frameworks only; arrays of NumPy, PyTorch and JAX are copied by the harness.
        """
        import numpy as np

        return np.array(result, dtype=np.float64 if result.dtype == np.float64 else np.float32)


class EntryPointError(Exception):
    """An entry point whose target is missing, has another name, or is no backend."""


def backend_class(name: str, target: str) -> type[Backend]:
    """Import a backend's class.

    Args:
        name: Name of the entry point.
        target: Import path, as in ``module:Class``.

    Raises:
        EntryPointError: The class is missing, has another name, or does not implement the interface.
        Exception: Importing its module raised.
    """
    module, _, attribute = target.partition(":")
    loaded: Any = importlib.import_module(module)
    for part in attribute.split("."):
        loaded = getattr(loaded, part, None)
    if loaded is None:
        raise EntryPointError(f"{module} has no {attribute}: the entry point {name} leads to nothing")
    require_backend(loaded)
    if loaded.name != name:
        raise EntryPointError(
            f"entry point {name} leads to a class named {loaded.name!r}: "
            "make the entry point's name and the class attribute `name` equal"
        )
    return loaded  # type: ignore[no-any-return]  # an imported attribute is untyped


def require_backend(loaded: Any) -> None:
    """Do nothing if an object is a class that implements ``Backend``.

    Raises:
        EntryPointError: It is something else, or lacks its name or a method.
    """
    if not (isinstance(loaded, type) and issubclass(loaded, Backend)):
        raise EntryPointError(f"{loaded!r} is no backend: derive its class from harness.backend.Backend")
    if not isinstance(getattr(loaded, "name", None), str):
        raise EntryPointError(f"{loaded.__name__} has no name: give it the class attribute `name`")
    if missing := sorted(loaded.__abstractmethods__):
        raise EntryPointError(f"{loaded.__name__} lacks {', '.join(missing)}: define it, as harness.backend describes")


def is_requirement(error: ModuleNotFoundError, target: str) -> bool:
    """True if the missing module belongs to another package than the entry point's own, ``module:Class``."""
    own = target.partition(":")[0].partition(".")[0]
    return error.name is not None and error.name.partition(".")[0] != own
