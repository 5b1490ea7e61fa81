"""The plans of a call, whatever its dtype: half types have plans of their own, which contain those of float32."""

from __future__ import annotations

from typing import Any

from bilinear_bench.cpu import forward, grad_inputs, grad_weight, half
from bilinear_bench.cpu.cpu import HOST, Cpu
from bilinear_bench.cpu.sizes import HALF_TYPES, Sizes
from bilinear_bench.cpu.workspace import workspace_bytes


def forward_plan(sizes: Sizes, threads: int, cpu: Cpu = HOST) -> Any:
    """Divide a forward among at most ``threads`` threads."""
    return (half.HalfForwardPlan.of if sizes.dtype in HALF_TYPES else forward.plan)(sizes, threads, cpu)


def grad_inputs_plan(sizes: Sizes, threads: int, cpu: Cpu = HOST) -> Any:
    """Divide both input gradients among at most ``threads`` threads."""
    return (half.HalfGradInputsPlan.of if sizes.dtype in HALF_TYPES else grad_inputs.plan)(sizes, threads, cpu)


def grad_weight_plan(sizes: Sizes, threads: int, cpu: Cpu = HOST) -> Any:
    """Divide the gradient of the weight among at most ``threads`` threads."""
    return (half.HalfGradWeightPlan.of if sizes.dtype in HALF_TYPES else grad_weight.plan)(sizes, threads, cpu)


def call_bytes(sizes: Sizes, threads: int) -> int:
    """Return an upper figure for the bytes of a call on top of inputs, parameters and results."""
    return (half.call_bytes if sizes.dtype in HALF_TYPES else workspace_bytes)(sizes, threads)
