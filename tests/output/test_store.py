from __future__ import annotations

import csv
import dataclasses
import os
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.output import store
from harness.output.cells import TEXT_LENGTH
from harness.output.store import ENVIRONMENT, LATEST, RECORDS, SAMPLES, Store, StoreError
from harness.record import Record, Sample, Status

KEY = {
    **{"run_id": "20260102T030405Z-00ff", "suite": "quick", "case": "3x2x2x2", "backend": "numpy-loop"},
    **{"batch": 3, "in1_features": 2, "in2_features": 2, "out_features": 2, "dtype": "float32", "precision": "ieee"},
    **{"bias": True, "mode": "forward", "seed": 0, "device": "cpu"},
}


def failed(**changes):
    return Record(**KEY | {"status": Status.FAILED, "reason": "why"} | changes)


def sample(**changes):
    given = {"case": "3x2x2x2", "mode": "forward", "device": "cpu", "backend": "numpy-loop", "kind": "call"}
    given["process"] = 0
    return Sample(**given | {"block": 0, "position": 0, "calls": 3, "seconds": 0.1} | changes)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results" / "run"


def write(folder, records=(), samples=()):
    with Store.create(folder, {}) as opened:
        for one in samples:
            opened.add_sample(one)
        for one in records:
            opened.add_record(one)


