from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.machine.activity import State
from harness.machine.threads import Pool
from harness.survey import doctor, facts
from harness.survey.doctor import NOTE, OK, WARNING
from harness.survey.facts import Facts, Gpu
from harness.timing.roofline import Peaks, Product, Rate

GIB = 2**30
GIGA = 1e9
AVX512 = frozenset({"avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl"})
AVX2 = frozenset({"avx", "avx2", "fma"})
QUIET = State(steal_seconds=1.0, running=0, clock_mhz=3000.0, swapped_bytes=0)
GPU = Gpu("NVIDIA H100", 1980, 1980, 0, True, 0, 0)

FIT = Facts(
    threads=2,
    affinity=(0, 1),
    cpu_count=2,
    quota=None,
    siblings=(),
    vendor="GenuineIntel",
    flags=AVX512,
    coretype=None,
    kernels=(),
    governors=("performance",),
    huge_pages="madvise",
    load=0.1,
    own_cpu_seconds=0.0,
    before=QUIET,
    after=QUIET,
    seconds=1.0,
    memory_bytes=16 * GIB,
    available_bytes=12 * GIB,
    swap_used_bytes=0,
    other_runs=0,
    gpus=(),
    peaks=None,
)


def but(**changes) -> Facts:
    return dataclasses.replace(FIT, **changes)


def state(**changes) -> State:
    return dataclasses.replace(QUIET, **changes)


def peaks(*products: Product, float32=200 * GIGA, float64=100 * GIGA) -> Peaks:
    rates = {"float32": float32, "float64": float64}
    return Peaks({dtype: Rate(rate, "FMA") for dtype, rate in rates.items() if rate}, products, ())


def product(library, gigaflop, detail, dtype="float32") -> Product:
    return Product(library, dtype, gigaflop * GIGA, detail)


def only(findings):
    (finding,) = findings
    return finding


def levels(findings) -> list[str]:
    return [finding.level for finding in findings]


# What judges.


def test_all_is_well_on_a_fit_machine():
    fit = but(peaks=peaks(product("numpy", 180, "OpenBLAS 0.3.30 SkylakeX")), gpus=(GPU,))
    findings = doctor.diagnose(fit)
    assert set(levels(findings)) == {OK}
    assert not any(finding.advice for finding in findings)


def test_warnings_come_first_and_then_notes():
    findings = doctor.diagnose(but(huge_pages="never", other_runs=1, governors=("powersave",), flags=AVX512))
    assert levels(findings) == sorted(levels(findings), key=[WARNING, NOTE, OK].index)
    assert levels(findings)[:3] == [WARNING, WARNING, NOTE]
    assert all(finding.advice for finding in findings if finding.level != OK)


def test_findings_are_json():
    said = doctor.as_json(doctor.diagnose(FIT))
    assert json.loads(json.dumps(said)) == said
    assert set(said[0]) == {"level", "topic", "saw", "advice"}


def test_where_the_system_says_nothing_there_is_nothing_to_warn_of():
    unknown = State(None, None, None, None)
    nothing = {field.name: None for field in dataclasses.fields(Facts)}
    known = {"threads": 1, "siblings": (), "flags": frozenset(), "kernels": (), "governors": (), "gpus": ()}
    known |= {"own_cpu_seconds": 0.0, "before": unknown, "after": unknown, "seconds": 1.0, "other_runs": 0}
    assert WARNING not in levels(doctor.diagnose(Facts(**(nothing | known))))


@pytest.mark.parametrize("kernels", ["Haswell", "Zen", "Sandybridge", "Nehalem"])
def test_openblas_with_kernels_for_an_older_cpu_is_a_warning_that_says_how_to_get_the_right_ones(kernels):
    finding = only(doctor.blas_kernels(but(peaks=peaks(product("numpy", 95, f"OpenBLAS 0.3.30 {kernels}")))))
    assert finding.level == WARNING
    assert finding.advice == "export OPENBLAS_CORETYPE=SKYLAKEX"
    assert "95 GFLOP/s (48% of the peak of 200)" in finding.saw


