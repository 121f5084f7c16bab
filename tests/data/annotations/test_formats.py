"""Readers of annotations: every box of every format, with its label, corners, split, and what is wrong with it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from photos import WRITE, Photo, for_format, photos, write_coco, write_mtsd, write_voc, write_yolo

from mlfix_train.data.annotations.base import Annotations
from mlfix_train.data.annotations.coco import read_coco
from mlfix_train.data.annotations.detect import guess_formats, read_boxes
from mlfix_train.data.annotations.mtsd import read_mtsd
from mlfix_train.data.annotations.voc import read_voc
from mlfix_train.data.annotations.yolo import read_yolo
from mlfix_train.errors import DataError


def pixels(found: Annotations) -> list[tuple]:
    """The boxes as (photo, label, split, x, y, x, y) in whole pixels."""
    table = found.boxes
    if found.shares:
        sizes = {
            name: (320 + 16 * int(name.removeprefix("photo").rpartition("photo")[2]), 200) for name in table["photo"]
        }
        for side, columns in enumerate((("x_min", "x_max"), ("y_min", "y_max"))):
            for column in columns:
                table[column] = table[column] * [sizes[name][side] for name in table["photo"]]
    return sorted(
        (row.photo.rpartition("/")[2], row.label, found.photos.at[row.photo, "split"],
         *(round(getattr(row, edge), 3) for edge in ("x_min", "y_min", "x_max", "y_max")))
        for row in table.itertuples()
    )  # fmt: skip


@pytest.mark.parametrize("name", list(WRITE))
def test_every_box_is_read(name: str, tmp_path: Path) -> None:
    made = for_format(name)
    WRITE[name](tmp_path, made)
    found = read_boxes(tmp_path)
    assert found.format == name
    assert list(found.photos.index.str.rpartition("/").get_level_values(2).sort_values()) == [p.name for p in made]
    assert (found.boxes["problem"] == "").all()
    if found.shares:
        for photo in made:
            assert photo.width == 320 + 16 * int(photo.name[5:])
    wanted = sorted((p.name, label, p.split, *map(float, box)) for p in made for label, box in p.boxes)
    assert pixels(found) == wanted
    assert all(Path(path).is_file() for path in found.photos["path"])


def test_a_folder_of_no_format_or_of_two_is_asked_about(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no annotations below"):
        read_boxes(tmp_path)
    write_coco(tmp_path, for_format("coco"))
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert guess_formats(tmp_path) == ["coco", "yolo"]
    with pytest.raises(DataError, match="looks like coco and yolo"):
        read_boxes(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_boxes(tmp_path / "nowhere")


# MTSD


def change(root: Path, name: str, **changes: object) -> None:
    file = root / "annotations" / f"{name}.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **changes}))


def test_mtsd_keeps_properties_keys_and_panoramas(tmp_path: Path) -> None:
    found = read_mtsd(write_mtsd(tmp_path, photos()))
    assert found.photos["panorama"].tolist() == [False, True, False, False, False, False]
    boxes = found.boxes.set_index("annotation")
    assert boxes.at["photo1key0", "occluded"] and not boxes.at["photo1key1", "occluded"]
    assert {"occluded", "ambiguous", "out-of-frame"} < set(boxes.columns)
    assert boxes["wraps"].sum() == 1
    assert boxes.at["photo1key2", "x_max"] == 336 + 14
    assert found.notes == ("1 photos of the test split have no annotations (they are not public)",)
    assert not found.upright and not found.shares


def test_mtsd_may_lie_deeper_and_in_several_folders(tmp_path: Path) -> None:
    write_mtsd(tmp_path / "a/mtsd", photos())
    images = tmp_path / "a/mtsd/images"
    other = tmp_path / "b/images/val"
    other.mkdir(parents=True)
    (images / "photo2.jpg").rename(other / "photo2.jpg")
    found = read_mtsd(tmp_path)
    assert all(Path(path).is_file() for path in found.photos["path"])
    (images / "photo2.png").write_bytes(b"x")
    with pytest.raises(DataError, match="two photos are called photo2"):
        read_mtsd(tmp_path)


@pytest.mark.parametrize(
    ("corners", "panorama", "parts", "wraps"),
    [
        ((300, 20), True, True, True),
        ((300, 20), True, False, True),  # narrower across the edge than the other way round
        ((200, 150), True, False, False),  # swapped
        ((300, 20), False, False, False),
        ((300, 20), False, True, True),
        ((0, 320), True, True, True),  # only the parts tell
    ],
)
def test_mtsd_tells_crossing_from_swapped(tmp_path: Path, corners, panorama, parts, wraps) -> None:
    write_mtsd(tmp_path, [Photo("p")])
    box = {"xmin": corners[0], "xmax": corners[1], "ymin": 5, "ymax": 9}
    if parts:
        box["cross_boundary"] = {"left": {"xmin": 300, "xmax": 320, "ymin": 5, "ymax": 9},
                                 "right": {"xmin": 0, "xmax": 20, "ymin": 5, "ymax": 9}}  # fmt: skip
    change(tmp_path, "p", ispano=panorama, objects=[{"key": "k", "label": "stop", "bbox": box, "properties": {}}])
    row = read_mtsd(tmp_path).boxes.iloc[0]
    assert row["wraps"] == wraps
    if wraps:
        assert (row["x_min"], row["x_max"]) == (300, 340)


def test_mtsd_says_what_is_wrong_with_boxes(tmp_path: Path) -> None:
    write_mtsd(tmp_path, [Photo("p")])
    good = {"xmin": 1, "xmax": 9, "ymin": 5, "ymax": 9}
    objects = [
        {"key": "a", "label": "stop", "bbox": {**good, "xmin": math.nan}},
        {"key": "b", "label": "stop", "bbox": {**good, "xmin": "12"}},
        {"key": "c", "label": "stop", "bbox": {"xmin": 1}},
        {"key": "d", "label": None, "bbox": good},
        {"key": "e", "label": "  ", "bbox": good},
        {"key": "f", "label": "stop"},
        "nonsense",
        {"key": "g", "label": "stop", "bbox": good},
        {"key": "g", "label": "yield", "bbox": good},
    ]
    change(tmp_path, "p", objects=objects)
    table = read_mtsd(tmp_path).boxes
    assert table["problem"].tolist() == ["not a number"] * 3 + ["no label"] * 2 + ["malformed"] * 2 + [""] * 2
    assert table["position"].tolist() == list(range(9))
    assert table["annotation"].tolist() == ["a", "b", "c", "d", "e", "f", "6", "g", "g#8"]
    assert "'12'" in table["detail"][1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty"),
        ('{"width": 3', "it is not valid JSON"),
        ("[1, 2]", "it holds a list"),
        ('{"images": [], "annotations": []}', "no width and no height and no objects; it has images, annotations"),
        ('{"width": -3, "height": 4, "objects": []}', "width is -3"),
        ('{"width": 3, "height": 4, "objects": {}}', "objects is a dict"),
    ],
)
def test_mtsd_names_files_of_another_schema(tmp_path: Path, text: str, told: str) -> None:
    write_mtsd(tmp_path, photos())
    file = tmp_path / "annotations/photo3.json"
    file.write_text(text)
    row = read_mtsd(tmp_path).photos.loc["photo3"]
    assert row["problem"] == "annotation unreadable"
    assert str(file) in row["detail"] and told in row["detail"]


def test_mtsd_checks_its_splits(tmp_path: Path) -> None:
    write_mtsd(tmp_path, photos())
    (tmp_path / "annotations/photo0.json").unlink()
    (tmp_path / "splits/val.txt").write_text("photo5\n")
    found = read_mtsd(tmp_path)
    assert found.photos.loc["photo0", "problem"] == "no annotation"
    assert found.photos.loc["photo2", "split"] == ""
    assert any("photo2" in note and "no list" in note for note in found.notes)
    (tmp_path / "splits/val.txt").write_text("photo3\n")
    with pytest.raises(DataError, match=r"val.txt: photo3 stands in train.txt too"):
        read_mtsd(tmp_path)


def test_mtsd_without_its_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder annotations/"):
        read_mtsd(tmp_path)
    write_mtsd(tmp_path, photos())
    (tmp_path / "images").rename(tmp_path / "pictures")
    with pytest.raises(DataError, match="no folder called images"):
        read_mtsd(tmp_path)
    assert Path(read_mtsd(tmp_path, tmp_path / "pictures").photos["path"].iloc[0]).is_file()


# COCO


def coco(root: Path, **changes: object) -> Path:
    write_coco(root, [Photo("p", boxes=[("stop", (10, 10, 30, 40)), ("yield", (50, 10, 80, 40))]), Photo("empty")])
    (root / "annotations/instances_val2017.json").unlink()
    file = root / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **changes}))
    return file


def test_coco_keeps_photos_without_boxes_and_what_annotations_say(tmp_path: Path) -> None:
    coco(tmp_path)
    found = read_coco(tmp_path)
    assert list(found.photos.index) == ["train2017/p", "train2017/empty"]
    assert found.boxes["annotation"].tolist() == ["50000", "49989"]
    assert found.boxes["area"].tolist() == [1.5, 1.5]
    assert found.classes == ("stop", "yield", "other-sign", "speed/50 km:h")


def test_coco_says_what_is_wrong_with_boxes(tmp_path: Path) -> None:
    row = {"image_id": 1000, "category_id": 3, "bbox": [1, 2, 3, 4]}
    rows = [
        {**row, "id": 1, "iscrowd": 1, "segmentation": {"counts": [], "size": [1, 1]}},
        {**row, "id": 2, "category_id": 4}, {**row, "id": 3, "image_id": 8}, {**row, "id": 5, "bbox": [1, 2]},
        {**row, "id": 4, "bbox": [1, math.nan, 3, 4]},
        {"id": 6, "image_id": 1000, "category_id": 3}, {**row, "id": 7, "bbox": [9, 9, -3, 4]}, {**row, "id": 8},
    ]  # fmt: skip
    coco(tmp_path, annotations=rows)
    table = read_coco(tmp_path).boxes.set_index("annotation")
    assert table["problem"].to_dict() == {
        "1": "crowd", "2": "unknown class", "3": "no photo", "4": "not a number", "5": "malformed", "6": "malformed",
        "7": "", "8": "",
    }  # fmt: skip
    assert table.loc["7", "x_max"] == 6  # left of x_min: the cropping tells it
    assert "category_id 4" in table.loc["2", "detail"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": None}, "no list images"),
        ({"annotations": {}, "categories": 3}, "no list annotations and no list categories"),
        ({"images": [{"id": 1}]}, "images[0] (id 1) has no file_name"),
        ({"images": [{"file_name": "p.jpg"}]}, "not an object with an id"),
        ({"images": [{"id": 1, "file_name": "p.jpg"}, {"id": 1, "file_name": "q.jpg"}]}, "image id 1 stands twice"),
        ({"images": [{"id": 1, "file_name": "p.jpg"}, {"id": 2, "file_name": "p.jpg"}]}, "stand for two photos"),
        ({"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, "category id 3 stands for 'a' and 'b'"),
        ({"categories": [{"id": 3}]}, "categories[0] (id 3) has no name"),
        ({"annotations": [{"id": 5, "image_id": 1000}] * 2}, "annotation id 5 stands twice"),
    ],
)
def test_coco_of_another_schema(tmp_path: Path, changes: dict, told: str) -> None:
    file = coco(tmp_path, **changes)
    with pytest.raises(DataError) as caught:
        read_coco(tmp_path)
    assert told in str(caught.value)
    assert str(file) in str(caught.value)


def test_coco_files_can_be_named_and_lie_beside_their_photos(tmp_path: Path) -> None:
    write_coco(tmp_path, for_format("coco"))
    only = read_coco(tmp_path, "annotations/instances_val2017.json")
    assert set(only.photos["split"]) == {"val"}
    with pytest.raises(DataError, match="the file is missing"):
        read_coco(tmp_path, "annotations/instances_minival.json")
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(DataError, match="it holds a list, as files of detections do"):
        read_coco(tmp_path, "results.json")
    (tmp_path / "valid").mkdir()
    source = tmp_path / "annotations/instances_val2017.json"
    (tmp_path / "valid/_annotations.coco.json").write_bytes(source.read_bytes())
    for path in (tmp_path / "val2017").iterdir():
        path.rename(tmp_path / "valid" / path.name)
    for file in (tmp_path / "annotations").iterdir():
        file.unlink()
    beside = read_coco(tmp_path)
    assert list(beside.photos["split"].unique()) == ["val"]
    assert all(Path(path).is_file() for path in beside.photos["path"])


# YOLO


def test_yolo_reads_names_as_a_list_from_a_file_and_photos_from_a_list(tmp_path: Path) -> None:
    made = for_format("yolo")
    write_yolo(tmp_path, made)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("stop\nyield\nother-sign\nspeed/50 km:h\n")
    found = read_yolo(tmp_path)
    assert set(found.photos["split"]) == {"train", "val"}  # by the folders
    whole = pixels(found)
    (tmp_path / "classes.txt").unlink()
    listed = "".join(f"./images/train/{p.name}.jpg\n" for p in made if p.split == "train")
    (tmp_path / "train.txt").write_text(listed)
    names = "[stop, yield, other-sign, 'speed/50 km:h']"
    (tmp_path / "my.yaml").write_text(f"train: train.txt\nval: [images/val]\nnames: {names}\n")
    assert pixels(read_yolo(tmp_path)) == whole
    assert read_yolo(tmp_path, "my.yaml").upright


def test_yolo_says_what_is_wrong_with_lines(tmp_path: Path) -> None:
    write_yolo(tmp_path, [Photo("photo0", boxes=[("stop", (10, 10, 30, 40))]), Photo("photo1", split="val")])
    file = tmp_path / "labels/train/photo0.txt"
    file.write_text(
        "0 0.5 0.5 0.1 0.1\n\n9 0.5 0.5 0.1 0.1\n0.5 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1\n0 a 0.5 0.1 0.1\n"
        "0 nan 0.5 0.1 0.1\n1 0.1 0.2 0.3 0.2 0.3 0.6\n0 0.5 0.5 0.1 0.1 0.93\n0 1 2 3 4 5 6 7\n"
    )
    table = read_yolo(tmp_path).boxes
    assert table["problem"].tolist() == ["", "unknown class", "unknown class", "malformed", "malformed", "not a number",
                                         "", "", "malformed"]  # fmt: skip
    assert table["annotation"].tolist() == ["1", "3", "4", "5", "6", "7", "8", "9", "10"]
    assert f"{file}: line 3" in table["detail"][1]
    polygon = table.iloc[6]
    assert (polygon["label"], polygon["x_min"], polygon["y_max"]) == ("yield", 0.1, 0.6)


@pytest.mark.parametrize(
    ("yaml", "told"),
    [
        ("names: 3", "names is 3"),
        ("names: []", "names no classes"),
        ("names: {a: b}", "a key that is no number"),
        ("names: {0: ''}", "class 0 has an empty name"),
        ("names: [a, b\ntrain: 3", "can't be read as YAML"),
        ("names: [a]\ntrain: images/trian", "did you mean train?"),
    ],
)
def test_yolo_with_a_bad_yaml(tmp_path: Path, yaml: str, told: str) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    (tmp_path / "data.yaml").write_text(yaml)
    with pytest.raises(DataError) as caught:
        read_yolo(tmp_path, "data.yaml")
    assert told in str(caught.value)


def test_yolo_goes_on_without_a_test_split(tmp_path: Path) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    with open(tmp_path / "data.yaml", "a") as file:
        file.write("test: test-dev2017.txt\n")
    found = read_yolo(tmp_path)
    assert len(found.photos) == 6
    assert any("test-dev2017.txt" in note for note in found.notes)


def test_yolo_photos_that_share_a_label_file(tmp_path: Path) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    (tmp_path / "images/train/photo0.png").write_bytes((tmp_path / "images/train/photo0.jpg").read_bytes())
    with pytest.raises(DataError, match=r"two photos share .*photo0\.txt"):
        read_yolo(tmp_path)


def test_yolo_counts_photos_without_boxes(tmp_path: Path) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    (tmp_path / "labels/train/photo0.txt").unlink()
    assert "1 photos have no boxes" in read_yolo(tmp_path).notes
    for file in tmp_path.glob("labels/*/*.txt"):
        file.unlink()
    with pytest.raises(DataError, match="none of the 6 photos"):
        read_yolo(tmp_path)


# Pascal VOC


def test_voc_says_what_is_wrong(tmp_path: Path) -> None:
    write_voc(tmp_path, for_format("voc"))
    (tmp_path / "Annotations/photo0.xml").write_text("<annotation><object>")
    (tmp_path / "Annotations/photo1.xml").write_text("<html/>")
    bad = "<object><name>stop</name><bndbox><xmin>a</xmin></bndbox></object><object><bndbox/></object>"
    (tmp_path / "Annotations/photo2.xml").write_text(f"<annotation>{bad}</annotation>")
    found = read_voc(tmp_path)
    assert found.photos.loc["photo0", "problem"] == found.photos.loc["photo1", "problem"] == "annotation unreadable"
    boxes = found.boxes[found.boxes["photo"] == "photo2"]
    assert boxes["problem"].tolist() == ["not a number"] * 2
    assert "corners a, None" in boxes["detail"].iloc[0]
    assert set(found.boxes["pose"].dropna()) == {"Left"}


def test_metadata_never_overwrites_our_columns(tmp_path: Path) -> None:
    coco(tmp_path, annotations=[{"id": 1, "image_id": 1000, "category_id": 3, "bbox": [1, 2, 3, 4], "label": "x",
                                 "attributes": {"occluded": True, "group": 4}}])  # fmt: skip
    table: pd.DataFrame = read_coco(tmp_path).boxes
    assert table.loc[0, ["label", "source_label", "occluded", "source_group"]].tolist() == ["stop", "x", True, 4]
