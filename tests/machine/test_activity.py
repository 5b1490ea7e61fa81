"""What else the machine does during a sample: stolen time, switches and clocks."""

from __future__ import annotations

import os

import pytest

from harness.machine import activity
from harness.machine.activity import State, disturbed

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

STAT = f"cpu  100 0 200 9000 5 0 3 {7 * TICKS} 0 0\ncpu0 50 0 100 4500 2 0 1 {3 * TICKS} 0 0\nctxt 9\n"
CPUINFO = "".join(
    f"processor\t: {cpu}\nmodel name\t: Fast One 3000\ncpu MHz\t\t: {mhz}\nflags\t\t: fma\n\n"
    for cpu, mhz in enumerate((1000.5, 2000.5, 3000.5))
)

QUIET = State(steal_seconds=1.0, running=0, clock_mhz=3000.0, swapped_bytes=0)


def clock_file(cpu: int) -> str:
    return f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq"


def after(**changes) -> State:
    """Return a reading after a sample that began in QUIET."""
    values = {name: getattr(QUIET, name) for name in ("steal_seconds", "running", "clock_mhz", "swapped_bytes")}
    return State(**(values | changes))


def words_of(before=QUIET, later=QUIET, seconds=1.0, cpus=2, switches=0, best=3000.0):
    return disturbed(before, later, seconds, cpus, switches, best)


def test_state_is_read_from_the_files_of_the_system(tmp_path, write):
    write("proc/stat", STAT)
    write("proc/loadavg", "0.18 0.19 0.32 4/83 31222\n")
    write("proc/vmstat", "pgfault 9\npswpin 2\npswpout 3\nswap_ra 9\n")
    write(clock_file(1), "2500000\n")
    write(clock_file(3), "3500000\n")
    assert activity.read(tmp_path, [1, 3]) == State(7.0, 3, 3000.0, 5 * PAGE_BYTES)


def test_missing_file_reads_as_none(tmp_path):
    assert activity.read(tmp_path) == State(None, None, None, None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("proc/stat", ""),
        ("proc/stat", "cpu  1 2 3\n"),
        ("proc/loadavg", "nonsense"),
        ("proc/loadavg", "0 0 0 x/y 1"),
        ("proc/vmstat", "pgfault 9\n"),
        ("proc/vmstat", "pswpin many\n"),
        ("proc/cpuinfo", "processor: 0\ncpu MHz: fast\n"),
        (clock_file(0), "<unknown>\n"),
    ],
)
def test_file_of_another_form_reads_as_none(tmp_path, write, name, text):
    write(name, text)
    assert activity.read(tmp_path, [0]) == State(None, None, None, None)


def test_reader_is_no_load_even_if_it_is_not_counted(tmp_path, write):
    write("proc/loadavg", "0 0 0 0/83 1")
    assert activity.read(tmp_path).running == 0


@pytest.mark.parametrize(("cpus", "clock_mhz"), [([0], 1000.5), ([1, 2], 2500.5), ([7], None)])
def test_clocks_without_a_governor_are_those_of_cpuinfo(tmp_path, write, cpus, clock_mhz):
    write("proc/cpuinfo", CPUINFO)
    assert activity.read(tmp_path, cpus).clock_mhz == clock_mhz


def test_clocks_without_affinity_are_those_of_all_cpus(tmp_path, write, monkeypatch):
    monkeypatch.setattr(activity.threads, "affinity", lambda: None)
    write("proc/cpuinfo", CPUINFO)
    assert activity.read(tmp_path).clock_mhz == 2000.5


def test_clocks_by_default_are_those_of_the_cpus_of_this_process(tmp_path, write, monkeypatch):
    monkeypatch.setattr(activity.threads, "affinity", lambda: [2])
    write("proc/cpuinfo", CPUINFO)
    assert activity.read(tmp_path).clock_mhz == 3000.5


def test_number_of_clocks_read_is_limited(tmp_path, write):
    for cpu in range(activity.MOST_CLOCKS):
        write(clock_file(cpu), "1000000")
    write(clock_file(activity.MOST_CLOCKS), "9000000")
    assert activity.read(tmp_path, range(activity.MOST_CLOCKS + 1)).clock_mhz == 1000.0


def test_this_machine_can_be_read():
    state = activity.read()
    assert state.running is None or state.running >= 0
    assert state.steal_seconds is None or state.steal_seconds >= 0


def test_quiet_sample_is_not_flagged():
    assert words_of() is None


@pytest.mark.parametrize(
    ("flagged", "passed", "word"),
    [
        # Two CPUs and one second: 5 % are 0.1 s.
        ({"later": after(steal_seconds=1.11)}, {"later": after(steal_seconds=1.09)}, "steal"),
        ({"switches": 101}, {"switches": 99}, "switches"),
        ({"switches": 3, "seconds": 0.001}, {"switches": 2, "seconds": 0.001}, "switches"),
        ({"later": after(clock_mhz=2300.0)}, {"later": after(clock_mhz=2500.0)}, "clock"),
        ({"before": after(running=1), "later": after(running=2)}, {"later": after(running=2)}, "load"),
        (
            {"later": after(swapped_bytes=PAGE_BYTES)},
            {"before": after(swapped_bytes=1), "later": after(swapped_bytes=1)},
            "swap",
        ),
    ],
)
def test_disturbance_is_named_beyond_its_threshold_and_not_below(flagged, passed, word):
    assert words_of(**flagged) == word
    assert words_of(**passed) is None


def test_stolen_time_is_a_share_of_the_time_of_all_cpus():
    stolen = after(steal_seconds=1.11)
    assert words_of(later=stolen, cpus=2) == "steal"
    assert words_of(later=stolen, cpus=4) is None
    assert words_of(later=stolen, seconds=2.0) is None


def test_several_disturbances_are_joined():
    later = State(steal_seconds=2.0, running=1, clock_mhz=1000.0, swapped_bytes=1)
    assert words_of(before=after(running=1), later=later, switches=1000) == "steal+switches+clock+load+swap"


def test_unknown_values_flag_nothing():
    unknown = State(None, None, None, None)
    assert words_of(before=unknown, later=after(steal_seconds=9.0, running=9, swapped_bytes=9), switches=None) is None
    assert words_of(later=unknown, switches=None) is None
    assert words_of(later=after(clock_mhz=1.0), best=None) is None