@pytest.mark.parametrize(
    ("kernels", "flags", "level"),
    [
        ("SkylakeX", AVX512, OK),
        ("Cooperlake", AVX512, OK),
        ("Haswell", AVX2, OK),
        ("Zen", AVX2, OK),
        ("Sandybridge", AVX2, WARNING),
        # Knights Landing has AVX-512, but not what these kernels need.
        ("Haswell", AVX2 | {"avx512f"}, OK),
    ],
)
def test_kernels_are_measured_by_what_the_cpu_can_run(kernels, flags, level):
    found = doctor.blas_kernels(but(flags=flags, peaks=peaks(product("numpy", 95, f"OpenBLAS 0.3.30 {kernels}"))))
    assert only(found).level == level


@pytest.mark.parametrize("detail", ["OpenBLAS 0.3.30 Cortex", "MKL 2024.2", "a BLAS that does not say its name"])
def test_kernels_that_are_not_known_are_not_judged(detail):
    assert doctor.blas_kernels(but(peaks=peaks(product("numpy", 1, detail)))) == []


def test_the_rate_of_better_kernels_is_told_where_it_was_measured():
    usual = product("numpy", 95, "OpenBLAS 0.3.30 Haswell")
    trial = product("numpy with OPENBLAS_CORETYPE=SKYLAKEX", 160, "OpenBLAS 0.3.30 SkylakeX")
    finding = only(doctor.blas_kernels(but(peaks=peaks(usual, trial))))
    assert finding.level == WARNING
    assert finding.advice == ("export OPENBLAS_CORETYPE=SKYLAKEX, which reached 160 GFLOP/s (80% of the peak of 200)")


def test_kernels_that_were_measured_to_be_no_faster_are_not_advised():
    usual = product("numpy", 95, "OpenBLAS 0.3.30 Haswell")
    trial = product("numpy with OPENBLAS_CORETYPE=SKYLAKEX", 104, "OpenBLAS 0.3.30 SkylakeX")
    finding = only(doctor.blas_kernels(but(peaks=peaks(usual, trial))))
    assert finding.level == NOTE
    assert finding.advice.startswith("nothing to gain")
    assert doctor.trial([finding]) == {}


@pytest.mark.parametrize(("gigaflop", "level"), [(119, WARNING), (121, NOTE)])
def test_kernels_for_an_older_cpu_that_come_near_to_the_peak_all_the_same_are_a_note(gigaflop, level):
    # As AVX2 does on Zen 4, which splits AVX-512 in two.
    found = doctor.blas_kernels(but(peaks=peaks(product("numpy", gigaflop, "OpenBLAS 0.3.30 Haswell"))))
    assert only(found).level == level
    assert doctor.trial(found) == {"OPENBLAS_CORETYPE": "SKYLAKEX"}


def test_what_is_advised_can_be_tried():
    slow = but(peaks=peaks(product("numpy", 95, "OpenBLAS 0.3.30 Haswell")))
    assert doctor.trial(doctor.diagnose(slow)) == {"OPENBLAS_CORETYPE": "SKYLAKEX"}
    assert doctor.trial(doctor.diagnose(FIT)) == {}


def test_a_coretype_that_is_already_set_is_named_as_the_cause():
    slow = peaks(product("numpy", 95, "OpenBLAS 0.3.30 Haswell"))
    assert "OPENBLAS_CORETYPE is Haswell" in only(doctor.blas_kernels(but(peaks=slow, coretype="Haswell"))).saw


def test_one_openblas_is_told_once_and_in_float32():
    products = [product("numpy", 9, "OpenBLAS 0.3.30 Haswell", dtype) for dtype in ("float64", "float32")]
    assert "in float32" in only(doctor.blas_kernels(but(peaks=peaks(*products)))).saw


