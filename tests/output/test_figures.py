from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from report_rows import timed, untimed

from harness.output import docs, figures, store
from harness.output.report import chosen
from harness.record import Status

RUNS = sorted((docs.ROOT / "results" / "reference").glob("*/*/records.csv"))


@pytest.fixture
def rows(frame):
    return frame(timed("torch-bilinear", 4e-3, 2), timed("numba-fused", 1e-3, 1))


def needs_matplotlib():
    return pytest.importorskip("matplotlib", reason="draws with Matplotlib, which is not installed")


@pytest.mark.parametrize("path", RUNS, ids=lambda path: "-".join(path.parent.parts[-2:]))
def test_every_committed_run_can_be_drawn_and_pages_show_that(path, tmp_path):
    matplotlib = needs_matplotlib()
    records = chosen(path.parent, None, ())
    caption = figures.draw(records, store.environment(path.parent), tmp_path / "one.svg")
    drawn = (tmp_path / "one.svg").read_text()
    for name in records[records["rank"].notna()]["backend"].unique():
        assert f">{name}</text>" in drawn
    assert caption.split(";")[0] in " ".join(re.findall(r">([^<>]*)</(?:text|tspan)>", drawn))
    shown = [file for file, run in docs.figures_of().items() if docs.ROOT / run == path.parent]
    if f"matplotlib=={matplotlib.__version__}\n" in (docs.ROOT / "constraints.txt").read_text():
        for file in shown:
            assert drawn == (docs.ROOT / file).read_text(), "run `make docs`"


@pytest.mark.parametrize("suffix", figures.FORMATS)
def test_a_figure_has_the_same_bytes_each_time(suffix, rows, tmp_path):
    matplotlib = needs_matplotlib()
    paths = [tmp_path / f"{name}{suffix}" for name in ("one", "other")]
    for path in paths:
        with matplotlib.rc_context({"font.size": 30.0 if path is paths[1] else 10.0, "savefig.dpi": 50}):
            figures.draw(rows, {}, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_drawing_leaves_the_users_settings_as_they_are(rows, tmp_path):
    matplotlib = needs_matplotlib()
    with matplotlib.rc_context({"pdf.fonttype": 3}):
        figures.draw(rows, {}, tmp_path / "one.pdf")
        assert matplotlib.rcParams["pdf.fonttype"] == 3


def test_a_pdf_embeds_truetype_fonts_only(rows, tmp_path):
    needs_matplotlib()
    figures.draw(rows, {}, tmp_path / "one.pdf")
    drawn = (tmp_path / "one.pdf").read_bytes()
    assert b"/CIDFontType2" in drawn
    assert b"/Type3" not in drawn


@pytest.mark.parametrize("name", ["one.gif", "one", "one.svg.bak"])
def test_an_unknown_suffix_is_refused(name, rows, tmp_path):
    with pytest.raises(figures.FigureError, match=r"expected a name that ends in .svg, .png, .pdf"):
        figures.draw(rows, {}, tmp_path / name)


def test_a_suffix_may_be_in_capitals(rows, tmp_path):
    needs_matplotlib()
    figures.draw(rows, {}, tmp_path / "one.SVG")
    assert (tmp_path / "one.SVG").read_bytes().startswith(b"<?xml")


def test_a_folder_that_does_not_exist_is_refused(rows, tmp_path):
    with pytest.raises(figures.FigureError, match="nowhere is not a folder, make it first"):
        figures.draw(rows, {}, tmp_path / "nowhere" / "one.svg")


def test_a_file_that_cannot_be_written_is_refused(rows, tmp_path):
    needs_matplotlib()
    (tmp_path / "one.svg").mkdir()
    with pytest.raises(figures.FigureError, match=r"one.svg cannot be written: Is a directory"):
        figures.draw(rows, {}, tmp_path / "one.svg")


def test_a_run_without_a_time_is_refused(frame, tmp_path):
    failed = frame(untimed("torch-bilinear", Status.FAILED, "why"), timed("numpy-loop", 1e-9, None))
    with pytest.raises(figures.FigureError, match="nothing to draw"):
        figures.draw(failed, {}, tmp_path / "one.svg")


def test_without_matplotlib_the_command_that_installs_it_is_named(rows, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(figures.FigureError, match=re.escape('pip install "bilinear-bench[plot]"')):
        figures.draw(rows, {}, tmp_path / "one.svg")
    assert not (tmp_path / "one.svg").exists()


def test_every_committed_figure_is_drawn_by_a_command_of_a_page():
    committed = {path.relative_to(docs.ROOT) for path in (docs.ROOT / "docs" / "figures").iterdir()}
    assert committed == set(docs.figures_of())
    for page in docs.pages():
        for link in re.findall(r"!\[.*?\]\((figures/[^)]+)\)", page.read_text()):
            assert Path("docs", link) in committed


def test_a_page_names_the_command_of_its_figure(tmp_path):
    shutil.copytree(docs.ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.md"))
    (tmp_path / "README.md").write_text("`bilinear-bench report some/run --plot docs/figures/one.svg` draws it.\n")
    assert docs.figures_of(tmp_path) == {Path("docs/figures/one.svg"): Path("some/run")}
