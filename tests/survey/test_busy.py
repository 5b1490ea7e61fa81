"""Which other processes compute."""

from __future__ import annotations

import os

from fit_machine import machine, only

from harness.survey import busy
from harness.survey.machine_findings import load


def test_the_busiest_processes_of_others_are_named():
    before = {1: ("init", 5.0), 2: ("stress", 1.0), 3: ("python3", 0.0), 4: ("idle", 1.0), 5: ("ours", 0.0)}
    after = {1: ("init", 5.0), 2: ("stress", 1.5), 3: ("python3", 1.98), 4: ("idle", 1.02), 5: ("ours", 2.0)}
    named = busy.busiest(before, after | {6: ("new", 1.0)}, 2.0, {5})
    assert named == ("python3 (process 3, 99% of a CPU)", "stress (process 2, 25% of a CPU)")


def test_the_table_of_processes_has_this_one():
    name, seconds = busy.cpu_times()[os.getpid()]
    assert name
    assert seconds > 0


def test_the_finding_on_load_names_the_processes():
    finding = only(load(machine(load=2.0, busiest=("stress (process 2, 99% of a CPU)",))))
    assert finding.saw.endswith(" runnable now: stress (process 2, 99% of a CPU)")