def cells(path):
    """Return the rows as the csv module reads them."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_value_of_a_record_comes_back_with_its_type(folder):
    times = {"median_seconds": 0.1 + 0.2, "baseline_median_seconds": 1e-7, "speedup": 1 / 3, "rank": 2}
    row = Record(**KEY, status=Status.TIMED, **times, threads=4, tuning='a "quoted", b')
    write(folder, [row], [sample(block=None, seconds=0.1 + 0.2)])
    frame = store.read(folder / RECORDS)
    back = {name: None if value is pd.NA else value for name, value in frame.iloc[0].to_dict().items()}
    assert back == dataclasses.asdict(row)
    kinds = {"speedup": "Float64", "rank": "Int64", "bias": "boolean", "batch": "Int64", "reason": "string"}
    assert {name: str(frame[name].dtype) for name in kinds} == kinds
    one = store.read(folder / SAMPLES).iloc[0]
    assert (one["seconds"], one["calls"], one["block"] is pd.NA) == (0.1 + 0.2, 3, True)


def test_a_missing_value_is_written_as_an_empty_cell(folder):
    write(folder, [failed()])
    row = cells(folder / RECORDS)[0]
    assert list(row) == store.columns(Record)
    given = {name for name, value in row.items() if value != ""}
    assert given == set(KEY) | {"status", "reason"}


def test_a_float_of_numpy_is_written_as_a_number(folder):
    write(folder, [failed(max_error_over_bound=np.float64(0.25))])
    assert cells(folder / RECORDS)[0]["max_error_over_bound"] == "0.25"


def test_a_file_without_rows_is_an_empty_frame_with_all_columns(folder):
    write(folder)
    frame = store.read(folder / RECORDS)
    assert (len(frame), list(frame)) == (0, store.columns(Record))


def test_a_row_is_on_disk_as_soon_as_it_was_added(folder):
    with Store.create(folder, {}) as opened:
        opened.add_sample(sample())
        opened.add_record(failed())
        assert len(store.rows(folder / SAMPLES)) == len(store.rows(folder / RECORDS)) == 1


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "＝", "＋", "－", "＠"])
def test_a_reason_that_a_spreadsheet_would_run_is_neutralised(folder, start):
    write(folder, [failed(reason=f"{start}cmd|' /C calc'!A0")])
    assert cells(folder / RECORDS)[0]["reason"].startswith(f"'{start}cmd")


def test_a_reason_is_bounded_and_loses_its_control_characters(folder):
    write(folder, [failed(reason="a\nb\r\n\x1b[31mc\x00\u202ed\udc80\u2028e" + "é" * 10_000)])
    reason = cells(folder / RECORDS)[0]["reason"]
    assert reason.startswith("a b   [31mc  d  eé")
    assert len(reason) == TEXT_LENGTH
    assert len(store.rows(folder / RECORDS)) == 1


@pytest.mark.parametrize("left", [1, 20, 60])
def test_a_torn_last_line_is_ignored(folder, left):
    write(folder, [failed(backend="a"), failed(backend="b", reason='with "quotes"')])
    text = (folder / RECORDS).read_bytes()
    last = text.rstrip(b"\n").rfind(b"\n") + 1
    (folder / RECORDS).write_bytes(text[: last + left])
    assert [row["backend"] for row in store.rows(folder / RECORDS)] == ["a"]


def test_a_torn_line_in_the_middle_is_refused_with_its_number(folder):
    write(folder, [failed(), failed(), failed()])
    lines = (folder / RECORDS).read_text().splitlines()
    lines[2] = lines[2][:30]
    (folder / RECORDS).write_text("\n".join(lines) + "\n")
    with pytest.raises(StoreError, match=re.escape(f"{folder / RECORDS}, line 3: ")):
        store.read(folder / RECORDS)


@pytest.mark.parametrize(("column", "text"), [("batch", "many"), ("batch", "1.5"), ("speedup", "x"), ("bias", "maybe")])
def test_a_cell_of_the_wrong_type_is_refused_by_its_column(folder, column, text):
    write(folder, [failed()])
    row = cells(folder / RECORDS)[0] | {column: text}
    with (folder / RECORDS).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([row.keys(), row.values()])
    with pytest.raises(StoreError, match=f"column {column} holds what is no"):
        store.read(folder / RECORDS)


def test_a_file_of_another_version_and_a_missing_one_are_refused(folder):
    with pytest.raises(
        StoreError, match=r"records\.csv cannot be read \(No such file or directory\): give the folder of a run"
    ):
        store.rows(folder / RECORDS)
    write(folder)
    (folder / RECORDS).write_text("other,columns\n")
    with pytest.raises(StoreError, match="other columns than this version writes"):
        store.rows(folder / RECORDS)


def columns_of(folder, keep):
    """Write the file again with the columns that ``keep`` returns."""
    rows = cells(folder / RECORDS)
    with (folder / RECORDS).open("w", newline="") as file:
        writer = csv.DictWriter(file, keep(list(rows[0])), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def test_a_column_that_an_earlier_file_lacks_is_empty(folder):
    write(folder, [failed()])
    columns_of(folder, lambda names: [name for name in names if not name.startswith("spot_")])
    frame = store.read(folder / RECORDS)
    assert list(frame.columns) == store.columns(Record)
    assert frame["spot_roofline_fraction"].isna().all()
    assert frame["reason"].tolist() == ["why"]
    with pytest.raises(StoreError, match="other columns than this version writes"):
        Store.resume(folder, keep=lambda row: True)  # rows of two versions in one file would not be alike


def test_a_label_that_an_earlier_file_lacks_comes_from_the_suites(folder):
    write(folder, [failed(case="1x32x32x16:float64"), failed(), failed(case="512x64x64x32", suite="batch-sweep")])
    columns_of(folder, lambda names: [name for name in names if name != "label"])
    frame = store.read(folder / RECORDS)
    assert frame["label"].tolist() == ["SimGNN", pd.NA, "batch 512 at 64 features"]
    assert list(frame.columns) == store.columns(Record)


@pytest.mark.parametrize("keep", [lambda names: names[1:], lambda names: [*names[:-2], names[-1], names[-2]]])
def test_a_file_without_what_every_row_has_or_in_another_order_is_refused(folder, keep):
    write(folder, [failed()])
    columns_of(folder, keep)
    with pytest.raises(StoreError, match="other columns than this version writes"):
        store.read(folder / RECORDS)


def test_resuming_drops_incomplete_groups_and_adds_no_duplicates(folder):
    done, half = {"case": "3x2x2x2"}, {"case": "9x2x2x2"}
    reason = '\'=kept, "as" it was'
    write(
        folder,
        [failed(**done, backend="a", reason=reason), failed(**done, backend="b"), failed(**half, backend="a")],
        [sample(**done), sample(**half, block=0), sample(**half, block=1)],
    )
    kept = (folder / RECORDS).read_text().splitlines()[:3]
    with (folder / RECORDS).open("a") as file:
        file.write("20260102T030405Z-00ff,quick,9x2x2x2,9,2")
    with Store.resume(folder, lambda row: row["case"] == "3x2x2x2") as opened:
        opened.add_sample(sample(**half))
        opened.add_record(failed(**half, backend="a"))
        opened.add_record(failed(**half, backend="b"))
    assert (folder / RECORDS).read_text().splitlines()[:3] == kept
    found = [(row["case"], row["backend"]) for row in store.rows(folder / RECORDS)]
    assert found == [("3x2x2x2", "a"), ("3x2x2x2", "b"), ("9x2x2x2", "a"), ("9x2x2x2", "b")]
    assert [row["case"] for row in store.rows(folder / SAMPLES)] == ["3x2x2x2", "9x2x2x2"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([RECORDS, SAMPLES, ENVIRONMENT])


def test_nothing_that_exists_is_overwritten(folder):
    write(folder, [failed()])
    before = (folder / RECORDS).read_bytes()
    with pytest.raises(StoreError, match="exists: choose another --out"):
        Store.create(folder, {})
    assert (folder / RECORDS).read_bytes() == before
    with pytest.raises(StoreError, match="choose another --out"):
        Store.create(folder / RECORDS, {})
    with pytest.raises(StoreError, match="cannot be written"):
        Store.create(folder / RECORDS / "below", {})


@pytest.mark.parametrize("ends", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_folder_is_whole_or_its_name_is_free_again(folder, monkeypatch, ends):
    def end(_):
        raise ends

    with monkeypatch.context() as patched:
        patched.setattr(store.os, "fsync", end)
        with pytest.raises((StoreError, KeyboardInterrupt)):
            Store.create(folder, {})
    assert not list(folder.parent.iterdir())
    with Store.create(folder, {}):
        assert store.environment(folder) == {}


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    for folder, why in (("", "exists"), ("file", "is a file"), ("dangling", "is a file"), ("file/x", "not a folder")):
        with pytest.raises(StoreError, match=why):
            store.check_free(tmp_path / folder)
    store.check_free(tmp_path / "new" / "deep")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]

    def refuse(self, *_, **__):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"is not writable \(Read-only file system\)"):
        store.check_free(tmp_path / "new")


@pytest.mark.parametrize("full", [RECORDS, SAMPLES])
def test_a_full_disk_is_one_error_with_its_reason_and_the_rows_before_stay(folder, full):
    write(folder, [failed()], [sample()])
    (folder / full).unlink()
    (folder / full).symlink_to("/dev/full")
    with pytest.raises(StoreError, match=rf"{full} cannot be written \(No space left on device\)"):  # noqa: SIM117, PT012
        with Store(folder) as opened:
            opened.add_sample(sample())
            opened.add_record(failed())
    other = SAMPLES if full == RECORDS else RECORDS
    assert len(store.rows(folder / other)) in (1, 2)


def test_a_full_disk_while_the_environment_is_written_is_the_same_error(folder, monkeypatch):
    write(folder, [failed()])

    def refuse(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", refuse)
    with pytest.raises(StoreError, match="No space left on device"):
        store.add_to_environment(folder, {"more": 1})
    with pytest.raises(StoreError, match="No space left on device"):
        Store.resume(folder, lambda _: True)
    assert len(store.rows(folder / RECORDS)) == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted([RECORDS, SAMPLES, ENVIRONMENT])


@pytest.mark.parametrize("end", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_run_that_ends_while_it_makes_its_folder_leaves_none(folder, monkeypatch, end):
    folder.parent.mkdir()

    def stop(*_):
        raise end

    with monkeypatch.context() as patched:
        patched.setattr(store.os, "fsync", stop)
        with pytest.raises((StoreError, KeyboardInterrupt)):
            Store.create(folder, {})
    assert list(folder.parent.iterdir()) == []
    write(folder)


def test_what_a_killed_run_left_is_deleted_by_the_next(folder):
    left, alive = (folder.parent / f"{store.DRAFT}{name}" for name in ("left", "alive"))
    for draft in (left, alive):
        draft.mkdir(parents=True)
    os.utime(left, (0, 0))
    write(folder, [failed()])
    assert (left.exists(), alive.exists()) == (False, True)
    (folder / f".{ENVIRONMENT}.12345").write_text("{")
    Store.resume(folder, lambda _: True).__exit__()
    assert sorted(path.name for path in folder.iterdir()) == sorted([RECORDS, SAMPLES, ENVIRONMENT])


def began(folder, run_id):
    """Leave a run with its id."""
    Store.create(folder, {"run_id": run_id}).__exit__()


def test_latest_is_the_newest_run_by_its_own_time(tmp_path):
    results = tmp_path / "results"
    began(results / "mine", "20260103T000000Z-0000")
    began(results / "20260102T000000Z-0000", "20260102T000000Z-0000")
    began(tmp_path / "elsewhere", "20260109T000000Z-0000")
    (results / "no-run").mkdir()
    assert store.find(LATEST, results) == (results / "mine").resolve()
    assert {path.name for path in (*results.iterdir(), *tmp_path.iterdir())} == {
        *("mine", "20260102T000000Z-0000", "no-run", "results", "elsewhere")
    }


def test_a_run_without_a_readable_environment_is_the_oldest(tmp_path):
    began(tmp_path / "torn", "20260109T000000Z-0000")
    (tmp_path / "torn" / ENVIRONMENT).write_text("{torn")
    began(tmp_path / "whole", "20260102T000000Z-0000")
    assert store.find(LATEST, tmp_path).name == "whole"


def test_of_two_runs_in_one_second_the_last_written_is_latest(tmp_path):
    for name, random, written in (("one", "ffff", 1), ("two", "0000", 2)):
        began(tmp_path / name, f"20260102T000000Z-{random}")
        os.utime(tmp_path / name / RECORDS, (written, written))
    assert store.find(LATEST, tmp_path).name == "two"


def test_links_named_latest_are_not_followed(tmp_path, monkeypatch):
    results = tmp_path / "results"
    began(results / "old", "20260102T000000Z-0000")
    began(results / "new", "20260103T000000Z-0000")
    for folder, target in ((results, "old"), (tmp_path, "results/old")):
        (folder / LATEST).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    assert store.find(LATEST, Path("results")).name == "new"
    for link in ("./latest", "results/latest"):
        with pytest.raises(StoreError, match="a link that an earlier version made"):
            store.find(link, Path("results"))


def test_without_a_run_latest_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(StoreError, match=r"latest is the newest run in .*results/, which has none: give the folder"):
        store.find(LATEST, tmp_path / "results")


def test_a_misspelt_run_is_refused_with_the_closest_ones(folder):
    write(folder)
    with pytest.raises(StoreError, match="runn is no run: did you mean 'run'"):
        store.find("runn", folder.parent)
    with pytest.raises(StoreError, match=r"xyz is no run: expected a folder with records\.csv in it"):
        store.find("xyz", folder.parent)


def test_a_run_is_found_by_path_and_by_name_and_by_nothing_else(folder):
    write(folder)
    assert store.find(str(folder), Path("elsewhere")) == store.find("run", folder.parent) == folder.resolve()
    with pytest.raises(StoreError, match="no-such is no run"):
        store.find("no-such", folder.parent)


def test_the_environment_comes_back_and_can_be_added_to(folder):
    Store.create(folder, {"cpu": "Größe", "gpus": []}).__exit__()
    store.add_to_environment(folder, {"workers": {"a": 1}})
    assert store.environment(folder) == {"cpu": "Größe", "gpus": [], "workers": {"a": 1}}
    for text in ("{torn", "[]"):
        (folder / ENVIRONMENT).write_text(text)
        with pytest.raises(StoreError, match="is not a run"):
            store.environment(folder)


def test_run_ids_sort_by_time_and_two_of_one_second_differ():
    first, later = (store.new_run_id(time.gmtime(seconds)) for seconds in (0, 86400))
    assert re.fullmatch(r"19700101T000000Z-[0-9a-f]{4}", first)
    assert first < later
    assert len({store.new_run_id(time.gmtime(0)) for _ in range(20)}) > 1
