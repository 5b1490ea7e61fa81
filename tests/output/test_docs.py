from __future__ import annotations

import pytest

from harness.output.docs import DocsError, pages, render_block, rewritten
from harness.output.tables import HEADINGS
from harness.record import FLAG_MEANING, RELATION_MEANING, STATUS_MEANING

RUN = "results/reference/intel-emerald-rapids-2cpu/quick"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_generated_blocks_are_current(page):
    text = page.read_text(encoding="utf-8")
    assert text == rewritten(text), "run `make docs`"


def test_a_stale_block_is_replaced_and_the_rest_of_a_page_stays():
    page = "before\n<!-- generated: flags -->\nstale\n<!-- end -->\nafter <!-- end -->\n"
    first, rest = rewritten(page).split("<!-- generated: flags -->\n")
    block, after = rest.split("<!-- end -->", 1)
    assert (first, block, after) == ("before\n", render_block("flags"), "\nafter <!-- end -->\n")
    assert rewritten(rewritten(page)) == rewritten(page)


def test_the_answer_of_a_run_is_a_block_of_at_most_100_columns():
    lines = render_block(f"answer {RUN}").splitlines()
    assert (lines[0], lines[-1]) == ("```text", "```")
    assert max(len(line) for line in lines) <= 100
    assert any("numba-fused" in line for line in lines)


def test_a_table_of_a_run_is_a_block_with_every_backend():
    block = render_block(f"case {RUN} 128x20x30x40 forward_backward")
    assert "nn.Bilinear's example, training step on cpu (128x20x30x40)" in block
    assert sum(line.endswith("faster") or " faster " in line for line in block.splitlines()) == 12


def test_the_screen_of_a_case_has_a_bar_for_every_backend():
    block = render_block(f"bars {RUN} 128x20x30x40 forward")
    assert sum("  #" in line for line in block.splitlines()) == 13


def test_the_bare_command_is_shown_as_on_the_machine_of_a_run():
    text = " ".join(render_block("welcome results/reference/amd-epyc-zen3-2cpu/quick").split())
    assert "2 CPUs AMD EPYC, no GPU. 13 backends ready; not here: cupy-einsum, flaggems (not installed)" in text


def test_lines_of_groups_are_those_of_a_run_in_its_order():
    lines = render_block(f"group-lines {RUN} 3").splitlines()
    assert [line.partition(" ")[0] for line in lines[1:-1]] == ["[1/12]", "[2/12]", "[3/12]"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flags", FLAG_MEANING),
        ("statuses", STATUS_MEANING),
        ("comparisons", RELATION_MEANING),
        ("headings", HEADINGS),
        ("columns records", ("run_id", "flags")),
        ("columns samples", ("kind", "disturbance")),
        ("backends", ("numpy-loop", "triton-fused")),
    ],
)
def test_a_block_of_words_has_each_with_its_meaning(name, words):
    block = render_block(name)
    for word in words:
        (line,) = (line for line in block.splitlines() if line.startswith(f"| `{word}` |"))
        assert len(line.split("|")[-2].strip()) > 5


@pytest.mark.parametrize("marker", ["nonesuch", "answer", "flags more", f"case {RUN} 1x1x1x1 forward"])
def test_a_marker_without_a_block_is_refused(marker):
    with pytest.raises(DocsError):
        render_block(marker)
