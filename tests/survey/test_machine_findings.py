"""Findings on the machine itself, from facts."""

from __future__ import annotations

import dataclasses

import pytest
from fit_machine import AVX512, FIT, GIB, GPU, levels, machine, only, state

from harness.survey import machine_findings
from harness.survey.finding import NOTE, OK, WARNING


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, OK),
        ({"threads": 1}, OK),
        ({"quota": 2.0}, OK),
        ({"quota": 8.0}, OK),
        ({"quota": 2.5}, NOTE),
        ({"quota": 1.0, "threads": 1}, NOTE),
        ({"quota": 1.5}, WARNING),
        ({"cpu_count": 8}, NOTE),
        ({"affinity": None}, NOTE),
    ],
)
def test_each_thread_needs_a_whole_cpu(changes, level):
    assert only(machine_findings.thread_budget(machine(**changes))).level == level


def test_cpus_that_share_a_core_are_a_note():
    assert only(machine_findings.core_siblings(FIT)).level == OK
    finding = only(machine_findings.core_siblings(machine(siblings=((0, 1),))))
    assert finding.level == NOTE
    assert "0 and 1" in finding.saw
    assert machine_findings.core_siblings(machine(affinity=None)) == []


@pytest.mark.parametrize(
    ("governors", "level", "word"),
    [
        (("performance",), OK, "performance"),
        (("schedutil",), WARNING, "schedutil"),
        (("performance", "powersave"), WARNING, "powersave"),
        ((), NOTE, "not shown"),
    ],
)
def test_governor_other_than_performance_is_a_warning(governors, level, word):
    finding = only(machine_findings.frequency_governor(machine(governors=governors)))
    assert finding.level == level
    assert word in finding.saw
    assert ("cpupower frequency-set -g performance" in finding.advice) == (level == WARNING)


def test_governor_of_a_virtual_machine_is_the_hosts():
    finding = only(machine_findings.frequency_governor(machine(governors=(), flags=AVX512 | {"hypervisor"})))
    assert (finding.level, "host" in finding.saw) == (NOTE, True)


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"load": 0.4}, OK),
        ({"load": 0.6}, WARNING),
        ({"load": 0.9, "own_cpu_seconds": 30.0}, OK),  # half of a minute was ours
        ({"load": 1.1, "own_cpu_seconds": 30.0}, WARNING),
        ({"before": state(running=1), "after": state(running=2)}, WARNING),
        ({"after": state(running=2)}, OK),  # a moment
    ],
)
def test_load_of_other_processes_is_a_warning(changes, level):
    assert only(machine_findings.load(machine(**changes))).level == level


@pytest.mark.parametrize(("stolen_seconds", "level"), [(0.01, OK), (0.03, WARNING)])
def test_stolen_time_above_one_per_cent_is_a_warning(stolen_seconds, level):
    assert only(machine_findings.steal(machine(after=state(steal_seconds=1.0 + stolen_seconds)))).level == level


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"swap_used_bytes": GIB}, OK),
        ({"available_bytes": GIB}, OK),
        ({"swap_used_bytes": GIB, "available_bytes": GIB}, WARNING),
        ({"after": state(swapped_bytes=4096)}, WARNING),
    ],
)
def test_moving_pages_or_short_memory_are_a_warning(changes, level):
    assert only(machine_findings.swap(machine(**changes))).level == level


@pytest.mark.parametrize(("chosen", "expected"), [("never", [NOTE]), ("always", [OK]), ("madvise", [OK]), (None, [])])
def test_disabled_huge_pages_are_a_note(chosen, expected):
    assert levels(machine_findings.huge_pages(machine(huge_pages=chosen))) == expected


@pytest.mark.parametrize(("flags", "level"), [(AVX512, OK), (AVX512 | {"hypervisor"}, NOTE)])
def test_virtual_machine_is_a_note(flags, level):
    assert only(machine_findings.virtual_machine(machine(flags=flags))).level == level


@pytest.mark.parametrize(("count", "level"), [(0, OK), (1, WARNING)])
def test_another_run_is_a_warning(count, level):
    assert only(machine_findings.other_runs(machine(other_runs=count))).level == level


@pytest.mark.parametrize(
    ("changes", "expected", "word"),
    [
        ({}, [OK], "1980 of 1980 MHz"),
        ({"reasons": 0x1}, [OK], "idle"),
        ({"reasons": 0x2}, [OK], "idle"),  # a clock set on purpose
        ({"reasons": None, "utilization": None, "persistent": None, "clock_mhz": None}, [OK], "? of 1980 MHz"),
        ({"reasons": 0x4}, [WARNING], "power cap"),
        ({"reasons": 0x60}, [WARNING], "software thermal slowdown, hardware thermal slowdown"),
        ({"others": 1}, [WARNING], "1 other process"),
        ({"utilization": 4}, [OK], "idle"),  # nvidia-smi itself, or an earlier process
        ({"utilization": 30}, [WARNING], "30 % busy"),
        ({"persistent": False}, [NOTE], "persistence"),
        ({"persistent": False, "reasons": 0x8, "others": 2}, [WARNING, WARNING, NOTE], "hardware slowdown"),
    ],
)
def test_slow_busy_or_impersistent_gpu_is_found(changes, expected, word):
    findings = machine_findings.gpus(machine(gpus=(dataclasses.replace(GPU, **changes),)))
    assert levels(findings) == expected
    assert word in findings[0].saw


def test_gpus_are_numbered():
    assert [finding.topic for finding in machine_findings.gpus(machine(gpus=(GPU, GPU)))] == ["GPU 0", "GPU 1"]
    assert machine_findings.gpus(FIT) == []
