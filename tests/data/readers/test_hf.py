"""The reader of Hugging Face data sets, on data sets that the library itself wrote."""

from __future__ import annotations

import logging
import sys
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from containers import COLORS, encoded

from mlfix_train.data.fixes.exporters import write_fixed_hf
from mlfix_train.data.pixels.decode import decode_image
from mlfix_train.data.readers.hf import open_hf, read_hf
from mlfix_train.errors import ConfigError, DataError

NAMES = ["cat", "dog", "007"]


@pytest.fixture
def hf(tmp_path: Path) -> Any:
    """The library, or a skip."""
    return pytest.importorskip(
        "datasets", reason='the datasets library is not installed: pip install "mlfix-train[hf]"'
    )


def build(hf: Any, n: int = 3, start: int = 0, **columns: Any) -> Any:
    """Makes a data set of ``n`` images with a ClassLabel; ``columns`` are (values, feature)."""
    data = {"image": [{"bytes": encoded(COLORS[(i + start) % 3]), "path": None} for i in range(n)]}
    features = {"image": hf.Image(), "label": hf.ClassLabel(names=NAMES)}
    data["label"] = [(i + start) % 3 for i in range(n)]
    for name, (values, feature) in columns.items():
        data.pop(name, None), features.pop(name, None)
        if values is not None:
            data[name], features[name] = values, feature
    return hf.Dataset.from_dict(data, features=hf.Features(features))


def write(hf: Any, root: Path, kind: str, **parts: Any) -> dict[str, Any]:
    """Writes splits in one of the forms that people have, and returns the arguments to read it."""
    if kind == "save_to_disk":
        hf.DatasetDict(parts).save_to_disk(root)
    else:
        for split, part in parts.items():
            part.to_parquet(root / f"data/{split}-00000-of-00001.parquet")
    return {"root": root, "cache": root.parent / "cache"}


@pytest.mark.parametrize("kind", ["save_to_disk", "parquet"])
def test_splits_labels_ids_and_pixels(hf: Any, tmp_path: Path, kind: str) -> None:
    extra = {"size": ([1, 2, 3], hf.Value("int64")), "path": (["x", "y", "z"], hf.Value("string"))}
    table = read_hf(**write(hf, tmp_path / "d", kind, train=build(hf, **extra), test=build(hf, 3, 1, **extra)))
    assert table.index.tolist() == [f"{split}/{row}" for split in ("train", "test") for row in range(3)]
    assert table["label"].tolist() == ["cat", "dog", "007", "dog", "007", "cat"]
    assert table["split"].tolist() == ["train"] * 3 + ["test"] * 3
    assert table["size"].tolist() == [1, 2, 3] * 2 and table["path_in_file"].tolist() == ["x", "y", "z"] * 2
    wanted = [COLORS[row] for row in (0, 1, 2, 1, 2, 0)]
    assert [tuple(decode_image(path, 8)[0, 0]) for path in table["path"]] == wanted
    one = read_hf(tmp_path / "d", splits=["test"], cache=tmp_path / "cache")
    assert one["label"].tolist() == ["dog", "007", "cat"] and (one["split"] == "").all()


def test_a_data_set_without_splits_and_rows_in_another_order(hf: Any, tmp_path: Path) -> None:
    build(hf).select([2, 0]).save_to_disk(tmp_path / "d")
    table = read_hf(tmp_path / "d")
    assert table.index.tolist() == ["0", "1"] and table["label"].tolist() == ["007", "cat"]
    assert [tuple(decode_image(path, 8)[0, 0]) for path in table["path"]] == [COLORS[2], COLORS[0]]


def test_image_folder_with_metadata(hf: Any, tmp_path: Path, picture) -> None:
    for split in ("train", "test"):
        for i, label in enumerate(("a", "b")):
            picture(tmp_path / f"d/{split}/{label}/{i}.png", COLORS[i])
    table = read_hf(tmp_path / "d", cache=tmp_path / "cache")
    assert sorted(table.index) == [f"{split}/{one}" for split in ("test", "train") for one in ("a/0.png", "b/1.png")]
    assert table.loc["test/b/1.png", ["label", "split"]].tolist() == ["b", "test"]
    assert table.loc["test/b/1.png", "path"] == str(tmp_path / "d/test/b/1.png")
    (tmp_path / "m/train").mkdir(parents=True)
    for i in range(2):
        picture(tmp_path / f"m/train/{i}.png", COLORS[i])
    (tmp_path / "m/train/metadata.csv").write_text("file_name,kind\n0.png,x\n1.png,NA\n")
    table = read_hf(tmp_path / "m", columns={"label": "kind"}, cache=tmp_path / "cache")
    assert sorted(table.index) == ["train/0.png", "train/1.png"] and table["label"].tolist() == ["x", "NA"]


