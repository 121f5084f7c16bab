"""Reading COCO."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from box_helpers import ONE
from photos import Photo, for_format, write_coco

from mlfix_train.data.annotations.coco import Coco
from mlfix_train.errors import DataError


def coco(root: Path, **changes: object) -> Path:
    write_coco(root, [Photo("p", boxes=[("stop", (10, 10, 30, 40)), ("yield", (50, 10, 80, 40))]), Photo("empty")])
    (root / "annotations/instances_val2017.json").unlink()
    file = root / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **changes}))
    return file


def test_coco_keeps_photos_without_boxes_and_what_annotations_say(tmp_path: Path) -> None:
    coco(tmp_path)
    found = Coco(tmp_path).read()
    assert list(found.photos.index) == ["train2017/p", "train2017/empty"]
    assert found.boxes["annotation"].tolist() == ["50000", "49989"]
    assert found.boxes["area"].tolist() == [1.5, 1.5]
    assert found.classes == ("stop", "yield", "other-sign", "speed/50 km:h")


def test_coco_reports_what_is_wrong_with_boxes(tmp_path: Path) -> None:
    row = {"image_id": 1000, "category_id": 3, "bbox": [1, 2, 3, 4]}
    rows = [
        {**row, "id": 1, "iscrowd": 1, "segmentation": {"counts": [], "size": [1, 1]}},
        {**row, "id": 2, "category_id": 4},
        {**row, "id": 3, "image_id": 8},
        {**row, "id": 5, "bbox": [1, 2]},
        {**row, "id": 4, "bbox": [1, math.nan, 3, 4]},
        {"id": 6, "image_id": 1000, "category_id": 3},
        {**row, "id": 7, "bbox": [9, 9, -3, 4]},
        {**row, "id": 8},
    ]
    coco(tmp_path, annotations=rows)
    table = Coco(tmp_path).read().boxes.set_index("annotation")
    assert table["problem"].to_dict() == {
        "1": "crowd",
        "2": "unknown class",
        "3": "no photo",
        "4": "not a number",
        "5": "malformed",
        "6": "malformed",
        "7": "",
        "8": "",
    }
    assert table.loc["7", "x_max"] == 6  # left of x_min: the cropping tells it
    assert "category_id 4" in table.loc["2", "detail"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"images": None}, "lacks the lists images"),
        ({"annotations": {}, "categories": 3}, "it lacks the lists annotations and categories"),
        ({"images": [{"id": 1}]}, "images[0] (id 1) has no file_name"),
        ({"images": [{"file_name": "p.jpg"}]}, "not an object with an id"),
        ({"images": [{"id": 1, "file_name": "p.jpg"}, {"id": 1, "file_name": "q.jpg"}]}, "image id 1 is used twice"),
        ({"images": [{"id": 1, "file_name": "p.jpg"}, {"id": 2, "file_name": "p.jpg"}]}, "are used twice"),
        ({"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, "category id 3 is used for 'a' and 'b'"),
        ({"categories": [{"id": 3}]}, "categories[0] (id 3) has no name"),
        ({"annotations": [{"id": 5, "image_id": 1000}] * 2}, "annotation id 5 is used twice"),
    ],
)
def test_coco_of_another_schema(tmp_path: Path, changes: dict, expected: str) -> None:
    file = coco(tmp_path, **changes)
    with pytest.raises(DataError) as caught:
        Coco(tmp_path).read()
    assert expected in str(caught.value)
    assert str(file) in str(caught.value)


def test_coco_files_can_be_named_and_lie_beside_their_photos(tmp_path: Path) -> None:
    write_coco(tmp_path, for_format("coco"))
    only = Coco(tmp_path, "annotations/instances_val2017.json").read()
    assert set(only.photos["split"]) == {"val"}
    with pytest.raises(DataError, match="the file is missing"):
        Coco(tmp_path, "annotations/instances_minival.json").read()
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(DataError, match="it is a list, as files of detections are"):
        Coco(tmp_path, "results.json").read()
    (tmp_path / "valid").mkdir()
    source = tmp_path / "annotations/instances_val2017.json"
    (tmp_path / "valid/_annotations.coco.json").write_bytes(source.read_bytes())
    for path in (tmp_path / "val2017").iterdir():
        path.rename(tmp_path / "valid" / path.name)
    for file in (tmp_path / "annotations").iterdir():
        file.unlink()
    beside = Coco(tmp_path).read()
    assert list(beside.photos["split"].unique()) == ["val"]
    assert all(Path(path).is_file() for path in beside.photos["path"])


def test_coco_reports_which_files_it_leaves_out_and_why(tmp_path: Path) -> None:
    write_coco(tmp_path, for_format("coco"))
    (tmp_path / "annotations/captions.json").write_text("{}")
    assert any("captions.json" in note for note in Coco(tmp_path).read().notes)
    folder = tmp_path / "annotations"
    for split in ("train", "val"):
        (folder / f"instances_{split}2017.json").rename(folder / f"{split}2017.json")
    assert any("captions.json: it lacks the lists images" in note for note in Coco(tmp_path).read().notes)
    (folder / "train2017.json").write_text((folder / "train2017.json").read_text()[:-30])
    with pytest.raises(DataError, match=r"train2017\.json: it is not valid JSON"):
        Coco(tmp_path).read()
    (folder / "train2017.json").unlink()
    for number in range(201):
        (tmp_path / f"{number}.json").write_text("{}")
    with pytest.raises(DataError, match="203 JSON files"):
        Coco(tmp_path).read()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"annotations": [{"id": 1, "image_id": 1000}, {"id": "1", "image_id": 1000}]},
            "annotation id 1 is used twice",
        ),
        ({"annotations": [{"id": [1]}]}, "annotations[0].id is [1], not a number or text"),
        ({"annotations": [{"id": 1, "image_id": {"a": 1}}]}, "annotations[0].image_id is {'a': 1}"),
        ({"images": [{"id": [1], "file_name": "a.jpg"}]}, "images[0].id is [1]"),
    ],
)
def test_coco_ids_that_are_none(tmp_path: Path, changes: dict, expected: str) -> None:
    write_coco(tmp_path, [Photo("p", boxes=ONE)])
    file = tmp_path / "annotations/instances_train2017.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(DataError) as caught:
        Coco(tmp_path, file).read()
    assert expected in str(caught.value)


def test_metadata_never_overwrites_our_columns(tmp_path: Path) -> None:
    coco(
        tmp_path,
        annotations=[
            {
                "id": 1,
                "image_id": 1000,
                "category_id": 3,
                "bbox": [1, 2, 3, 4],
                "label": "x",
                "attributes": {"occluded": True, "group": 4},
            }
        ],
    )
    table = Coco(tmp_path).read().boxes
    assert table.loc[0, ["label", "source_label", "occluded", "source_group"]].tolist() == ["stop", "x", True, 4]