@pytest.mark.parametrize(("kernels", "level"), [("Haswell", WARNING), ("SkylakeX", OK)])
def test_without_products_the_kernels_of_the_pools_are_judged(kernels, level):
    assert only(doctor.blas_kernels(but(kernels=(f"OpenBLAS 0.3.30 {kernels}",)))).level == level


MKL, ONEDNN = "MKL 2024.2", "oneDNN 3.7.1"


@pytest.mark.parametrize(("gigaflop", "level"), [(90, WARNING), (130, OK)])
def test_mkl_on_amd_is_a_warning_where_another_library_is_much_faster(gigaflop, level):
    products = product("torch.mm", gigaflop, MKL), product("torch oneDNN", 180, ONEDNN)
    finding = only(doctor.mkl_on_amd(but(vendor="AuthenticAMD", peaks=peaks(*products))))
    assert finding.level == level
    assert f"{gigaflop} GFLOP/s" in finding.saw
    if level == WARNING:
        assert finding.advice.startswith("prefer torch oneDNN (oneDNN 3.7.1) for GEMM")


def test_mkl_is_compared_with_its_own_dtype_and_not_with_what_was_tried():
    products = (
        product("torch.mm", 90, MKL, "float64"),
        product("torch oneDNN", 180, ONEDNN),
        product("numpy with OPENBLAS_CORETYPE=SKYLAKEX", 180, "OpenBLAS", "float64"),
    )
    assert only(doctor.mkl_on_amd(but(vendor="AuthenticAMD", peaks=peaks(*products)))).level == OK


@pytest.mark.parametrize(("vendor", "detail"), [("GenuineIntel", MKL), ("AuthenticAMD", "MKL-DNN 2.0")])
def test_mkl_on_intel_and_onednn_by_its_old_name_are_not_judged(vendor, detail):
    products = product("torch.mm", 90, detail), product("numpy", 180, "OpenBLAS 0.3.30 SkylakeX")
    assert doctor.mkl_on_amd(but(vendor=vendor, peaks=peaks(*products))) == []


@pytest.mark.parametrize(("gigaflop", "level"), [(119, NOTE), (121, OK)])
def test_a_library_far_below_the_arithmetic_peak_is_a_note_with_both_rates(gigaflop, level):
    finding = only(doctor.slow_products(but(peaks=peaks(product("jax", gigaflop, "XLA")))))
    assert finding.level == level
    assert f"{gigaflop} GFLOP/s" in finding.saw
    assert "of the peak of 200" in finding.saw


def test_a_product_is_not_judged_without_a_peak_nor_if_it_was_only_tried_nor_in_float64():
    assert doctor.slow_products(FIT) == []
    assert doctor.slow_products(but(peaks=peaks(product("jax", 1, "XLA"), float32=None))) == []
    assert doctor.slow_products(but(peaks=peaks(product("jax", 1, "XLA", "float64")))) == []
    tried = product("numpy with OPENBLAS_CORETYPE=SKYLAKEX", 1, "OpenBLAS")
    assert doctor.slow_products(but(peaks=peaks(tried))) == []


def test_mkl_that_was_warned_of_is_not_noted_again():
    products = product("torch.mm", 90, MKL), product("torch oneDNN", 180, ONEDNN)
    found = doctor.diagnose(but(vendor="AuthenticAMD", peaks=peaks(*products)))
    assert [finding.topic for finding in found if "torch.mm" in finding.saw] == ["MKL on AMD"]


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
def test_a_budget_needs_as_many_whole_cpus_of_its_own(changes, level):
    assert only(doctor.thread_budget(but(**changes))).level == level


def test_cpus_of_the_budget_that_share_a_core_are_noted():
    assert only(doctor.core_siblings(FIT)).level == OK
    finding = only(doctor.core_siblings(but(siblings=((0, 1),))))
    assert finding.level == NOTE
    assert "0 and 1" in finding.saw
    assert doctor.core_siblings(but(affinity=None)) == []


