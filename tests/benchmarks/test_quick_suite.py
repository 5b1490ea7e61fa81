"""Every backend with every `quick` case, for pytest-benchmark: `pytest --benchmark-only`.

Here all frameworks share one process, so their thread pools disturb each other. The times are not those of
`records.csv`, which come from a process per backend. Use this to work on one backend (`-k numba-loop`), and `make
bench` to compare. The gate is the same: a backend that is wrong is never timed.
"""

from __future__ import annotations

import pytest

from harness.backend import backend_class
from harness.case import MODES
from harness.catalog.registry import entries
from harness.catalog.suites import suite
from harness.correctness import gate, reference
from harness.correctness.inputs import make_inputs
from harness.correctness.verdict import Expected
from harness.worker import arrays, integrity
from harness.worker.calls import call

# Warnings are errors in our tests, but not those that a framework raises while it compiles.
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

CASES = [entry.case.with_mode(mode) for entry in suite("quick").entries for mode in MODES]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case.name}-{case.mode}")
def case(request):
    return request.param


@pytest.fixture(scope="module")
def expected(case):
    """Return what the reference computes, once per case."""
    inputs = make_inputs(case)
    values, scales = (
        {name: tensor.numpy() for name, tensor in ask(case, inputs).items()}
        for ask in (reference.expected, reference.scales)
    )
    return Expected(values, scales, reference.quadratics(case, inputs))


@pytest.fixture(params=list(entries()))
def ready(request, case, expected):
    """Prepare a backend and let the gate judge it; return the timed function, with its arguments."""
    entry = entries()[request.param]
    if not (installed := entry.installed()).ok:
        pytest.skip(installed.reason)
    backend = backend_class(entry.name, entry.target)
    if "cpu" not in backend.devices:
        pytest.skip(f"{entry.name} runs on {', '.join(backend.devices)}")
    for support in (backend.available("cpu"), backend("cpu").supports(case)):
        if not support.ok:
            pytest.skip(support.reason)
    backend = backend("cpu")
    inputs = {name: backend.to_device(array, case.dtype) for name, array in make_inputs(case).items()}
    parameters = {name: inputs[name] for name in ("weight", "bias") if name in inputs}
    if case.mode == "forward":
        kernel = backend.prepare_forward(case, inputs["weight"], inputs.get("bias"))
    else:
        kernel = backend.prepare_forward_backward(case)
    results = call(case, kernel, parameters, inputs)
    wait = arrays.waiter(backend, inputs["input1"])
    wait(tuple(results.values()))
    native_type = integrity.type_name(inputs["input1"])
    form = gate.judge_facts(case, "cpu", native_type, integrity.facts(results), "bound")
    assert form.ok, form.reason
    verdict = gate.judge(case, expected, {n: arrays.to_host(result, backend) for n, result in results.items()})
    _, precision = gate.judge_precision(case, [verdict])
    for judged in (verdict, precision):
        assert judged.ok, judged.reason
    return wait, kernel, parameters, inputs


def test_speed(benchmark, case, ready):
    wait, kernel, parameters, inputs = ready
    benchmark.group = f"{case.name} {case.mode}"

    def one_call():
        results = call(case, kernel, parameters, inputs)
        wait(tuple(results.values()))

    benchmark(one_call)
