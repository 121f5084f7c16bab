"""Fixes from FiftyOne's, Label Studio's and cleanlab's files: read, matched to samples, and mistakes named."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlfix_train.data.fixes.table import match_fixes, read_fixes
from mlfix_train.data.samples import make_table
from mlfix_train.errors import FixesError

IDS = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", "c/deep/1.png"]


@pytest.fixture
def table() -> pd.DataFrame:
    return make_table(IDS, [f"/pictures/signs/{name}" for name in IDS], ["a", "a", "b", "b", "c"])


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def changes(path: Path, table: pd.DataFrame) -> dict[str, str]:
    return match_fixes(read_fixes(path), table, ["empty_labels"])["new_label"].to_dict()


def test_fiftyone_labels_by_full_path_by_name_and_by_number(tmp_path: Path, table: pd.DataFrame) -> None:
    full = {
        "classes": None,
        "labels": {"/pictures/signs/a/1.jpg": {"label": "b", "confidence": 0.3}, "/pictures/signs/a/2.jpg": "a"},
    }
    assert changes(write(tmp_path / "labels.json", full), table) == {"a/1.jpg": "b"}, "what is as given is no fix"
    stems = {"classes": ["a", "b", "invalid"], "labels": {"a/1": 2, "b/1": 1, "c/deep/1": 0, "b/2": None}}
    assert changes(write(tmp_path / "stems.json", stems), table) == {"a/1.jpg": "invalid", "c/deep/1.png": "a"}
    elsewhere = {"classes": None, "labels": {"/elsewhere/signs/a/2.jpg": {"label": "c"}}}
    assert changes(write(tmp_path / "moved.json", elsewhere), table) == {"a/2.jpg": "c"}


def test_fiftyone_samples_with_tags(tmp_path: Path, table: pd.DataFrame) -> None:
    samples = [
        {
            "filepath": "/pictures/signs/a/1.jpg",
            "tags": ["invalid"],
            "ground_truth": {"_cls": "Classification", "label": "a"},
        },
        {"filepath": "signs/b/1.jpg", "tags": [], "ground_truth": {"_cls": "Classification", "label": "c"}},
        {"filepath": "signs/b/2.jpg", "ground_truth": {"label": "b"}},
        {"filepath": "signs/a/2.jpg", "ground_truth": {"label": None}},
    ]
    assert changes(write(tmp_path / "samples.json", {"samples": samples}), table) == {
        "a/1.jpg": "invalid",
        "b/1.jpg": "c",
    }


def task(name: str, *choices: str, **more: Any) -> dict[str, Any]:
    result = [{"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": list(choices)}}]
    annotation = {
        "completed_by": {"id": 3, "email": "ann@example.org"},
        "updated_at": "2026-01-02T03:04:05Z",
        "was_cancelled": False,
        "result": result if choices else [],
    }
    return {"id": 1, "data": {"image": f"/data/local-files/?d=signs/{name}"}, "annotations": [annotation | more]}


def test_label_studio(tmp_path: Path, table: pd.DataFrame) -> None:
    by_id = task("x", "c")
    by_id["data"] |= {"sample_id": "a/2.jpg"}
    tasks = [
        task("a/1.jpg", "b"),
        by_id,
        task("b/1.jpg", "b"),
        task("b/2.jpg"),
        task("b/2.jpg", "a", was_cancelled=True),
    ]
    path = write(tmp_path / "project-1.json", tasks)
    fixes = match_fixes(read_fixes(path), table, ["empty_labels"])
    assert fixes["new_label"].to_dict() == {"a/1.jpg": "b", "a/2.jpg": "c"}
    assert fixes.loc["a/1.jpg", "reviewer"] == "ann@example.org"
    assert fixes.loc["a/1.jpg", "time"] == "2026-01-02T03:04:05Z"
    small = [
        {"image": "http://localhost/signs/a/1.jpg", "label": "invalid", "annotator": 7, "id": 1},
        {"image": "x", "sample_id": "b/1.jpg", "choice": "c"},
        {"image": "signs/b/2.jpg"},
    ]
    assert changes(write(tmp_path / "min.json", small), table) == {"a/1.jpg": "invalid", "b/1.jpg": "c"}


def test_a_file_of_label_studios_target_storage(tmp_path: Path, table: pd.DataFrame) -> None:
    whole = task("a/1.jpg", "b")
    annotation = {**whole["annotations"][0], "task": {"id": 1, "data": whole["data"]}}
    for number, content in enumerate((whole, annotation, [whole])):
        (tmp_path / str(number)).write_text(json.dumps(content))  # its name has no suffix
        assert changes(tmp_path / str(number), table) == {"a/1.jpg": "b"}


def test_label_studios_csv(tmp_path: Path, table: pd.DataFrame) -> None:
    path = tmp_path / "project-1.csv"
    head = "annotation_id,annotator,choice,created_at,id,image,lead_time,updated_at\n"
    path.write_text(
        head + "4,ann,b,t0,1,/data/upload/4/cb0618f6-1.png,2.5,t1\n5,ann,,t0,2,/data/upload/4/ab0618f6-2.jpg,2.5,t1\n"
    )
    fixes = match_fixes(read_fixes(path), table, ["empty_labels"])
    assert fixes[["new_label", "reviewer", "time", "row"]].to_dict("index") == {
        "c/deep/1.png": {"new_label": "b", "reviewer": "ann", "time": "t1", "row": 2}
    }
    path.write_text(head + """4,ann,"{""choices"":[""a"",""b""]}",t0,1,x.jpg,2.5,t1\n""")
    with pytest.raises(FixesError, match=r"task 1 \(x\.jpg\) has several choices: a, b"):
        read_fixes(path)


def test_several_choices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FixesError, match=r"task 1 .*has several choices: b, c"):
        read_fixes(write(tmp_path / "t.json", [task("a/1.jpg", "b", "c")]))
    with pytest.raises(FixesError, match=r"task 1 .*has several choices: b, c"):
        read_fixes(write(tmp_path / "m.json", [{"image": "a/1.jpg", "choice": {"choices": ["b", "c"]}}]))


def test_two_annotators_who_differ_are_a_conflict(tmp_path: Path, table: pd.DataFrame) -> None:
    both = task("a/1.jpg", "b")
    both["annotations"] += task("a/1.jpg", "c")["annotations"]
    with pytest.raises(FixesError, match="two different new labels"):
        changes(write(tmp_path / "t.json", [both]), table)


def test_cleanlabs_table(tmp_path: Path, table: pd.DataFrame, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "issues.csv"
    path.write_text(
        "sample_id,is_label_issue,label_score,given_label,predicted_label,corrected_label\n"
        "a/1.jpg,True,0.01,a,b,c\na/2.jpg,True,0.02,a,b,\nb/1.jpg,False,0.9,b,b,\nb/2.jpg,False,0.9,b,b,a\n"
    )
    assert changes(path, table) == {"a/1.jpg": "c", "b/2.jpg": "a"}
    path.write_text("sample_id,is_label_issue,label_score\na/1.jpg,True,0.01\nb/1.jpg,False,0.9\n")
    assert changes(path, table) == {"a/1.jpg": "invalid"}
    assert "no person has reviewed" in caplog.text
    path.write_text("is_label_issue,label_score\nTrue,0.1\n")
    with pytest.raises(FixesError, match="has no column sample_id, but is_label_issue, label_score"):
        read_fixes(path)
    path.write_text("sample_id,is_label_issue\na/1.jpg,perhaps\n")
    with pytest.raises(FixesError, match="line 2 has is_label_issue='perhaps'"):
        read_fixes(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"boxes": []}, "not a known kind of fixes file"),
        (3, "not a known kind"),
        ([1, 2], "not a known kind"),
        ({"samples": [{"tags": []}]}, "sample 1 has no filepath"),
        ({"samples": [{"filepath": "x.jpg", "boxes": {}}]}, "any of the fields ground_truth"),
        ({"classes": ["a"], "labels": {"x": 4}}, "label number 4, but there are 1 classes"),
        ([{"id": 3, "annotations": []}], "task 1 has no sample_id"),
        ({"labels": {"a/1.jpg": ""}}, "empty label"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(FixesError, match=message):
        read_fixes(write(tmp_path / "f.json", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"data": {"image": "x"}, "annotations": [None]}], "task 1 .*a malformed annotation"),
        ([{"data": {"image": "x"}, "annotations": [{"result": "q"}]}], "a malformed annotation"),
        ({"labels": {"a": 0}, "classes": 5}, "classes is not a list"),
        ({"labels": {"a": ["nan"]}}, "which is not text"),
        ({"samples": [{"filepath": "x.jpg", "ground_truth": "a"}]}, "no label in any of the fields"),
        ({"suggested_by": "mlfix audit", "labels": {"a/1.jpg": "b"}}, "contains suggestions of mlfix"),
    ],
)
def test_odd_shapes_are_the_files_fault_and_not_ours(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(FixesError, match=message):
        read_fixes(write(tmp_path / "f.json", content))


def test_what_nobody_labelled_is_passed_over(tmp_path: Path, table: pd.DataFrame) -> None:
    samples = [
        {"filepath": "signs/a/1.jpg", "ground_truth": None},
        {"filepath": "signs/a/2.jpg", "tags": "invalid", "ground_truth": {"label": "b"}},
    ]
    assert changes(write(tmp_path / "s.json", {"samples": samples}), table) == {"a/2.jpg": "b"}
    tasks = [
        {"data": {"image": "signs/a/1.jpg"}, "annotations": [{"result": ["q"]}]},
        {"image": "signs/b/1.jpg", "label": ["c"]},
    ]
    assert changes(write(tmp_path / "t.json", tasks), table) == {"b/1.jpg": "c"}
    half = tmp_path / "half.csv"
    half.write_text("sample_id,is_label_issue,corrected_label\na/1.jpg,True,\na/2.jpg,True,b\n")
    assert changes(half, table) == {"a/2.jpg": "b"}, "an empty cell is not reviewed yet"
    half.write_text("sample_id,is_label_issue,suspicion,rank\na/1.jpg,True,0.9,1\n")
    with pytest.raises(FixesError, match="a ranking of mlfix audit, which nobody has reviewed"):
        read_fixes(half)


def test_no_json_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text("{")
    with pytest.raises(FixesError, match=r"f\.json can't be read as JSON"):
        read_fixes(tmp_path / "f.json")
    with pytest.raises(FixesError, match="does not exist"):
        read_fixes(tmp_path / "none.json")


def test_unknown_samples_and_labels_are_told(tmp_path: Path, table: pd.DataFrame) -> None:
    with pytest.raises(FixesError, match="isn't in the data"):
        changes(write(tmp_path / "f.json", {"labels": {"/pictures/signs/a/9.jpg": "b"}}), table)
    with pytest.raises(FixesError, match="a new_label that no sample has"):
        changes(write(tmp_path / "f.json", {"labels": {"/pictures/signs/a/1.jpg": "bb"}}), table)


def test_label_studio_tasks_that_nobody_reviewed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    predicted = {"data": {"image": "a/1.jpg"}, "predictions": [{"result": [{"value": {"choices": ["b"]}}]}]}
    with pytest.raises(FixesError, match=r"(?s)none of the 2 tasks has an annotation; 1 have predictions.*submit each"):
        read_fixes(write(tmp_path / "t.json", [predicted, {"data": {"image": "b/1.jpg"}, "annotations": []}]))
    with caplog.at_level(logging.INFO):
        assert len(read_fixes(write(tmp_path / "t.json", [predicted, task("b/1.jpg", "c")]))) == 1
    assert "1 of 2 tasks are not annotated" in caplog.text
    with pytest.raises(
        FixesError, match=r"(?s)no task has a field label, choice, choices; there are image, sign.*Choices"
    ):
        read_fixes(write(tmp_path / "m.json", [{"image": "a/1.jpg", "sign": "b", "annotation_id": 4}]))
