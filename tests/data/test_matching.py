"""Names that are spelled in two ways are matched where that is certain, and only there."""

from __future__ import annotations

import logging
import unicodedata

import pandas as pd
import pytest

from mlfix_train.data.matching import IdMatcher, name_key, spelled_alike
from mlfix_train.data.samples import make_table

IDS = ["stop/x1.jpg", "stop/ü 2.jpg", "go/x3.jpg", "go/deep/x4.png"]


def table(ids: list[str] = IDS) -> pd.DataFrame:
    return make_table(ids, [f"/data/signs/{name}" for name in ids], [name.split("/")[0] for name in ids])


def match(*names: str, ids: list[str] = IDS) -> dict[str, str]:
    return IdMatcher(table(ids)).match(names).ids


@pytest.mark.parametrize(
    ("one", "other"), [("1", "1.0"), ("stop", " stop "), ("é", "é"), ("007", "7"), ("-1", "-1.0"), ("1e2", "100")]
)
def test_names_that_are_the_same(one: str, other: str) -> None:
    assert name_key(one) == name_key(other)


@pytest.mark.parametrize(
    ("one", "other"), [("1", "1.5"), ("7_01", "701"), ("a b", "ab"), ("Stop", "stop"), ("nan", "0"), ("inf", "1")]
)
def test_names_that_are_not(one: str, other: str) -> None:
    assert name_key(one) != name_key(other)


def test_names_that_are_spelled_alike() -> None:
    assert spelled_alike(["1.0", "x", " go", "1"], ["1", "2", "go"]) == {"1.0": ["1"], "x": [], " go": ["go"]}


@pytest.mark.parametrize(
    "name",
    [
        "./a/b c.jpg",
        "a//b c.jpg",
        "/a/b c.jpg",
        "a\\b c.jpg",
        "C:\\a\\b c.jpg",
        "a/b%20c.jpg",
        "file:///a/b%20c.jpg",
        "https://x.org/a/b%20c.jpg?token=1",
        " a/b c.jpg ",
        "a/./b c.jpg",
    ],
)
def test_spellings_of_a_path(name: str) -> None:
    """They count beside names that are ids: the whole id is in them."""
    assert match("a/x.jpg", name, ids=["a/b c.jpg", "a/x.jpg", "b/b c.jpg"])[name] == "a/b c.jpg"


@pytest.mark.parametrize(
    "name",
    [
        "stop/x1.jpg",
        "./stop/x1.jpg",
        "stop\\x1.jpg",
        "/data/signs/stop/x1.jpg",
        "D:\\other\\signs\\stop\\x1.jpg",
        "https://host/signs/stop/x1.jpg",
        "x1.jpg",
        "x1",
        "stop/x1",
        "signs/stop/x1",
        "stop/x1.png",
        "Stop/X1.JPG",
        "/data/upload/4/cb0618f6-x1.jpg",
        "cb0618f6-x1.jpg",
        "images/cb0618f6-x1.jpg",
        "images/x1.jpg",
    ],
)
def test_one_sample_by_many_names(name: str) -> None:
    assert match(name) == {name: "stop/x1.jpg"}


def test_unicode_forms_and_escapes() -> None:
    for name in (unicodedata.normalize("NFD", "stop/ü 2.jpg"), "stop/%C3%BC%202.jpg", "ü 2.jpg"):
        assert match(name) == {name: "stop/ü 2.jpg"}


def test_numbers() -> None:
    assert match("7.0", "8", "9.5", ids=["007", "8", "11"]) == {"7.0": "007", "8": "8"}
    assert match("1.0", ids=["1", "01"]) == {}, "it could be both"


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("stop/1.jpg", "s1"),
        ("signs/go/1.jpg", "s2"),
        (r"D:\other\go\1.jpg", "s2"),
        ("/data/signs/stop/2.jpg", "s3"),
        ("2.jpg", "s3"),
        ("1.jpg", None),
        ("up/1.jpg", None),
        ("stop/3.jpg", None),  # the image of two samples
    ],
)
def test_samples_with_ids_of_their_own_by_the_paths_of_their_images(name: str, sample: str | None) -> None:
    images = ["stop/1.jpg", "go/1.jpg", "stop/2.jpg", "stop/3.jpg", "stop/3.jpg"]
    ids = [f"s{number}" for number in range(1, 6)]
    given = make_table(ids, [f"/data/signs/{image}" for image in images], ["a", "b"] * 2 + ["a"])
    found = IdMatcher(given).match([name])
    assert found.ids == ({name: sample} if sample else {})
    assert set(found.ways.values()) <= {"by the path of the image"}


def test_uploads_in_the_data() -> None:
    assert match("x1.jpg", ids=["a/cb0618f6-x1.jpg", "a/0b0618f7-x2.jpg"]) == {"x1.jpg": "a/cb0618f6-x1.jpg"}


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["1.jpg"], ["a/1.jpg", "b/1.jpg"]),  # two samples
        (["a/1.jpg"], ["b/1.jpg", "c/2.jpg", "c/1.jpg"]),  # another class
        (["a/9.jpg"], ["a/1.jpg", "b/1.jpg", "b/9.jpg"]),  # names of files don't tell samples apart
        (["train/1.jpg", "val/1.jpg"], ["1.jpg", "2.jpg"]),  # two names of one sample
        (["a/1.jpg", "2.jpg"], ["a/1.jpg", "b/2.jpg"]),  # the file has ids: this one is of other data
        (["upload/4/00000000-1.jpg", "upload/4/11111111-1.jpg"], ["a/1.jpg", "a/2.jpg"]),
        (["zz.jpg"], ["a/1.jpg"]),
    ],
)
def test_what_is_not_certain_is_not_matched(names: list[str], ids: list[str]) -> None:
    found = match(*names, ids=ids)
    assert not {name for name in names if name in found and name not in ids}


def test_two_names_that_end_in_one_id_are_that_sample() -> None:
    assert match("stop/x1.jpg", "signs/stop/x1.jpg") == dict.fromkeys(("stop/x1.jpg", "signs/stop/x1.jpg"), IDS[0])


def test_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        IdMatcher(table()).match(["x1.jpg", "x3.jpg"]).log("fixes.csv")
    assert (
        "fixes.csv: names were matched to samples: 2 by the end of the path alone; such as 'x1.jpg' to 'stop/x1.jpg'"
        in (caplog.text)
    )
    unclear = IdMatcher(table(["a/1.jpg", "b/1.jpg"])).match(["1.jpg"]).ambiguous
    assert unclear == {"1.jpg": "it may be any of a/1.jpg, b/1.jpg"}
