"""The layer and nn.Bilinear with the same parameters, and inputs for both."""

from __future__ import annotations

import torch

from bilinear_bench.layer import Bilinear

SIZES = (7, 5, 3)


def twins(*sizes, **options):
    """Return the layer and nn.Bilinear from the same seed."""
    made = []
    for kind in (Bilinear, torch.nn.Bilinear):
        torch.manual_seed(0)
        made.append(kind(*sizes, **options))
    return made


def inputs(*leading, dtype=torch.float64):
    return torch.randn(*leading, SIZES[0], dtype=dtype), torch.randn(*leading, SIZES[1], dtype=dtype)


def leaves(*tensors):
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]
