"""The backends of a plan, and the plan that a resumed run goes on with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.catalog.core import CORE
from harness.catalog.registry import entries
from harness.output import store
from harness.run.options import PlanOptions, RunOptions
from harness.run.plan import BASELINE, make_plan
from harness.run.stored_plan import restore, stored

pytestmark = pytest.mark.skipif(not entries()[BASELINE].installed().ok, reason="torch is not installed")
OTHERS = {name for name, entry in entries().items() if not entry.is_ours}


def planned(**options: Any):
    return make_plan("run", PlanOptions(devices=["cpu"], **options))


@pytest.mark.parametrize("options", [{}, {"suite": "quick"}, {"quick": True}, {"quick": True, "cases": ["SimGNN"]}])
def test_a_quick_run_measures_the_core_set_and_names_the_rest(options):
    plan = planned(**options)
    assert set(plan.backends) == {*CORE, *OTHERS}
    assert next(iter(plan.backends)) == BASELINE
    assert "numba-loop" in plan.left_out or not entries()["numba-loop"].installed().ok
    assert set(plan.left_out).isdisjoint({"triton-fused", *plan.backends}), "triton-fused runs on no CPU"


@pytest.mark.parametrize(
    "options", [{"suite": "models"}, {"cases": ["SimGNN"]}, {"timing": False}, {"backends": ["all"]}]
)
def test_other_runs_measure_every_backend(options):
    plan = planned(**options)
    assert set(plan.backends) == set(entries())
    assert plan.left_out == ()


def test_skip_leaves_out_of_the_core_set_and_of_its_rest():
    plan = planned(skip=["numpy-*", "numba-loop"])
    assert set(plan.backends) == {name for name in (*CORE, *OTHERS) if not name.startswith("numpy-")}
    assert "numba-loop" not in plan.left_out


def test_a_resumed_run_has_the_backends_that_it_was_stopped_with(tmp_path):
    plan = planned(quick=True, skip=["jax-jit"], threads=1)
    values = {"plan": stored(plan, RunOptions())}
    (tmp_path / store.ENVIRONMENT).write_text(json.dumps(values))
    assert restore(tmp_path)[0] == plan
    del values["plan"]["left_out"]  # as runs before the core set have it
    (tmp_path / store.ENVIRONMENT).write_text(json.dumps(values))
    assert restore(tmp_path)[0].left_out == ()
