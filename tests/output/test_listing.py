"""The lists of backends, suites and cases."""

from __future__ import annotations

import pytest

from harness.catalog.entry_source import sentence_of
from harness.catalog.registry import DISTRIBUTION, Entry, entries
from harness.catalog.suites import SUITES, suite
from harness.output import listing
from harness.output.layout import plain


def entry(target, *requirements, distribution="peer 1.5"):
    return Entry("name", target, requirements, distribution)


def test_backends_are_ready_not_installed_or_broken():
    listed = {
        "ours": entry("backends.numpy_loop:NumpyLoop", distribution=f"{DISTRIBUTION} 0.1"),
        "theirs": entry("backends.numpy_loop:NumpyLoop"),
        "missing": entry("backends.numpy_loop:NumpyLoop", "no-such-package>=2"),
        "on-gpus": entry("backends.triton_fused:TritonFused"),
        "broken": entry("no_such_module:Kernel"),
    }
    text = plain(listing.backends(listing.availability(listed, ("cpu",)), 120))
    ours, theirs, missing, on_gpus, broken = (
        next(line for line in text.splitlines() if line.split()[:1] == [name]) for name in listed
    )
    assert ours.partition("ours")[2].strip() == sentence_of("backends.numpy_loop:NumpyLoop")
    assert theirs.endswith("[peer 1.5]")
    assert missing.endswith("no-such-package is not installed: pip install 'no-such-package>=2' [peer 1.5]")
    assert on_gpus.endswith("needs CUDA [peer 1.5]")
    assert "on-gpus" in listing.availability(listed, ("cpu", "cuda")).ready
    assert "entry point leads to no module 'no_such_module'" in broken
    assert [line for line in text.splitlines() if line.endswith(":")] == [
        "Backends (--backend NAME):",
        "Not here:",
        "Broken:",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_list_fits_its_width_and_keeps_every_name(width):
    for lines, names in (
        (listing.backends(listing.availability(entries(), ("cpu",)), width), entries()),
        (listing.suites(SUITES.values(), width), SUITES),
        (listing.cases(suite("models"), width), [one.case.name for one in suite("models").entries]),
    ):
        text = plain(lines)
        assert max(len(line) for line in text.splitlines()) <= width
        assert set(names) <= set(text.split())


def test_cases_come_with_their_labels():
    text = plain(listing.cases(suite("quick"), 80))
    assert "  2708x512x512x1   Deep Graph Infomax\n" in text


def test_parts_are_joined_by_an_empty_line():
    assert plain(listing.joined([listing.more(80), listing.more(80)])).splitlines()[1] == ""
