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


def test_names_that_are_not_utf8(folder: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    stop = os.fsencode(folder / "stop")
    try:
        os.rename(stop + b"/0.png", stop + b"/\xff\xfe.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    os.mkdir(os.fsencode(folder) + b"/\xe4rger")
    table = read_folder(folder)
    assert ids(table) == ["stop/1.png", "stop/2.png", "yield/0.png", "yield/1.png", "yield/2.png"]
    assert r"2 names (\xe4rger, stop/\xff\xfe.png) are not UTF-8 and left out" in caplog.text
    caplog.text.encode()
    for file in ("t.csv", "t.parquet"):
        assert read_table(write_table(table, tmp_path / file)).equals(table), file


def test_circular_links(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "stop" / "up").symlink_to(folder)
    (folder / "stop" / "self").symlink_to(".")
    (folder / "stop" / "eternal.png").symlink_to("eternal.png")
    with caplog.at_level(logging.WARNING):
        table = read_folder(folder)
    assert {name for name in ids(table) if "eternal" not in name} == {
        f"{name}/{i}.png" for name in ("stop", "yield") for i in range(3)
    }
    assert "2 links (stop/self, stop/up) are back to a folder above" in caplog.text


def test_links_that_cross(tmp_path: Path, picture: Picture) -> None:
    for name in "ab":
        picture(tmp_path / name / "1.jpg")
    (tmp_path / "a" / "b").symlink_to("../b")
    (tmp_path / "b" / "a").symlink_to("../a")
    assert ids(read_folder(tmp_path)) == ["a/1.jpg", "b/1.jpg"], "each real folder once"


def test_links_to_folders_and_files(tmp_path: Path, folder: Path, picture: Picture) -> None:
    away = picture(tmp_path / "away" / "7.png").parent
    (folder / "linked").symlink_to(away)
    (folder / "stop" / "one.png").symlink_to(away / "7.png")
    table = read_folder(folder)
    assert {"linked/7.png", "stop/one.png"} <= set(ids(table)) and len(table) == 8
    root = tmp_path / "root"
    root.symlink_to(folder)
    assert ids(read_folder(root)) == ids(table)


def test_two_links_to_one_folder(tmp_path: Path, picture: Picture, caplog: pytest.LogCaptureFixture) -> None:
    away = picture(tmp_path / "away" / "7.png").parent
    root = tmp_path / "root"
    root.mkdir()
    for name in "ab":
        (root / name).symlink_to(away)
    assert ids(read_folder(root)) == ["a/7.png"], "not the same picture with two labels"
    assert "1 path (b) is to a folder that is read by another path" in caplog.text


def test_links_that_lead_above_the_root(folder: Path, picture: Picture, caplog: pytest.LogCaptureFixture) -> None:
    picture(folder.parent / "others" / "1.png")
    (folder / "stop" / "out").symlink_to(folder.parent)
    assert len(read_folder(folder)) == 6
    assert "1 link (stop/out) is back to a folder above" in caplog.text


def test_something_that_is_no_file_is_no_picture(folder: Path) -> None:
    """Opening a named pipe waits for ever."""
    os.mkfifo(folder / "stop" / "pipe.png")
    assert "stop/pipe.png" not in ids(read_folder(folder))


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)no images below root=.*it is empty.*[.]jpg"):
        read_folder(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("")
    (tmp_path / "a" / "x.jpg.zip").write_text("")
    with pytest.raises(DataError, match=r"only 2 other file\(s\), such as a/x"):
        read_folder(tmp_path)


def test_what_a_folder_without_images_holds(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.CR2").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)only 1 RAW.*RAW: export them as JPEG"):
        read_folder(tmp_path)
    (tmp_path / "a" / "1.CR2").unlink()
    (tmp_path / "a" / "0001").write_bytes(b"\xff\xd8\xff\xe0" + b"\0" * 60)
    with pytest.raises(DataError, match=r"(?s)a/0001 is an image without a suffix.*rename"):
        read_folder(tmp_path)
    (tmp_path / "a" / "0001").unlink()
    (tmp_path / "photos.ZIP").write_bytes(b"PK")
    with pytest.raises(DataError, match="unpack the archives"):
        read_folder(tmp_path)


def test_classes_of_files_that_cant_be_read(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("priority/1.nef", "priority/2.NEF", "mac/._0.png", "nas/@eaDir/0.jpg", "drawn/a.svg", "drawn/b.txt"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(b"x")
    (folder / "none").mkdir()
    assert set(read_folder(folder)["label"]) == {"stop", "yield"}
    assert "2 RAW files (priority/1.nef, priority/2.NEF) are left out; export them" in caplog.text
    said = "drawn (1 SVG file(s), 1 other file(s)), mac (1 hidden), nas (1 of the system), none (empty)"
    assert "no label comes from 5 folder(s) without images" in caplog.text
    assert all(part in caplog.text for part in said.split("), ")), caplog.text
    assert "priority (2 RAW file(s))" in caplog.text


def test_images_whose_names_do_not_say_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("0001", "photo.jpg?w=200", "photo.jpg.1", "notes.txt", "Makefile"):
        (folder / "stop" / name).write_bytes(b"text" if name[0] in "nM" else b"\xff\xd8\xff\xe0" + b"\0" * 60)
    assert len(read_folder(folder)) == 6
    assert "of 4 file(s) without a suffix of images 3 are images and left out; rename them: stop/0001" in caplog.text


def test_folders_of_the_system(folder: Path, picture: Picture) -> None:
    for name in (
        "@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
        "stop/@eaDir/0.png/x.jpg",
        "#recycle/x.png",
        "$RECYCLE.BIN/y.png",
    ):
        picture(folder / name)
    for name in ("lost+found/1.png", "System Volume Information/1.png", "stop/SYNOPHOTO_THUMB_XL.jpg"):
        picture(folder / name)
    assert ids(read_folder(folder)) == [f"{label}/{i}.png" for label in ("stop", "yield") for i in range(3)]


def test_a_folder_that_cant_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "yield":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"(?s)data/yield can't be read: Permission denied.*check the permissions"):
        read_folder(folder)


# Splits


def fill(root: Path, picture: Picture, *names: str) -> Path:
    for name in names:
        picture(root / name / "1.jpg")
    return root


SPLITS = ("train/a", "train/b", "val/a", "val/b")


@pytest.mark.parametrize("stray", ["docs", "Meta", "figures/deep"])
def test_a_stray_folder_beside_splits(
    tmp_path: Path, picture: Picture, caplog: pytest.LogCaptureFixture, stray: str
) -> None:
    table = read_folder(fill(tmp_path, picture, *SPLITS, stray))
    assert ids(table) == [f"{name}/1.jpg" for name in SPLITS]
    assert table["label"].tolist() == ["a", "b", "a", "b"] and table["split"].tolist() == ["train"] * 2 + ["val"] * 2
    assert (
        f"train, val are splits; the folders beside them are left out: {Path(stray).parts[0]} (1 images)" in caplog.text
    )


def test_a_test_folder_without_labels(tmp_path: Path, picture: Picture, caplog: pytest.LogCaptureFixture) -> None:
    """As Kaggle ships GTSRB: Train/<class>/, Test/*.png, Meta/*.png."""
    table = read_folder(fill(tmp_path, picture, "Train/0", "Train/1", "Test", "Meta"))
    assert table["label"].tolist() == ["0", "1"] and set(table["split"]) == {"train"}
    assert "Meta (1 images)" in caplog.text and "Test/1.jpg" in caplog.text


@pytest.mark.parametrize(
    ("folders", "wanted"),
    [
        (("train2017", "val2017"), ["train", "val"]),
        (("training_set", "test_set"), ["test", "training"]),
        (("train_images", "dev"), ["train", "val"]),
    ],
)
def test_other_names_of_splits(tmp_path: Path, picture: Picture, folders: tuple[str, ...], wanted: list[str]) -> None:
    table = read_folder(fill(tmp_path, picture, *(f"{folder}/{label}" for folder in folders for label in "ab")))
    assert sorted(set(table["split"])) == wanted and set(table["label"]) == {"a", "b"}


def test_a_folder_like_a_split_that_may_be_a_label(tmp_path: Path, picture: Picture) -> None:
    fill(tmp_path / "one", picture, "train/a", "train/b", "docs")
    with pytest.raises(
        DataError, match=r"(?s)train may be a split or a label, since it lies beside docs.*rename train"
    ):
        read_folder(tmp_path / "one")
    fill(tmp_path / "two", picture, *SPLITS, "extra/a")
    with pytest.raises(DataError, match=r"(?s)extra has the same folders as the split train.*move extra elsewhere"):
        read_folder(tmp_path / "two")


def test_classes_with_folders_of_their_own(tmp_path: Path, picture: Picture) -> None:
    table = read_folder(fill(tmp_path, picture, "train/video-1", "train/video-2", "bus/video-3"))
    assert table["label"].tolist() == ["bus", "train", "train"] and (table["split"] == "").all()


def test_all_images_one_folder_too_deep(tmp_path: Path, picture: Picture, caplog: pytest.LogCaptureFixture) -> None:
    read_folder(fill(tmp_path, picture, "archive/stop", "archive/yield"))
    assert f"if their labels are stop, yield, set data.root={tmp_path / 'archive'}" in caplog.text


def test_folds_are_asked_about(tmp_path: Path, picture: Picture) -> None:
    for name in ("fold1/cats", "fold1/dogs", "fold2/cats"):
        picture(tmp_path / name / "1.jpg")
    with pytest.raises(DataError, match=r"(?s)fold1, fold2 may be folds or labels.*cats/fold1/.*rename it"):
        read_folder(tmp_path)
    (tmp_path / "fold1").rename(tmp_path / "one")
    (tmp_path / "fold2").rename(tmp_path / "two")
    assert set(read_folder(tmp_path)["label"]) == {"one", "two"}


def test_labels_below_images_of_a_split(tmp_path: Path, picture: Picture) -> None:
    for name in ("train/images/cats", "train/images/dogs", "val/images/cats"):
        picture(tmp_path / name / "1.jpg")
    table = read_folder(tmp_path)
    assert table["label"].tolist() == ["cats", "dogs", "cats"] and table["split"].tolist() == ["train", "train", "val"]


def test_the_layout_of_tiny_imagenet(tmp_path: Path, picture: Picture, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train/n1/images/n1_0.JPEG", "train/n2/images/n2_0.JPEG", "test/images/test_0.JPEG"):
        picture(tmp_path / name)
    for number in range(3):
        picture(tmp_path / f"val/images/val_{number}.JPEG")
    (tmp_path / "val/val_annotations.txt").write_text("val_0.JPEG\tn2\t0\t0\t9\t9\nval_1.JPEG\tn1\t0\t0\t9\t9\n")
    with caplog.at_level(logging.INFO):
        table = read_folder(tmp_path)
    wanted = {"train/n1/images/n1_0.JPEG": "n1", "train/n2/images/n2_0.JPEG": "n2"}
    assert table["label"].to_dict() == {**wanted, "val/images/val_0.JPEG": "n2", "val/images/val_1.JPEG": "n1"}
    assert table["split"].tolist() == ["train", "train", "val", "val"]
    assert "the labels of 2 images in val are from val/val_annotations.txt" in caplog.text
    assert "2 image(s) are outside of the class folders and are left out: test/images/test_0.JPEG" in caplog.text
    (tmp_path / "val/val_annotations.txt").write_bytes(b"val_0.JPEG\tcaf\xe9\t0\t0\t9\t9\n")
    with pytest.raises(DataError, match=r"val_annotations.txt is not UTF-8: byte 14") as error:
        read_folder(tmp_path)
    assert error.value.hint == "save it as UTF-8"


def test_an_empty_class_folder_is_a_known_label(folder: Path) -> None:
    (folder / "closed").mkdir()
    (folder / "annotations").mkdir()
    (folder / "annotations/1.json").write_text("{}")
    assert read_folder(folder).attrs["classes"] == ["closed"]


def test_splits_within_class_folders(tmp_path: Path, picture: Picture, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("cats/train", "cats/val", "dogs/train"):
        picture(tmp_path / name / "1.jpg")
    assert read_folder(tmp_path)["label"].tolist() == ["cats", "cats", "dogs"]
    assert "train, val lie within the class folders and are not read as splits" in caplog.text
    assert "put them above: train/cats" in caplog.text


def test_missing_folder(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)root=.*gone. does not exist.*one folder per label"):
        read_folder(tmp_path / "gone")
    with pytest.raises(DataError, match=r"root=.*0.png. is a file"):
        read_folder(folder / "stop" / "0.png")


def test_archives_and_files_of_cifar(tmp_path: Path) -> None:
    (tmp_path / "d.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"(?s)d\.zip'? is an archive.*unpack it, and set"):
        read_folder(tmp_path / "d.zip")
    home = tmp_path / "c/cifar-10-batches-py"
    home.mkdir(parents=True)
    (home / "data_batch_1").write_bytes(b"")
    for root in (home, home.parent):
        with pytest.raises(DataError, match=r"torchvision data\.name=CIFAR10") as caught:
            read_folder(root)
        assert str(home.parent) in caught.value.hint and str(home) not in caught.value.hint


def test_group(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert set(read_folder(folder, group=r"^(\w+)/").group) == {"stop", "yield"}
    assert read_folder(folder, group=r"\d").group.tolist() == ["0", "1", "2"] * 2, "without a parenthesis, all of it"
    with caplog.at_level(logging.WARNING):
        some = read_folder(folder, group=r"stop/(\d)\.png")
    assert some.group.tolist() == ["0", "1", "2", "yield/0.png", "yield/1.png", "yield/2.png"]
    assert "does not match 3 samples" in caplog.text


def test_group_errors(folder: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)group=.track. matches none of the 6 samples, such as 'stop/0.png'"):
        read_folder(folder, group="track")
    with pytest.raises(ConfigError, match=r"group=.[(]. is not a regular expression"):
        read_folder(folder, group="(")


def test_gtsrb(gtsrb: Path) -> None:
    table = read_folder(gtsrb, group=r"(.+)_\d+\.jpg")
    assert set(table["label"]) == {"stop", "yield", "speed-limit-30"}
    assert table.loc["stop/00003_00012.jpg", "group"] == "stop/00003"
    assert (table.groupby("group").size() == 30).all() and len(table) == 360
