"""Marks: on disk before the response, conflicts reported, unlimited undo and redo, nothing lost by a kill."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from review_helpers import LABELS, lines, mark, open_session, table_of

from mlfix_train.audit.review.marks import INVALID_CODE
from mlfix_train.audit.review.requests import RequestError
from mlfix_train.audit.review.samples import NONE
from mlfix_train.audit.review.session import ReviewSession
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.fixes.table import match_fixes, read_fixes
from mlfix_train.errors import DataError, FixesError

A, B, C = "limit 20/000.jpg", "limit 100/001.jpg", "stop/002.jpg"


def reopen(session: ReviewSession, out: Path, **options: Any) -> ReviewSession:
    session.store.journal.close()  # as if killed: nothing more is written
    session.seen_log.close()
    return open_session(out, **options)


def test_a_response_means_that_the_mark_is_on_disk(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    response = mark(session, (A, "invalid"), (B, "stop"))
    assert response["saved"] == 2 and not response["conflicts"]
    assert lines(session) == {A: "invalid", B: "stop"}
    entry = json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[-1])
    assert entry["marks"] == [[A, "limit 20", "invalid"], [B, "limit 100", "stop"]] and entry["reviewer"] == "anna"
    fixes = match_fixes(read_fixes(session.fixes_path), table_of())
    assert fixes.loc[A, "old_label"] == "limit 20" and fixes.loc[A, "reviewer"] == "anna"
    assert fixes.loc[B, "time"].endswith("Z")


def test_a_killed_review_resumes_with_all_acknowledged_marks(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    mark(session, (A, "invalid"))
    mark(session, (B, "stop"), reviewer="bert")
    mark(session, (A, None))
    mark(session, (C, "limit 20"))
    before = (tmp_path / "fixes.csv").read_text()
    again = reopen(session, tmp_path)
    assert lines(again) == {B: "stop", C: "limit 20"} and (tmp_path / "fixes.csv").read_text() == before
    assert again.handle("sample", {"row": 1})["reviewer"] == "bert"
    assert again.handle("undo", {})["saved"] == 1 and lines(again) == {B: "stop"}, "undo goes back before the kill"
    assert again.handle("undo", {})["saved"] == 1 and lines(again) == {A: "invalid", B: "stop"}


def test_a_kill_between_the_journal_and_the_fixes_file(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    mark(session, (A, "invalid"))
    before = (tmp_path / "fixes.csv").read_text()
    mark(session, (B, "stop"))
    (tmp_path / "fixes.csv").write_text(before)  # as if the last write had not happened
    again = reopen(session, tmp_path)
    assert lines(again) == {A: "invalid", B: "stop"} and not again.fixes.notes


def test_a_truncated_line_is_moved_to_a_backup(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    session = open_session(tmp_path)
    mark(session, (A, "invalid"))
    with open(tmp_path / "journal.jsonl", "ab") as file:
        file.write(b'{"revision":2,"time":"2026')
    again = reopen(session, tmp_path)
    assert "is truncated" in caplog.text and lines(again) == {A: "invalid"}
    assert next(tmp_path.glob("journal-truncated-*.txt")).read_bytes() == b'{"revision":2,"time":"2026'
    mark(again, (B, "stop"))
    assert lines(reopen(again, tmp_path)) == {A: "invalid", B: "stop"}


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[1]",
        '{"revision":1}',
        '{"revision":9,"time":"","reviewer":"a","action":"sing"}',
        '{"revision":9,"time":"","reviewer":"a","action":"mark","marks":[[1,2,3]]}',
        '{"revision":9,"time":"","reviewer":"a","action":"mark","marks":7}',
        '{"revision":9,"time":"","action":"mark","marks":[]}',
        '{"revision":9,"reviewer":"a","action":"mark","marks":[]}',
        '{"revision":9,"time":"","reviewer":"a","action":"mark"}',
        '{"revision":9,"time":"","reviewer":"a","action":"review","sample_ids":[1]}',
        '{"revision":0,"time":"","reviewer":"a","action":"mark","marks":[]}',
    ],
)
def test_a_damaged_journal_is_named_and_left_alone(tmp_path: Path, line: str) -> None:
    session = open_session(tmp_path)
    mark(session, (A, "invalid"))
    with open(tmp_path / "journal.jsonl", "a") as file:
        file.write(line + "\n" + '{"revision":10,"action":"mark","reviewer":"x","time":"","marks":[]}\n')
    content = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"journal.jsonl: line 3"):
        reopen(session, tmp_path)
    assert (tmp_path / "journal.jsonl").read_bytes() == content
    (tmp_path / "journal.jsonl").write_text("a,b\n")
    with pytest.raises(DataError, match="line 1 is not JSON"):
        open_session(tmp_path)
    (tmp_path / "journal.jsonl").write_text('{"mlfix":"review","version":99}\n')
    with pytest.raises(DataError, match="version 99"):
        open_session(tmp_path)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    with pytest.raises(DataError, match="reviewed by another process"):
        open_session(tmp_path)
    session.close()
    open_session(tmp_path).close()


def test_conflicts_are_reported_and_nothing_is_overwritten(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    first = mark(session, (A, "invalid"), base_revision=0)
    response = mark(
        session, (A, "stop"), (B, "stop"), reviewer="bert", base_revision=0
    )  # bert's page does not know of it yet
    assert response["saved"] == 1 and lines(session) == {A: "invalid", B: "stop"}
    conflict = response["conflicts"][0]
    assert (conflict["sample_id"], conflict["reviewer"], conflict["new_label"]) == (A, "anna", "invalid")
    assert session.samples.labels[conflict["wanted"]] == "stop" and conflict["revision"] == first["revision"]
    assert not mark(session, (A, "invalid"), reviewer="bert", base_revision=0)["conflicts"], "both agree"
    response = mark(
        session, (A, "stop"), reviewer="bert", base_revision=conflict["revision"]
    )  # bert has seen it, and insists
    assert response["saved"] == 1 and lines(session)[A] == "stop"
    assert mark(session, (A, "limit 100"))["conflicts"], "a script that knows nothing does not overwrite bert"
    assert not mark(session, (A, "limit 100"), reviewer="bert")["conflicts"]
    assert mark(session, (A, None), base_revision=0)["conflicts"], "removing a mark is no exception"


def test_undo_leaves_what_others_changed_since(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    response = mark(session, (A, "invalid"), (B, "invalid"))
    mark(session, (A, "stop"), reviewer="bert", base_revision=response["revision"])
    undone = session.handle("undo", {"reviewer": "anna"})
    assert undone["saved"] == 1 and [one["sample_id"] for one in undone["conflicts"]] == [A]
    assert lines(session) == {A: "stop"}
    assert session.handle("undo", {"reviewer": "anna"})["message"] == "Nothing to undo."
    assert session.handle("undo", {"reviewer": "bert"})["saved"] == 1 and lines(session) == {A: "invalid"}


def test_marking_a_group_as_reviewed_can_be_undone(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    view = session.handle("view", {"group_by": "label", "group_order": "name"})
    assert session.handle("review_group", {"view": view["view"], "group": 0})["reviewed"] == 30
    assert session.store.group_reviewed.sum() == 30
    again = reopen(session, tmp_path)
    assert again.store.group_reviewed.sum() == 30
    assert again.handle("undo", {})["reviewed"] == 30 and not again.store.group_reviewed.any()
    again.handle("redo", {})
    assert reopen(again, tmp_path).store.group_reviewed.sum() == 30


@pytest.mark.parametrize("seed", range(4))
def test_random_actions_against_a_reference_model(tmp_path: Path, seed: int) -> None:
    """Random marks, undos, redos and restarts of two people, compared with a plain list of states."""
    rng = random.Random(seed)
    session, ids = open_session(tmp_path), table_of().index.tolist()
    given = dict(table_of()["label"])
    state: dict[str, str] = {}
    by: dict[str, str] = {}
    done: dict[str, list[dict[str, tuple[str | None, str | None]]]] = {"anna": [], "bert": []}
    undone: dict[str, list[dict[str, tuple[str | None, str | None]]]] = {"anna": [], "bert": []}
    for _ in range(150):
        who, kind = rng.choice(["anna", "bert"]), rng.choice(["mark"] * 4 + ["undo", "undo", "redo", "restart"])
        if kind == "restart":
            session = reopen(session, tmp_path)
        elif kind == "mark":
            wanted = {name: rng.choice([None, "invalid", *LABELS]) for name in rng.sample(ids[:12], rng.randint(1, 5))}
            revisions = {name: int(session.store.revisions[ids.index(name)]) for name in wanted}
            payload = [
                {"sample_id": name, "new_label": wanted[name], "base_revision": revisions[name]} for name in wanted
            ]
            session.handle("marks", {"reviewer": who, "marks": payload})
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
            session.handle(kind, {"reviewer": who})
            if source[who]:
                action = source[who].pop()
                target[who].append(action)
                for name, (old, new) in action.items():
                    come, go = (old, new) if kind == "undo" else (new, old)
                    if state.get(name) == go and by[name] == who:
                        state.pop(name, None) if come is None else state.__setitem__(name, come)
        assert lines(session) == state


def test_existing_fixes_are_the_starting_state(tmp_path: Path) -> None:
    (tmp_path / "fixes.csv").write_text(
        f"sample_id,new_label,old_label,reviewer,time,note\n{A},stop,limit 20,eva,t0,why\n"
    )
    session = open_session(tmp_path)
    assert session.fixes.notes[0].startswith("Started from") and session.fixes.notes[0].endswith("marks: 1.")
    assert (tmp_path / "fixes.csv").read_text().splitlines()[1] == f"{A},stop,limit 20,eva,t0,why"
    assert session.handle("sample", {"row": 0})["note"] == "why"
    assert not reopen(session, tmp_path).fixes.notes


def test_a_fixes_file_is_imported_once(tmp_path: Path) -> None:
    given = tmp_path / "given.csv"
    given.write_text(f"sample_id,new_label\n{A},invalid\n{B},stop\n")
    session = open_session(tmp_path / "out", fixes=str(given))
    assert lines(session) == {A: "invalid", B: "stop"}
    mark(session, (A, None), base_revision=1)
    again = reopen(session, tmp_path / "out", fixes=str(given))
    assert lines(again) == {B: "stop"}, "the same file does not restore a mark that was removed"
    given.write_text(f"sample_id,new_label\n{A},invalid\n{B},limit 20\n{C},invalid\n")
    third = reopen(again, tmp_path / "out", fixes=str(given))
    assert lines(third) == {B: "stop", C: "invalid"}, "what was decided here stays"
    response = {one["sample_id"]: one for one in third.handle("describe", {})["conflicts"]}
    assert set(response) == {A, B} and third.store.mark_name(response[B]["wanted"], 1) == "limit 20", (
        "and can be decided"
    )
    third.handle("dismiss_conflicts", {"rows": [response[A]["row"]]})
    mark(third, (B, "limit 20"), base_revision=response[B]["revision"])
    assert third.handle("describe", {})["conflicts"] == []


def test_an_edited_fixes_file_is_imported_and_a_copy_kept(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    mark(session, (A, "invalid"), (B, "stop"))
    path = tmp_path / "fixes.csv"
    rows = list(csv.reader(path.open()))
    rows[1][1] = "limit 100"
    path.write_text("\n".join(",".join(row) for row in [rows[0], rows[1], [C, "limit 20"]]) + "\n")
    edited = path.read_text()
    again = reopen(session, tmp_path)
    assert lines(again) == {A: "limit 100", C: "limit 20"} and "changed outside" in again.fixes.notes[0]
    assert next(tmp_path.glob("fixes-2*.csv")).read_text() == edited
    third = reopen(again, tmp_path)
    assert lines(third) == {A: "limit 100", C: "limit 20"} and not third.fixes.notes
    path.write_text("sample_id,new_label\nnowhere.jpg,stop\n")
    with pytest.raises(FixesError, match=r"nowhere\.jpg"):
        reopen(third, tmp_path)
    assert path.read_text() == "sample_id,new_label\nnowhere.jpg,stop\n", (
        "a file that cannot be used is not overwritten"
    )


def test_marks_of_samples_that_are_missing_or_relabeled(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    mark(session, (A, "invalid"), (B, "stop"), (C, "limit 20"))
    table = table_of().drop(index=A)
    table.loc[B, "label"], table.loc[C, "label"] = "limit 20", "limit 20"
    again = reopen(session, tmp_path, table=table)
    assert lines(again) == {} and len(again.store.missing) == 1 and again.store.stale == {B}
    assert any("no longer in the data" in note for note in again.fixes.notes)
    assert lines(reopen(again, tmp_path)) == {A: "invalid", B: "stop", C: "limit 20"}, "the journal kept them"


@pytest.mark.parametrize("where", ["journal", "stamp", "fixes"])
def test_a_mark_that_could_not_be_saved_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    session = open_session(tmp_path)
    mark(session, (A, "invalid"))
    journal = (tmp_path / "journal.jsonl").read_bytes()
    real, calls = os.fsync, {"journal": 1, "fixes": 2, "stamp": 3}
    count = 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == calls[where]:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    wanted = {"marks": [{"sample_id": B, "new_label": "stop"}], "request_id": "r"}
    status, response = session.respond("marks", wanted)
    assert status == 507 and "No space" in response["error"] and count >= calls[where]
    monkeypatch.setattr(os, "fsync", real)
    view = session.handle("view", {"group_by": "all", "sort_by": "visual"})["view"]
    assert sorted(session.handle("block", {"view": view, "number": 0})["marks"]) == [INVALID_CODE, *[NONE] * 89]
    assert (tmp_path / "journal.jsonl").read_bytes() == journal and lines(session) == {A: "invalid"}
    assert session.store.steps("anna") == (1, 0) and not list(tmp_path.glob(".mlfix-*"))
    again = reopen(session, tmp_path)
    assert lines(again) == {A: "invalid"}
    assert again.handle("marks", wanted)["saved"] == 1, "the page sends the same request again"
    assert lines(reopen(again, tmp_path)) == {A: "invalid", B: "stop"}


def test_a_fixes_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(tmp_path)
    real = os.replace

    def refused(*_: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match="Permission"):
        mark(session, (A, "invalid"), base_revision=0)
    monkeypatch.setattr(os, "ftruncate", refused)  # what failed cannot even be taken back
    with pytest.raises(OSError, match="Permission"):
        mark(session, (A, "stop"), base_revision=0)
    monkeypatch.undo()
    assert not session.store.is_marked.any() and real is os.replace
    response = mark(session, (A, "invalid"), base_revision=0)  # the page tries again
    assert not response["conflicts"] and lines(reopen(session, tmp_path)) == {A: "invalid"}


@pytest.mark.parametrize("behind", [1, 2, 3, 50])
@pytest.mark.parametrize("stamp", [True, False])
def test_a_fixes_file_behind_the_journal_is_not_newer(tmp_path: Path, behind: int, stamp: bool) -> None:
    """The disk was full for the file but not for the journal, or the file's last writes were lost."""
    session, ids = open_session(tmp_path), table_of().index
    mark(session, (ids[60], "invalid"))
    old = {name: (tmp_path / name).read_bytes() for name in ("fixes.csv", ".fixes.json")}
    for number in range(behind):
        mark(session, (ids[number], "invalid"), reviewer=f"reviewer {number % 4}")
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    if not stamp:
        (tmp_path / ".fixes.json").unlink()
    again = reopen(session, tmp_path)
    assert len(lines(again)) == behind + 1 and not again.fixes.notes
    assert not list(tmp_path.glob("fixes-*.csv")) and len(lines(reopen(again, tmp_path))) == behind + 1


