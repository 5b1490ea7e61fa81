"""The command line from outside: what it prints, what it leaves, how it exits."""

from __future__ import annotations

import csv
import errno
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from command_line import BRIEF, ROOT, command, cpus_for, environment, python

from harness import cli
from harness.machine.environment import gpus
from harness.output import store
from harness.process import machine_lock
from harness.process.machine_lock import one_run_at_a_time
from harness.record import Record, Status

TINY = ("--case", "6x5x4x3", "--threads", "1")
#: Frameworks that are not there, as seen by a worker: an import that raises.
NO_JAX = "raise ModuleNotFoundError(\"No module named 'jax'\", name='jax')"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "records.csv").open() as file:
        return list(csv.DictReader(file))


def workers_of(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children() if "harness.worker.main" in child.cmdline()]


def test_every_planned_cell_has_one_row_with_the_right_status(bilinear_bench, tmp_path):
    (tmp_path / "missing" / "jax").mkdir(parents=True)
    (tmp_path / "missing" / "jax" / "__init__.py").write_text(NO_JAX)
    paths = os.pathsep.join((str(tmp_path / "missing"), environment()["PYTHONPATH"]))
    expected = {
        ("torch-bilinear", "forward"): ("timed", ""),
        ("torch-bilinear", "forward_backward"): ("timed", ""),
        ("faulty-honest", "forward"): ("timed", ""),
        ("faulty-honest", "forward_backward"): ("timed", ""),
        ("faulty-chatty", "forward"): ("timed", ""),
        ("jax-jit", "forward"): ("unavailable", "No module named 'jax'"),
        ("faulty-broken-import", "forward"): ("unavailable", "a_package_that_nobody_has"),
        ("faulty-raises", "forward"): ("failed", "ValueError: faulty"),
        ("faulty-hangs", "forward"): ("timeout", "no answer within"),
        ("faulty-killed", "forward"): ("failed", "killed by signal 9 (SIGKILL)"),
        ("faulty-exits", "forward"): ("failed", "exited with code 0"),
        ("faulty-garbles", "forward"): ("failed", "broke the protocol"),
        ("faulty-hungry", "forward"): ("out_of_memory", "1 EiB"),
        ("faulty-slow", "forward"): ("too_slow", "the budget is 1 s"),
        ("faulty-one-wrong", "forward"): ("rejected", "output[6, 10]"),
        ("faulty-one-wrong", "forward_backward"): ("rejected", "output[6, 10]"),
        ("faulty-stale", "forward"): ("rejected", "equals the answer to an earlier call"),
        ("faulty-double", "forward"): ("rejected", "dtype float64, expected float32"),
        ("faulty-broadcasts", "forward"): ("rejected", "shape 1x3, expected 6x3"),
        ("faulty-nan", "forward"): ("rejected", "output[0, 10] is nan"),
        ("faulty-gradient", "forward"): ("timed", ""),
        ("faulty-gradient", "forward_backward"): ("rejected", "grad_input2[0, 0]"),
    }
    for mode in ("forward", "forward_backward"):
        cells = {cell: ending for cell, ending in expected.items() if cell[1] == mode}
        chosen = [option for name, _ in cells if name != "torch-bilinear" for option in ("--backend", name)]
        # A seed, since which element is the first wrong one depends on it.
        limits = ("--mode", mode, "--seed", "0", "--budget", "1", "--time-limit", "10", "--out", mode)
        ended = bilinear_bench("run", *TINY, *BRIEF, *limits, *chosen, PYTHONPATH=paths)
        assert ended.returncode == 1, ended.stdout + ended.stderr
        found = {(row["backend"], row["mode"]): row for row in rows(tmp_path / mode)}
        assert len(rows(tmp_path / mode)) == len(found)
        assert set(found) == set(cells)
        for cell, (status, reason) in cells.items():
            assert found[cell]["status"] == status, (cell, found[cell])
            assert reason in found[cell]["reason"], (cell, found[cell])
            assert bool(found[cell]["median_seconds"]) == (status == "timed"), cell
            assert status in ("timed", "too_slow") or cell[0] in ended.stdout, cell
        assert "\x1b" not in ended.stdout
        if mode == "forward":
            assert found["faulty-killed", mode]["phase"] == "timing"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run", "--backend", "nonesuch"), "backend 'nonesuch' is unknown, expected one of: cupy-einsum"),
        (("run", "--backend", "numba-fusd"), "backend 'numba-fusd' is unknown: did you mean 'numba-fused'"),
        (("run", "--backend", "numpy-loop", "--skip", "numpy-*"), "no backend is left"),
        (("run", "--backend", "all", "--skip", "*"), "no backend is left"),
        (("run", "--suite", "nonesuch"), "suite 'nonesuch' is unknown, expected one of: seed"),
        (("run", "--suite", "quack"), "suite 'quack' is unknown: did you mean 'quick'"),
        (("run", "--case", "SimGMN"), "case 'SimGMN' is unknown: did you mean 'SimGNN'"),
        (("run", "--case", "a\x1b[2J\nb"), r"case 'a\x1b[2J\nb' is unknown"),
        (("run", "--quick", "SimGNN", "--case", "CoLA"), "--quick measures one case, 2 were given"),
        (("run", "--quick", "--suite", "quick"), "--suite and --quick were given together"),
        (("check", "--skip", "numpy-lop"), "backend 'numpy-lop' is unknown: did you mean 'numpy-loop'"),
        (("list", "case"), "list 'case' is unknown: did you mean 'cases'"),
        (("list", "cases", "quack"), "suite 'quack' is unknown: did you mean 'quick'"),
        (("list", "suites", "quick"), "only `list cases SUITE` takes one"),
        (("new", "../up"), "'../up' is no name of a backend"),
        (("new", "there"), "there exists in"),
        (("report", "latest"), "latest is the newest run in results/, which has none"),
        (("run", "--case", "3x4"), "case '3x4' does not read as BATCHxIN1xIN2xOUT"),
        (("run", "--case", "0x3x4x5"), "size below 1"),
        (("run", "--case", "3x-1x4x5"), "size below 1"),
        (("run", "--case", "100000x100000x1000x1000"), "GiB"),
        (("run", "--flush-l2", "--device", "cpu"), "--flush-l2 was given with rows on the CPU"),
        (("run", "--case", "3x4x5x6:float64", "--precision", "tf32"), "tf32 is a way to multiply float32 numbers"),
        (("run", "--dtype", "int8"), "dtype is 'int8', expected one of: float32, float64, float16, bfloat16"),
        (("run", "--precision", "tf16"), "precision is 'tf16', expected one of: ieee, tf32"),
        (("run", "--threads", "0"), "--threads is 0, expected 1 to"),
        (("run", "--threads", "4096"), "--threads is 4096, expected 1 to"),
        (("run", "--out", "there"), "there exists"),
        (("run", "--out", "file"), "file is a file"),
        (("run", "--out", "file/below"), "file is not a folder"),
        (("run", "--suite", "quick", "--case", "1x1x1x1"), "--suite and --case"),
        (("run", "--resume", "there"), "there is no run"),
        (("run", "--backend", "numpy-loop", "--backend", "numpy-loop"), "given twice"),
        (("check", "--case", "3x4"), "does not read as"),
        (("report", "there"), "there is no run"),
        (("report", "a\nb"), r"a\nb is no run"),
        (("run", "--out", "n" * 300), "cannot be made (File name too long)"),
        (("report", "n" * 300), "is no run: expected a folder"),
        (("run", "--resume", "n" * 300), "is no run: expected a folder"),
        (("run", "--allow-different"), "--allow-different was given without --resume"),
        (("run", "--case", f"{10**30}x1x1x1"), "GiB"),
        (("run", "--case", f"{'9' * 5000}x1x1x1"), "does not read as BATCHxIN1xIN2xOUT"),
        (("run", "--backend", f"numpy-loop#{'9' * 5000}"), "is unknown: did you mean"),
    ],
)
def test_bad_input_is_one_line_with_what_was_expected(bilinear_bench, tmp_path, arguments, expected):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    ended = bilinear_bench(*arguments)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert expected in ended.stderr
    assert ended.stdout == ""


