from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from harness.output.layout import Column, fit, plain, table, table_width, wrapped

STAYS = Column("backend", ["numpy-loop", "a"])
TIME = Column("median", ["1.0 ms", "12 ms"], right=True)
FIRST, SECOND = Column("memory", ["", "3.0 MiB"], right=True, goes=1), Column("verdict", ["faster", ""], goes=2)
COLUMNS = [STAYS, FIRST, TIME, SECOND]


def test_a_table_is_aligned_and_has_no_spaces_at_the_end():
    assert plain(table(COLUMNS, 80)).splitlines() == [
        "backend      memory  median  verdict",
        "numpy-loop           1.0 ms  faster",
        "a           3.0 MiB   12 ms",
    ]


def test_whole_columns_are_left_out_in_their_order():
    full = len("numpy-loop  3.0 MiB  1.0 ms  verdict")
    kept = {width: [column.heading for column in fit(COLUMNS, width)] for width in (full, full - 1, 26, 1)}
    assert kept[full] == ["backend", "memory", "median", "verdict"]
    assert kept[full - 1] == ["backend", "median", "verdict"]
    assert kept[26] == kept[1] == ["backend", "median"]


def test_a_column_that_stays_is_not_cut_where_it_does_not_fit():
    assert plain(table(COLUMNS, 3)).splitlines()[1] == "numpy-loop  1.0 ms"


def test_styles_survive_and_do_not_count_as_width():
    line = table([Column("verdict", [Text("right", style="green"), ""]), STAYS], 80)[1]
    assert [(span.start, span.end, span.style) for span in line.spans if span.style] == [(0, 5, "green")]


@settings(deadline=None)
@given(st.text(st.sampled_from("ab 1%"), max_size=80), st.integers(1, 40), st.sampled_from(["", "  "]))
def test_wrapping_keeps_every_word_and_breaks_at_spaces_only(text, width, indent):
    lines = wrapped(text, width, indent)
    assert "".join(plain(lines).split()) == "".join(text.split())
    assert [word for line in lines for word in line.plain.split()] == text.split()
    too_long = [line.plain.strip() for line in lines if len(line.plain) > width]
    assert not [line for line in too_long if re.search(r"(?<!\d) ", line)], "it could have been broken here"


def test_wrapped_lines_fit_and_are_indented_and_keep_their_style():
    lines = wrapped(Text.assemble(("warning", "bold"), " load: 3 others run on this machine"), 20, indent="  ")
    assert plain(lines).splitlines() == ["warning load:", "  3 others run on", "  this machine"]
    assert [span.style for span in lines[0].spans if span.style] == ["bold"]


@pytest.mark.parametrize("width", range(1, 30))
def test_a_number_is_not_parted_from_its_unit(width):
    text = plain(wrapped("the GPU is busy for 50 % of 12 ms each", width))
    assert "50 %" in text
    assert "12 ms" in text


def test_a_table_can_have_another_gap():
    assert plain(table([STAYS, TIME], 80, gap=" ")).splitlines()[1] == "numpy-loop 1.0 ms"
    assert table_width([STAYS, TIME], gap=" ") == len("numpy-loop 1.0 ms")


def test_a_line_never_has_what_would_move_the_cursor():
    assert plain(wrapped(Text("a\nb\x1b[2J\tc\u2028d"), 80)) == "a b [2J c d\n"