@pytest.mark.parametrize(
    ("governors", "level", "word"),
    [
        (("performance",), OK, "performance"),
        (("schedutil",), WARNING, "schedutil"),
        (("performance", "powersave"), WARNING, "powersave"),
        ((), NOTE, "not shown"),
    ],
)
def test_a_governor_that_lets_the_clock_down_is_a_warning(governors, level, word):
    finding = only(doctor.frequency_governor(but(governors=governors)))
    assert finding.level == level
    assert word in finding.saw
    assert ("cpupower frequency-set -g performance" in finding.advice) == (level == WARNING)


def test_the_governor_of_a_virtual_machine_is_the_hosts():
    finding = only(doctor.frequency_governor(but(governors=(), flags=AVX512 | {"hypervisor"})))
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
def test_somebody_else_who_computes_is_a_warning(changes, level):
    assert only(doctor.load(but(**changes))).level == level


@pytest.mark.parametrize(("stolen_seconds", "level"), [(0.01, OK), (0.03, WARNING)])
def test_stolen_time_is_a_warning_above_one_per_cent_of_all_cpus(stolen_seconds, level):
    assert only(doctor.steal(but(after=state(steal_seconds=1.0 + stolen_seconds)))).level == level


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"swap_used_bytes": GIB}, OK),
        ({"available_bytes": GIB}, OK),
        ({"swap_used_bytes": GIB, "available_bytes": GIB}, WARNING),
        ({"after": state(swapped_bytes=4096)}, WARNING),
    ],
)
def test_swap_is_a_warning_when_pages_move_or_memory_is_short(changes, level):
    assert only(doctor.swap(but(**changes))).level == level


@pytest.mark.parametrize(("chosen", "expected"), [("never", [NOTE]), ("always", [OK]), ("madvise", [OK]), (None, [])])
def test_memory_that_never_comes_in_huge_pages_is_noted(chosen, expected):
    assert levels(doctor.huge_pages(but(huge_pages=chosen))) == expected


@pytest.mark.parametrize(("flags", "level"), [(AVX512, OK), (AVX512 | {"hypervisor"}, NOTE)])
def test_a_virtual_machine_is_noted(flags, level):
    assert only(doctor.virtual_machine(but(flags=flags))).level == level


@pytest.mark.parametrize(("count", "level"), [(0, OK), (1, WARNING)])
def test_another_run_is_a_warning(count, level):
    assert only(doctor.other_runs(but(other_runs=count))).level == level


@pytest.mark.parametrize(
    ("changes", "expected", "word"),
    [
        ({}, [OK], "1980 of 1980 MHz"),
        ({"reasons": 0x1}, [OK], "idle"),
        ({"reasons": 0x2}, [OK], "idle"),  # clocks that somebody set
        ({"reasons": None, "utilization": None, "persistent": None, "clock_mhz": None}, [OK], "? of 1980 MHz"),
        ({"reasons": 0x4}, [WARNING], "power cap"),
        ({"reasons": 0x60}, [WARNING], "heat (software), heat (hardware)"),
        ({"others": 1}, [WARNING], "1 other process"),
        ({"utilization": 4}, [OK], "idle"),  # the process that asked, or the one before it
        ({"utilization": 30}, [WARNING], "30 % busy"),
        ({"persistent": False}, [NOTE], "persistence"),
        ({"persistent": False, "reasons": 0x8, "others": 2}, [WARNING, WARNING, NOTE], "hardware slowdown"),
    ],
)
def test_a_gpu_shall_be_cool_and_ours_and_awake(changes, expected, word):
    found = doctor.gpus(but(gpus=(dataclasses.replace(GPU, **changes),)))
    assert levels(found) == expected
    assert word in found[0].saw


def test_gpus_are_numbered_and_without_one_nothing_is_said():
    assert [finding.topic for finding in doctor.gpus(but(gpus=(GPU, GPU)))] == ["GPU 0", "GPU 1"]
    assert doctor.gpus(FIT) == []


# What looks.

