"""Every backend of ours against the gate, each in its own worker, through the command that users have."""

from __future__ import annotations

import pytest

from harness.registry import entries

OURS = sorted(name for name, entry in entries().items() if entry.distribution.startswith("bilinear-bench"))
#: Sizes that are all different primes, so that no transposition hides, with every dtype that a case can have.
ODD = ("7x5x3x11", "7x5x3x11:float64:nobias", "7x5x3x11:float16", "7x5x3x11:bfloat16", "1x1x1x1", "67x31x37x2:nobias")


@pytest.mark.parametrize("name", OURS)
def test_every_backend_passes_the_gate_on_odd_sizes_in_both_modes(bilinear_bench, name):
    # Compiling is slow: torch.compile shows one of them.
    chosen = ODD[:1] if name == "torch-compile" else ODD
    ended = bilinear_bench("check", "--backend", name, *(word for case in chosen for word in ("--case", case)))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = verdicts(ended.stdout)
    assert len(said[name]) == 2 * len(chosen)
    without_halves = {"numba-loop": ("float16", "bfloat16"), "numpy-loop": ("bfloat16",), "numpy-einsum": ("bfloat16",)}
    for title, verdict in said[name].items():
        half = any(f":{dtype}," in title for dtype in without_halves.get(name, ()))
        assert verdict == ("unsupported" if half else "right"), title


def test_work_of_size_zero_passes_the_gate(bilinear_bench):
    names = [name for name in OURS if name != "torch-compile"]
    ended = bilinear_bench("check", "--suite", "upstream", *(word for name in names for word in ("--backend", name)))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = verdicts(ended.stdout)
    for name in names:
        empty = {title: verdict for title, verdict in said[name].items() if ": 0x3x4x5" in title}
        assert list(empty.values()) == ["right"] * 4, said[name]


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