@pytest.mark.skipif(sys.platform != "linux", reason="uses /proc as a folder where nothing can be made")
def test_a_read_only_folder_is_refused_at_once(bilinear_bench):
    ended = bilinear_bench("run", "--out", "/proc/run")
    assert ended.returncode == 2
    assert "/proc is not writable" in ended.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_error(tmp_path, closed):
    arguments = ("check", *TINY, "--mode", "forward", "--backend", "numpy-loop")
    script = f"exec {closed}; exec {shlex.join(command(*arguments))}"
    ended = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)


def test_a_working_folder_that_is_gone_is_one_line(tmp_path):
    (tmp_path / "gone").mkdir()
    script = f"cd {tmp_path}/gone && rmdir ../gone && exec {shlex.join(command('run', *TINY))}"
    ended = subprocess.run(["sh", "-c", script], env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "error: the working folder has been deleted: change to one that exists\n"


def test_a_disk_that_fills_up_is_one_line_of_error(monkeypatch, capsys):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device", "full/worker1")

    monkeypatch.setattr(cli, "app", full)
    monkeypatch.setattr(cli.Interrupts, "install", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: no room left at full/worker1: free some, or set TMPDIR")


def test_without_torch_every_command_names_the_missing_package(bilinear_bench, tmp_path):
    # Another distribution of our name, first on the path, that asks for a torch which cannot be.
    info = tmp_path / "ours" / "bilinear_bench-0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: bilinear-bench\nVersion: 0.0\nProvides-Extra: torch\n"
        'Requires-Dist: torch-that-is-not-there; extra == "torch"\n'
    )
    (info / "entry_points.txt").write_text(
        "[bilinear_bench.backends]\ntorch-bilinear = backends.torch_bilinear:TorchBilinear [torch]\n"
    )
    for name in ("check", "run"):
        ended = bilinear_bench(name, *TINY, PYTHONPATH=f"{tmp_path / 'ours'}{os.pathsep}{ROOT}")
        assert ended.returncode == 2
        assert "the reference is nn.Bilinear in float64, but torch-that-is-not-there is not installed" in ended.stderr
    ended = bilinear_bench("explain", PYTHONPATH=f"{tmp_path / 'ours'}{os.pathsep}{ROOT}")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        "error: the example compares with nn.Bilinear, but torch-that-is-not-there is not installed: "
        "pip install 'torch-that-is-not-there'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("numpy-loop", "faulty-broken-import", "quick", "bilinear-bench list cases SUITE", "all: --backend all")),
        (("backends",), ("np.einsum along a path computed in advance.", "[faulty 1.0]")),
        (("suites",), ("quick", "6 cases: six shapes that differ")),
        (("cases",), ("2708x512x512x1", "Deep Graph Infomax", "batch 1 at 16 features")),
        (("cases", "quick"), ("Cases of quick", "2708x512x512x1", "Deep Graph Infomax")),
    ],
)
def test_list_names_backends_suites_and_cases(bilinear_bench, arguments, words):
    ended = bilinear_bench("list", *arguments)
    assert ended.returncode == 0, ended.stderr
    for word in words:
        assert word in ended.stdout