LISTED = """\
GPU-aa, 1980, 1980, 0x0000000000000000, Enabled, 0, NVIDIA H100 80GB HBM3
GPU-bb, 345, 1980, 0x0000000000000021, Disabled, 17, NVIDIA H100, a strange name
GPU-cc, [N/A], [N/A], [N/A], [N/A], [N/A], NVIDIA T4
"""


def test_what_nvidia_smi_says_is_read():
    first, second, third = facts.parse_gpus(LISTED, "GPU-aa, 7\nGPU-aa, 8\nGPU-bb, 9\n", frozenset({8}))
    assert first == Gpu("NVIDIA H100 80GB HBM3", 1980, 1980, 0, True, 0, 1)
    assert second == Gpu("NVIDIA H100, a strange name", 345, 1980, 0x21, False, 17, 1)
    assert third == Gpu("NVIDIA T4", None, None, None, None, None, 0)


@pytest.mark.parametrize("text", ["", "\n", "No devices were found\n"])
def test_what_is_no_gpu_is_left_out(text):
    assert facts.parse_gpus(text, text) == ()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (None, ("", "")),
        ("exit 9", ("", "")),
        ('case "$1" in *event*|*compute*) echo "$1";; *) exit 2;; esac', ("event_reasons", "gpu_uuid,pid")),
        # A driver from before the reasons got their new name.
        ('case "$1" in *throttle*|*compute*) echo "$1";; *) exit 2;; esac', ("throttle_reasons", "gpu_uuid,pid")),
    ],
)
def test_nvidia_smi_is_asked_with_the_name_that_the_driver_knows(tmp_path, monkeypatch, script, expected):
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = facts._ask_gpus()
    assert all(word in one for word, one in zip(expected, said, strict=True))
    assert bool(said[0]) == bool(expected[0])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["python", "-m", "harness", "run"], True),
        (["python3.12", "-P", "-m", "harness", "check", "--suite", "models"], True),
        (["python", "-P", "-m", "harness.worker.main", "{}"], True),
        (["/usr/bin/python", "/usr/local/bin/bilinear-bench", "run", "--suite", "quick"], True),
        (["bilinear-bench", "run"], True),
        (["bilinear-bench", "doctor"], False),
        (["python", "-m", "harness", "report"], False),
        (["python", "-m", "harness"], False),
        (["python", "-m", "pytest", "harness", "run"], False),
        (["sh", "-c", "python -m harness run"], False),
        (["grep", "-r", "bilinear-bench", "run"], False),
        (["python", "-m"], False),
        ([], False),
    ],
)
def test_a_run_is_known_by_its_arguments(arguments, expected):
    assert facts.is_run(arguments) == expected


RUN, WORKER, SHELL = ["python", "-m", "harness", "run"], ["python", "-m", "harness.worker.main", "{}"], ["sh"]


@pytest.mark.parametrize(
    ("table", "count"),
    [
        ({1: (0, SHELL), 9: (1, RUN)}, 0),
        ({1: (0, SHELL), 9: (1, RUN), 10: (9, WORKER)}, 0),
        ({1: (0, SHELL), 9: (1, RUN), 20: (1, RUN), 21: (20, WORKER), 22: (21, WORKER)}, 1),
        ({1: (0, SHELL), 9: (1, SHELL), 20: (1, WORKER)}, 1),  # an orphan
        ({1: (0, SHELL), 9: (1, SHELL), 20: (1, RUN), 30: (1, RUN)}, 2),
        # This process is a worker's child: the run above it and its other workers are ours.
        ({1: (0, SHELL), 7: (1, RUN), 8: (7, WORKER), 9: (8, SHELL), 10: (7, WORKER)}, 0),
        ({}, 0),
        ({9: (9, SHELL), 20: (21, RUN), 21: (20, SHELL)}, 1),  # numbers that were given anew can make a circle
    ],
)
def test_runs_of_others_are_counted_once_and_ours_is_not(table, count):
    assert facts.count_other_runs(table, own=9) == count