def test_an_edit_of_a_file_behind_the_journal_keeps_what_it_did_not_have(tmp_path: Path) -> None:
    session, ids = open_session(tmp_path), table_of().index
    mark(session, (A, "invalid"), (B, "stop"))
    old = {name: (tmp_path / name).read_bytes() for name in ("fixes.csv", ".fixes.json")}
    for name in ids[10:40]:
        mark(session, (name, "invalid"))
    mark(session, (B, "limit 20"))
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    rows = list(csv.reader((tmp_path / "fixes.csv").open()))
    edited = [rows[0], *(row for row in rows if row[0] == B), [C, "limit 20", "", "", "", ""]]  # A removed, C added
    (tmp_path / "fixes.csv").write_text("\n".join(",".join(row) for row in edited) + "\n")
    again = reopen(session, tmp_path)
    assert lines(again) == {**dict.fromkeys(ids[10:40], "invalid"), B: "limit 20", C: "limit 20"}
    assert "1 marks imported from it, 1 removed" in again.fixes.notes[0]


def test_a_fixes_file_put_in_place_of_the_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An earlier version of the own one is not newer; that of another review is imported, with its stamp or without."""
    session = open_session(tmp_path / "a")
    mark(session, (A, "invalid"))
    early = (tmp_path / "a/fixes.csv").read_bytes()
    for name in (B, C):
        mark(session, (name, "invalid"))
    session.close()
    (tmp_path / "a/fixes.csv").write_bytes(early)
    again = open_session(tmp_path / "a")
    assert lines(again) == dict.fromkeys((A, B, C), "invalid") and not again.fixes.notes
    assert "an earlier version of itself" in caplog.text
    assert next((tmp_path / "a").glob("fixes-2*.csv")).read_bytes() == early
    other = open_session(tmp_path / "b")
    mark(other, (C, "limit 100"))
    other.close()
    (tmp_path / "a/fixes.csv").write_bytes((tmp_path / "b/fixes.csv").read_bytes())
    third = reopen(again, tmp_path / "a")
    assert lines(third) == {C: "limit 100"} and "1 marks imported from it, 2 removed" in third.fixes.notes[0]
    mark(third, (A, "stop"))
    for name in ("fixes.csv", ".fixes.json"):
        (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    fourth = reopen(third, tmp_path / "a")
    assert lines(fourth) == {A: "stop", C: "limit 100"} and "the journal lacks: 0" in fourth.fixes.notes[0]


def test_a_review_opens_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(tmp_path)
    mark(session, (A, "invalid"))
    (tmp_path / "fixes.csv").unlink()
    real = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    again = reopen(session, tmp_path)
    assert "can't be written (No space left on device)" in again.fixes.notes[0]
    assert again.respond("marks", {"marks": [{"sample_id": B, "new_label": "stop"}]})[0] == 507
    monkeypatch.setattr(os, "fsync", real)
    mark(again, (B, "stop"))
    assert lines(again) == {A: "invalid", B: "stop"}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        open_session(tmp_path / "new")


def test_temporary_files_of_killed_servers_are_removed(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    mark(session, (A, "invalid"))
    folders = [tmp_path, tmp_path / ".sprites"]
    for folder in folders:
        (folder / f".mlfix-{'a' * 16}.tmp").write_bytes(b"of a killed server")
        (folder / ".others.tmp").touch()
    with atomic_path(tmp_path / ".sprites/x.jpg") as in_use:
        in_use.touch()
        again = reopen(session, tmp_path)
        assert {path.name for folder in folders for path in folder.glob(".*.tmp")} == {in_use.name, ".others.tmp"}
    assert (tmp_path / ".sprites/x.jpg").exists() and lines(again) == {A: "invalid"}


def test_new_labels_only_where_they_are_allowed(tmp_path: Path) -> None:
    session = open_session(tmp_path / "a")
    with pytest.raises(RequestError, match="no sample has the label 'limit 2'"):
        mark(session, (A, "limit 2"))
    other = open_session(tmp_path / "b", ignore=("new_labels",))
    mark(other, (A, "yield"), (B, "yield"))
    again = reopen(other, tmp_path / "b", ignore=("new_labels",))
    assert lines(again) == {A: "yield", B: "yield"} and "yield" in again.samples.labels
    for invalid in ("", " yield", "a\nb", "x" * 300):
        with pytest.raises(RequestError):
            mark(again, (A, invalid))


def test_labels_with_special_characters(tmp_path: Path) -> None:
    labels = ('a,"b"', "c\rd", "=1+1", "停止", "<b>x</b>")
    table = table_of(25, labels)
    session = open_session(tmp_path, table)
    names = table.index.tolist()
    mark(session, *((name, labels[(i + 1) % 5]) for i, name in enumerate(names[:5])))
    fixes = match_fixes(read_fixes(session.fixes_path), table)
    assert fixes["new_label"].tolist() == [labels[(i + 1) % 5] for i in range(5)]
    again = reopen(session, tmp_path, table=table)
    assert [again.store.mark_name(int(code), row) for row, code in enumerate(again.store.marks[:5])] == fixes[
        "new_label"
    ].tolist()


def test_twenty_thousand_marks_are_kept(tmp_path: Path) -> None:
    table = table_of(20_000)
    session = open_session(tmp_path, table)
    for start in range(0, 20_000, 4000):
        mark(session, *((name, "invalid") for name in table.index[start : start + 4000]))
    again = reopen(session, tmp_path, table=table)
    assert (again.store.marks < -1).all() and len(pd.read_csv(tmp_path / "fixes.csv")) == 20_000
    assert np.unique(again.store.revisions).tolist() == [1, 2, 3, 4, 5]
    again.close()


def test_a_lost_journal_does_not_take_the_fixes_with_it(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    mark(session, (A, "invalid"), (B, "stop"))
    session.close()
    (tmp_path / "journal.jsonl").rename(tmp_path / "elsewhere")
    again = open_session(tmp_path)
    assert lines(again) == {A: "invalid", B: "stop"} and again.fixes.notes[0].endswith("marks: 2.")
    mark(again, (C, "limit 20"))
    again.close()
    entries = (tmp_path / "journal.jsonl").read_text().splitlines()
    (tmp_path / "journal.jsonl").write_text("\n".join(entries[:-1]) + "\n")  # a line removed, as the error suggests
    third = open_session(tmp_path)
    assert lines(third) == {A: "invalid", B: "stop", C: "limit 20"} and "the journal lacks" in third.fixes.notes[0]


def test_an_emptied_fixes_file_does_not_take_the_marks_with_it(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    mark(session, *((name, "invalid") for name in table_of().index[:40]))
    session.close()
    for content in ("sample_id,new_label\n", ""):
        (tmp_path / "fixes.csv").write_text(content)
        with pytest.raises(FixesError, match=r"delete it, and it is rewritten from the journal"):
            open_session(tmp_path)
        assert (tmp_path / "fixes.csv").read_text() == content
    (tmp_path / "fixes.csv").unlink()
    assert len(lines(open_session(tmp_path))) == 40


def test_an_edit_during_the_review_is_backed_up(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    mark(session, (A, "invalid"))
    (tmp_path / "fixes.csv").write_text("sample_id,new_label\nstop/002.jpg,invalid\n")
    mark(session, (B, "stop"))
    assert lines(session) == {A: "invalid", B: "stop"}
    assert next(tmp_path.glob("fixes-2*.csv")).read_text() == "sample_id,new_label\nstop/002.jpg,invalid\n"


def test_a_review_of_other_data_is_refused(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    mark(session, (A, "invalid"))
    before = (tmp_path / "fixes.csv").read_text()
    with pytest.raises(DataError, match="a review of other data"):
        reopen(session, tmp_path, table=table_of(labels=("x", "y")))
    assert (tmp_path / "fixes.csv").read_text() == before


def test_a_repeated_request_changes_nothing(tmp_path: Path) -> None:
    """The response was lost, so the page repeats the request; a second undo would go one step too far."""
    session = open_session(tmp_path)
    for name in (A, B, C):
        mark(session, (name, "invalid"))
    for _ in range(3):
        response = session.handle("undo", {"request_id": "u1"})
    assert lines(session) == {A: "invalid", B: "invalid"} and response["rows"] == [2]
    again = reopen(session, tmp_path)
    again.handle("undo", {"request_id": "u1"})
    assert lines(again) == {A: "invalid", B: "invalid"}, "nor after a restart"
    wanted = {
        "marks": [{"sample_id": C, "new_label": "limit 20", "base_revision": int(again.store.revisions[2])}],
        "request_id": "m1",
    }
    first, second = again.handle("marks", wanted), again.handle("marks", wanted)
    assert not second["conflicts"] and second["revisions"] == first["revisions"]
    again.handle(
        "marks",
        {"marks": [{"sample_id": C, "new_label": None, "base_revision": second["revisions"][0]}], "request_id": "m2"},
    )
    mark(again, (C, "invalid"), base_revision=int(again.store.revisions[2]))
    again.handle("marks", wanted)
    assert lines(again)[C] == "invalid", "an old request is not repeated"


def test_undo_leaves_the_same_mark_of_someone_else(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    response = mark(session, (A, "invalid"))
    response = mark(session, (A, None), reviewer="bert", base_revision=response["revision"])
    mark(session, (A, "invalid"), reviewer="bert", base_revision=response["revision"])
    assert session.handle("undo", {"reviewer": "anna"})["saved"] == 0 and lines(session) == {A: "invalid"}


def test_marking_as_reviewed_twice_is_two_steps(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    mark(session, (A, "invalid"))
    view = session.handle("view", {"group_by": "label", "group_order": "name"})["view"]
    for _ in range(2):
        session.handle("review_group", {"view": view, "group": 0})
    session.handle("undo", {})
    assert lines(session) == {A: "invalid"} and session.store.group_reviewed.sum() == 30, "the second time is undone"
    random = session.handle("view", {"group_by": "random"})["view"]
    session.handle("review_group", {"view": random, "group": 0})
    session.handle("undo", {})
    assert session.store.group_reviewed.sum() == 30 and not session.store.random_reviewed.any(), (
        "what was reviewed before stays so"
    )


def test_new_labels_of_two_people(tmp_path: Path) -> None:
    session = open_session(tmp_path, ignore=("new_labels",))
    known = len(session.samples.labels)
    first = session.handle("add_label", {"name": "bobs", "known_labels": known, "reviewer": "bob"})
    second = session.handle("add_label", {"name": "annas", "known_labels": known, "reviewer": "anna"})
    assert first["code"] == known and second["code"] == known + 1 and second["labels"] == ["bobs", "annas"]
    for wrong in ("", " x", "invalid", 7, "a\nb"):
        with pytest.raises(RequestError):
            session.handle("add_label", {"name": wrong, "known_labels": known})


@pytest.mark.parametrize("name", ["Eva 👩\u200d💻", "Jo\u00a0Ann", "李", "x" * 80])
def test_reviewer_names_in_any_script(tmp_path: Path, name: str) -> None:
    session = open_session(tmp_path)
    mark(session, (A, "invalid"), reviewer=name)
    assert reopen(session, tmp_path).handle("sample", {"row": 0})["reviewer"] == name


def test_conflicts_can_be_resolved_while_a_page_opens(tmp_path: Path) -> None:
    """One person resolves a conflict with the fixes file while the page of another lists them."""
    fixes = tmp_path / "given.csv"
    fixes.write_text(f"sample_id,new_label\n{A},stop\n{B},stop\n{C},limit 20\n")
    first = open_session(tmp_path / "out")
    mark(first, (A, "invalid"), (B, "invalid"), (C, "invalid"))
    session = reopen(first, tmp_path / "out", fixes=str(fixes))
    describe_conflict, rows = session._conflict, [0, 1, 2]

    def resolve_then_describe(row: int, wanted: int | None) -> dict[str, Any]:
        if rows:
            other = threading.Thread(target=session.handle, args=("dismiss_conflicts", {"rows": [rows.pop()]}))
            other.start()
            other.join(timeout=10)
            assert not other.is_alive()
        return describe_conflict(row, wanted)

    session._conflict = resolve_then_describe  # type: ignore[method-assign]
    assert [one["sample_id"] for one in session.handle("describe", {})["conflicts"]] == [A, B, C]
    assert session.handle("describe", {})["conflicts"] == []


def test_two_threads_that_add_a_label_get_one_code(tmp_path: Path) -> None:
    session = open_session(tmp_path, ignore=("new_labels",))
    samples, known = session.samples, len(session.samples.labels)
    both_looked = threading.Barrier(2)

    class SlowCodes(dict[str, int]):
        def __contains__(self, name: object) -> bool:
            found = super().__contains__(name)
            with contextlib.suppress(threading.BrokenBarrierError):
                both_looked.wait(timeout=0.2)  # as if the other thread ran between the check and the change
            return found

    samples.code = SlowCodes(samples.code)
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(samples.add_label("yield"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [known, known] and samples.labels[known:] == ["yield"]


def test_unsure_and_keep_are_answers_that_change_no_label(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    response = session.handle(
        "marks", {"marks": [{"sample_id": A, "new_label": "unsure"}, {"sample_id": B, "keep": True}]}
    )
    assert response["marks"] == [-3, -4] and lines(session) == {A: "unsure", B: "limit 100"}
    mark(session, (C, "invalid"))
    progress = session.handle("progress", {})
    assert [progress[name] for name in ("reviewed", "marked", "unsure", "kept")] == [3, 1, 1, 1]
    fixes = match_fixes(read_fixes(session.fixes_path), table_of())
    assert fixes["new_label"].to_dict() == {C: "invalid"}, "training ignores the others"
    session = reopen(session, tmp_path)
    assert session.store.marks[:3].tolist() == [-3, -4, -2] and not session.fixes.notes
    session.handle("undo", {})
    session.handle("undo", {})
    assert lines(session) == {}
    session.handle("redo", {})
    assert lines(session) == {A: "unsure", B: "limit 100"}
    mark(session, (B, None))
    assert lines(session) == {A: "unsure"}
    start = open_session(tmp_path / "next", fixes=str(session.fixes_path))
    assert start.store.marks[:2].tolist() == [-3, -1]


def test_a_label_may_be_called_unsure(tmp_path: Path) -> None:
    session = open_session(tmp_path, table_of(labels=("unsure", "stop")))
    name = session.samples.ids[1]
    mark(session, (name, "unsure"))
    assert not session.handle("describe", {})["has_unsure"]
    assert session.store.is_wrong[1] and session.samples.labels[session.store.marks[1]] == "unsure"
    fixes = match_fixes(read_fixes(session.fixes_path), table_of(labels=("unsure", "stop")))
    assert fixes["new_label"].to_dict() == {name: "unsure"}
