"""Readers: folders and tables as people have them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mlfix_train.data.readers.folder import group_names, read_folder, read_samples_file
from mlfix_train.data.samples import write_table
from mlfix_train.errors import ConfigError, DataError

Picture = Callable[..., Path]


def ids(table: pd.DataFrame) -> list[str]:
    return table.index.tolist()


# Folders


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
    assert "1 picture(s) lie outside" in caplog.text and "overview.png" in caplog.text


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
        again = read_samples_file(
            write_table(table, tmp_path / file),
            columns={"sample_id": "sample_id", "path": "path", "label": "label", "group": "group", "split": "split"},
        )
        assert again.equals(table), file


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
    with pytest.raises(DataError, match=r"(?s)no pictures below data.root=.*it is empty.*[.]jpg"):
        read_folder(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("")
    (tmp_path / "a" / "x.jpg.zip").write_text("")
    with pytest.raises(DataError, match=r"it holds 2 other file\(s\), such as a/x"):
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
    assert "all but 3 samples" in caplog.text


def test_group_errors(folder: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)data.group=track matches none of the 6 samples, such as 'stop/0.png'"):
        read_folder(folder, group="track")
    with pytest.raises(ConfigError, match=r"data.group=[(] is no regular expression"):
        read_folder(folder, group="(")


def test_group_names_of_an_optional_part() -> None:
    assert group_names(["a_1", "b"], r"[ab](_\d)?") == ["_1", "b"], "an empty catch leaves the sample alone"


def test_gtsrb(gtsrb: Path) -> None:
    table = read_folder(gtsrb, group=r"(.+)_\d+\.jpg")
    assert set(table["label"]) == {"stop", "yield", "speed-limit-30"}
    assert table.loc["stop/00003_00012.jpg", "group"] == "stop/00003"
    assert (table.groupby("group").size() == 30).all() and len(table) == 360


# Tables

COLUMNS = {"sample_id": "sample_id", "path": "path", "label": "label", "group": "group", "split": "split"}


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_csv(tmp_path: Path) -> None:
    file = write(
        tmp_path / "t.csv", "path,label,group,split,score,place\na/1.jpg,x,g,train,0.5,Köln\n/b/2.jpg,y,,val,1,NA\n"
    )
    table = read_samples_file(file, columns=COLUMNS)
    assert table["path"].tolist() == [str(tmp_path / "a/1.jpg"), "/b/2.jpg"]
    assert ids(table)[0] == "a/1.jpg"
    assert table["label"].tolist() == ["x", "y"]
    assert table["group"].tolist() == ["g", ids(table)[1]], "without a group a sample stands alone"
    assert table["split"].tolist() == ["train", "val"]
    assert table["score"].tolist() == [0.5, 1.0] and table["place"].tolist() == ["Köln", "NA"]


def test_root_and_ids(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "id,file\n007,./a/../1.jpg\n8,2.jpg\n")
    table = read_samples_file(file, root=tmp_path / "photos", columns={"path": "file"})
    assert table["path"].tolist() == [str(tmp_path / "photos" / "1.jpg"), str(tmp_path / "photos" / "2.jpg")]
    assert ids(table) == ["1.jpg", "2.jpg"]
    assert table["label"].isna().all()
    named = read_samples_file(file, columns={"path": "file", "sample_id": "id"})
    assert ids(named) == ["007", "8"], "an id is text"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_labels_stay_text(tmp_path: Path, kind: str) -> None:
    labels = ["NA", "null", "020", "1e3", "True", "nan", "None", " x ", 'ü,"q"']
    frame = pd.DataFrame({"path": [f"{i}.jpg" for i in range(9)], "label": labels, "extra": range(9)})
    file = tmp_path / f"t.{kind}"
    frame.to_csv(file, index=False) if kind == "csv" else frame.to_parquet(file)
    table = read_samples_file(file, columns=COLUMNS)
    assert table["label"].tolist() == labels
    assert table["extra"].tolist() == list(range(9))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_missing_label_is_missing(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"path": ["1.jpg", "2.jpg"], "label": ["a", None]})
    file = tmp_path / f"t.{kind}"
    frame.to_csv(file, index=False) if kind == "csv" else frame.to_parquet(file)
    table = read_samples_file(file, columns=COLUMNS)
    assert table["label"].iloc[0] == "a" and table["label"].isna().tolist() == [False, True]


def test_number_labels_of_parquet_become_text(tmp_path: Path) -> None:
    pd.DataFrame({"path": ["1.jpg", "2.jpg"], "label": [20, 120]}).to_parquet(tmp_path / "t.parquet")
    assert read_samples_file(tmp_path / "t.parquet", columns=COLUMNS)["label"].tolist() == ["20", "120"]


def test_parquet_round_trip(tmp_path: Path, folder: Path) -> None:
    table = read_folder(folder, group=r"^(\w+)/").assign(n=range(6))
    assert read_samples_file(write_table(table, tmp_path / "t.parquet"), columns=COLUMNS).equals(table)
    table.to_parquet(tmp_path / "indexed.parquet")
    assert read_samples_file(tmp_path / "indexed.parquet", columns=COLUMNS).equals(table)


def test_metadata_with_a_name_of_ours_is_kept(tmp_path: Path) -> None:
    """Other columns give the label and the id: columns that happen to be called so are metadata like any other."""
    file = write(tmp_path / "t.csv", "path,sign,label\n1.jpg,stop,blurred\n2.jpg,yield,sharp\n")
    table = read_samples_file(file, columns={"path": "path", "label": "sign"})
    assert table["label"].tolist() == ["stop", "yield"]
    assert ("blurred", "sharp") in {tuple(table[name]) for name in table.columns}


def test_a_metadata_column_called_sample_id(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "path,label,key,sample_id\n1.jpg,a,k1,s1\n2.jpg,b,k2,s2\n")
    table = read_samples_file(file, columns={"path": "path", "label": "label", "sample_id": "key"})
    assert ids(table) == ["k1", "k2"]
    write_table(table, tmp_path / "again.parquet")
    assert read_samples_file(tmp_path / "again.parquet", columns=COLUMNS).index.tolist() == ["k1", "k2"]


def test_missing_path_column(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "paths,label\n1.jpg,a\n")
    with pytest.raises(
        DataError, match=r"(?s)no column 'path' \(data.columns.path\).*did you mean 'paths'.*It has paths, label"
    ):
        read_samples_file(file, columns=COLUMNS)


def test_missing_label_column_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        table = read_samples_file(write(tmp_path / "t.csv", "path,lable\n1.jpg,a\n"), columns=COLUMNS)
    assert table["label"].isna().all() and "no column 'label'" in caplog.text


def test_a_row_without_a_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 3 has no path"):
        read_samples_file(write(tmp_path / "t.csv", "path,label\n1.jpg,a\n,b\n"), columns=COLUMNS)


def test_lines_longer_than_the_header_do_not_shift_the_columns(tmp_path: Path) -> None:
    """pandas takes the first column for an index when every line has a cell too many."""
    file = write(tmp_path / "t.csv", "path,label\n1.jpg,stop,\n2.jpg,yield,\n")
    try:
        table = read_samples_file(file, columns=COLUMNS)
    except DataError:
        return
    assert ids(table) == ["1.jpg", "2.jpg"] and table["label"].tolist() == ["stop", "yield"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_wrong_encoding(tmp_path: Path, encoding: str) -> None:
    name = {"utf-16": "UTF-16"}.get(encoding, "not UTF-8")
    with pytest.raises(DataError, match=rf"(?s)t.csv is {name} \(byte \d+\).*save it again as CSV UTF-8"):
        read_samples_file(write(tmp_path / "t.csv", "path,label\n1.jpg,Süd\n", encoding), columns=COLUMNS)


def test_byte_order_mark(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "path,label\r\n1.jpg,Süd\r\n", "utf-8-sig")
    assert read_samples_file(file, columns=COLUMNS)["label"].tolist() == ["Süd"]


def test_duplicates(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "path,label\na/1.jpg,x\n./a/1.jpg,y\n2.jpg,x\n")
    with pytest.raises(DataError, match=r"(?s)t.csv: 1 sample_id\(s\) stand more than once: a/1.jpg"):
        read_samples_file(file, columns=COLUMNS)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.csv does not exist"):
        read_samples_file(tmp_path / "gone.csv", columns=COLUMNS)
    with pytest.raises(DataError, match=r"does not exist"):
        read_samples_file(tmp_path, columns=COLUMNS)
    for name in ("empty.csv", "bad.parquet"):
        with pytest.raises(DataError, match=rf"{name} can't be read as a table"):
            read_samples_file(write(tmp_path / name, ""), columns=COLUMNS)
    with pytest.raises(DataError, match=r"bad.parquet can't be read as a table"):
        read_samples_file(write(tmp_path / "bad.parquet", "path,label\n1,2\n"), columns=COLUMNS)
    with pytest.raises(DataError, match=r"there are no samples"):
        read_samples_file(write(tmp_path / "header.csv", "path,label\n"), columns=COLUMNS)


def test_group_pattern_in_a_table(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "path,label\na/7_1.jpg,x\na/7_2.jpg,y\n")
    assert read_samples_file(file, columns=COLUMNS, group=r"(.+)_\d")["group"].tolist() == ["a/7", "a/7"]
