"""The core set."""

from __future__ import annotations

import pytest

from harness.catalog.core import CORE, CORE_CUDA, core, in_core
from harness.catalog.registry import DISTRIBUTION, Entry, entries
from harness.catalog.suites import ONE_LAYER, SUITES


@pytest.mark.parametrize(("devices", "names"), [(("cpu",), {*CORE}), (("cpu", "cuda"), {*CORE, *CORE_CUDA})])
def test_a_gpu_adds_what_runs_there(devices, names):
    assert set(core(devices)) == names
    assert set(in_core({name: one for name, one in entries().items() if one.is_ours}, devices)) == names


def test_a_backend_of_another_package_is_in_the_core_set():
    def entry(name, distribution):
        return Entry(name, "module:Kernel", (), distribution)

    ours, near = f"{DISTRIBUTION} 0.1", f"{DISTRIBUTION}-extras 0.1"
    listed = [entry("numpy-loop", ours), entry("opt-einsum", ours), entry("mine", "mine 1.0"), entry("near", near)]
    assert in_core({one.name: one for one in listed}, ("cpu",)) == ["numpy-loop", "mine", "near"]


def test_only_quick_runs_measure_the_core_set():
    assert ONE_LAYER.core
    assert [name for name, listed in SUITES.items() if listed.core] == ["quick"]
