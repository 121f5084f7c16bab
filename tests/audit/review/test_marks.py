"""Marks: on disk before they are answered, conflicts told, undo and redo without end, everything there after a kill."""

from __future__ import annotations

import csv
import errno
import json
import os
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from review_helpers import LABELS, lines, mark, open_desk, table_of

from mlfix_train.audit.review.requests import Refused
from mlfix_train.data.fixes.table import match_fixes, read_fixes
from mlfix_train.errors import DataError, FixesError

A, B, C = "limit 20/000.jpg", "limit 100/001.jpg", "stop/002.jpg"


def reopen(desk, out: Path, **options):
    desk.ledger.journal.close()  # as a killed process does: nothing is written any more
    desk.seen.close()
    return open_desk(out, **options)


def test_an_answer_means_that_the_mark_is_on_disk(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    told = mark(desk, (A, "invalid"), (B, "stop"))
    assert told["saved"] == 2 and not told["conflicts"]
    assert lines(desk) == {A: "invalid", B: "stop"}
    entry = json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[-1])
    assert entry["marks"] == [[A, "limit 20", "invalid"], [B, "limit 100", "stop"]] and entry["by"] == "anna"
    fixes = match_fixes(read_fixes(desk.file.path), table_of())
    assert fixes.loc[A, "old_label"] == "limit 20" and fixes.loc[A, "reviewer"] == "anna"
    assert fixes.loc[B, "time"].endswith("Z")


def test_a_killed_review_goes_on_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    mark(desk, (A, "invalid"))
    mark(desk, (B, "stop"), reviewer="bert")
    mark(desk, (A, None))
    mark(desk, (C, "limit 20"))
    before = (tmp_path / "fixes.csv").read_text()
    again = reopen(desk, tmp_path)
    assert lines(again) == {B: "stop", C: "limit 20"} and (tmp_path / "fixes.csv").read_text() == before
    assert again.answer("detail", {"row": 1})["by"] == "bert"
    assert again.answer("undo", {})["saved"] == 1 and lines(again) == {B: "stop"}, "undo goes back before the kill"
    assert again.answer("undo", {})["saved"] == 1 and lines(again) == {A: "invalid", B: "stop"}


def test_a_kill_between_the_journal_and_the_fixes_file(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    mark(desk, (A, "invalid"))
    before = (tmp_path / "fixes.csv").read_text()
    mark(desk, (B, "stop"))
    (tmp_path / "fixes.csv").write_text(before)  # as if the last write had not come about
    again = reopen(desk, tmp_path)
    assert lines(again) == {A: "invalid", B: "stop"} and not again.notes


def test_a_line_that_was_cut_short_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    desk = open_desk(tmp_path)
    mark(desk, (A, "invalid"))
    with open(tmp_path / "journal.jsonl", "ab") as file:
        file.write(b'{"n":2,"t":"2026')
    again = reopen(desk, tmp_path)
    assert "cut short" in caplog.text and lines(again) == {A: "invalid"}
    assert next(tmp_path.glob("journal-cut-*.txt")).read_bytes() == b'{"n":2,"t":"2026'
    mark(again, (B, "stop"))
    assert lines(reopen(again, tmp_path)) == {A: "invalid", B: "stop"}


@pytest.mark.parametrize("line", [
    "nonsense", "[1]", '{"n":1}', '{"n":9,"do":"sing"}', '{"n":9,"do":"mark","marks":[[1,2,3]]}',
    '{"n":9,"do":"mark","marks":7}', '{"n":9,"t":"","do":"mark","marks":[]}', '{"n":9,"by":"a","do":"mark","marks":[]}',
    '{"n":9,"t":"","by":"a","do":"mark"}', '{"n":9,"do":"fine","ids":[1]}', '{"n":0,"do":"mark","marks":[]}',
])  # fmt: skip
def test_a_damaged_journal_is_named_and_left_alone(tmp_path: Path, line: str) -> None:
    desk = open_desk(tmp_path)
    mark(desk, (A, "invalid"))
    with open(tmp_path / "journal.jsonl", "a") as file:
        file.write(line + "\n" + '{"n":10,"do":"mark","by":"x","t":"","marks":[]}\n')
    content = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"journal.jsonl: line 3"):
        reopen(desk, tmp_path)
    assert (tmp_path / "journal.jsonl").read_bytes() == content
    (tmp_path / "journal.jsonl").write_text("a,b\n")
    with pytest.raises(DataError, match="line 1 is no JSON"):
        open_desk(tmp_path)
    (tmp_path / "journal.jsonl").write_text('{"mlfix":"review","version":99}\n')
    with pytest.raises(DataError, match="version 99"):
        open_desk(tmp_path)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    with pytest.raises(DataError, match="reviewed by another process"):
        open_desk(tmp_path)
    desk.close()
    open_desk(tmp_path).close()


