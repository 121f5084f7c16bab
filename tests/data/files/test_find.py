"""Files found by names that were written elsewhere: the right one, said in a note, and none where it is not certain."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlfix_train.data.files.find import FileFinder

FILES = [
    "images/p0.jpg",
    "images/p1.JPG",
    "images/b/x.png",
    "c/x.png",
    "images/caf\u00e9.jpg",
    "images/my photo.jpg",
    "images/Capture_d%C3%A9cran.jpg",
    "uploads/cb0618f6-q.jpg",
    "a/same.jpg",
    "b/same.jpg",
    "two/y.jpg",
    "two/y.png",
    "100%.jpg",
    "2024.01.02.jpg",
]


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("images/p0.jpg", "images/p0.jpg", ""),
        ("./images/sub/../p0.jpg", "images/p0.jpg", ""),
        ("/data/set/images/p0.jpg", "images/p0.jpg", ""),
        ("100%.jpg", "100%.jpg", ""),
        (r"images\p0.jpg", "images/p0.jpg", "backslashes"),
        (r"C:\photos\images\p0.jpg", "images/p0.jpg", "backslashes as slashes and the end of the path alone"),
        ("D:/photos/images/p0.jpg", "images/p0.jpg", "the end of the path alone"),
        ("/home/somebody/images/p0.jpg", "images/p0.jpg", "the end of the path alone"),
        ("../images/p0.jpg", "images/p0.jpg", "the end of the path alone"),
        ("images/p1.jpg", "images/p1.JPG", "upper and lower case"),
        ("IMAGES/P0.jpg", "images/p0.jpg", "upper and lower case"),
        ("images/p1", "images/p1.JPG", "ignoring the suffix"),
        ("images/p1.png", "images/p1.JPG", "ignoring the suffix"),
        ("2024.01.02", "2024.01.02.jpg", "ignoring the suffix"),
        ("images/cafe\u0301.jpg", "images/caf\u00e9.jpg", "Unicode form"),
        ("images/my%20photo.jpg", "images/my photo.jpg", "decoding a URL"),
        ("file:///mnt/images/my%20photo.jpg", "images/my photo.jpg", "decoding a URL and the end"),
        ("images/Capture_décran.jpg", "images/Capture_d%C3%A9cran.jpg", "decoding a URL"),
        ("/data/local-files/?d=images/p0.jpg", "images/p0.jpg", "decoding a URL"),
        ("/data/upload/4/cb0618f6-p0.jpg", "images/p0.jpg", "an upload prefix"),
        ("/data/upload/4/cb0618f6-my_photo.jpg", "images/my photo.jpg", "an upload prefix"),
        ("q.jpg", "uploads/cb0618f6-q.jpg", "an upload prefix and the end"),
        ("b/x.png", "images/b/x.png", "the end of the path alone"),
        ("b/same.jpg", "b/same.jpg", ""),
        ("z/b/same.jpg", "b/same.jpg", "the end of the path alone"),
    ],
)
def test_a_name_means_one_file_and_how_it_was_found_is_said(name: str, file: str, said: str) -> None:
    finder = FileFinder("/data/set", FILES)
    assert finder.find(name) == file
    assert finder.problem(name) == ""
    if said:
        (note,) = finder.notes()
        assert note.startswith("1 file was found by ") and said in note and repr(name) in note and file in note
    else:
        assert finder.notes() == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("same.jpg", "a/same.jpg, b/same.jpg"),
        ("two/y", "two/y.jpg, two/y.png"),
        ("x.png", "c/x.png, images/b/x.png"),
        ("p7.jpg", "no file is called 'p7.jpg' below /data/set"),
        ("aaaaaaaa-q.jpg", "no file"),  # another upload of the same name
        ("", "no file"),
    ],
)
def test_what_is_not_certain_is_not_found(name: str, said: str) -> None:
    finder = FileFinder("/data/set", FILES)
    assert finder.find(name) is None
    assert said in finder.problem(name)


def test_two_names_never_get_one_file() -> None:
    finder = FileFinder("/data/set", FILES)
    assert finder.find_all(["x/p0.jpg", "y/p0.jpg", "images/p1.JPG"]) == [None, None, "images/p1.JPG"]
    assert "images/p0.jpg, which 'y/p0.jpg' may mean, too" in finder.problem("x/p0.jpg")
    finder = FileFinder("/data/set", FILES)
    assert finder.find_all(["p0.jpg", "images/p0.jpg"]) == [None, "images/p0.jpg"]  # the exact one has it
    finder = FileFinder("/data/set", FILES)
    assert finder.find("p0.jpg") == "images/p0.jpg" and finder.find("z/p0.jpg") is None
    assert finder.find("images/p0.jpg") == "images/p0.jpg"
    assert "images/p0.jpg was found for 'p0.jpg' before it was named itself" in finder.notes()
    finder = FileFinder("/data/set", FILES)
    assert finder.find_all([r"z\p0.jpg", "z/p0.jpg"]) == ["images/p0.jpg"] * 2  # one path, written in two ways


def test_files_elsewhere_are_found_only_if_that_is_wanted(tmp_path: Path) -> None:
    finder = FileFinder("/data/set", FILES, anywhere=False)
    assert finder.find_all(["p0.jpg", "images/p1.jpg"]) == [None, "images/p1.JPG"]
    (tmp_path / "set").mkdir()
    (tmp_path / "other.jpg").touch()
    finder = FileFinder(tmp_path / "set", ["a.jpg"])
    outside = str(tmp_path / "other.jpg")
    assert finder.find_all(["../other.jpg", outside, f"{tmp_path}/set/a.jpg"]) == [outside, outside, "a.jpg"]
    assert finder.notes() == []


def test_many_files_of_one_name_are_told_apart_by_their_folders() -> None:
    files = [f"{number:03}/image.jpg" for number in range(200)]
    finder = FileFinder("/data/set", files)
    assert finder.find_all(f"/elsewhere/{name}" for name in files) == files
    assert finder.find("image.jpg") is None
    assert "and 196 more" in finder.problem("image.jpg")
