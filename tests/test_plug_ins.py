"""Plug-ins that cannot be loaded: their status, and the exit code of whoever asked for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, environment

CASE = ("--case", "7x5x3x11", "--mode", "forward", "--threads", "1")
RIGHT = """
import numpy as np
from harness.backend import Backend
class Kernel(Backend):
    name = "{name}"
    def prepare_forward(self, case, weight, bias):
        def kernel(input1, input2):
            output = np.einsum("bi,oij,bj->bo", input1, weight, input2)
            return output if bias is None else output + bias
        return kernel
"""
#: What leads nowhere, by name: the entry point, and the source of the module `peer_NAME`.
NOWHERE = {
    "syntax": ("peer_syntax:Kernel", "class Kernel(:\n"),
    "no-module": ("peer_none:Kernel", ""),
    "no-class": ("peer_no_class:Nothing", RIGHT),
    "own-import": ("peer_own_import:Kernel", "import peer_own_import.deeper\n" + RIGHT),
    "raises": ("peer_raises:Kernel", "raise RuntimeError('no such luck')\n"),
    "import-name": ("peer_import_name:Kernel", "from math import no_such_name\n"),
    "no-subclass": ("peer_no_subclass:Kernel", "class Kernel:\n    name = 'no-subclass'\n"),
    "no-method": ("peer_no_method:Kernel", RIGHT.replace("prepare_forward", "prepare")),
    "other-name": ("peer_other_name:Kernel", RIGHT.replace("{name}", "another")),
    "exits": ("peer_exits:Kernel", "raise SystemExit(0)\n"),
}
#: What is missing belongs to others.
ABSENT = {
    "my-package": ("peer_my_package:Kernel", "import a_package_that_is_not_here\n" + RIGHT),
    "my-device": ("peer_my_device:Kernel", RIGHT.replace("name =", "devices = ('cuda',)\n    name =")),
}
HERE = {"my-right": ("peer_my_right:Kernel", RIGHT)}


@pytest.fixture
def plug_ins(tmp_path):
    """Write a distribution with some plug-ins; return the PYTHONPATH that has it."""

    def plug_ins(kinds):
        site = tmp_path / "site"
        info = site / "peers-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: peers\nVersion: 1.0\n")
        points = [f"{name} = {target}\n" for name, (target, _) in kinds.items()]
        (info / "entry_points.txt").write_text("[bilinear_bench.backends]\n" + "".join(points))
        for name, (_, source) in kinds.items():
            (site / f"peer_{name.replace('-', '_')}.py").write_text(source.replace("{name}", name))
        return os.pathsep.join((str(site), environment()["PYTHONPATH"]))

    return plug_ins


def chosen(names):
    return [word for name in names for word in ("--backend", name)]


def rows(printed: str) -> dict[str, str]:
    """Return the verdict of each backend that a check has printed."""
    lines = [line.split() for line in printed.splitlines()]
    return {words[0]: words[1].lower() for words in lines if len(words) > 2 and words[0] in {*NOWHERE, *ABSENT}}


def test_an_entry_point_that_leads_nowhere_has_failed(bilinear_bench, plug_ins):
    ended = bilinear_bench("check", *CASE, *chosen(NOWHERE), PYTHONPATH=plug_ins(NOWHERE))
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert rows(ended.stdout) == dict.fromkeys(NOWHERE, "failed")


@pytest.mark.parametrize("pattern", ["by name", pytest.param("by pattern", marks=pytest.mark.slow)])
def test_a_backend_that_was_named_and_not_asked_is_exit_code_1(bilinear_bench, plug_ins, pattern):
    options = chosen([f"{name[:-1]}?" if pattern == "by pattern" else name for name in ABSENT])
    ended = bilinear_bench("check", *CASE, *options, "--device", "cpu", PYTHONPATH=plug_ins(ABSENT))
    assert ended.returncode == 1, ended.stdout + ended.stderr
    missed = [line for line in ended.stderr.splitlines() if line.startswith("error: --backend ")]
    assert len(missed) == len(ABSENT)
    assert missed[0].endswith(
        "could not be asked: ModuleNotFoundError at import: No module named 'a_package_that_is_not_here'"
    )
    assert missed[1].endswith("could not be asked: my-device runs on cuda")


@pytest.mark.slow
def test_a_backend_that_is_absent_and_not_named_is_exit_code_0(bilinear_bench, plug_ins):
    ended = bilinear_bench("check", *CASE, "--backend", "my-*", "--device", "cpu", PYTHONPATH=plug_ins(ABSENT | HERE))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 of 3 passed the gate" in ended.stdout


def test_list_says_which_entry_points_lead_nowhere(bilinear_bench, plug_ins):
    ended = bilinear_bench("list", PYTHONPATH=plug_ins(NOWHERE | ABSENT))
    assert ended.returncode == 0, ended.stderr
    broken = {
        line.split()[0]: line for line in ended.stdout.partition("Broken:\n")[2].partition("\n\n")[0].splitlines()
    }
    assert {"syntax", "no-module", "no-class", "raises"} <= set(broken)
    assert set(broken).isdisjoint({"own-import", "no-method", "numpy-loop", *ABSENT})
    assert "entry point leads to no module 'peer_none' [peers 1.0]" in broken["no-module"]


TESTS = """
from harness.conformance import parametrize_with_checks
from {module} import Kernel
@parametrize_with_checks(Kernel{options})
def test_it(backend, check):
    check(backend)
"""


def conformance(folder: Path, source: str, options: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the conformance tests of a backend."""
    (folder / "kernels.py").write_text(source.replace("{name}", "kernel"))
    (folder / "test_kernels.py").write_text(TESTS.format(module="kernels", options=options))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "one-hot", folder],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


UNAVAILABLE = (
    RIGHT
    + """
    @classmethod
    def available(cls, device):
        from harness.backend import Support
        return Support(False, "there is no such accelerator")
"""
)


@pytest.mark.parametrize(
    ("options", "code", "words"), [("", 0, "skipped"), (", require=True", 1, "no such accelerator")]
)
def test_a_required_backend_that_is_unavailable_fails_its_tests(tmp_path, options, code, words):
    ended = conformance(tmp_path, UNAVAILABLE, options)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert words in ended.stdout


@pytest.mark.parametrize("name", ["syntax", "own-import", "raises", "no-subclass", "no-method"])
def test_a_class_that_leads_nowhere_fails_its_tests(tmp_path, name):
    ended = conformance(tmp_path, NOWHERE[name][1].replace("peer_own_import", "kernels"))
    assert ended.returncode != 0, ended.stdout


def test_without_torch_the_tests_are_one_error_with_the_command(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\nreal = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'torch' else real(name, *rest)\n"
    )
    ended = conformance(tmp_path, RIGHT, PYTHONPATH=os.pathsep.join((str(tmp_path), str(ROOT))))
    assert ended.returncode != 0
    assert "the checks compare with nn.Bilinear, which needs torch: pip install torch" in ended.stdout
    assert "Traceback" not in ended.stdout
    assert "1 error" in ended.stdout
