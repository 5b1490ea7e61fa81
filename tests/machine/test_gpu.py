"""The state of a GPU, read from a fake NVML."""

from __future__ import annotations

import sys
import types

import pytest

from harness.machine import gpu


class FakeNvml:
    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    def __init__(self, clocks=(1980,), reasons=0, fails=False):
        self.clocks, self.reasons, self.fails = list(clocks), reasons, fails

    def nvmlInit(self):  # noqa: N802  # NVML's names
        if self.fails:
            raise RuntimeError("Driver Not Loaded")

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetClockInfo(self, handle, kind):  # noqa: N802
        assert (handle, kind) == (0, self.NVML_CLOCK_SM)
        return self.clocks.pop(0) if len(self.clocks) > 1 else self.clocks[0]

    def nvmlDeviceGetTemperature(self, handle, kind):  # noqa: N802
        return 41

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):  # noqa: N802
        return self.reasons


@pytest.fixture(autouse=True)
def all_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_reading_has_clock_temperature_and_reasons():
    assert gpu.Watch(FakeNvml()).read() == gpu.State(1980.0, 41.0, "")
    assert gpu.Watch(FakeNvml(reasons=0x1 | 0x4 | 0x40)).read().held_back == "power cap+hardware thermal slowdown"
    assert gpu.Watch(FakeNvml(reasons=0x1 | 0x2 | 0x100)).read().held_back == ""  # idle, clock set on purpose, display


def test_older_package_has_another_function_for_reasons():
    older = types.SimpleNamespace(
        NVML_CLOCK_SM=1,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetClockInfo=lambda handle, kind: 1000,
        nvmlDeviceGetTemperature=lambda handle, kind: 50,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 0x8,
    )
    assert gpu.Watch(older).read() == gpu.State(1000.0, 50.0, "hardware slowdown")


def test_new_package_on_an_old_driver_uses_the_old_function():
    nvml = FakeNvml()
    nvml.nvmlDeviceGetCurrentClocksEventReasons = types.MethodType(lambda *_: 1 / 0, nvml)
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 0x80
    assert gpu.Watch(nvml).read().held_back == "power brake"


@pytest.mark.parametrize("nvml", [FakeNvml(fails=True), types.SimpleNamespace(nvmlInit=lambda: None)])
def test_failing_driver_gives_no_reading(nvml):
    assert gpu.Watch(nvml).read() is None


def test_missing_package_gives_no_reading(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu.Watch().read() is None


def test_installed_package_is_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    assert gpu.Watch().read() == gpu.State(1980.0, 41.0, "")


def test_kernel_runs_until_its_clock_is_steady():
    ran = []
    watch = gpu.Watch(FakeNvml([345, 900, 1600, 1900, 1980, 1980, 1960, 1200, 1100, 1090]))
    watch.run_until_steady(ran.append)
    assert ran == [gpu.STEADY_SECONDS] * 5  # 1900 and 1980 MHz are within 5 %
    watch.run_until_steady(ran.append)
    watch.run_until_steady(ran.append)
    assert len(ran) == 7  # 1980 and 1960: the clock of the call before
    watch.run_until_steady(ran.append)
    assert len(ran) == 10  # the clock falls to 1200 and settles at 1100 and 1090


def test_clock_that_never_settles_is_read_a_limited_number_of_times():
    ran = []
    gpu.Watch(FakeNvml([1000, 2000] * 50)).run_until_steady(ran.append)
    assert len(ran) == gpu.STEADY_READINGS


def test_clock_that_cannot_be_read_lets_the_kernel_run_once():
    ran = []
    gpu.Watch(FakeNvml(fails=True)).run_until_steady(ran.append)
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("visible", "asked"),
    [(None, ("index", 0)), ("", ("index", 0)), ("2,0", ("index", 2)), ("MIG-4f2a,GPU-1", ("uuid", "MIG-4f2a"))],
)
def test_first_visible_gpu_is_read(monkeypatch, visible, asked):
    handles = []
    nvml = FakeNvml()
    nvml.nvmlDeviceGetHandleByIndex = lambda index: handles.append(("index", index))
    nvml.nvmlDeviceGetHandleByUUID = lambda uuid: handles.append(("uuid", uuid))
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu.Watch(nvml)
    assert handles == [asked]


@pytest.mark.parametrize(
    ("clock_mhz", "held_back", "disturbance"),
    [
        (1900.0, "", None),
        (1700.0, "", "gpu_clock"),
        (1900.0, "power cap", None),
        (1900.0, "power cap+hardware slowdown", "gpu_held_back"),
        (1700.0, "power brake", "gpu_clock+gpu_held_back"),
    ],
)
def test_slow_clocks_and_reasons_disturb_a_sample(clock_mhz, held_back, disturbance):
    assert gpu.disturbed(gpu.State(clock_mhz, 40.0, held_back), best_clock_mhz=1900.0) == disturbance
