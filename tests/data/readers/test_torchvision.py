"""The reader of torchvision's data sets: arrays and files, splits, names of labels, and what is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from containers import write_mnist

from mlfix_train.data.pixels.decode import decode_image
from mlfix_train.data.readers.torchvision import read_torchvision
from mlfix_train.errors import ConfigError, DataError


def test_images_in_arrays(tmp_path: Path) -> None:
    table = read_torchvision("MNIST", write_mnist(tmp_path))
    assert table.index.tolist() == ["train/0", "train/1", "train/2", "train/3", "test/0", "test/1"]
    assert table["label"].tolist() == ["0 - zero", "1 - one", "2 - two", "1 - one", "2 - two", "0 - zero"]
    assert table["split"].tolist() == ["train"] * 4 + ["test"] * 2
    assert [int(decode_image(path, 8).mean()) for path in table["path"]] == [10, 20, 30, 20, 30, 10]


def test_one_split(tmp_path: Path) -> None:
    root = write_mnist(tmp_path)
    for options in ({"splits": "test"}, {"splits": ["test"]}, {"train": False}):
        table = read_torchvision("MNIST", root, **options)
        assert table.index.tolist() == ["test/0", "test/1"] and (table["split"] == "").all()


def test_paths_change_with_the_images(tmp_path: Path) -> None:
    before = read_torchvision("MNIST", write_mnist(tmp_path / "a"))["path"].str.replace("/a", "/b", regex=False)
    after = read_torchvision("MNIST", write_mnist(tmp_path / "b", train=(0, 1, 2, 2)))["path"]
    assert (before == after).tolist() == [False] * 4 + [True] * 2


def test_image_folder(folder: Path, picture, caplog: pytest.LogCaptureFixture) -> None:
    table = read_torchvision("ImageFolder", folder)
    assert table.index.tolist() == [f"{name}/{i}.png" for name in ("stop", "yield") for i in range(3)]
    assert table["label"].tolist() == ["stop"] * 3 + ["yield"] * 3
    assert table["path"].iloc[0] == str(folder / "stop/0.png") and table.attrs["classes"] == ["stop", "yield"]
    picture(folder / "stop/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg")
    read_torchvision("ImageFolder", folder)
    assert "1 image(s) are files of systems, such as thumbnails, and count as samples" in caplog.text


def test_class_numbers_and_splits_by_name(tmp_path: Path, picture, caplog: pytest.LogCaptureFixture) -> None:
    """GTSRB has split= and no names of its classes; only its training images are here."""
    for number in (0, 1):
        picture(tmp_path / f"gtsrb/GTSRB/Training/{number:05d}/1.ppm")
    table = read_torchvision("GTSRB", tmp_path)
    assert table["label"].tolist() == ["0", "1"] and (table["split"] == "").all()
    assert table.index[1] == "gtsrb/GTSRB/Training/00001/1.ppm" and "the split test is not there" in caplog.text
    with pytest.raises(DataError, match=r"(?s)test not found.*download=True"):
        read_torchvision("GTSRB", tmp_path, splits="test")
    with pytest.raises(ConfigError, match=r"(?s)GTSRB has no split 'tset'.*did you mean 'test'"):
        read_torchvision("GTSRB", tmp_path, splits="tset")


def test_one_level_too_low(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match=r"set the folder above") as caught:
        read_torchvision("CIFAR10", tmp_path / "cifar-10-batches-py")
    assert str(caught.value.hint).endswith(str(tmp_path)) or f"{str(tmp_path)!r}" in str(caught.value.hint)


def test_names_of_classes_and_trainval(tmp_path: Path, picture) -> None:
    base = tmp_path / "oxford-iiit-pet"
    for name in ("Abyssinian_1", "beagle_1"):
        picture(base / f"images/{name}.jpg")
    (base / "annotations").mkdir()
    (base / "annotations/trainval.txt").write_text("Abyssinian_1 1 1 1\n")
    (base / "annotations/test.txt").write_text("beagle_1 2 2 1\n")
    table = read_torchvision("OxfordIIITPet", tmp_path)
    assert table.index.tolist() == ["oxford-iiit-pet/images/Abyssinian_1.jpg", "oxford-iiit-pet/images/beagle_1.jpg"]
    assert table["split"].tolist() == ["trainval", "test"]
    assert table["label"].iloc[0] == "Abyssinian"


def test_a_data_set_of_any_other_kind_is_looked_at_item_by_item() -> None:
    options = {"size": 3, "image_size": (3, 8, 8), "num_classes": 2}
    table = read_torchvision("FakeData", **options)
    assert table.index.tolist() == ["all/0", "all/1", "all/2"] and set(table["label"]) <= {"0", "1"}
    assert decode_image(table["path"].iloc[0], 8).std() > 10


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("mnist", {}, r"(?s)name=.mnist. is no class of torchvision.datasets.*did you mean 'MNIST'"),
        ("MNIST", {"tran": True}, r"(?s)unknown key data.tran: MNIST does not take it.*did you mean 'train'"),
        ("MNIST", {"download": True}, r"unknown key data.download"),
        ("MNIST", {}, r"(?s)name=.MNIST. root=\S+ can't be read: train, test not found.*download=True"),
        ("MNIST", {"root": None}, r"(?s)root is not set.*torchvision.datasets.MNIST"),
    ],
)
def test_errors(tmp_path: Path, name: str, options: dict, problem: str) -> None:
    with pytest.raises((ConfigError, DataError), match=problem):
        read_torchvision(name, **{"root": tmp_path, **options})


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ({"boxes": []}, r"(?s)annotations of regions.*mlfix crop"),
        ([1, 2], r"(?s)is a list, \[1, 2\]: several labels per sample.*multi-label"),
        (0.25, r"a number to predict \(regression\)"),
    ],
)
def test_labels_that_are_no_classes(monkeypatch: pytest.MonkeyPatch, target: object, problem: str) -> None:
    import torchvision.datasets

    monkeypatch.setattr(torchvision.datasets.FakeData, "__getitem__", lambda self, row: (None, target))
    with pytest.raises(DataError, match=problem):
        read_torchvision("FakeData", size=2)
