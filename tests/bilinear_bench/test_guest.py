"""The layer as a guest in a process: threads, forks, signals, caches, and memory that runs out.

Each test starts a process of its own, since all of this is the process's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from command_line import python

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("numba", reason="numba is not installed")

pytestmark = pytest.mark.slow

#: Two threads of PyTorch's and Numba's, a layer that takes both, and inputs; and the right output.
LAYER = """
import os, sys, threading, time
import numba, torch
from bilinear_bench import Bilinear
torch.set_num_threads(2)
torch.manual_seed(0)
m, x = Bilinear(64, 64, 64).requires_grad_(False), torch.randn(512, 64)
def right():
    return torch.allclose(m(x, x), torch.nn.functional.bilinear(x, x, m.weight, m.bias), atol=1e-3)
"""
TWO = {"NUMBA_NUM_THREADS": "2"}


def ended_well(program, **variables):
    ended = python(LAYER + program, **(TWO | variables))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_another_user_of_numba_may_run_at_the_same_time(layer):
    ended_well(
        """
import numpy as np
@numba.njit(parallel=True, nogil=True)
def mine(a):
    s = 0.0
    for i in numba.prange(a.size):
        s += a[i]
    return s
a, wrong = np.ones(100_000), []
works = right, right, lambda: mine(a) == 100_000
assert all(work() for work in works)
end = time.monotonic() + 2
def loop(work):
    while time.monotonic() < end:
        if not work():
            wrong.append(work)
threads = [threading.Thread(target=loop, args=(work,)) for work in works]
[one.start() for one in threads]
[one.join() for one in threads]
assert not wrong
""",
        NUMBA_THREADING_LAYER=layer,
    )


def test_both_numbers_of_threads_stay_as_they_were():
    ended_well("""
numba.set_num_threads(1)
assert right() and right()
assert (numba.get_num_threads(), torch.get_num_threads()) == (1, 2)
""")


def test_a_call_takes_pytorchs_number_of_threads():
    ended_well(
        """
from bilinear_bench.cpu import forward
from bilinear_bench.numba_threads import thread_count
seen, run = [], forward.ForwardPlan.run
forward.ForwardPlan.run = lambda plan, *given: seen.append((plan.workers, numba.get_num_threads())) or run(plan, *given)
numba.set_num_threads(4)
for count in (3, 2, 1, 8):
    torch.set_num_threads(count)
    assert right()
assert seen == [(3, 3), (2, 2), (1, 4), (4, 4)], seen
assert numba.get_num_threads() == 4
""",
        NUMBA_NUM_THREADS="4",
    )


def test_small_layers_start_no_threads_of_numba():
    ended_well("""
small = Bilinear(32, 32, 16)
small(torch.ones(1, 32), torch.ones(1, 32)).sum().backward()
try:
    numba.threading_layer()
except ValueError:  # Numba's word for threads that were not started
    sys.exit(0)
sys.exit("the threads were started")
""")


def test_one_openmp_for_both_leaves_pytorchs_threads_alone():
    library = next(Path("/usr/lib").glob("*/libgomp.so.1"), None)
    if library is None:
        pytest.skip("the system has no libgomp")
    ended_well("assert right() and torch.get_num_threads() == 2", NUMBA_NUM_THREADS="4", LD_PRELOAD=str(library))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_computes_with_one_thread():
    ended_well("""
assert right()
child = os.fork()
if child == 0:
    from bilinear_bench.numba_threads import thread_count
    os._exit(0 if thread_count() == 1 and m(x, x).isfinite().all() else 1)
assert os.waitpid(child, 0)[1] == 0
""")


@pytest.mark.skipif(sys.platform != "linux", reason="workers of a DataLoader are forked on Linux alone")
def test_workers_of_a_dataloader_compute():
    ended_well("""
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, n):
        return m(x, x)
if __name__ == "__main__":
    expected = m(x, x)
    for one in torch.utils.data.DataLoader(Data(), batch_size=1, num_workers=2):
        torch.testing.assert_close(one[0], expected)
""")


@pytest.mark.skipif(not hasattr(os, "kill"), reason="the system has no signals")
def test_a_signal_handler_may_call_the_layer_while_it_works():
    ended_well("""
import signal
seen = [right()]
signal.signal(signal.SIGALRM, lambda *_: seen.append(right()))
for n in range(200):
    signal.setitimer(signal.ITIMER_REAL, 0.0001 + n * 1e-5)  # in the midst of a call
    m(x, x)
