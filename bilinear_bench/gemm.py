"""Matrix products of PyTorch by the library that multiplies fastest on this CPU.

PyTorch sends float32 products to its BLAS. Where that is MKL on a CPU that MKL has no good kernels for, oneDNN in the
same process is faster. So both are timed once, and the faster library gets the large products.
"""

from __future__ import annotations

import functools
import math
import time
from typing import Any, Final

import torch

Tensor = Any

#: Products below this flop stay with BLAS: the call of oneDNN costs more than it gains.
ONEDNN_FLOP: Final = 20e6
#: Ratio of times by which oneDNN has to be faster: less may be noise.
ONEDNN_GAIN: Final = 1.3
#: Rounds in which both libraries are timed; the least time of each counts.
ROUNDS: Final = 9


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to ``total``: (m, k) @ (k, n) -> (m, n)."""
    if total.dtype == left.dtype and not _for_onednn(left, right):
        total.addmm_(left, right)
    else:
        total += product(left, right)


def product(left: Tensor, right: Tensor, buffer: Tensor | None = None) -> Tensor:
    """Return ``left @ right``, (m, k) @ (k, n) -> (m, n).

    Args:
        left: Tensor (m, k).
        right: Tensor (k, n).
        buffer: Tensor of at least m * n elements, where BLAS writes the result. New memory of that size would come from
            the system page by page, at every call.
    """
    if _for_onednn(left, right):
        return onednn_product(left, right)
    if buffer is None:
        return torch.mm(left, right)
    shape = left.shape[0], right.shape[1]
    return torch.mm(left, right, out=buffer[: math.prod(shape)].view(shape))


def row_dots(rows: Tensor, matrices: Tensor) -> Tensor:
    """Return the dot product of each row (b, f) with each row of its matrix (b, n, f), as (b, n).

    Written as row times matrix: as matrix times column PyTorch is slower.
    """
    return torch.bmm(rows.unsqueeze(1), matrices.transpose(1, 2)).squeeze(1)


def onednn_product(left: Tensor, right: Tensor) -> Tensor:
    """Return ``left @ right`` by oneDNN: (m, k) @ (k, n) -> (m, n)."""
    # A part of wider rows would go to oneDNN's reference code, which is slower by orders of magnitude.
    if not (right.is_contiguous() or right.t().is_contiguous()):
        right = right.contiguous()
    # The operator that TorchInductor calls for a linear layer: left @ weight^T, without bias and epilogue.
    return torch.ops.mkldnn._linear_pointwise(left, right.t(), None, "none", [], "")


@functools.cache
def onednn_is_faster() -> bool:
    """True if oneDNN won on a product of some milliseconds; False where PyTorch has no oneDNN."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    left, right = torch.ones(384, 384), torch.ones(384, 1536)
    least = dict.fromkeys((torch.mm, onednn_product), math.inf)
    for _ in range(ROUNDS):
        for multiply in least:
            start = time.perf_counter()
            multiply(left, right)
            least[multiply] = min(least[multiply], time.perf_counter() - start)
    return least[torch.mm] > ONEDNN_GAIN * least[onednn_product]


def _for_onednn(left: Tensor, right: Tensor) -> bool:
    """True if oneDNN is to multiply these: large float32 products on a CPU where it is faster."""
    if left.device.type != "cpu" or left.dtype != torch.float32:
        return False
    return 2 * left.shape[0] * left.shape[1] * right.shape[1] >= ONEDNN_FLOP and onednn_is_faster()
