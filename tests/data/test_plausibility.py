"""One look over the labels and boxes: what is unlikely is named, and normal data give no false alarm."""

from __future__ import annotations

import unicodedata

import pandas as pd
import pytest

from mlfix_train.data.plausibility import check_boxes, check_samples
from mlfix_train.data.readers.gtsrb import LABELS
from mlfix_train.data.samples import make_table
from mlfix_train.errors import DataError

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COCO = ("person", "bicycle", "car", "train", "traffic light", "stop sign", "hot dog", "potted plant", "tv", "book")
MTSD = tuple(
    f"{kind}--{name}--g{n}"
    for kind in ("regulatory", "warning", "information", "complementary")
    for name in ("keep-right", "keep-left", "no-entry", "stop", "yield", "maximum-speed-limit-30", "curve-left")
    for n in range(1, 16)
)
IMAGENET = ("tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "maillot", "maillot, tank suit")
TREE = tuple(f"{kind}|{name}{kind[0]}" for kind in ("animal", "vehicle") for name in ("a", "b", "c", "d"))


def table(labels: list[str], repeat: int = 5) -> pd.DataFrame:
    labels = [label for label in labels for _ in range(repeat)]
    ids = [f"{i}.jpg" for i in range(len(labels))]
    return make_table(ids, ids, labels)


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        CIFAR10,
        COCO,
        (*MTSD[:401], "other-sign"),
        tuple(map(str, range(1, 44))),
        ("0", "1"),
        ("1.0", "2.0"),
        IMAGENET,
        TREE,
        ("007", "NA", "None", "null", "true", "1.10", "nan"),
        ("train", "bus", "car"),
        ("red, large", "red, small", "blue, large", "blue, small"),
        ("ß", "ss-21"),
    ],
)
def test_normal_labels_give_no_note(labels: tuple[str, ...]) -> None:
    assert check_samples(table(list(labels)), "data") == []


@pytest.mark.parametrize(
    ("labels", "problem", "hint"),
    [
        (["train", "val"], r"called 'train' \(5 samples\), 'val' \(5 samples\)", "one folder per label"),
        (
            ["0.13", "0.57", "1.92", "2.4", "0.131", "7"] * 5 + [f"{i / 7:.3f}" for i in range(30)],
            "regression",
            "range",
        ),
        (['["a", "b"]', '["a"]', '["b"]'], r"are lists, such as \[\"a\", \"b\"\]", "multi-label"),
        (["['a', 'b']", "['a']"], "are lists", "multi-label"),
        (["a|b", "b|c", "a|c", "a"], r"have several labels, separated by '\|', such as 'a\|b'", "multi-label"),
        (["a;b", "b;c;a", "c"], "separated by ';'", "multi-label"),
        (["cat,dog", "dog,cat", "cat"], "separated by ','", "multi-label"),
    ],
)
def test_labels_that_are_no_classes_are_refused_by_name(labels: list[str], problem: str, hint: str) -> None:
    data = table(labels)
    with pytest.raises(DataError, match=rf"^data\.root=d: .*{problem}") as error:
        check_samples(data, "data.root=d")
    assert hint in error.value.hint
    notes = check_samples(data, "data.root=d", uses_labels=False)
    assert error.value.problem in notes[0], "where labels are only shown, it is a note"


def test_names_of_files_as_labels() -> None:
    with pytest.raises(DataError, match=r"30 different labels for 30 samples, such as img0\.jpg"):
        check_samples(table([f"img{i}.jpg" for i in range(30)], 1), "data")
    (note,) = check_samples(table([f"id{i // 2 if i < 28 else i}" for i in range(40)], 1), "data")
    assert "26 different labels for 40 samples" in note
    with pytest.raises(DataError, match="regression target"):
        check_samples(table([f"{i / 7:.3f}" for i in range(10)], 1), "data")


@pytest.mark.parametrize(
    ("labels", "parts"),
    [
        (["cat", "dog", "test"], ["'test' (5 samples)", "move them out"]),
        (["cat", "train", "val", "docs"], ["'train'", "'val'", "'docs' (5 samples)"]),
        (["cat", "dog", "unlabeled"], ["'unlabeled' (5 samples)"]),
        (["stop", "Stop", "go"], ["differ only by case: 'stop' (5 samples), 'Stop' (5 samples)", "one name"]),
        (["speed limit", "speed  limit", "go"], ["differ only by blanks or Unicode form"]),
        (["1.5", "2.5", "3"], ["numbers with decimals, such as 1.5, 2.5", "counts as a class"]),
        (["1.10", "1.20", "1.30"], ["numbers with decimals, such as 1.10, 1.20, 1.30", "counts as a class"]),
        (["30", "50", "1.5"], ["numbers with decimals, such as 1.5", "counts as a class"]),
        (["a|b", "a", "a", "b", "b", "c"], ["5 of 30 samples have several labels", "a label of its own"]),
    ],
)
def test_notes_name_the_value_and_a_remedy(labels: list[str], parts: list[str]) -> None:
    (note,) = check_samples(table(labels), "data.file=t.csv")
    assert note.startswith("data.file=t.csv: ")
    missing = [part for part in parts if part not in note]
    assert not missing, note


def test_labels_in_two_unicode_forms(caplog: pytest.LogCaptureFixture) -> None:
    """A table of another reader's is noted; make_table takes them as one."""
    forms = [unicodedata.normalize(form, "Überholverbot") for form in ("NFC", "NFD")]
    assert table([*forms, "stop"])["label"].unique().tolist() == [forms[0], "stop"]
    assert "two Unicode forms (NFC and NFD), which are taken as one: Überholverbot" in caplog.text
    own = table(["a", "b", "c"])
    own["label"] = [*[forms[0]] * 5, *[forms[1]] * 5, *["stop"] * 5]
    assert "differ only by Unicode form" in check_samples(own, "data")[0]


def test_labels_of_one_sample() -> None:
    data = pd.concat([table(["a", "b"], 12), table(["c"], 1).rename(index={"0.jpg": "x.jpg"})])
    (note,) = check_samples(data, "data")
    assert "1 label(s) have one sample: c" in note


def test_missing_labels_are_named() -> None:
    data = table(["a", "b"], 12)
    assert check_samples(data.assign(label=None), "data") == [], "there are none to use"
    data.loc["3.jpg", "label"] = None
    (note,) = check_samples(data, "data")
    assert "1 of 24 samples have no label: 3.jpg" in note


def boxes(n: int, same: bool = False, per_photo: int = 2) -> pd.DataFrame:
    rows = [
        {"photo": f"p{i // per_photo}", "label": "abc"[i % 3], "x_min": 0 if same else i, "y_min": 0, "x_max": 9 + i}
        for i in range(n)
    ]
    frame = pd.DataFrame(rows).assign(y_max=9, problem="")
    return pd.concat([frame, frame]) if same else frame


def test_boxes() -> None:
    assert check_boxes(boxes(60), 30) == []
    assert "60 of 120 boxes are exactly another one, such as 'a' in p0" in check_boxes(boxes(60, same=True), 30)[0]
    assert "there are 600 boxes per photo, 600 in p0" in check_boxes(boxes(600, per_photo=600), 1)[0]
    assert check_boxes(boxes(6).assign(problem="no area"), 3) == []