time.sleep(0.01)
assert len(seen) > 100 and all(seen), len(seen)
""")


@pytest.mark.parametrize(
    "variables",
    [{"OMP_PROC_BIND": "true"}, {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}, {"OMP_NUM_THREADS": "1"}],
    ids=str,
)
def test_variables_of_openmp_change_no_result(variables):
    ended_well("assert right()", **variables)


def test_code_for_another_cpu_computes(tmp_path):
    ended_well("assert right()", NUMBA_CPU_NAME="generic", NUMBA_CACHE_DIR=str(tmp_path))


def test_without_numbas_compiler_plain_products_compute():
    ended_well(
        """
from bilinear_bench import fused
assert right() and not fused.AVAILABLE
m.requires_grad_(True)(x, x).sum().backward()
""",
        NUMBA_DISABLE_JIT="1",
    )


def test_warming_without_numbas_compiler_is_one_line():
    program = "import runpy; runpy.run_module('bilinear_bench', run_name='__main__')"
    ended = python(program, "warm", NUMBA_DISABLE_JIT="1")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "NUMBA_DISABLE_JIT is set" in ended.stderr


def test_without_a_place_for_compiled_code_the_layer_computes_and_says_so():
    ended = ended_well("assert right()", NUMBA_CACHE_LOCATOR_CLASSES="ThereIsNone")
    assert "NUMBA_CACHE_DIR" in ended.stderr


@pytest.mark.parametrize("kind", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("left", [0, 60])
def test_a_torn_file_of_the_cache_leads_to_a_new_compilation(kind, left, tmp_path):
    compiled = ended_well("assert right()", NUMBA_CACHE_DIR=str(tmp_path))
    assert "compiles its kernels" in compiled.stderr
    loaded = ended_well("assert right()", NUMBA_CACHE_DIR=str(tmp_path))
    assert loaded.stderr == ""
    for file in tmp_path.rglob(kind):
        file.write_bytes(file.read_bytes()[:left])
    ended_well("assert right()", NUMBA_CACHE_DIR=str(tmp_path))
    assert ended_well("assert right()", NUMBA_CACHE_DIR=str(tmp_path)).stderr == ""


def test_a_cache_that_is_full_costs_a_compilation(tmp_path):
    ended_well(
        """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
assert right()
""",
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    assert not list(tmp_path.rglob("*.nbc"))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is read from /proc")
def test_where_memory_runs_out_there_is_an_error_or_the_right_result():
    ended_well(
        """
import collections, resource
seen, free = collections.Counter(), resource.RLIM_INFINITY
for i, j, o, b in ((512, 512, 1, 4096), (128, 128, 16, 4096)):
    m, x, y = Bilinear(i, j, o), torch.randn(b, i, requires_grad=True), torch.randn(b, j, requires_grad=True)
    def step():
        output = m(x, y)
        return output, *torch.autograd.grad(output.sum(), [x, y, m.weight])
    expected = [one.clone() for one in step()]
    used = int(open("/proc/self/statm").read().split()[0]) * 4096
    for room in range(24):
        resource.setrlimit(resource.RLIMIT_AS, (used + room * 2 * 2**20, free))
        try:
            same = all(torch.equal(one, other) for one, other in zip(step(), expected))
            seen["right" if same else "wrong"] += 1
        except (MemoryError, RuntimeError, SystemError) as error:
            seen[type(error).__name__] += 1
    resource.setrlimit(resource.RLIMIT_AS, (free, free))
assert seen["wrong"] == 0 and seen["right"] > 0 and len(seen) > 1, seen
""",
        NUMBA_THREADING_LAYER="omp",
        MALLOC_ARENA_MAX="1",
        MALLOC_MMAP_THRESHOLD_="65536",
        MALLOC_TRIM_THRESHOLD_="0",
    )


def test_warming_ahead_says_how_long_it_took(tmp_path):
    program = (
        "import runpy, sys; sys.argv = ['x', *sys.argv[1:]]; runpy.run_module('bilinear_bench', run_name='__main__')"
    )
    ended = python(program, "warm", "--dtype", "float32", "--forward-only", NUMBA_CACHE_DIR=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert "The kernels for float32 are compiled, after" in ended.stdout
    assert list(tmp_path.rglob("*.nbc"))


def test_fsdp_and_ddp_train_the_layer():
    if not torch.distributed.is_gloo_available():
        pytest.skip("this PyTorch has no gloo")
    ended_well("""
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
mesh, found = init_device_mesh("cpu", (1,)), []
given = torch.randn(40, 7, requires_grad=True), torch.randn(40, 5)
for kind in (torch.nn.Bilinear, Bilinear):
    for wrap in (lambda one: fully_shard(one, mesh=mesh), torch.nn.parallel.DistributedDataParallel):
        torch.manual_seed(0)
        model = wrap(kind(7, 5, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(*given).square().mean()
            loss.backward()
            optimizer.step()
        found.append(loss.item())
assert all(abs(one / found[0] - 1) < 1e-5 for one in found), found
""")