def test_labels_of_metadata_are_text_as_written(
    hf: Any, tmp_path: Path, picture, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(4):
        picture(tmp_path / f"m/train/{i}.png", COLORS[i % 2])
    (tmp_path / "m/train/metadata.csv").write_text("file_name,label,n\n0.png,007,1\n1.png,010,2\n2.png,1.10,3\n")
    table = read_hf(tmp_path / "m", cache=tmp_path / "cache")
    assert table["label"].to_dict() == {"train/0.png": "007", "train/1.png": "010", "train/2.png": "1.10"}
    assert table["n"].tolist() == [1, 2, 3]
    assert "1 image(s) are in no metadata file and left out: train/3.png" in caplog.text
    data = open_hf(tmp_path / "m", None, cache=tmp_path / "cache")
    fixes = pd.DataFrame({"new_label": ["010"]}, index=["train/0.png"])
    write_fixed_hf(data, table, fixes, tmp_path / "out")
    assert read_hf(tmp_path / "out")["label"].tolist() == ["010", "010", "1.10"]


SPLITS = ("train", "test")


def test_splits_are_folders_not_words_in_names(hf: Any, tmp_path: Path, picture, caplog) -> None:
    for label in ("train", "bus"):
        for name in ("train_station", "plain", "my-test"):
            picture(tmp_path / f"d/{label}/{name}.png")
    table = read_hf(tmp_path / "d", cache=tmp_path / "cache")
    assert len(table) == 6 and sorted(table["label"].unique()) == ["bus", "train"] and (table["split"] == "").all()
    for split in SPLITS:
        for label in ("a", "b"):
            picture(tmp_path / f"n/data/{split}/{label}/test_{label}.png")
    picture(tmp_path / "n/docs/figure.png")
    picture(tmp_path / "n/data/train/a/@eaDir/x.png/SYNOPHOTO_THUMB_M.jpg")
    caplog.clear()
    table = read_hf(tmp_path / "n", cache=tmp_path / "cache")
    assert "1 image(s) are files of systems, such as thumbnails" in caplog.text
    table = table[~table.index.str.contains("@eaDir")]
    assert table["split"].tolist() == [name.split("/")[1] for name in table.index] and len(table) == 4


def test_metadata_above_the_folders_of_splits(hf: Any, tmp_path: Path, picture, caplog) -> None:
    names = [f"{split}/{number}.png" for split in SPLITS for number in range(2)]
    for name in [*names, "val/0.png"]:
        picture(tmp_path / "m" / name)
    rows = "".join(f"{name.replace('/', chr(92))},{number:03}\n" for number, name in enumerate(names))
    (tmp_path / "m/metadata.csv").write_text(f"file_name,label\n{rows}")
    table = read_hf(tmp_path / "m", cache=tmp_path / "cache")
    assert table["label"].to_dict() == dict(zip(sorted(names), ("002", "003", "000", "001"), strict=True))
    assert table["split"].to_dict() == {name: name.split("/")[0] for name in names}
    assert "1 image(s) are in no metadata file and left out: val/0.png" in caplog.text


def test_metadata_of_images_in_an_archive(hf: Any, tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "label": "x"}\n')
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.png", encoded())
    with pytest.raises(DataError, match=r"(?s)1 of 1 images are not there, such as \S*a.png.*unpack images.zip"):
        read_hf(tmp_path, cache=tmp_path.parent / "cache")


def test_id_columns(hf: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ids = {"image_id": ([9, 7, 8], hf.Value("int64"))}
    options = write(hf, tmp_path / "d", "save_to_disk", train=build(hf, **ids))
    assert read_hf(**options).index.tolist() == ["9", "7", "8"] and "the column 'image_id'" in caplog.text
    options = write(hf, tmp_path / "e", "save_to_disk", train=build(hf, **ids), test=build(hf, **ids))
    assert read_hf(**options).index.tolist()[2:4] == ["train/8", "test/9"]
    twice = {"image_id": (["x", "x", "y"], hf.Value("string"))}
    options = write(hf, tmp_path / "f", "save_to_disk", train=build(hf, **twice))
    assert read_hf(**options).index.tolist() == ["train/0", "train/1", "train/2"], "no ids if they repeat"
    with pytest.raises(DataError, match=r"(?s)1 sample_id\(s\) occur more than once: x.*columns..sample_id"):
        read_hf(**options, columns={"sample_id": "image_id"})


def test_labels_of_other_types(hf: Any, tmp_path: Path) -> None:
    for number, (feature, values, labels) in enumerate(
        (
            (hf.Value("string"), ["007", "NA", None], ["007", "NA", None]),
            (hf.Value("int64"), [3, 0, None], ["3", "0", None]),
            (hf.Value("float64"), [1.0, 2.0, None], ["1", "2", None]),
            (hf.Value("bool"), [True, False, None], ["true", "false", None]),
            (hf.ClassLabel(names=NAMES), [2, -1, None], ["007", None, None]),
        )
    ):
        options = write(hf, tmp_path / str(number), "save_to_disk", train=build(hf, label=(values, feature)))
        table = read_hf(**options)
        assert table["label"].tolist() == labels, feature
    assert table.attrs["classes"] == list(NAMES)


def test_groups(hf: Any, tmp_path: Path) -> None:
    options = write(hf, tmp_path / "d", "save_to_disk", train=build(hf, photo=(["p", "p", None], hf.Value("string"))))
    assert read_hf(**options, columns={"group": "photo"})["group"].tolist() == ["p", "p", "train/2"]
    with pytest.raises(DataError, match=r"(?s)no column 'photos' \(columns..group..\).*did you mean 'photo'"):
        read_hf(**options, columns={"group": "photos"})


def test_what_fits_twice_or_not_at_all_is_an_error(hf: Any, tmp_path: Path, caplog) -> None:
    image = {"bytes": encoded(), "path": None}
    number = hf.ClassLabel(names=NAMES)
    cases = (
        (
            {"mask": ([image] * 3, hf.Image())},
            {},
            r"(?s)several columns hold images: image, mask.*columns=..image.: .image",
        ),
        ({"coarse": ([0, 1, 2], number)}, {}, r"(?s)may be the label: label, coarse.*columns=..label.: .label"),
        ({"image": (None, None)}, {}, r"no column holds images; there are label \(int64\)"),
        (
            {"image": ([[image]] * 3, hf.Sequence(hf.Image()))},
            {},
            r"(?s)no column holds.*'image' holds lists of images",
        ),
        ({"label": ([[0]] * 3, hf.Sequence(number))}, {}, r"(?s)'label' holds lists.*several \(multi-label\)"),
        ({"tags": ([["a"]] * 3, hf.Sequence(hf.Value("string")))}, {"label": "tags"}, r"multi-label"),
        ({"label": ([0.5, 1, 2], hf.Value("float64"))}, {}, r"label of row 0 is 0.5: a number to predict"),
        ({}, {"image": "label"}, r"(?s)'label' holds int64, not images.*set it to image"),
        ({}, {"image": "imge"}, r"(?s)no column 'imge' \(columns..image..\).*did you mean 'image'"),
        ({}, {"label": "lable"}, r"(?s)no column 'lable' \(columns..label..\).*did you mean 'label'"),
        ({}, {"sample_id": "key"}, r"no column 'key' \(columns..sample_id..\)"),
    )
    for place, (columns, names, problem) in enumerate(cases):
        options = write(hf, tmp_path / str(place), "save_to_disk", train=build(hf, **columns))
        with pytest.raises(DataError, match=problem):
            read_hf(**options, columns=names)
    options = write(
        hf, tmp_path / "none", "save_to_disk", train=build(hf, label=(None, None), size=([1] * 3, hf.Value("int8")))
    )
    assert read_hf(**options)["label"].isna().all()
    assert "samples have no label; data.columns.label=<name> takes one of these: size" in caplog.text
    with pytest.raises(DataError, match=r"(?s)has no split 'tain' \(splits\).*did you mean 'train'"):
        read_hf(**options, splits=["tain"])
    with pytest.raises(ConfigError, match=r"(?s)unknown key columns..labels.*did you mean 'label'"):
        read_hf(**options, columns={"labels": "x"})


def test_a_data_set_in_the_cache(hf: Any, tmp_path: Path) -> None:
    """It is found there by its name on the Hub, without the network."""
    read_hf(**write(hf, tmp_path / "signs", "parquet", train=build(hf)))
    (tmp_path / "cache/signs").rename(tmp_path / "cache/someone___signs")
    table = read_hf(repo="someone/signs", cache=tmp_path / "cache")
    assert table["label"].tolist() == ["cat", "dog", "007"] and table.index.tolist()[2] == "train/2"
    assert "someone___signs" in table["path"].iloc[0] and (decode_image(table["path"].iloc[1], 8) == COLORS[1]).all()


def test_what_can_not_be_read(hf: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/train.parquet").write_bytes(b"PAR1 no")
    for root in ("empty", "bad"):
        with pytest.raises(DataError, match=rf"(?s){root}. can't be read by the datasets library: .*check the folder"):
            read_hf(tmp_path / root, cache=tmp_path / "cache")
    with pytest.raises(DataError, match=r"gone. does not exist"):
        read_hf(tmp_path / "gone")
    with pytest.raises(DataError, match=r"(?s)repo='ylecun/mnist' can't be read.*load it once"):
        read_hf(repo="ylecun/mnist", cache=tmp_path / "cache")
    for options in ({}, {"root": "a", "repo": "b"}):
        with pytest.raises(ConfigError, match=r"(?s)root.*repo.*set root=<folder>"):
            read_hf(**options)


def test_the_library_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r'(?s)needs the datasets library.*pip install "mlfix-train\[hf\]"'):
        read_hf(tmp_path)
    monkeypatch.delitem(sys.modules, "datasets")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    (tmp_path / "datasets").mkdir()
    with pytest.raises(ConfigError, match=r"(?s)`import datasets` finds \S+/datasets.*pip install"):
        read_hf(tmp_path)
