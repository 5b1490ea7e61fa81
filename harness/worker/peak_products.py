"""The peak worker's products: the GEMM of each library, on two square matrices."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from harness.worker.peak_kernels import Array

#: Source of a rate whose library does not name its BLAS.
UNNAMED: Final = "a BLAS that does not say its name"


class NoProductError(Exception):
    """An installed library has no product of that dtype."""


class Multiplication(NamedTuple):
    """A product ready to be timed.

    Attributes:
        multiply: Computes the product.
        to_numpy: Makes a NumPy array of the result.
        source: The BLAS behind the library.
    """

    multiply: Callable[[], Any]
    to_numpy: Callable[[Any], Array]
    source: str


def _numpy(left: Array, right: Array) -> Multiplication:
    out = np.empty_like(left)
    return Multiplication(lambda: np.matmul(left, right, out=out), np.asarray, _blas_behind_numpy())


def _torch_mm(left: Array, right: Array) -> Multiplication:
    import torch

    one, other = torch.from_numpy(left), torch.from_numpy(right)
    out = torch.empty_like(one)
    build = torch.__config__.show()
    mkl = re.search(r"Math Kernel Library Version (\S+?)[- ]", build)
    blas = re.search(r"BLAS_INFO=(\w+)", build)
    source = f"MKL {mkl[1]}" if mkl else blas[1] if blas else UNNAMED
    return Multiplication(lambda: torch.mm(one, other, out=out), lambda result: result.numpy(), source)


def _torch_onednn(left: Array, right: Array) -> Multiplication:
    import torch

    if not torch.backends.mkldnn.is_available():
        raise NoProductError("this PyTorch is built without oneDNN")
    if left.dtype != np.float32:
        raise NoProductError(f"oneDNN has no {left.dtype} product")
    # PyTorch gives a plain float32 product to its BLAS; operands in oneDNN's own layout force oneDNN.
    one, other = torch.from_numpy(left).to_mkldnn(), torch.from_numpy(right.T.copy()).to_mkldnn()
    version = re.search(r"(?:MKL-DNN|oneDNN) v([\d.]+)", torch.__config__.show())
    return Multiplication(
        lambda: torch.nn.functional.linear(one, other),
        lambda result: result.to_dense().numpy(),
        f"oneDNN {version[1]}" if version else "oneDNN",
    )


def _jax(left: Array, right: Array) -> Multiplication:
    import jax

    jax.config.update("jax_enable_x64", left.dtype == np.float64)
    one, other = jax.numpy.asarray(left), jax.numpy.asarray(right)
    dot = jax.jit(lambda a, b: jax.numpy.dot(a, b, precision=jax.lax.Precision.HIGHEST))
    source = f"XLA of jaxlib {importlib.metadata.version('jaxlib')}"
    return Multiplication(lambda: dot(one, other).block_until_ready(), np.asarray, source)


#: Prepares the product of two square matrices, by the product's name.
PRODUCTS: Final[dict[str, Callable[[Array, Array], Multiplication]]] = {
    "numpy": _numpy,
    "torch.mm": _torch_mm,
    "torch oneDNN": _torch_onednn,
    "jax": _jax,
}


def _blas_behind_numpy() -> str:
    import threadpoolctl

    names = {"openblas": "OpenBLAS", "mkl": "MKL", "blis": "BLIS"}
    for pool in threadpoolctl.threadpool_info():
        if pool["user_api"] == "blas":
            words = (names.get(pool["internal_api"], pool["internal_api"]), pool["version"], pool.get("architecture"))
            return " ".join(str(word) for word in words if word)
    return UNNAMED