@pytest.mark.parametrize("name", ["", "run", "check", "list", "report", "doctor", "new", "explain"])
def test_every_command_has_help_by_its_short_name_too(bilinear_bench, name):
    ended = bilinear_bench(*([name] if name else []), "-h")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("Usage: ")


def test_the_version_is_that_of_the_distribution(bilinear_bench):
    ended = bilinear_bench("--version")
    assert ended.stdout == f"bilinear-bench {importlib.metadata.version('bilinear-bench')}\n"


@pytest.mark.skipif(bool(gpus()), reason="needs a machine without a GPU")
@pytest.mark.parametrize("command", ["run", "check"])
def test_without_a_gpu_device_cuda_is_refused_at_once(bilinear_bench, tmp_path, command):
    ended = bilinear_bench(command, "--device", "cuda")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: --device cuda: nvidia-smi lists no GPU on this machine")
    assert (ended.stderr.count("\n"), ended.stdout, list(tmp_path.iterdir())) == (1, "", [])


def test_the_bare_command_says_what_is_here_and_what_to_type(bilinear_bench):
    ended = bilinear_bench()
    assert ended.returncode == 0, ended.stderr
    text = " ".join(ended.stdout.split())
    assert "which way of computing torch.nn.Bilinear is right, and fastest, here?" in text
    assert re.search(r"\d+ CPUs? .*\. +\d+ backends ready", text)
    assert "bilinear-bench run --quick" in text


