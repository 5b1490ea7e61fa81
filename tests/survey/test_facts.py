"""Facts from the files of a fake system, and from this machine."""

from __future__ import annotations

import json
from pathlib import Path

from harness.machine.activity import State
from harness.machine.threads import Pool
from harness.survey import facts
from harness.survey.doctor import as_json, diagnose
from harness.survey.facts import Facts


def gather_from(root: Path, threads: int = 2, **more) -> Facts:
    return facts.gather(
        threads,
        pools=more.pop("pools", []),
        root=root,
        sleep=more.pop("sleep", lambda seconds: None),
        query_gpus=lambda: ("GPU-aa, 1980, 1980, 0x0, Enabled, 0, NVIDIA H100\n", "GPU-aa, 7"),
        processes=lambda: {20: (1, ["python", "-m", "harness", "run"])},
        **more,
    )


def test_facts_come_from_the_systems_files(tmp_path, write, monkeypatch):
    monkeypatch.setattr(facts.budget, "affinity", lambda: [2, 3, 6])
    monkeypatch.setenv("OPENBLAS_CORETYPE", "ZEN")
    write("proc/cpuinfo", "vendor_id\t: AuthenticAMD\nflags\t\t: fma avx2 hypervisor\n\nvendor_id\t: other\n")
    write("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 600 kB\nSwapTotal: 50 kB\nSwapFree: 20 kB\n")
    write("proc/loadavg", "0.75 0.19 0.32 1/83 31222\n")
    write("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n")
    for cpu, siblings in {2: "2-3,6", 3: "2,3,6", 6: "2-3,6"}.items():
        write(f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", siblings)
        write(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", "powersave\n")
    pools = [
        Pool("blas", "openblas", "0.3.30", "Zen", 2),
        Pool("openmp", "openmp", None, None, 2),
    ]
    gathered = gather_from(tmp_path, pools=pools)
    assert (gathered.threads, gathered.affinity) == (2, (2, 3, 6))
    assert (gathered.vendor, gathered.flags) == ("AuthenticAMD", {"fma", "avx2", "hypervisor"})
    assert (gathered.memory_bytes, gathered.available_bytes, gathered.swap_used_bytes) == (
        1000 * 1024,
        600 * 1024,
        30 * 1024,
    )
    assert (gathered.load, gathered.huge_pages, gathered.governors) == (0.75, "never", ("powersave",))
    assert gathered.siblings == ((2, 3),)  # of the budget's CPUs only
    assert (gathered.coretype, gathered.kernels) == ("ZEN", ("OpenBLAS 0.3.30 Zen",))
    assert (gathered.other_runs, len(gathered.gpus), gathered.gpus[0].others) == (1, 1, 1)
    assert gathered.own_cpu_seconds > 0


def test_empty_system_is_unknown_and_still_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(facts.budget, "affinity", lambda: None)
    gathered = gather_from(tmp_path)
    assert gathered.before == State(None, None, None, None)
    assert (gathered.affinity, gathered.vendor, gathered.memory_bytes, gathered.quota) == (
        None,
        None,
        None,
        None,
    )
    assert diagnose(gathered)


def test_activity_is_read_before_and_after_the_watch(tmp_path, write):
    write("proc/loadavg", "0 0 0 1/83 1\n")
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        write("proc/loadavg", "0 0 0 5/83 1\n")

    gathered = gather_from(tmp_path, sleep=sleep)
    assert slept == [facts.WATCH_SECONDS]
    assert (gathered.before.running, gathered.after.running) == (0, 4)
    assert gathered.seconds >= facts.WATCH_SECONDS


def test_limits_of_the_cgroups_cut_cpus_and_memory(tmp_path, write):
    write("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 600 kB\n")
    write("proc/self/cgroup", "0::/job\n")
    for name, text in {"cpu.max": "50000 100000", "memory.max": str(500 * 1024), "memory.current": "1024"}.items():
        write(f"sys/fs/cgroup/job/{name}", text)
    gathered = gather_from(tmp_path)
    assert (gathered.quota, gathered.memory_bytes, gathered.available_bytes) == (0.5, 500 * 1024, 499 * 1024)


def test_variables_that_workers_do_not_get_are_a_note(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_PLACES", "cores")
    (note,) = [found for found in diagnose(gather_from(tmp_path)) if found.topic == "variables"]
    assert (note.level, "OMP_PLACES: they bind threads" in note.saw) == ("note", True)


def test_findings_do_not_name_the_machines_owner():
    gathered = facts.gather(1, sleep=lambda seconds: None)
    text = json.dumps(as_json(diagnose(gathered)))
    assert not [path for path in (str(Path.home()), str(Path.cwd())) if len(path) > 1 and path in text]