def test_conflicts_are_told_and_nothing_is_overwritten(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    first = mark(desk, (A, "invalid"), base=0)
    told = mark(desk, (A, "stop"), (B, "stop"), reviewer="bert", base=0)  # bert's page has not heard of it yet
    assert told["saved"] == 1 and lines(desk) == {A: "invalid", B: "stop"}
    conflict = told["conflicts"][0]
    assert (conflict["sample_id"], conflict["by"], conflict["new_label"]) == (A, "anna", "invalid")
    assert desk.samples.labels[conflict["wanted"]] == "stop" and conflict["stamp"] == first["number"]
    assert not mark(desk, (A, "invalid"), reviewer="bert", base=0)["conflicts"], "both want the same"
    told = mark(desk, (A, "stop"), reviewer="bert", base=conflict["stamp"])  # bert has seen it, and insists
    assert told["saved"] == 1 and lines(desk)[A] == "stop"
    assert mark(desk, (A, "limit 100"))["conflicts"], "a script that knows nothing does not overwrite bert"
    assert not mark(desk, (A, "limit 100"), reviewer="bert")["conflicts"]
    assert mark(desk, (A, None), base=0)["conflicts"], "taking a mark back is no exception"


def test_undo_leaves_alone_what_others_changed_since(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    told = mark(desk, (A, "invalid"), (B, "invalid"))
    mark(desk, (A, "stop"), reviewer="bert", base=told["number"])
    undone = desk.answer("undo", {"reviewer": "anna"})
    assert undone["saved"] == 1 and [one["sample_id"] for one in undone["conflicts"]] == [A]
    assert lines(desk) == {A: "stop"}
    assert desk.answer("undo", {"reviewer": "anna"})["words"] == "Nothing to undo."
    assert desk.answer("undo", {"reviewer": "bert"})["saved"] == 1 and lines(desk) == {A: "invalid"}


def test_a_group_found_fine_can_be_undone(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    view = desk.answer("view", {"by": "label", "groups": "name"})
    assert desk.answer("fine", {"view": view["view"], "group": 0})["fine"] == 30
    assert desk.ledger.fine.sum() == 30
    again = reopen(desk, tmp_path)
    assert again.ledger.fine.sum() == 30
    assert again.answer("undo", {})["fine"] == 30 and not again.ledger.fine.any()
    again.answer("redo", {})
    assert reopen(again, tmp_path).ledger.fine.sum() == 30


@pytest.mark.parametrize("seed", range(4))
def test_against_a_model_of_it(tmp_path: Path, seed: int) -> None:
    """Random marks, undos, redos and restarts of two people, beside a plain list of states."""
    rng = random.Random(seed)
    desk, ids = open_desk(tmp_path), table_of().index.tolist()
    given = dict(table_of()["label"])
    state: dict[str, str] = {}
    by: dict[str, str] = {}
    done: dict[str, list[dict[str, tuple[str | None, str | None]]]] = {"anna": [], "bert": []}
    undone: dict[str, list[dict[str, tuple[str | None, str | None]]]] = {"anna": [], "bert": []}
    for _ in range(150):
        who, kind = rng.choice(["anna", "bert"]), rng.choice(["mark"] * 4 + ["undo", "undo", "redo", "restart"])
        if kind == "restart":
            desk = reopen(desk, tmp_path)
        elif kind == "mark":
            wanted = {name: rng.choice([None, "invalid", *LABELS]) for name in rng.sample(ids[:12], rng.randint(1, 5))}
            stamps = {name: int(desk.ledger.stamps[ids.index(name)]) for name in wanted}
            asked = [{"sample_id": name, "new_label": wanted[name], "base": stamps[name]} for name in wanted]
            desk.answer("marks", {"reviewer": who, "marks": asked})
            real = {name: (state.get(name), None if label == given[name] else label) for name, label in wanted.items()}
            real = {name: pair for name, pair in real.items() if pair[0] != pair[1]}
            if real:
                done[who].append(real)
                undone[who].clear()
            for name, (_, new) in real.items():
                by[name] = who
                state.pop(name, None) if new is None else state.__setitem__(name, new)
        else:
            source, target = (done, undone) if kind == "undo" else (undone, done)
            desk.answer(kind, {"reviewer": who})
            if source[who]:
                action = source[who].pop()
                target[who].append(action)
                for name, (old, new) in action.items():
                    come, go = (old, new) if kind == "undo" else (new, old)
                    if state.get(name) == go and by[name] == who:
                        state.pop(name, None) if come is None else state.__setitem__(name, come)
        assert lines(desk) == state


def test_existing_fixes_are_the_starting_state(tmp_path: Path) -> None:
    (tmp_path / "fixes.csv").write_text(
        f"sample_id,new_label,old_label,reviewer,time,note\n{A},stop,limit 20,eva,t0,why\n"
    )
    desk = open_desk(tmp_path)
    assert "begun with the 1 fixes" in desk.notes[0]
    assert (tmp_path / "fixes.csv").read_text().splitlines()[1] == f"{A},stop,limit 20,eva,t0,why"
    assert desk.answer("detail", {"row": 0})["note"] == "why"
    assert not reopen(desk, tmp_path).notes


def test_a_fixes_file_is_taken_over_once(tmp_path: Path) -> None:
    given = tmp_path / "given.csv"
    given.write_text(f"sample_id,new_label\n{A},invalid\n{B},stop\n")
    desk = open_desk(tmp_path / "out", fixes=str(given))
    assert lines(desk) == {A: "invalid", B: "stop"}
    mark(desk, (A, None), base=1)
    again = reopen(desk, tmp_path / "out", fixes=str(given))
    assert lines(again) == {B: "stop"}, "the same file does not bring back what was taken back"
    given.write_text(f"sample_id,new_label\n{A},invalid\n{B},limit 20\n{C},invalid\n")
    third = reopen(again, tmp_path / "out", fixes=str(given))
    assert lines(third) == {B: "stop", C: "invalid"}, "what was decided here stays"
    told = {one["sample_id"]: one for one in third.answer("hello", {})["conflicts"]}
    assert set(told) == {A, B} and third.ledger.mark_name(told[B]["wanted"]) == "limit 20", "and can be decided"
    third.answer("keep", {"rows": [told[A]["row"]]})
    mark(third, (B, "limit 20"), base=told[B]["stamp"])
    assert third.answer("hello", {})["conflicts"] == []


def test_a_fixes_file_edited_by_hand_is_taken_over_and_a_copy_kept(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    mark(desk, (A, "invalid"), (B, "stop"))
    path = tmp_path / "fixes.csv"
    rows = list(csv.reader(path.open()))
    rows[1][1] = "limit 100"
    path.write_text("\n".join(",".join(row) for row in [rows[0], rows[1], [C, "limit 20"]]) + "\n")
    edited = path.read_text()
    again = reopen(desk, tmp_path)
    assert lines(again) == {A: "limit 100", C: "limit 20"} and "changed outside" in again.notes[0]
    assert next(tmp_path.glob("fixes-2*.csv")).read_text() == edited
    third = reopen(again, tmp_path)
    assert lines(third) == {A: "limit 100", C: "limit 20"} and not third.notes
    path.write_text("sample_id,new_label\nnowhere.jpg,stop\n")
    with pytest.raises(FixesError, match=r"nowhere\.jpg"):
        reopen(third, tmp_path)
    assert path.read_text() == "sample_id,new_label\nnowhere.jpg,stop\n", (
        "a file that can't be used is not written over"
    )


def test_marks_of_samples_that_are_gone_or_labelled_anew(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    mark(desk, (A, "invalid"), (B, "stop"), (C, "limit 20"))
    table = table_of().drop(index=A)
    table.loc[B, "label"], table.loc[C, "label"] = "limit 20", "limit 20"
    again = reopen(desk, tmp_path, table=table)
    assert lines(again) == {} and len(again.ledger.lost) == 1 and again.ledger.stale == {B}
    assert any("no longer in the data" in note for note in again.notes)
    assert lines(reopen(again, tmp_path)) == {A: "invalid", B: "stop", C: "limit 20"}, "the journal kept them"


def test_a_full_disk_loses_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = open_desk(tmp_path)
    mark(desk, (A, "invalid"))
    size = (tmp_path / "journal.jsonl").stat().st_size
    real = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        mark(desk, (B, "stop"))
    assert (tmp_path / "journal.jsonl").stat().st_size == size and lines(desk) == {A: "invalid"}
    monkeypatch.setattr(os, "fsync", real)
    assert mark(desk, (B, "stop"))["saved"] == 1 and lines(desk) == {A: "invalid", B: "stop"}


def test_the_fixes_file_alone_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = open_desk(tmp_path)
    real = os.replace

    def refused(*_: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match="Permission"):
        mark(desk, (A, "invalid"), base=0)
    monkeypatch.setattr(os, "replace", real)
    told = mark(desk, (A, "invalid"), base=0)  # the page tries again
    assert not told["conflicts"] and lines(desk) == {A: "invalid"}


def test_new_labels_only_where_they_are_allowed(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "a")
    with pytest.raises(Refused, match="no sample bears the label 'limit 2'"):
        mark(desk, (A, "limit 2"))
    other = open_desk(tmp_path / "b", allow=("new_labels",))
    mark(other, (A, "yield"), (B, "yield"))
    again = reopen(other, tmp_path / "b", allow=("new_labels",))
    assert lines(again) == {A: "yield", B: "yield"} and "yield" in again.samples.labels
    for strange in ("", " yield", "a\nb", "x" * 300):
        with pytest.raises(Refused):
            mark(again, (A, strange))


def test_labels_with_every_kind_of_sign(tmp_path: Path) -> None:
    labels = ('a,"b"', "c\rd", "=1+1", "停止", "<b>x</b>")
    table = table_of(25, labels)
    desk = open_desk(tmp_path, table)
    names = table.index.tolist()
    mark(desk, *((name, labels[(i + 1) % 5]) for i, name in enumerate(names[:5])))
    fixes = match_fixes(read_fixes(desk.file.path), table)
    assert fixes["new_label"].tolist() == [labels[(i + 1) % 5] for i in range(5)]
    again = reopen(desk, tmp_path, table=table)
    assert [again.ledger.mark_name(int(code)) for code in again.ledger.marks[:5]] == fixes["new_label"].tolist()


def test_fifty_thousand_marks_are_kept_and_read_back(tmp_path: Path) -> None:
    table = table_of(50_000)
    desk = open_desk(tmp_path, table)
    for start in range(0, 50_000, 10_000):
        mark(desk, *((name, "invalid") for name in table.index[start : start + 10_000]))
    again = reopen(desk, tmp_path, table=table)
    assert (again.ledger.marks < -1).all() and len(pd.read_csv(tmp_path / "fixes.csv")) == 50_000
    assert np.unique(again.ledger.stamps).tolist() == [1, 2, 3, 4, 5]
    again.close()


def test_a_lost_journal_does_not_take_the_fixes_with_it(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    mark(desk, (A, "invalid"), (B, "stop"))
    desk.close()
    (tmp_path / "journal.jsonl").rename(tmp_path / "elsewhere")
    again = open_desk(tmp_path)
    assert lines(again) == {A: "invalid", B: "stop"} and "begun with the 2 fixes" in again.notes[0]
    mark(again, (C, "limit 20"))
    again.close()
    entries = (tmp_path / "journal.jsonl").read_text().splitlines()
    (tmp_path / "journal.jsonl").write_text("\n".join(entries[:-1]) + "\n")  # a line taken out, as the error advises
    third = open_desk(tmp_path)
    assert lines(third) == {A: "invalid", B: "stop", C: "limit 20"} and "the journal lacks" in third.notes[0]


def test_an_emptied_fixes_file_does_not_take_the_marks_with_it(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    mark(desk, *((name, "invalid") for name in table_of().index[:40]))
    desk.close()
    for content in ("sample_id,new_label\n", ""):
        (tmp_path / "fixes.csv").write_text(content)
        with pytest.raises(FixesError, match=r"delete it, and the journal writes it anew"):
            open_desk(tmp_path)
        assert (tmp_path / "fixes.csv").read_text() == content
    (tmp_path / "fixes.csv").unlink()
    assert len(lines(open_desk(tmp_path))) == 40


def test_an_edit_while_it_runs_is_kept_aside(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    mark(desk, (A, "invalid"))
    (tmp_path / "fixes.csv").write_text("sample_id,new_label\nstop/002.jpg,invalid\n")
    mark(desk, (B, "stop"))
    assert lines(desk) == {A: "invalid", B: "stop"}
    assert next(tmp_path.glob("fixes-2*.csv")).read_text() == "sample_id,new_label\nstop/002.jpg,invalid\n"


def test_the_folder_of_another_review_is_refused(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    mark(desk, (A, "invalid"))
    before = (tmp_path / "fixes.csv").read_text()
    with pytest.raises(DataError, match="a review of other data"):
        reopen(desk, tmp_path, table=table_of(labels=("x", "y")))
    assert (tmp_path / "fixes.csv").read_text() == before


def test_a_request_that_is_repeated_changes_nothing(tmp_path: Path) -> None:
    """The answer was lost on its way, so the page asks again; with undo that would take back one step more."""
    desk = open_desk(tmp_path)
    for name in (A, B, C):
        mark(desk, (name, "invalid"))
    for _ in range(3):
        told = desk.answer("undo", {"key": "u1"})
    assert lines(desk) == {A: "invalid", B: "invalid"} and told["rows"] == [2]
    again = reopen(desk, tmp_path)
    again.answer("undo", {"key": "u1"})
    assert lines(again) == {A: "invalid", B: "invalid"}, "nor after a restart"
    wanted = {"marks": [{"sample_id": C, "new_label": "limit 20", "base": int(again.ledger.stamps[2])}], "key": "m1"}
    first, second = again.answer("marks", wanted), again.answer("marks", wanted)
    assert not second["conflicts"] and second["stamp"] == first["stamp"]
    again.answer("marks", {"marks": [{"sample_id": C, "new_label": None, "base": second["stamp"][0]}], "key": "m2"})
    mark(again, (C, "invalid"), base=int(again.ledger.stamps[2]))
    again.answer("marks", wanted)
    assert lines(again)[C] == "invalid", "an old request is not done again"


def test_undo_leaves_alone_what_another_marked_alike(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    told = mark(desk, (A, "invalid"))
    told = mark(desk, (A, None), reviewer="bert", base=told["number"])
    mark(desk, (A, "invalid"), reviewer="bert", base=told["number"])
    assert desk.answer("undo", {"reviewer": "anna"})["saved"] == 0 and lines(desk) == {A: "invalid"}


def test_fine_twice_is_two_steps(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    mark(desk, (A, "invalid"))
    view = desk.answer("view", {"by": "label", "groups": "name"})["view"]
    for _ in range(2):
        desk.answer("fine", {"view": view, "group": 0})
    desk.answer("undo", {})
    assert lines(desk) == {A: "invalid"} and desk.ledger.fine.sum() == 30, "the second time is what is taken back"
    random = desk.answer("view", {"by": "random"})["view"]
    desk.answer("fine", {"view": random, "group": 0})
    desk.answer("undo", {})
    assert desk.ledger.fine.sum() == 30 and not desk.ledger.fine_drawn.any(), "what was fine before stays so"


def test_new_labels_of_two_people(tmp_path: Path) -> None:
    desk = open_desk(tmp_path, allow=("new_labels",))
    known = len(desk.samples.labels)
    first = desk.answer("label", {"name": "bobs", "labels": known, "reviewer": "bob"})
    second = desk.answer("label", {"name": "annas", "labels": known, "reviewer": "anna"})
    assert first["code"] == known and second["code"] == known + 1 and second["labels"] == ["bobs", "annas"]
    for wrong in ("", " x", "invalid", 7, "a\nb"):
        with pytest.raises(Refused):
            desk.answer("label", {"name": wrong, "labels": known})


@pytest.mark.parametrize("name", ["Eva 👩\u200d💻", "Jo\u00a0Ann", "李", "x" * 80])
def test_names_of_all_kinds(tmp_path: Path, name: str) -> None:
    desk = open_desk(tmp_path)
    mark(desk, (A, "invalid"), reviewer=name)
    assert reopen(desk, tmp_path).answer("detail", {"row": 0})["by"] == name
