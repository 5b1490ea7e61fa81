"""Every backend of ours against the gate, each in its own worker, through the command line."""

from __future__ import annotations

import functools
import json
import subprocess

import pytest
from command_line import command, environment

from harness.catalog.registry import entries

#: Backends for GPUs alone; Triton's interpreter has tests of its own.
FOR_GPUS = ("cupy-einsum", "flaggems", "triton-fused")
OURS = sorted(
    name
    for name, entry in entries().items()
    if entry.distribution.startswith("bilinear-bench") and name not in FOR_GPUS
)
#: A compiled backend and an interpreted one, which `make test` checks; `make slow` checks the others.
OFTEN = ("numba-fused", "numpy-loop")
SELDOM = tuple(name for name in OURS if name not in OFTEN)
#: Sizes that are all different primes, in every other dtype that a case can have.
OTHER_DTYPES = ("7x5x3x11:float64:nobias", "7x5x3x11:float16", "7x5x3x11:bfloat16")
#: Dtypes that a backend lacks.
WITHOUT = {
    "numba-loop": ("float16", "bfloat16"),
    "numpy-contract": ("float16", "bfloat16"),
    "opt-einsum": ("float16", "bfloat16"),
    "numpy-loop": ("bfloat16",),
    "numpy-einsum": ("bfloat16",),
}


@pytest.fixture(scope="module")
def in_both_modes(tmp_path_factory):
    """Return the statuses of some backends on the suite `seed`, from one run."""
    return functools.cache(lambda names: checked(tmp_path_factory, names, "--suite", "seed"))


@pytest.fixture(scope="module")
def in_other_dtypes(tmp_path_factory):
    """Return the statuses on steps in other dtypes, without torch.compile, which compiles for minutes."""
    chosen = [word for case in OTHER_DTYPES for word in ("--case", case)]
    names = [name for name in OURS if name != "torch-compile"]
    return checked(tmp_path_factory, names, "--mode", "forward_backward", *chosen)


@pytest.mark.parametrize("name", OFTEN, ids="both modes: {}".format)
def test_a_compiled_and_an_interpreted_backend_pass_the_gate_in_both_modes(in_both_modes, name):
    assert list(in_both_modes(OFTEN)[name].values()) == ["checked", "checked"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SELDOM, ids="both modes, all others: {}".format)
def test_all_other_backends_pass_the_gate_in_both_modes(in_both_modes, name):
    assert list(in_both_modes(SELDOM)[name].values()) == ["checked", "checked"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OURS if name != "torch-compile"], ids="other dtypes: {}".format)
def test_every_backend_passes_the_gate_in_every_dtype_that_it_has(in_other_dtypes, name):
    verdict_of = in_other_dtypes[name]
    assert len(verdict_of) == len(OTHER_DTYPES)
    for title, verdict in verdict_of.items():
        lacking = any(f":{dtype} " in title for dtype in WITHOUT.get(name, ()))
        assert verdict == ("unsupported" if lacking else "checked"), title


@pytest.mark.slow
def test_the_shapes_of_pytorchs_tests_pass_the_gate_size_zero_too(bilinear_bench):
    ended = bilinear_bench(
        "check", "--format", "json", "--suite", "upstream", "--backend", "numpy-loop", "--mode", "forward_backward"
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    verdict_of = verdicts(ended.stdout)["numpy-loop"]
    assert set(verdict_of.values()) == {"checked"}
    assert len(verdict_of) == 23
    assert sum(title.startswith("0x") for title in verdict_of) == 4


def checked(tmp_path_factory, names, *options: str) -> dict[str, dict[str, str]]:
    """Check backends; return their statuses."""
    chosen = [word for name in names for word in ("--backend", name)]
    ended = subprocess.run(
        command("check", "--format", "json", *chosen, *options),
        cwd=tmp_path_factory.mktemp("checked"),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return verdicts(ended.stdout)


def verdicts(printed: str) -> dict[str, dict[str, str]]:
    """Return the statuses by backend and by case with its mode, from the JSON of `check`."""
    by_backend: dict[str, dict[str, str]] = {}
    for row in json.loads(printed)["rows"]:
        by_backend.setdefault(row["backend"], {})[f"{row['case']} {row['mode']}"] = row["status"]
    return by_backend