def test_all_below_the_outermost_run_above_us_is_ours():
    table = {1: (0, SHELL), 5: (1, RUN), 6: (5, WORKER), 7: (5, RUN), 8: (7, WORKER), 9: (8, SHELL), 20: (1, SHELL)}
    assert facts._family(table, 9) == {1, 5, 6, 7, 8, 9}
    assert facts._family(table, 20) == {1, 20}


def test_a_real_run_is_found_and_is_ours_only_if_it_descends_from_us():
    code = "import time; print(flush=True); time.sleep(60)"
    arguments = [sys.executable, "-c", code, "-m", "harness", "run"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as other:
        try:
            other.stdout.readline()
            table = facts._processes()
        finally:
            other.kill()
    assert table[other.pid][0] == os.getpid()
    assert facts.is_run(table[other.pid][1])
    # It is a child of this process, so it is ours, and not that of a process that is no relative.
    assert other.pid in facts._family(table, os.getpid())
    assert other.pid not in facts._family({**table, 10**9: (0, [])}, 10**9)


def gathered(root: Path, threads: int = 2, **more) -> Facts:
    return facts.gather(
        threads,
        pools=more.pop("pools", []),
        root=root,
        sleep=more.pop("sleep", lambda seconds: None),
        ask_gpus=lambda: (LISTED, "GPU-aa, 7"),
        processes=lambda: {20: (1, RUN)},
        **more,
    )


def test_facts_are_gathered_from_the_files_of_the_system(tmp_path, write, monkeypatch):
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
    found = gathered(tmp_path, pools=pools)
    assert (found.threads, found.affinity) == (2, (2, 3, 6))
    assert (found.vendor, found.flags) == ("AuthenticAMD", {"fma", "avx2", "hypervisor"})
    assert (found.memory_bytes, found.available_bytes, found.swap_used_bytes) == (1000 * 1024, 600 * 1024, 30 * 1024)
    assert (found.load, found.huge_pages, found.governors) == (0.75, "never", ("powersave",))
    assert found.siblings == ((2, 3),)  # of the budget's CPUs only
    assert (found.coretype, found.kernels) == ("ZEN", ("OpenBLAS 0.3.30 Zen",))
    assert (found.other_runs, len(found.gpus), found.gpus[0].others) == (1, 3, 1)
    assert found.own_cpu_seconds > 0


def test_an_empty_system_is_gathered_as_unknown_and_examined(tmp_path, monkeypatch):
    monkeypatch.setattr(facts.budget, "affinity", lambda: None)
    found = gathered(tmp_path)
    assert found.before == State(None, None, None, None)
    assert (found.affinity, found.vendor, found.memory_bytes, found.quota) == (None, None, None, None)
    assert doctor.diagnose(found)


def test_the_machine_is_watched_while_time_passes(tmp_path, write):
    write("proc/loadavg", "0 0 0 1/83 1\n")
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        write("proc/loadavg", "0 0 0 5/83 1\n")

    found = gathered(tmp_path, sleep=sleep)
    assert slept == [facts.WATCH_SECONDS]
    assert (found.before.running, found.after.running) == (0, 4)
    assert found.seconds >= facts.WATCH_SECONDS


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        ({"sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, None),
        # A service has its quota on its own level, and those above count too.
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "50000 100000"}, 0.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000"}, 3.0),
        # Version 1.
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, None),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 2.0),
    ],
)
def test_the_quota_is_the_least_on_the_way_to_the_root(tmp_path, write, files, quota):
    for name, text in files.items():
        write(name, text)
    assert gathered(tmp_path).quota == quota


def test_this_machine_is_examined_without_naming_its_owner():
    found = facts.gather(1, sleep=lambda seconds: None)
    text = json.dumps(doctor.as_json(doctor.diagnose(found)))
    assert not [path for path in (str(Path.home()), str(Path.cwd())) if len(path) > 1 and path in text]
