"""``bilinear``: ``torch.nn.functional.bilinear``, faster; imported with PyTorch and Numba when it is used first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilinear_bench.operator import bilinear

__all__ = ["bilinear"]


def __getattr__(name: str) -> Any:
    """Import the function when it is used for the first time."""
    if name != "bilinear":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bilinear_bench import require_frameworks

    require_frameworks("functional.bilinear")
    from bilinear_bench.operator import bilinear

    globals()[name] = bilinear  # the next access does not come here
    return bilinear


def __dir__() -> list[str]:
    """Return the public names, the function among them before it is imported."""
    return sorted({*globals(), *__all__})
