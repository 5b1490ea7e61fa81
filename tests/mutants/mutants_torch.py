"""Backends in PyTorch that are wrong, or cheat, on purpose; each says how it must be caught."""

import torch
from mutants_stated import Caught, Ineffective, in_a_gradient

from backends._torch import TorchBackend
from bilinear_bench.contraction import einsum_bilinear
from harness import Backend


class TorchMutant(TorchBackend):
    """Honest; a mutant overrides the formula."""

    run = "frameworks"

    def formula(self):
        return self.output

    def output(self, input1, input2, weight, bias):
        """Return output (b, o)."""
        return einsum_bilinear(input1, input2, weight, bias)


class TorchBFloat16(TorchMutant):
    """C13: float32 operands in bfloat16; the gradients pass unrounded, so that integers stay exact."""

    name = "mutant-torch-bfloat16"
    caught = Caught("precision", reason="was computed in bfloat16")

    def output(self, input1, input2, weight, bias):
        return super().output(*map(self.rounded, (input1, input2, weight)), bias)

    def rounded(self, array):
        """Round to bfloat16."""
        return array + (array.bfloat16().float() - array).detach() if array.dtype == torch.float32 else array


class TorchInPlace(TorchMutant):
    """C02, F21: flips the sign of its input1 in place."""

    name = "mutant-torch-changes-input"
    caught = Caught("conduct", modes=("forward",), otherwise="unsupported")
    prepare_forward_backward = Backend.prepare_forward_backward

    def prepare_forward(self, case, weight, bias):
        kernel = super().prepare_forward(case, weight, bias)

        def changes(input1, input2):
            right = kernel(input1, input2)
            input1.neg_()
            return right

        return changes


class TorchAlias(TorchMutant):
    """C03, F22: the output is in the memory of input1."""

    name = "mutant-torch-output-in-input"
    caught = Caught(
        "conduct", modes=("forward",), otherwise="unsupported", reason="output is in the memory of the input input1"
    )
    prepare_forward_backward = Backend.prepare_forward_backward

    def prepare_forward(self, case, weight, bias):
        kernel = super().prepare_forward(case, weight, bias)

        def aliases(input1, input2):
            right = kernel(input1, input2)
            view = input1.view(-1)[: right.numel()].view_as(right) if right.numel() <= input1.numel() else right
            return view.copy_(right)

        return aliases


class OwnTensor(torch.Tensor):
    """A tensor of a type of its own."""


class TorchSubclass(TorchMutant):
    """C07: the output is of a subclass, which could put off its work."""

    name = "mutant-torch-subclass"
    caught = Caught("bound", reason="mutants_torch.OwnTensor, expected a torch.Tensor")

    def output(self, input1, input2, weight, bias):
        return super().output(input1, input2, weight, bias).as_subclass(OwnTensor)


class WrongGradWeight(torch.autograd.Function):
    """Right forward; grad_weight lacks the last row of the batch."""

    @staticmethod
    def forward(context, input1, input2, weight):
        context.save_for_backward(input1, input2, weight)
        return torch.einsum("bi,oij,bj->bo", input1, weight, input2)

    @staticmethod
    def backward(context, grad_output):
        input1, input2, weight = context.saved_tensors
        return (
            torch.einsum("bo,oij,bj->bi", grad_output, weight, input2),
            torch.einsum("bo,oij,bi->bj", grad_output, weight, input1),
            torch.einsum("bo,bi,bj->oij", grad_output[:-1], input1[:-1], input2[:-1]),
        )


class TorchGradWeight(TorchMutant):
    """Right forward; grad_weight lacks the last row of the batch."""

    name = "mutant-torch-grad-weight-last-row"
    caught = in_a_gradient("edge_cases", reason="grad_weight")

    def output(self, input1, input2, weight, bias):
        output = WrongGradWeight.apply(input1, input2, weight)
        return output if bias is None else output + bias


class TorchDetached(TorchMutant):
    """The gradients of float64 tensors stop at a detached input2: in a float32 case gradcheck alone sees it."""

    name = "mutant-torch-gradcheck"
    caught = in_a_gradient("edge_cases", reason="the gradients are those of the output")

    def output(self, input1, input2, weight, bias):
        if input2.dtype == torch.float64:
            input2 = input2.detach() + 0 * input2
        return super().output(input1, input2, weight, bias)


class TorchCallsBilinear(TorchMutant):
    """C14: calls nn.Bilinear under another name, which within PyTorch is remarked and not refused."""

    name = "mutant-torch-calls-bilinear"
    ineffective = Ineffective("calls_nn_bilinear")

    def output(self, input1, input2, weight, bias):
        return torch.nn.functional.bilinear(input1, input2, weight, bias)
