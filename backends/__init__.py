"""The backends of bilinear-bench: one file, one class, one technique.

Nothing imports this package by name: the harness finds each class through the entry-point group
``bilinear_bench.backends``, as it finds those of a third party. Packages of others take ``TorchFormula`` from here, to
write a backend as a formula in PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends._torch import TorchFormula

__all__ = ["TorchFormula"]


def __getattr__(name: str) -> Any:
    """Import PyTorch when the class is used for the first time."""
    if name != "TorchFormula":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from backends._torch import TorchFormula

    return TorchFormula