@pytest.mark.parametrize("arguments", [(), ("list",), ("--help",), ("run", "--help")])
def test_list_and_help_import_no_framework_nor_anything_heavy(arguments):
    code = (
        "import sys\nsys.argv = ['bilinear-bench', *sys.argv[1:]]\nfrom harness.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    print('LOADED', *[m for m in ('torch', 'jax', 'numba', 'numpy', 'pandas', 'scipy') if m in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment(), capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1].strip() == "LOADED"


def test_check_accepts_and_rejects_and_writes_nothing(bilinear_bench, tmp_path):
    ended = bilinear_bench("check", *TINY, "--backend", "faulty-honest", "--mode", "forward")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 of 1 passed the gate" in ended.stdout
    ended = bilinear_bench("check", *TINY, "--backend", "faulty-one-wrong", "--mode", "forward")
    assert ended.returncode == 1
    assert "0 of 1 passed the gate, 1 did not" in ended.stdout
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_report_ends_with_what_the_run_ended_with(bilinear_bench, tmp_path):
    measured = bilinear_bench("run", *TINY, *BRIEF, "--backend", "faulty-honest", "--budget", "0.3")
    assert measured.returncode == 0, measured.stdout + measured.stderr
    again = bilinear_bench("report", "latest")
    assert again.returncode == 0
    assert again.stdout.startswith("Run 2")
    assert again.stdout.endswith(measured.stdout)
    assert "See more:       bilinear-bench report latest" in measured.stdout
    lines = [line for line in measured.stderr.splitlines() if line.startswith("[")]
    timeless = [re.sub(r", .* left\]", "]", line) for line in lines]
    assert [line.partition(":")[0] for line in timeless] == ["[1/2] 6x5x4x3 forward", "[2/2] 6x5x4x3 training step"]
    (folder,) = (tmp_path / "results").iterdir()
    resumed = bilinear_bench("run", "--resume", "latest")
    name = f"results/{folder.name}"
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout == f"{name} is complete, nothing is left to measure: bilinear-bench report {name}\n"


@pytest.mark.slow
def test_a_run_leaves_its_folder_alone_and_resumes_with_its_exit_code(bilinear_bench, tmp_path):
    options = ("--backend", "faulty-one-wrong", "--mode", "forward", "--budget", "0.3")
    measured = bilinear_bench("run", *TINY, *BRIEF, *options, "--out", "r1")
    assert measured.returncode == 1, measured.stdout + measured.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["r1"]
    assert bilinear_bench("report", "r1").returncode == 0
    resumed = bilinear_bench("run", "--resume", "r1")
    assert (resumed.returncode, resumed.stdout.count("\n")) == (1, 1)
    assert [row["label"] for row in rows(tmp_path / "r1")] == ["", ""]


def test_report_shows_how_times_grow_and_draws_it(bilinear_bench, tmp_path):
    fixed = {"run_id": "20260102T030405Z-00ff", "suite": "command-line", "device": "cpu", "mode": "forward", "seed": 0}
    layer = {"in1_features": 3, "in2_features": 3, "out_features": 2, "dtype": "float32", "precision": "ieee"}
    times = {"median_seconds": 1e-5, "baseline_median_seconds": 1e-5, "speedup": 1.0, "rank": 1}
    with store.Store.create(tmp_path / "run", {}) as opened:
        for batch in (1, 2, 4, 8, 16):
            case = {"case": f"{batch}x3x3x2", "batch": batch, "bias": True, "flush_l2": False, "gflop": batch * 3.6e-8}
            opened.add_record(Record(backend="numpy-loop", status=Status.TIMED, **fixed, **layer, **case, **times))
    reported = bilinear_bench("report", "run")
    assert reported.returncode == 0, reported.stderr
    growth = "  over batch: in1 3, in2 3, out 2, forward, float32, cpu; backends: 1"
    assert growth in [line.rstrip() for line in reported.stdout.splitlines()]
    drawn = bilinear_bench("report", "run", "--plot", "growth.svg")
    assert drawn.returncode == 0, drawn.stderr
    figure, caption = drawn.stdout.splitlines()
    assert figure == "Figure: growth.svg"
    assert caption.startswith("Caption: ")
    assert "run 20260102T030405Z-00ff, 2026-01-02" in caption
    assert (tmp_path / "growth.svg").read_text().startswith("<?xml")
    refused = bilinear_bench("report", "run", "--plot", "growth.gif")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: --plot growth.gif is no figure")


def test_report_draws_the_case_and_the_mode_that_it_is_given(bilinear_bench, tmp_path):
    pytest.importorskip("matplotlib", reason="draws with Matplotlib, which is not installed")
    one = bilinear_bench("report", str(REFERENCE), "--case", "SimGNN", "--mode", "step", "--plot", "one.svg")
    assert one.returncode == 0, one.stderr
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn.count(">SimGNN, training step</text>") == 1
    assert "forward<" not in drawn


@pytest.mark.slow
def test_a_usual_run_measures_the_machine_and_starts_fresh_processes(bilinear_bench, tmp_path):
    options = ("--mode", "forward", "--backend", "numpy-loop", "--budget", "30", "--target", "30%", "--out", "run")
    ended = bilinear_bench("run", "--case", "128x20x30x40", *options, "--explain-time")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["peaks"]["cpu"]["arithmetic"]["float32"]["flop_per_second"] > 1e8
    assert [level["name"] for level in environment["peaks"]["cpu"]["levels"]][-1] == "memory"
    assert {finding["level"] for finding in environment["doctor"]} <= {"ok", "note", "warning"}
    for row in rows(tmp_path / "run"):
        assert int(row["processes"]) >= 3
        assert 0 < float(row["roofline_fraction"]) < 1.05
        shares = (float(row[f"spot_roofline_fraction{end}"]) for end in ("_low", "", "_high"))
        assert 0 < next(shares) <= next(shares) <= next(shares)
        assert row["stopped_by"] in ("target", "budget")
        assert row["compile_cache"] in ("empty", "filled")
        assert row["peak_memory_bytes"] != "" or sys.platform != "linux"
    (ours,) = (row for row in rows(tmp_path / "run") if row["backend"] == "numpy-loop")
    assert ours["comparison"] in ("faster", "slower", "equivalent", "ambiguous")
    assert float(ours["speedup_low"]) <= float(ours["speedup"]) <= float(ours["speedup_high"])
    assert (ours["seconds_to_target"] != "") == (ours["stopped_by"] == "target")
    assert ended.stdout.startswith("What the time went into\n")
    assert environment["time_spent"]["seconds"]["samples: timed calls"] > 0
    assert "fastest right way" in ended.stdout.lower()
    assert "% of roofline" in bilinear_bench("report", "run", "--wide").stdout


@pytest.mark.slow
def test_the_doctor_prints_peaks_and_findings(bilinear_bench, tmp_path):
    ended = bilinear_bench("doctor", "--threads", "1", "--strict")
    assert "arithmetic, float32" in ended.stdout
    assert "GEMM of torch.mm, float64" in ended.stdout
    assert " threads: " in ended.stdout
    verdict = ended.stdout.splitlines()[-1]
    assert verdict.startswith("Fit to measure: ")
    assert ended.returncode == int(verdict.startswith("Fit to measure: no"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--target", "--band"])
@pytest.mark.parametrize("share", ["0", "100%", "-1%", "much"])
def test_a_malformed_share_is_refused(bilinear_bench, option, share):
    ended = bilinear_bench("run", *TINY, option, share)
    assert ended.returncode == 2
    assert f"{share!r} is no share, expected one such as 2% or 0.02" in " ".join(ended.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run", "--mode", "forwrd"), "'forwrd' is unknown, expected one of: forward, step, train, forward_backward"),
        (("check", "--device", "gpu"), "'gpu' is unknown, expected one of: cpu, cuda"),
        (("check", "--format", "gitlab"), "'gitlab' is unknown, expected one of: text, github, json"),
    ],
)
def test_an_unknown_choice_is_refused_with_all_choices(bilinear_bench, arguments, expected):
    ended = bilinear_bench(*arguments)
    assert ended.returncode == 2
    assert f"Invalid value for '{arguments[1]}': {expected}" in " ".join(ended.stderr.split())


def test_explain_walks_through_the_article_and_finds_its_error(bilinear_bench):
    ended = bilinear_bench("explain")
    assert ended.returncode == 0, ended.stderr
    for words in ("(128, 20)", "(128, 30)", "(40, 20, 30)", "(40,)", "(128, 20) @ (20, 30) = (128, 30)", "nn.Linear"):
        assert words in ended.stdout
    line = next(line for line in ended.stdout.splitlines() if line.startswith("Mean absolute difference"))
    assert 1e-8 < float(line.rpartition(" ")[2]) < 1e-6


def start_long_run(tmp_path: Path) -> subprocess.Popen[bytes]:
    """Start a run, and return it when the blocks of its second group have begun."""
    arguments = ("run", *BRIEF, "--case", "6x5x4x3", "--case", "7x5x4x3", "--mode", "forward", "--threads", "1")
    options = ("--backend", "faulty-honest", "--backend", "numpy-loop", "--budget", "1", "--out", "run")
    options += ("--target", "0.01%")  # never reached: the budget is used up, so there is time to interrupt it
    with cpus_for(arguments):
        # A shell's background job ignores SIGINT, and so would its children; a handler is not inherited.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            command(*arguments, *options),
            cwd=tmp_path,
            env=environment(TMPDIR=str(tmp_path)),
            stdout=subprocess.DEVNULL,
        )
        signal.signal(signal.SIGINT, before)
    wait_for(lambda: (tmp_path / "run" / "records.csv").is_file() and len(rows(tmp_path / "run")) >= 3)
    samples = tmp_path / "run" / "samples.csv"
    wait_for(lambda: any(s.startswith("7x5x4x3,") and ",call," in s for s in samples.read_text().splitlines()))
    return process


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for never came"
        time.sleep(0.02)


def finish(bilinear_bench, tmp_path):
    """Resume the run; assert that it is whole."""
    with cpus_for(("--threads", "1")):  # where the run began
        ended = bilinear_bench("run", "--resume", "run")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    cells = [(row["case"], row["backend"]) for row in rows(tmp_path / "run")]
    assert len(cells) == len(set(cells)) == 6
    assert {row["status"] for row in rows(tmp_path / "run")} == {"timed"}
    with (tmp_path / "run" / "samples.csv").open() as file:
        samples = [(s["case"], s["backend"], s["block"]) for s in csv.DictReader(file) if s["kind"] == "call"]
    assert len(samples) == len(set(samples))


@pytest.mark.skipif(sys.platform != "linux", reason="that the kernel ends orphans is promised for Linux only")
@pytest.mark.slow
def test_kill_9_leaves_readable_files_to_resume_and_no_worker(bilinear_bench, tmp_path):
    process = start_long_run(tmp_path)
    workers = workers_of(process.pid)
    assert len(workers) == 4  # three backends and the reference
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    reported = bilinear_bench("report", "run")
    assert reported.returncode == 0
    assert "6x5x4x3" in reported.stdout
    finish(bilinear_bench, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="that the kernel ends orphans is promised for Linux only")
def test_kill_9_ends_even_a_worker_that_hangs(tmp_path):
    arguments = ("run", *TINY, *BRIEF, "--mode", "forward", "--backend", "faulty-sleeps", "--out", "run")
    with cpus_for(arguments):
        process = subprocess.Popen(
            command(*arguments), cwd=tmp_path, env=environment(TMPDIR=str(tmp_path)), stdout=subprocess.DEVNULL
        )
    # It hangs in its first call: its folder for results is there by then, and it is the one worker that runs.
    wait_for(lambda: len(list(tmp_path.glob("bilinear-bench-*/worker*/first"))) == 2)
    workers = workers_of(process.pid)
    assert len(workers) == 2
    process.kill()
    process.wait()
    gone, alive = psutil.wait_procs(workers, timeout=10)
    for worker in alive:
        worker.kill()
    assert len(gone) == 2


@pytest.mark.parametrize(
    ("number", "resumed"),
    [
        pytest.param(signal.SIGINT, True, id="SIGINT"),
        pytest.param(signal.SIGTERM, False, id="SIGTERM", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, False, id="SIGHUP", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_has_every_row_and_can_be_resumed(bilinear_bench, tmp_path, number, resumed):
    process = start_long_run(tmp_path)
    workers = workers_of(process.pid)
    process.send_signal(number)
    assert process.wait(timeout=30) == 128 + number
    assert not [worker for worker in workers if worker.is_running()]
    found = rows(tmp_path / "run")
    assert len(found) == 6
    assert {row["status"] for row in found if row["case"] == "7x5x4x3"} == {"interrupted"}
    again = bilinear_bench("report", "run")
    assert "The run was stopped before " in again.stdout, again.stdout + again.stderr
    assert "7x5x4x3" not in again.stdout
    if resumed:  # what is left on disk is the same for both
        finish(bilinear_bench, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_any_time_gives_its_exit_code(tmp_path, number):
    # As a module, and inside of exec, where a plain KeyboardInterrupt would end Python by SIGINT although it is caught.
    (tmp_path / "struck.py").write_text(
        "import os, signal, sys\nfrom harness import cli\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "cli.app = lambda **_: exec('os.kill(os.getpid(), int(sys.argv[1]))')\ncli.main()"
    )
    command = [sys.executable, "-m", "struck", str(int(number))]
    ended = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (128 + number, "")


def test_a_signal_that_is_ignored_stays_ignored():
    program = (
        "import os, signal\nfrom harness import cli\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "cli.app = lambda **_: os.kill(os.getpid(), signal.SIGHUP)\ncli.main()"
    )
    ended = python(program)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.slow
def test_a_wheel_installed_outside_the_checkout_runs(tmp_path):
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns(".venv", ".git", ".cache", "results", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignore)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path / "wheels", source], check=True)
    wheel = next((tmp_path / "wheels").glob("bilinear_bench-*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", tmp_path / "site", wheel], check=True)
    shutil.rmtree(source)
    variables = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    options = ("--backend", "numpy-loop", "--mode", "forward", "--budget", "0.3")
    ended = subprocess.run(
        command("run", *TINY, *BRIEF, *options),
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    run = next((tmp_path / "results").glob("2*"))
    assert [(row["backend"], row["status"]) for row in rows(run)] == [
        ("torch-bilinear", "timed"),
        ("numpy-loop", "timed"),
    ]
    where = subprocess.run(
        [sys.executable, "-P", "-c", "import harness, backends; print(harness.__file__, backends.__file__)"],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(ROOT) not in where.stdout


REFERENCE = ROOT / "results" / "reference" / "intel-emerald-rapids-2cpu" / "quick"


def headings(ended):
    return next(line for line in ended.stdout.splitlines() if line.startswith("rank"))


def test_report_fits_its_columns_and_wide_shows_them_all(bilinear_bench):
    piped = bilinear_bench("report", str(REFERENCE))
    assert piped.stdout == bilinear_bench("report", str(REFERENCE), COLUMNS="80").stdout
    wide = bilinear_bench("report", str(REFERENCE), "--wide")
    for ended in (piped, wide):
        assert ended.returncode == 0, ended.stderr
        assert len([line for line in ended.stdout.splitlines() if " torch-bilinear " in line]) == 12
    assert "mean abs diff" not in headings(piped)
    assert "mean abs diff" in headings(wide)


def test_report_of_one_case_has_bars(bilinear_bench):
    ended = bilinear_bench("report", str(REFERENCE), "--case", "deep graph infomax", "--mode", "forward")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("Run 20")
    assert "Deep Graph Infomax, forward on cpu (2708x512x512x1)" in ended.stdout
    assert "####" in ended.stdout
    refused = bilinear_bench("report", str(REFERENCE), "--case", "nonesuch")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "expected one of: nn.Bilinear's example, SimGNN" in refused.stderr


@pytest.mark.parametrize("option", [("--seed", "1"), ("--no-freeze",), ("--target", "1%"), ("--case", "1x1x1x1")])
def test_resume_is_given_alone(bilinear_bench, option):
    ended = bilinear_bench("run", "--resume", str(REFERENCE), *option)
    assert ended.returncode == 2
    expected = "error: --resume goes on with the plan of that run: give it alone, "
    expected += "or with --allow-different, --wait, --no-lock or --explain-time\n"
    assert ended.stderr == expected


def test_second_run_on_a_machine_is_refused_before_it_leaves_a_folder(bilinear_bench, tmp_path):
    given = {"TMPDIR": str(tmp_path), "BILINEAR_BENCH_LOCK": "1"}
    with one_run_at_a_time(machine_lock.lock_file(tmp_path), "a run", wait=False, say=print):
        ended = bilinear_bench("run", *TINY, *BRIEF, "--out", "second", **given)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: process {os.getpid()} of ")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e308", "-1", "0", "many"])
@pytest.mark.parametrize("option", ["--budget", "--time-limit"])
def test_a_number_of_seconds_is_refused_unless_it_is_one(bilinear_bench, tmp_path, option, number):
    ended = bilinear_bench("run", option, number, "--out", "run")
    assert ended.returncode == 2
    assert "expected 0.1 to 31,536,000 seconds" in " ".join(ended.stderr.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("option", "number"), [("--seed", str(2**63)), ("--processes", "9" * 30), ("--seed", "nan")])
def test_a_whole_number_that_no_column_holds_is_refused(bilinear_bench, option, number):
    ended = bilinear_bench("run", option, number)
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)


@pytest.mark.slow
def test_list_probe_starts_each_backend_and_prints_its_reply(bilinear_bench):
    ended = bilinear_bench("list", "--probe")
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.partition("Started in a worker each:\n")[2].splitlines()]
    replies = {words[0]: words[2:] for words in lines if words[1:2] == ["cpu"]}
    assert replies["numpy-loop"][0] == "numpy"
    assert "imported" in replies["torch-bilinear"]
    assert replies["faulty-broken-import"][0] == "no:"
