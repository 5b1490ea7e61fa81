"""Every backend of ours against the gate, each in its own worker, through the command that users have."""

from __future__ import annotations

import pytest

from harness.registry import entries

OURS = sorted(name for name, entry in entries().items() if entry.distribution.startswith("bilinear-bench"))
#: Sizes that are all different primes, in every other dtype that a case can have.
OTHER_DTYPES = ("7x5x3x11:float64:nobias", "7x5x3x11:float16", "7x5x3x11:bfloat16")
#: Who has no half precision.
WITHOUT = {"numba-loop": ("float16", "bfloat16"), "numpy-loop": ("bfloat16",), "numpy-einsum": ("bfloat16",)}


@pytest.mark.parametrize("name", OURS)
def test_every_backend_passes_the_gate_on_the_suite_seed_in_both_modes(bilinear_bench, name):
    ended = bilinear_bench("check", "--backend", name, "--suite", "seed")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert list(verdicts(ended.stdout)[name].values()) == ["right", "right"]


# Compiling is slow: torch.compile shows float32 alone. A training step has the output, too.
@pytest.mark.parametrize("name", [name for name in OURS if name != "torch-compile"])
def test_every_backend_passes_the_gate_in_every_dtype_that_it_has(bilinear_bench, name):
    chosen = [word for case in OTHER_DTYPES for word in ("--case", case)]
    ended = bilinear_bench("check", "--backend", name, "--mode", "forward_backward", *chosen)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = verdicts(ended.stdout)[name]
    assert len(said) == len(OTHER_DTYPES)
    for title, verdict in said.items():
        lacking = any(f":{dtype}," in title for dtype in WITHOUT.get(name, ()))
        assert verdict == ("unsupported" if lacking else "right"), title


def test_the_shapes_of_pytorchs_tests_pass_the_gate_work_of_size_zero_included(bilinear_bench):
    ended = bilinear_bench("check", "--suite", "upstream", "--backend", "numpy-loop", "--mode", "forward_backward")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = verdicts(ended.stdout)["numpy-loop"]
    assert set(said.values()) == {"right"}
    assert len(said) == 23
    assert sum(": 0x" in title for title in said) == 4


def verdicts(printed: str) -> dict[str, dict[str, str]]:
    """Verdict by backend and title of the table, from what `check` prints."""
    found: dict[str, dict[str, str]] = {}
    title = ""
    for line in printed.splitlines():
        words = line.split()
        if words and words[-1] in ("cpu", "cuda"):
            title = line.strip()
        elif len(words) > 1 and words[0] in OURS:
            found.setdefault(words[0], {})[title] = words[1]
    return found
