"""``torch.nn.Bilinear``, faster: the layer, its function, and the kernels behind them.

::

    from bilinear_bench import Bilinear   # instead of torch.nn.Bilinear

Importing this package imports no framework. PyTorch and Numba are imported when a name is used for the first time.
Where one is missing, that raises an ImportError of one line with the command that installs it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from bilinear_bench import functional

if TYPE_CHECKING:
    from bilinear_bench.layer import Bilinear

__all__ = ["Bilinear", "functional", "warm"]
__version__ = "0.1.0"

#: What ``Bilinear``, ``functional.bilinear`` and ``warm`` need: import name, and the requirement for pip.
FRAMEWORKS: Final = {"torch": "torch>=2.6", "numba": "numba>=0.60"}


def warm(dtypes: Iterable[str] = ("float32", "float64"), training: bool = True) -> None:
    """Compile the CPU kernels, or load them from Numba's cache, before the first call that matters.

    The first time on a machine this takes minutes, later seconds. After it no call compiles, whatever its sizes and
    PyTorch's number of threads.

    Args:
        dtypes: Names of element types: ``float32``, ``float64``, ``float16``, ``bfloat16``.
        training: True to include the kernels of the gradients.

    Raises:
        ImportError: PyTorch or Numba is missing.
        RuntimeError: Numba's compiler is switched off.
    """
    require_frameworks("warm")
    from bilinear_bench.cpu.warming import warm_calls  # not at the top: importing this package imports no framework
    from bilinear_bench.fused import run_kernels

    for dtype in dtypes:
        for sizes, threads in warm_calls(dtype):
            run_kernels(sizes, threads, training)


def require_frameworks(name: str) -> None:
    """Do nothing if every framework that ``name`` needs is installed.

    Raises:
        ImportError: A framework is missing; one line, with the command that installs it.
    """
    missing = [requirement for module, requirement in FRAMEWORKS.items() if importlib.util.find_spec(module) is None]
    if missing:
        packages = " and ".join(requirement.partition(">")[0] for requirement in missing)
        command = " ".join(f"'{requirement}'" for requirement in missing)
        raise ImportError(f"bilinear_bench.{name} needs {packages}, not installed here: pip install {command}")


def __getattr__(name: str) -> Any:
    """Import the layer when it is used for the first time."""
    if name != "Bilinear":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require_frameworks(name)
    from bilinear_bench.layer import Bilinear

    globals()[name] = Bilinear  # the next access does not come here
    return Bilinear


def __dir__() -> list[str]:
    """Return the public names, the layer among them before it is imported."""
    return sorted({*globals(), *__all__})
