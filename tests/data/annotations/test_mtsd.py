"""Reading MTSD."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from box_helpers import ONE, SMALL_PNG
from photos import Photo, photos, write_mtsd

from mlfix_train import run_command
from mlfix_train.data.annotations.mtsd import Mtsd
from mlfix_train.errors import DataError


def change(root: Path, name: str, **changes: object) -> None:
    file = root / "annotations" / f"{name}.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **changes}))


def test_mtsd_keeps_properties_keys_and_panoramas(tmp_path: Path) -> None:
    found = Mtsd(write_mtsd(tmp_path, photos())).read()
    assert found.photos["panorama"].tolist() == [False, True, False, False, False, False]
    boxes = found.boxes.set_index("annotation")
    assert boxes.at["photo1key0", "occluded"] and not boxes.at["photo1key1", "occluded"]
    assert {"occluded", "ambiguous", "out-of-frame"} < set(boxes.columns)
    assert boxes["wraps"].sum() == 1
    assert boxes.at["photo1key2", "x_max"] == 336 + 14
    assert found.notes == ("1 photos of the test split have no annotations (they are not public)",)
    assert not found.exif_applied and not found.normalized


def test_mtsd_passes_over_metadata_of_macos(tmp_path: Path) -> None:
    plain = len(Mtsd(write_mtsd(tmp_path, photos())).read().photos)
    for name in ("annotations/._photo0.json", "images/._photo0.jpg", "annotations/.ipynb_checkpoints/photo1.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    found = Mtsd(tmp_path).read().photos
    assert len(found) == plain and not found["problem"].any()


def test_mtsd_may_lie_deeper_and_in_several_folders(tmp_path: Path) -> None:
    write_mtsd(tmp_path / "a/mtsd", photos())
    images = tmp_path / "a/mtsd/images"
    other = tmp_path / "b/images/val"
    other.mkdir(parents=True)
    (images / "photo2.jpg").rename(other / "photo2.jpg")
    found = Mtsd(tmp_path).read()
    assert all(Path(path).is_file() for path in found.photos["path"])
    (images / "photo2.png").write_bytes(b"x")
    with pytest.raises(DataError, match="two photos are called photo2"):
        Mtsd(tmp_path).read()


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
        box["cross_boundary"] = {
            "left": {"xmin": 300, "xmax": 320, "ymin": 5, "ymax": 9},
            "right": {"xmin": 0, "xmax": 20, "ymin": 5, "ymax": 9},
        }
    change(tmp_path, "p", ispano=panorama, objects=[{"key": "k", "label": "stop", "bbox": box, "properties": {}}])
    row = Mtsd(tmp_path).read().boxes.iloc[0]
    assert row["wraps"] == wraps
    if wraps:
        assert (row["x_min"], row["x_max"]) == (300, 340)


def test_mtsd_reports_what_is_wrong_with_boxes(tmp_path: Path) -> None:
    write_mtsd(tmp_path, [Photo("p")])
    good = {"xmin": 1, "xmax": 9, "ymin": 5, "ymax": 9}
    objects = [
        {"key": "a", "label": "stop", "bbox": {**good, "xmin": math.nan}},
        {"key": "b", "label": "stop", "bbox": {**good, "xmin": "1_2"}},
        {"key": "c", "label": "stop", "bbox": {"xmin": 1}},
        {"key": "d", "label": None, "bbox": good},
        {"key": "e", "label": "  ", "bbox": good},
        {"key": "f", "label": "stop"},
        "nonsense",
        {"key": "g", "label": "stop", "bbox": good},
        {"key": "g", "label": "yield", "bbox": good},
    ]
    change(tmp_path, "p", objects=objects)
    table = Mtsd(tmp_path).read().boxes
    assert table["problem"].tolist() == ["not a number"] * 3 + ["no label"] * 2 + ["malformed"] * 2 + [""] * 2
    assert table["position"].tolist() == list(range(9))
    assert table["annotation"].tolist() == ["a", "b", "c", "d", "e", "f", "6", "g", "g#8"]
    assert "'1_2'" in table["detail"][1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "it is empty"),
        ('{"width": 3', "it is cut off in line 1"),
        ("[1, 2]", "it is a list"),
        ('{"images": [], "annotations": []}', "no width and no height and no objects; it has images, annotations"),
        ('{"width": -3, "height": 4, "objects": []}', "width is -3"),
        ('{"width": 3, "height": 4, "objects": {}}', "objects is a dict"),
    ],
)
def test_mtsd_names_files_of_another_schema(tmp_path: Path, text: str, expected: str) -> None:
    write_mtsd(tmp_path, photos())
    file = tmp_path / "annotations/photo3.json"
    file.write_text(text)
    row = Mtsd(tmp_path).read().photos.loc["photo3"]
    assert row["problem"] == "annotation unreadable"
    assert str(file) in row["detail"] and expected in row["detail"]


def test_mtsd_checks_its_splits(tmp_path: Path) -> None:
    write_mtsd(tmp_path, photos())
    (tmp_path / "annotations/photo0.json").unlink()
    (tmp_path / "splits/val.txt").write_text("photo5\n")
    found = Mtsd(tmp_path).read()
    assert found.photos.loc["photo0", "problem"] == "no annotation"
    assert found.photos.loc["photo2", "split"] == ""
    assert any("photo2" in note and "no list" in note for note in found.notes)
    (tmp_path / "splits/val.txt").write_text("photo3\n")
    with pytest.raises(DataError, match=r"val.txt: photo3 is also in train.txt"):
        Mtsd(tmp_path).read()


def test_mtsd_without_its_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder annotations/"):
        Mtsd(tmp_path).read()
    write_mtsd(tmp_path, photos())
    (tmp_path / "images").rename(tmp_path / "pictures")
    with pytest.raises(DataError, match="no folder called images"):
        Mtsd(tmp_path).read()
    assert Path(Mtsd(tmp_path, tmp_path / "pictures").read().photos["path"].iloc[0]).is_file()


def test_numbers_and_texts_beyond_all_bounds(tmp_path: Path) -> None:
    write_mtsd(tmp_path, [Photo("p", boxes=ONE * 3)])
    file = tmp_path / "annotations/p.json"
    content = json.loads(file.read_text())
    content["objects"][0]["bbox"]["xmax"] = 10**400
    content["objects"][1]["properties"] = [1, 2]
    content["objects"][2]["label"] = "\ud800x"
    file.write_text(json.dumps(content))
    found = Mtsd(tmp_path).read()
    assert found.boxes["problem"].tolist() == ["not a number", "", ""]
    assert found.boxes["label"][2] == "?x"
    table = run_command(
        "crop", f"data.root={tmp_path}", f"out={tmp_path.parent / (tmp_path.name + '-out')}", *SMALL_PNG
    )
    assert "%3Fx/p-" in " ".join(table.index)


def test_mtsd_ids_labels_and_sizes_of_another_type(tmp_path: Path) -> None:
    write_mtsd(tmp_path, [Photo("p")])
    box = {"xmin": 1, "xmax": 9, "ymin": 5, "ymax": 9}
    objects = [{"key": key, "label": 30, "bbox": box} for key in (0, 1.0, "1", None)]
    change(tmp_path, "p", objects=objects, width="320", height=200.0)
    found = Mtsd(tmp_path).read()
    assert found.boxes["annotation"].tolist() == ["0", "1", "1#2", "3"] and set(found.boxes["label"]) == {"30"}
    assert found.photos[["width", "height"]].iloc[0].tolist() == [320, 200]
    assert any("1 object keys repeat" in note for note in found.notes)


def test_mtsd_boxes_that_only_a_polygon_gives_and_photos_in_another_case(tmp_path: Path) -> None:
    write_mtsd(tmp_path, [Photo("caf\u00e9"), Photo("q")])
    polygon = [[10, 20], [30, 20], [30, 60]]
    change(tmp_path, "q", objects=[{"key": "k", "label": "stop", "polygon": polygon}])
    (tmp_path / "images/caf\u00e9.jpg").rename(tmp_path / "images/cafe\u0301.jpg")
    (tmp_path / "images/q.jpg").rename(tmp_path / "images/Q.JPG")
    found = Mtsd(tmp_path).read()
    assert found.boxes[["x_min", "y_min", "x_max", "y_max"]].to_numpy().tolist() == [[10, 20, 30, 60]]
    assert all(Path(path).is_file() for path in found.photos["path"])
    notes = " ".join(found.notes)
    assert "1 boxes have no bbox" in notes and "Unicode form" in notes and "upper and lower case" in notes
