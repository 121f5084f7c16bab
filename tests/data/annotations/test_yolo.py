"""Reading YOLO data sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from box_helpers import pixels
from photos import Photo, for_format, write_yolo

from mlfix_train.data.annotations.yolo import Yolo
from mlfix_train.errors import DataError


def test_yolo_reads_names_as_a_list_from_a_file_and_photos_from_a_list(tmp_path: Path) -> None:
    made = for_format("yolo")
    write_yolo(tmp_path, made)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("stop\nyield\nother-sign\nspeed/50 km:h\n")
    found = Yolo(tmp_path).read()
    assert set(found.photos["split"]) == {"train", "val"}  # by the folders
    whole = pixels(found)
    (tmp_path / "classes.txt").unlink()
    listed = "".join(f"./images/train/{p.name}.jpg\n" for p in made if p.split == "train")
    (tmp_path / "train.txt").write_text(listed)
    names = "[stop, yield, other-sign, 'speed/50 km:h']"
    (tmp_path / "my.yaml").write_text(f"train: train.txt\nval: [images/val]\nnames: {names}\n")
    assert pixels(Yolo(tmp_path).read()) == whole
    assert Yolo(tmp_path, "my.yaml").read().exif_applied


def test_yolo_reports_what_is_wrong_with_lines(tmp_path: Path) -> None:
    write_yolo(tmp_path, [Photo("photo0", boxes=[("stop", (10, 10, 30, 40))]), Photo("photo1", split="val")])
    file = tmp_path / "labels/train/photo0.txt"
    file.write_text(
        "0 0.5 0.5 0.1 0.1\n\n9 0.5 0.5 0.1 0.1\n0.5 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1\n0 a 0.5 0.1 0.1\n"
        "0 nan 0.5 0.1 0.1\n1 0.1 0.2 0.3 0.2 0.3 0.6\n0 0.5 0.5 0.1 0.1 0.93\n0 1 2 3 4 5 6 7\n"
    )
    table = Yolo(tmp_path).read().boxes
    assert table["problem"].tolist() == [
        "",
        "unknown class",
        "unknown class",
        "malformed",
        "malformed",
        "not a number",
        "",
        "",
        "malformed",
    ]
    assert table["annotation"].tolist() == ["1", "3", "4", "5", "6", "7", "8", "9", "10"]
    assert f"{file}: line 3" in table["detail"][1]
    polygon = table.iloc[6]
    assert (polygon["label"], polygon["x_min"], polygon["y_max"]) == ("yield", 0.1, 0.6)


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("names: 3", "names is 3"),
        ("names: []", "lists no classes"),
        ("names: {a: b}", "a key that is not a number"),
        ("names: {0: ''}", "class 0 has an empty name"),
        ("names: [a, b\ntrain: 3", "is not valid YAML"),
        ("names: [a]\ntrain: images/trian", "did you mean train?"),
    ],
)
def test_yolo_with_a_bad_yaml(tmp_path: Path, yaml: str, expected: str) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    (tmp_path / "data.yaml").write_text(yaml)
    with pytest.raises(DataError) as caught:
        Yolo(tmp_path, "data.yaml").read()
    assert expected in str(caught.value)


def test_yolo_goes_on_without_a_test_split(tmp_path: Path) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    with open(tmp_path / "data.yaml", "a") as file:
        file.write("test: test-dev2017.txt\n")
    found = Yolo(tmp_path).read()
    assert len(found.photos) == 6
    assert any("test-dev2017.txt" in note for note in found.notes)


def test_yolo_photos_that_share_a_label_file(tmp_path: Path) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    (tmp_path / "images/train/photo0.png").write_bytes((tmp_path / "images/train/photo0.jpg").read_bytes())
    with pytest.raises(DataError, match=r"two photos share .*photo0\.txt"):
        Yolo(tmp_path).read()


def test_yolo_counts_photos_without_boxes(tmp_path: Path) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    (tmp_path / "labels/train/photo0.txt").unlink()
    assert "1 photos have no boxes" in Yolo(tmp_path).read().notes
    for file in tmp_path.glob("labels/*/*.txt"):
        file.unlink()
    with pytest.raises(DataError, match="none of the 6 photos"):
        Yolo(tmp_path).read()


def test_yolo_lines_of_nan_and_files_that_are_no_text(tmp_path: Path) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    (tmp_path / "labels/train/photo0.txt").write_text("nan 0.5 0.5 0.2 0.2\ninf 0.5 0.5 0.2 0.2\n")
    (tmp_path / "labels/train/photo1.txt").write_bytes(b"0 \xff\xfe")
    found = Yolo(tmp_path).read()
    mine = found.boxes[found.boxes["photo"] == "train/photo0"]
    assert mine["problem"].tolist() == ["unknown class"] * 2
    assert found.photos.at["train/photo1", "problem"] == "annotation unreadable"


@pytest.mark.parametrize(
    ("names", "expected"), [("[a, null]", "class 1 is called None"), ("[true, no]", "class 0 is called True")]
)
def test_yolo_names_that_yaml_takes_for_something_else(tmp_path: Path, names: str, expected: str) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    (tmp_path / "data.yaml").write_text(f"names: {names}\n")
    with pytest.raises(DataError, match=expected):
        Yolo(tmp_path).read()
