"""The reader of folders: class folders, splits, unsorted images, links and odd names."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mlfix_train.data.readers.folder import read_folder
from mlfix_train.data.readers.table import read_table
from mlfix_train.data.samples import write_table
from mlfix_train.errors import ConfigError, DataError

Picture = Callable[..., Path]


def ids(table: pd.DataFrame) -> list[str]:
    return table.index.tolist()


def test_class_folders(folder: Path, picture: Picture) -> None:
    picture(folder / "stop" / "deep" / "er" / "x.PNG")
    (folder / "notes.txt").write_text("not a picture")
    (folder / "yield" / "Thumbs.db").write_bytes(b"")
    table = read_folder(folder)
    wanted = [f"{name}/{i}.png" for name in ("stop", "yield") for i in range(3)]
    assert ids(table) == sorted([*wanted, "stop/deep/er/x.PNG"])
    assert table["label"].tolist() == [name.split("/")[0] for name in ids(table)]
    assert table["group"].tolist() == ids(table)
    assert (table["split"] == "").all()
    assert all(os.path.isabs(path) and os.path.isfile(path) for path in table["path"])
    assert [Path(path).relative_to(folder).as_posix() for path in table["path"]] == ids(table)


def test_relative_root_gives_absolute_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert read_folder("data")["path"].tolist() == read_folder(folder)["path"].tolist()
    monkeypatch.chdir(folder)
    assert ids(read_folder(".")) == ids(read_folder(folder))


@pytest.mark.parametrize("names", [("train", "val"), ("Training", "TEST"), ("train", "valid", "testing")])
def test_split_folders(tmp_path: Path, picture: Picture, names: tuple[str, ...]) -> None:
    for split in names:
        for label in ("a", "b"):
            picture(tmp_path / split / label / "1.jpg")
    table = read_folder(tmp_path)
    assert ids(table) == sorted(f"{split}/{label}/1.jpg" for split in names for label in ("a", "b"))
    assert table["label"].tolist() == [name.split("/")[1] for name in ids(table)]
    assert table["split"].tolist() == [name.split("/")[0].lower() for name in ids(table)]


def test_a_class_called_train_among_others(tmp_path: Path, picture: Picture) -> None:
    for label in ("train", "bus"):
        picture(tmp_path / label / "1.jpg")
    table = read_folder(tmp_path)
    assert table["label"].tolist() == ["bus", "train"]
    assert (table["split"] == "").all()


def test_a_loose_picture_in_a_split_folder_is_left_out(
    tmp_path: Path, picture: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    """One picture that lies in train/ itself must not turn all labels into 'train' and 'val'."""
    for split in ("train", "val"):
        for label in ("a", "b"):
            picture(tmp_path / split / label / "1.jpg")
    picture(tmp_path / "train" / "contact-sheet.jpg")
    table = read_folder(tmp_path)
    assert set(table["label"]) == {"a", "b"}
    assert "train/contact-sheet.jpg" not in ids(table)
    assert "contact-sheet.jpg" in caplog.text


def test_unsorted_pictures(tmp_path: Path, picture: Picture) -> None:
    for name in ("b.jpg", "a.webp"):
        picture(tmp_path / name)
    table = read_folder(tmp_path)
    assert ids(table) == ["a.webp", "b.jpg"]
    assert table["label"].isna().all()


def test_loose_pictures_beside_class_folders(folder: Path, picture: Picture, caplog: pytest.LogCaptureFixture) -> None:
    picture(folder / "overview.png")
    with caplog.at_level(logging.WARNING):
        table = read_folder(folder)
    assert len(table) == 6 and "overview.png" not in ids(table)
    assert "1 image(s) are outside" in caplog.text and "overview.png" in caplog.text


def test_loose_pictures_beside_split_folders(tmp_path: Path, picture: Picture) -> None:
    for split in ("train", "val"):
        picture(tmp_path / split / "a" / "1.jpg")
    picture(tmp_path / "logo.png")
    table = read_folder(tmp_path)
    assert ids(table) == ["train/a/1.jpg", "val/a/1.jpg"]
    assert set(table["label"]) == {"a"}


def test_hidden_files(folder: Path, picture: Picture) -> None:
    picture(folder / "stop" / ".hidden.png")
    picture(folder / ".thumbnails" / "1.png")
    (folder / "__MACOSX" / "stop").mkdir(parents=True)
    (folder / "__MACOSX" / "stop" / "._0.png").write_bytes(b"\0")
    assert len(read_folder(folder)) == 6


NAMES = [
    "a b.jpg",
    "ü.jpg",
    "x,y.jpg",
    'q"uote.jpg',
    "it's.jpg",
    "标志.jpg",
    "line\nbreak.jpg",
    "back\\slash.jpg",
    "%41.jpg",
]


def test_odd_names(tmp_path: Path, picture: Picture) -> None:
    for name in NAMES:
        picture(tmp_path / "data" / "läbel, a" / name)
        picture(tmp_path / "data" / 'b "2"' / name)
    table = read_folder(tmp_path / "data")
    assert set(ids(table)) == {f"{label}/{name}" for label in ("läbel, a", 'b "2"') for name in NAMES}
    assert set(table["label"]) == {"läbel, a", 'b "2"'}
    assert all(os.path.isfile(path) for path in table["path"])
    for file in ("t.csv", "t.parquet"):
        assert read_table(write_table(table, tmp_path / file)).equals(table), file


def test_a_name_that_is_no_utf8(folder: Path) -> None:
    try:
        with open(os.fsencode(folder / "stop") + b"/\xff\xfe.png", "wb"):
            pass
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    with pytest.raises(DataError, match=r"not UTF-8"):
        read_folder(folder)


def test_circular_links(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "stop" / "up").symlink_to(folder)
    (folder / "stop" / "self").symlink_to(".")
    (folder / "stop" / "eternal.png").symlink_to("eternal.png")
    with caplog.at_level(logging.WARNING):
        table = read_folder(folder)
    assert {name for name in ids(table) if "eternal" not in name} == {
        f"{name}/{i}.png" for name in ("stop", "yield") for i in range(3)
    }
    assert caplog.text.count("links back to a folder above it") == 2


def test_links_that_cross(tmp_path: Path, picture: Picture) -> None:
    for name in "ab":
        picture(tmp_path / name / "1.jpg")
    (tmp_path / "a" / "b").symlink_to("../b")
    (tmp_path / "b" / "a").symlink_to("../a")
    assert ids(read_folder(tmp_path)) == ["a/1.jpg", "a/b/1.jpg", "b/1.jpg", "b/a/1.jpg"]


def test_links_to_folders_and_files(tmp_path: Path, folder: Path, picture: Picture) -> None:
    away = picture(tmp_path / "away" / "7.png").parent
    (folder / "linked").symlink_to(away)
    (folder / "stop" / "one.png").symlink_to(away / "7.png")
    table = read_folder(folder)
    assert {"linked/7.png", "stop/one.png"} <= set(ids(table)) and len(table) == 8
    root = tmp_path / "root"
    root.symlink_to(folder)
    assert ids(read_folder(root)) == ids(table)


def test_two_links_to_one_folder(tmp_path: Path, picture: Picture) -> None:
    away = picture(tmp_path / "away" / "7.png").parent
    root = tmp_path / "root"
    root.mkdir()
    for name in "ab":
        (root / name).symlink_to(away)
    assert ids(read_folder(root)) == ["a/7.png", "b/7.png"]


def test_something_that_is_no_file_is_no_picture(folder: Path) -> None:
    """Opening a named pipe waits for ever."""
    os.mkfifo(folder / "stop" / "pipe.png")
    assert "stop/pipe.png" not in ids(read_folder(folder))


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)no images below data.root=.*it is empty.*[.]jpg"):
        read_folder(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("")
    (tmp_path / "a" / "x.jpg.zip").write_text("")
    with pytest.raises(DataError, match=r"only 2 other file\(s\), such as a/x"):
        read_folder(tmp_path)


def test_missing_folder(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)data.root=.*gone does not exist.*one folder per label"):
        read_folder(tmp_path / "gone")
    with pytest.raises(DataError, match=r"data.root=.*0.png is a file"):
        read_folder(folder / "stop" / "0.png")


def test_group(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert set(read_folder(folder, group=r"^(\w+)/").group) == {"stop", "yield"}
    assert read_folder(folder, group=r"\d").group.tolist() == ["0", "1", "2"] * 2, "without a parenthesis, all of it"
    with caplog.at_level(logging.WARNING):
        some = read_folder(folder, group=r"stop/(\d)\.png")
    assert some.group.tolist() == ["0", "1", "2", "yield/0.png", "yield/1.png", "yield/2.png"]
    assert "does not match 3 samples" in caplog.text


def test_group_errors(folder: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)data.group=track matches none of the 6 samples, such as 'stop/0.png'"):
        read_folder(folder, group="track")
    with pytest.raises(ConfigError, match=r"data.group=[(] is not a regular expression"):
        read_folder(folder, group="(")


def test_gtsrb(gtsrb: Path) -> None:
    table = read_folder(gtsrb, group=r"(.+)_\d+\.jpg")
    assert set(table["label"]) == {"stop", "yield", "speed-limit-30"}
    assert table.loc["stop/00003_00012.jpg", "group"] == "stop/00003"
    assert (table.groupby("group").size() == 30).all() and len(table) == 360
