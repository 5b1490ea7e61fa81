"""What the backends of PyTorch share: tensors, devices, precision, and the training step by autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from harness.backend import Backend, Kernel, Support
from harness.case import Case

Tensor = Any
#: ``(input1 (b, i), input2 (b, j), weight (o, i, j), bias (o,) or None) -> output (b, o)``, differentiable.
Formula = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class TorchBackend(Backend):
    """A backend that is one differentiable formula on tensors; write ``name`` and ``formula``."""

    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")

    def formula(self) -> Formula:
        """Return the formula. Called in each ``prepare``, so it may compile anew."""
        raise NotImplementedError(f"{self.name} has no formula")

    @classmethod
    def available(cls, device: str) -> Support:
        """Whether PyTorch sees the device."""
        if device != "cuda" or torch.cuda.is_available():
            return Support(True)
        if torch.version.cuda is None:
            return Support(False, f"torch {torch.__version__} is built without CUDA: install a build that has it")
        return Support(False, f"torch {torch.__version__} sees no CUDA device: look at nvidia-smi and the driver")

    def supports(self, case: Case) -> Support:
        """PyTorch has every dtype of a case; tf32 only on a GPU."""
        return self.supports_mode_and_precision(case)

    def version(self) -> str:
        """Version of PyTorch."""
        return f"torch {torch.__version__}"

    def prepare_forward(self, case: Case, weight: Tensor, bias: Tensor | None) -> Kernel:
        """Return the formula with the weights as they are; no leaf asks for a gradient, so no graph is recorded."""
        set_precision(case)
        formula = self.formula()

        def kernel(input1: Tensor, input2: Tensor) -> Tensor:
            return formula(input1, input2, weight, bias)

        return kernel

    def prepare_forward_backward(self, case: Case) -> AutogradStep:
        """Return the formula with autograd."""
        set_precision(case)
        return AutogradStep(self.formula())

    def to_device(self, array: npt.NDArray[np.floating], dtype: str) -> Tensor:
        """Copy a host array to the device as a contiguous tensor."""
        return torch.tensor(array, dtype=getattr(torch, dtype), device=self.device)

    def synchronize(self, result: Tensor) -> None:
        """Wait for the GPU; on the CPU a tensor that has been returned exists."""
        if self.device == "cuda":
            torch.cuda.synchronize(self.device)

    def to_numpy(self, result: Tensor) -> npt.NDArray[np.floating]:
        """Copy a result back: float32 for the half types."""
        dtype = torch.float64 if result.dtype == torch.float64 else torch.float32
        return result.detach().to(device="cpu", dtype=dtype, copy=True).numpy()


class AutogradStep:
    """A training step: autograd records in ``forward``, and ``backward`` lets the graph go."""

    def __init__(self, formula: Formula) -> None:
        self._formula = formula
        self._graph: tuple[Tensor, list[Tensor]] | None = None

    def forward(self, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return output (b, o), outside the graph."""
        # New leaves over the same storage: the caller's tensors must not start to ask for gradients.
        leaves = [tensor.detach().requires_grad_() for tensor in (input1, input2, weight)]
        if bias is not None:
            leaves.append(bias.detach().requires_grad_())
        output = self._formula(leaves[0], leaves[1], leaves[2], None if bias is None else leaves[3])
        self._graph = output, leaves
        return output.detach()

    def backward(self, grad_output: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return the gradients of all leaves."""
        if self._graph is None:
            raise RuntimeError("backward without a forward: call forward first")
        (output, leaves), self._graph = self._graph, None
        gradients = torch.autograd.grad(output, leaves, grad_output)
        return gradients[0], gradients[1], gradients[2], gradients[3] if len(leaves) == 4 else None


def set_precision(case: Case) -> None:
    """Let float32 matrix products use tf32, or not, as the case says; for the whole process, until the next prepare.

    This function, and not ``torch.backends.cuda.matmul.allow_tf32`` or ``fp32_precision``: every PyTorch from 2.4 on
    has it, it warns nowhere, and it leaves the other two in agreement. Whoever mixes those gets a RuntimeError.

    Half types are summed in float32, by all backends alike: PyTorch's default lets cuBLAS add parts up in a half type.
    """
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.set_float32_matmul_precision("high" if case.precision == "tf32" else "highest")


def einsum_bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return output (b, o) by one torch.einsum."""
    output = torch.einsum("bi,oij,bj->bo", input1, weight, input2)  # (b, i), (o, i, j), (b, j) -> (b, o)
    return output if bias is None else output + bias


def einsum_workspace_bytes(case: Case) -> int:
    """Upper figure for ``einsum_bilinear``: its intermediate and a reordered weight; in the step twice that.

    With opt_einsum installed the order is the one with the fewest flop, and so is the intermediate: an outer product
    costs one flop an element, a contraction two. Without opt_einsum the order is left to right: (b, o, j). The step
    keeps the forward's intermediate and makes its gradient.
    """
    in1, in2, out = case.in1_features, case.in2_features, case.out_features
    intermediate = out * in2
    if torch.backends.opt_einsum.is_available():
        # (flop, elements) for each row of the batch, without the 2 b i j o that every order has
        candidates = ((2 * out * in2, out * in2), (2 * out * in1, out * in1), (in1 * in2, in1 * in2))
        fewest = min(flop for flop, _ in candidates)
        intermediate = max(elements for flop, elements in candidates if flop == fewest)  # of equals, either may come
    alive = 1 if case.mode == "forward" else 2
    return alive * (case.batch * intermediate + out * in1 * in2) * case.itemsize


def einsum_version() -> str:
    """PyTorch's version, and opt_einsum's: it decides the order of the contractions, and comes with JAX unasked."""
    found = torch.backends.opt_einsum.get_opt_einsum()
    return f"torch {torch.__version__}, " + ("no opt_einsum" if found is None else f"opt_einsum {found.__version__}")
