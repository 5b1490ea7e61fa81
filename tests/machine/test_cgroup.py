"""Limits of control groups, from the files of a fake system."""

from __future__ import annotations

import pytest

from harness.machine import cgroup

V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ({"sys/fs/cgroup/cpu.max": ""}, None),
        ({"sys/fs/cgroup/cpu.max": "a b"}, None),
        ({"sys/fs/cgroup/cpu.max": "100000 0"}, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, None),
        # A service has its quota on its own level, and those above count too.
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "50000 100000"}, 0.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000"}, 3.0),
        # A container sees its own group as the root, under the host's path or outside of it.
        ({"proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2.0),
        ({"proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2.0),
        # Version 1, alone and next to version 2.
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, None),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 2.0),
        (
            {
                "proc/self/cgroup": "5:cpuset:/x\n4:cpu,cpuacct:/job/step\n0::/\n",
                f"{V1}/job/step/cpu.cfs_quota_us": "-1",
                f"{V1}/job/step/cpu.cfs_period_us": "100000",
                f"{V1}/job/cpu.cfs_quota_us": "70000",
                f"{V1}/job/cpu.cfs_period_us": "100000",
            },
            0.7,
        ),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/unified/a/cpu.max": "50000 100000"}, 0.5),
    ],
)
def test_quota_is_the_least_up_to_the_root(tmp_path, write, files, quota):
    for name, text in files.items():
        write(name, text)
    assert cgroup.cpus(tmp_path) == quota


def memory(tmp_path, write, folder, **files):
    for name, number in files.items():
        write(f"{folder}/{name.replace('__', '.')}", str(number))
    return cgroup.memory_limit(tmp_path), cgroup.memory_free(tmp_path)


def test_memory_without_a_limit_is_unknown(tmp_path, write):
    assert memory(tmp_path, write, "sys/fs/cgroup", memory__max="max", memory__current=5) == (None, None)


def test_memory_is_what_the_tightest_group_leaves(tmp_path, write):
    write("proc/self/cgroup", "0::/a/b\n")
    memory(tmp_path, write, "sys/fs/cgroup/a", memory__max=1000, memory__current=900)
    assert memory(tmp_path, write, "sys/fs/cgroup/a/b", memory__max=800, memory__current=10) == (800, 100)


def test_limit_from_which_the_kernel_throttles_counts_too(tmp_path, write):
    assert memory(tmp_path, write, "sys/fs/cgroup", memory__max="max", memory__high=700, memory__current=1) == (
        700,
        699,
    )


def test_cached_files_that_the_kernel_drops_are_free(tmp_path, write):
    write("sys/fs/cgroup/memory.stat", "anon 100\ninactive_file 300\nfile_dirty\n")
    assert memory(tmp_path, write, "sys/fs/cgroup", memory__max=1000, memory__current=900) == (1000, 400)


def test_memory_of_version_1_is_that_of_the_job(tmp_path, write):
    write("proc/self/cgroup", "9:memory:/slurm/job_7\n")
    folder = "sys/fs/cgroup/memory/slurm/job_7"
    assert memory(tmp_path, write, folder, memory__limit_in_bytes=600, memory__usage_in_bytes=700) == (600, 0)
