"""The figures of a precision class, of any results of a case."""

from __future__ import annotations

import numpy as np
from reference_results import question

from harness.correctness.precision import measure


def inputs_in(case, kind):
    return {name: array.astype(kind) for name, array in question(case)[0].items()}


def figures(case, results):
    """Return the errors of each result, measured as ``gate.judge`` does."""
    _, expected = question(case)
    found = {}
    for name, result in results.items():
        value, scale = expected.values[name], expected.scales[name]
        if name in expected.samples:
            positions, value = expected.samples[name]
            result, scale = result.reshape(-1)[positions].astype(np.longdouble), scale.reshape(-1)[positions]
        found[name] = measure(case, value, scale, expected.quadratics[name], result)
    return found
