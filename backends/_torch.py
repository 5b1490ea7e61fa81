"""What the backends of PyTorch share: tensors, devices, precision, and the training step by autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from backends._step import Backward, ClosureStep, Gradients
from harness.backend import Backend, Kernel, Support
from harness.case import Case

Tensor = Any
#: ``(input1 (b, i), input2 (b, j), weight (o, i, j), bias (o,) or None) -> output (b, o)``, differentiable.
Formula = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class TorchBackend(Backend):
    """A backend that makes a differentiable formula on tensors; write ``name`` and ``formula``."""

    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")

    def formula(self) -> Formula:
        """Return the formula. Called in each ``prepare``, so it may compile again."""
        raise NotImplementedError(f"{self.name} has no formula")

    @classmethod
    def available(cls, device: str) -> Support:
        """Return whether PyTorch sees the device."""
        if device != "cuda" or torch.cuda.is_available():
            return Support(True)
        if torch.version.cuda is None:
            return Support(False, f"torch {torch.__version__} is built without CUDA: install a build that has it")
        return Support(False, f"torch {torch.__version__} sees no CUDA device: look at nvidia-smi and the driver")

    def supports(self, case: Case) -> Support:
        """Return yes for every dtype; tf32 only on a GPU."""
        return self.supports_mode_and_precision(case)

    def version(self) -> str:
        """Return the version of PyTorch."""
        return f"torch {torch.__version__}"

    def prepare_forward(self, case: Case, weight: Tensor, bias: Tensor | None) -> Kernel:
        """Return the formula with these weights; no leaf requires a gradient, so no graph is recorded."""
        set_precision(case)
        formula = self.formula()

        def kernel(input1: Tensor, input2: Tensor) -> Tensor:
            return formula(input1, input2, weight, bias)

        return kernel

    def prepare_forward_backward(self, case: Case) -> ClosureStep:
        """Return the formula with autograd."""
        set_precision(case)
        return autograd_step(self.formula())

    def to_device(self, array: npt.NDArray[np.floating], dtype: str) -> Tensor:
        """Copy a host array to the device as a contiguous tensor."""
        return torch.tensor(array, dtype=getattr(torch, dtype), device=self.device)

    def synchronize(self, result: Tensor) -> None:
        """Wait for the GPU; on the CPU a returned tensor is complete."""
        if self.device == "cuda":
            torch.cuda.synchronize(self.device)

    def to_numpy(self, result: Tensor) -> npt.NDArray[np.floating]:
        """Copy a result back: float32 for the half types."""
        dtype = torch.float64 if result.dtype == torch.float64 else torch.float32
        return result.detach().to(device="cpu", dtype=dtype, copy=True).numpy()


class TorchFormula(TorchBackend):
    """A backend that is one formula on tensors; write ``name`` and ``output``, autograd makes the gradients."""

    def output(self, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return output (b, o) of input1 (b, i), input2 (b, j), weight (o, i, j) and bias (o,) or None."""
        raise NotImplementedError(f"{self.name} has no output")

    def formula(self) -> Formula:
        """Return the formula that ``output`` is."""
        return self.output


def autograd_step(formula: Formula) -> ClosureStep:
    """Return the training step of a formula: autograd records in the forward, the backward frees the graph."""

    def step(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Backward]:
        # New leaves over the same storage: the caller's tensors must not start to require gradients.
        operands = (input1, input2, weight) if bias is None else (input1, input2, weight, bias)
        leaves = [tensor.detach().requires_grad_() for tensor in operands]
        output = formula(leaves[0], leaves[1], leaves[2], None if bias is None else leaves[3])

        def backward(grad_output: Tensor) -> Gradients:
            gradients = torch.autograd.grad(output, leaves, grad_output)
            return gradients[0], gradients[1], gradients[2], None if bias is None else gradients[3]

        return output.detach(), backward

    return ClosureStep(step)


def set_precision(case: Case) -> None:
    """Let float32 matrix products use tf32, or not, as the case says; for the whole process, until the next prepare.

    ``set_float32_matmul_precision`` is in every PyTorch from 2.4 on, warns nowhere, and leaves
    ``torch.backends.cuda.matmul.allow_tf32`` and ``fp32_precision`` in agreement; mixing those two is a RuntimeError.

    All backends sum half types in float32: PyTorch's default lets cuBLAS add parts up in a half type.
    """
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.set_float32_matmul_precision("high" if case.precision == "tf32" else "highest")


def einsum_workspace_bytes(case: Case) -> int:
    """Return the intermediate of one torch.einsum and a reordered weight, in the step twice that; an upper figure.

    With opt_einsum installed PyTorch takes the order with the fewest flop: an outer product costs one flop an element,
    a contraction two. Without opt_einsum the order is left to right: (b, o, j). The step keeps the forward's
    intermediate and makes its gradient.
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
    """Return the versions of PyTorch and opt_einsum, which decides the order of the contractions and comes with JAX."""
    module = torch.backends.opt_einsum.get_opt_einsum()
    return f"torch {torch.__version__}, " + ("no opt_einsum" if module is None else f"opt_einsum {module.__version__}")
