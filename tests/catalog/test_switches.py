"""Variables that switch a compiler off make its backends unavailable."""

from __future__ import annotations

import pytest

from harness.catalog.registry import entries
from harness.catalog.switches import switched_off


@pytest.mark.parametrize(
    ("variable", "value", "package"),
    [
        ("NUMBA_DISABLE_JIT", "1", "numba"),
        ("NUMBA_OPT", "0", "numba"),
        ("NUMBA_BOUNDSCHECK", "1", "numba"),
        ("JAX_DISABLE_JIT", "True", "jax"),
        ("JAX_DISABLE_MOST_OPTIMIZATIONS", "true", "jax"),
        ("XLA_FLAGS", "--xla_dump_to=x --xla_backend_optimization_level=0", "jax"),
        ("XLA_FLAGS", "--xla_disable_all_hlo_passes", "jax"),
        ("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false", "jax"),
    ],
)
def test_a_switch_counts_for_backends_of_its_package_alone(variable, value, package):
    reason = switched_off([package], {variable: value})
    assert (variable in reason, package in reason) == (True, True)
    assert not switched_off(["torch", "numpy"], {variable: value})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NUMBA_DISABLE_JIT", "0"),
        ("NUMBA_OPT", "3"),
        ("NUMBA_NUM_THREADS", "2"),
        ("JAX_DISABLE_JIT", "false"),
        ("XLA_FLAGS", "--xla_disable_all_hlo_passes=false --xla_force_host_platform_device_count=4"),
    ],
)
def test_values_that_switch_nothing_off_pass(variable, value):
    assert not switched_off(["numba", "jax"], {variable: value})


def test_backends_whose_compiler_is_switched_off_name_the_variable(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    found = entries()
    reasons = {name: found[name].installed().reason for name in ("numba-loop", "torch-fused", "numpy-loop")}
    assert "NUMBA_DISABLE_JIT" in reasons["numba-loop"]
    assert "NUMBA_DISABLE_JIT" in reasons["torch-fused"]
    assert not reasons["numpy-loop"]
