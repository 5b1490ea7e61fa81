"""The one interface that a backend implements.

Requirements that shaped it:

* What is timed is a callable that contains nothing else, so that set-up cannot leak into the clock: preparing returns
  the kernel, and the harness calls it.
* Inference and training are two jobs. In inference the weights stay, so a backend may pack them once
  (``prepare_forward`` is timed on its own). In training they change at every step, so nothing may be packed ahead.
* A minimal backend is one class, one attribute and one method; every default fits NumPy.
* "Cannot" is an answer with a reason, never an exception or a silent skip: the reason reaches the table.
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
    """A yes, or a no with its reason."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


class Step(Protocol):
    """One training step. ``backward`` answers for the last ``forward``; nothing is kept beyond such a pair."""

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

    Write ``name`` and ``prepare_forward``; add ``prepare_forward_backward`` for training, and the rest where NumPy's
    way is not yours. The harness promises: arrays are two-dimensional (weight three, bias one) and contiguous; each is
    of the case's dtype, and of the type and on the device that ``to_device`` gives; one thread calls. A kernel (or a
    step) in turn changes none of its inputs, keeps nothing beyond a call (a step: beyond one forward/backward pair),
    and returns storage that the next call does not overwrite. Changing a weight after ``prepare_forward`` is undefined;
    two kernels prepared with two weights each answer for their own.

    Attributes:
        name: ``<framework>-<technique>``; equals the name of the entry point.
        devices: The devices that the backend can be asked for.
        device: The one that this instance is for.
    """

    name: ClassVar[str]
    devices: ClassVar[tuple[str, ...]] = ("cpu",)

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    # Questions: cheap, without side effects.

    @classmethod
    def available(cls, device: str) -> Support:
        """Whether the libraries and the hardware for ``device`` are here."""
        return Support(True)

    def supports(self, case: Case) -> Support:
        """Whether this backend can do the case's dtype, precision, mode and sizes.

        The default knows what NumPy has: float32 and float64 in true precision, and ``forward_backward`` where
        ``prepare_forward_backward`` is written.
        """
        if case.dtype not in ("float32", "float64"):
            return Support(False, f"{self.name} has no {case.dtype}")
        return self.supports_mode_and_precision(case)

    def supports_mode_and_precision(self, case: Case) -> Support:
        """The part of ``supports`` that does not depend on the dtype, for those who answer that part themselves."""
        if case.precision == "tf32" and self.device == "cpu":
            return Support(False, "a CPU has no tf32")
        written = type(self).prepare_forward_backward is not Backend.prepare_forward_backward
        if case.mode == "forward_backward" and not written:
            return Support(False, f"{self.name} has no backward")
        return Support(True)

    @classmethod
    def timeable(cls, device: str) -> Support:
        """Whether its times on ``device`` say anything; what runs in an interpreter or a simulator is only checked."""
        return Support(True)

    def tuning(self, case: Case) -> str:
        """What was chosen for a case that has been prepared (tiles, an order), for the record; empty if nothing was."""
        return ""

    def workspace_bytes(self, case: Case) -> int:
        """Memory that one call takes beyond inputs, parameters and results, in bytes; a prediction.

        The harness adds up the workers of a case before it starts them. The default is one page of the page loop,
        ``x1 @ W[k]`` of shape (b, j).
        """
        return case.batch * case.in2_features * case.itemsize

    def version(self) -> str:
        """Version of the framework, for the record."""
        import numpy as np

        return f"numpy {np.__version__}"

    # The work.

    @abstractmethod
    def prepare_forward(self, case: Case, weight: NativeArray, bias: NativeArray | None) -> Kernel:
        """Return the kernel for inference with this weight (o, i, j) and bias (o,) or None.

        Called once per case; may pack and compile; timed apart, in the column ``prepare_seconds``.
        """

    def prepare_forward_backward(self, case: Case) -> Step:
        """Return the training step. Called once per case; timed apart, in the column ``prepare_seconds``."""
        raise NotImplementedError(f"{self.name} has no backward")

    # Around the clock.

    def to_device(self, array: npt.NDArray[np.floating], dtype: str) -> NativeArray:
        """Copy a host array to the device as ``dtype``; its values are exactly representable there.

        Of NumPy, PyTorch and JAX the harness makes arrays itself, of the type and on the device of a single zero that
        goes through here; of other frameworks everything goes through here.
        """
        import numpy as np

        return np.array(array, dtype=dtype, order="C")

    def synchronize(self, result: NativeArray) -> None:  # noqa: B027  # a default, not an omission: NumPy never lags
        """Return when ``result`` exists. Called by the clock after each call, never by a kernel.

        Asked for frameworks that the harness does not know; for results of NumPy, PyTorch and JAX it waits itself.

        ``result`` is what the kernel returned; for a step it is the tuple of output and gradients (some may be None).
        """

    def to_numpy(self, result: NativeArray) -> npt.NDArray[np.floating]:
        """Copy a result back to a host array of float32 or float64.

        Asked for frameworks that the harness does not know; NumPy's, PyTorch's and JAX's arrays it copies itself.
        """
        import numpy as np

        return np.array(result, dtype=np.float64 if result.dtype == np.float64 else np.float32)


class EntryPointError(Exception):
    """An entry point that leads to nothing, or to something else."""


def backend_class(name: str, target: str) -> type[Backend]:
    """Import a backend's class.

    Args:
        name: Of the entry point.
        target: ``module:Class``.

    Raises:
        EntryPointError: The class is not there, or calls itself something else.
        Exception: Whatever importing its module raises.
    """
    module, _, attribute = target.partition(":")
    loaded = getattr(importlib.import_module(module), attribute, None)
    if loaded is None:
        raise EntryPointError(f"{module} has no {attribute}: the entry point {name} points to nothing")
    if getattr(loaded, "name", None) != name:
        raise EntryPointError(
            f"entry point {name} leads to a class named {getattr(loaded, 'name', None)!r}: "
            "make the entry point's name and the class attribute `name` equal"
        )
    return loaded  # type: ignore[no-any-return]  # what an import gives is untyped
