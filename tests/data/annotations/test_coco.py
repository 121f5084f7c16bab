"""Reading COCO."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
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
        ({"annotations": {}, "categories": 3}, "annotations is a dict and categories is a int, not a list"),
        ({"images": [{"id": 1}]}, "images[0] (id 1) has no file_name"),
        ({"images": [{"file_name": "p.jpg"}]}, "not an object with an id"),
        ({"images": [{"id": 1, "file_name": "p.jpg"}, {"id": 1, "file_name": "q.jpg"}]}, "image id 1 is used twice"),
        (
            {"images": [{"id": 1, "file_name": "p.jpg", "width": 9, "height": 9}, {"id": 2, "file_name": "p.jpg"}]},
            "are used twice",
        ),
        ({"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, "category id 3 is used for 'a' and 'b'"),
        ({"categories": [{"id": 3}]}, "categories[0] (id 3) has no name"),
        ({"images": [{"id": [1], "file_name": "a.jpg"}]}, "images[0] is {'id': [1]"),
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
    with pytest.raises(DataError, match=r"train2017\.json: it is cut off in line"):
        Coco(tmp_path).read()
    (folder / "train2017.json").unlink()
    for number in range(201):
        (tmp_path / f"{number}.json").write_text("{}")
    with pytest.raises(DataError, match="203 JSON files"):
        Coco(tmp_path).read()


@pytest.mark.parametrize(
    ("content", "tool"),
    [
        ([{"id": 1, "data": {"image": "a.jpg"}, "annotations": []}], "Label Studio's own JSON"),
        ({"version": "5", "shapes": [], "imagePath": "a.jpg"}, "labelme's JSON of one photo"),
        ([{"image": "a.jpg", "annotations": []}], "CreateML's JSON"),
    ],
)
def test_json_of_other_tools_is_named(tmp_path: Path, content: object, tool: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"(?s)a.json: it is {tool}; export or convert it as COCO"):
        Coco(tmp_path).read()


BOX = {"image_id": 1000, "category_id": 3, "bbox": [1, 2, 3, 4]}


def test_one_bad_row_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    images = [{"id": 1000, "file_name": "p.jpg"}, {"id": 7}, "nonsense"]
    rows = [{**BOX, "id": 1}, None, {"id": 2, "image_id": None, "category_id": 3, "bbox": []}, {**BOX, "id": [1]}]
    rows += [{**BOX, "id": 3, "image_id": 7}, {**BOX, "id": 4, "category_id": 5}, {**BOX, "id": 5, "image_id": {}}]
    categories = [{"id": 3, "name": "stop"}, {"id": 5, "name": None}, {"name": "x"}]
    coco(tmp_path, images=images, annotations=rows, categories=categories)
    found = Coco(tmp_path).read()
    assert found.photos["problem"].tolist() == ["", "malformed", "malformed"]
    table = found.boxes.set_index("annotation")
    assert table["problem"].to_dict() == {
        **{"1": "", "#1": "malformed", "2": "no photo", "#3": ""},
        **{"3": "", "4": "unknown class", "5": "no photo"},
    }
    assert table.at["3", "photo"] == "instances_train2017.images[1]"  # dropped with its photo
    assert "annotations[1] is None, not an object" in table.at["#1", "detail"]
    assert "annotations[5]: categories[1] (id 5) has no name" in table.at["4", "detail"]
    assert any("categories[2] is {'name': 'x'}, not an object with an id" in note for note in found.notes)


@pytest.mark.parametrize(
    ("images", "categories", "rows"),
    [
        ((1, 2), (0, 1), [("1", "0"), ("2", "1")]),
        (("1", "2"), ("0", "1"), [(1, 0), (2, 1)]),
        ((1.0, 2.0), (0.0, 1.0), [(1, "0"), ("2", 1)]),
        (("1", "2"), (0, 1), [(1.0, 0.0), ("2.0", "1.0")]),
    ],
)
def test_ids_as_text_numbers_or_floats(tmp_path: Path, images: tuple, categories: tuple, rows: list) -> None:
    coco(
        tmp_path,
        images=[{"id": key, "file_name": f"{place}.jpg"} for place, key in enumerate(images)],
        categories=[{"id": key, "name": name} for key, name in zip(categories, ("stop", "yield"), strict=True)],
        annotations=[{**BOX, "id": float(n), "image_id": i, "category_id": c} for n, (i, c) in enumerate(rows)],
    )
    found = Coco(tmp_path).read()
    assert found.boxes["label"].tolist() == ["stop", "yield"]
    assert found.boxes["photo"].str[-1].tolist() == ["0", "1"] and found.boxes["annotation"].tolist() == ["0", "1"]
    assert any("values are text where the id is a number" in note for note in found.notes)


def test_a_number_and_a_text_of_the_same_digits_are_two_ids(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "number"}, {"id": "1", "name": "text"}]
    rows = [{**BOX, "id": n, "category_id": key} for n, key in enumerate((1, "1", 1.0, "1.0"))]
    coco(tmp_path, categories=categories, annotations=rows)
    found = Coco(tmp_path).read().boxes
    assert found["label"].fillna("").tolist() == ["number", "text", "number", ""]
    assert found["problem"].tolist() == ["", "", "", "unknown class"]


def test_category_names_that_are_numbers_are_labels_as_they_are_written(tmp_path: Path) -> None:
    file = coco(tmp_path, annotations=[{**BOX, "id": n, "category_id": n} for n in range(3)], categories=[])
    names = '"categories": [{"id": 0, "name": 30}, {"id": 1, "name": 1.10}, {"id": 2, "name": "020"}]'
    file.write_text(file.read_text().replace('"categories": []', names))
    found = Coco(tmp_path).read()
    assert found.boxes["label"].tolist() == ["30", "1.10", "020"] and found.classes == ("30", "1.10", "020")
    assert any("2 category names are numbers" in note for note in found.notes)


@pytest.mark.parametrize(
    ("categories", "form"),
    [
        ({"3": "stop", "10": "30"}, "id: name"),
        ({"stop": 3, "30": 10}, "name: id"),
        ({"stop": "3", "30": "10"}, "name: id"),
        ({"3": {"name": "stop"}, "10": {"id": 10, "name": 30}}, "id: category"),
    ],
)
def test_categories_that_are_an_object(tmp_path: Path, categories: dict, form: str) -> None:
    coco(tmp_path, categories=categories)
    found = Coco(tmp_path).read()
    assert found.boxes["label"].tolist() == ["stop", "30"] and found.classes == ("stop", "30")
    assert any(f"categories is an object, not a list; it is read as {form}" in note for note in found.notes)


def test_categories_that_could_be_read_in_two_ways(tmp_path: Path) -> None:
    coco(tmp_path, categories={"3": "10", "10": "3"})
    with pytest.raises(DataError, match="it is not certain whether it gives names by ids or ids by names"):
        Coco(tmp_path).read()


def test_categories_of_the_same_name_are_said(tmp_path: Path) -> None:
    coco(tmp_path, categories=[{"id": 1, "name": "no"}, {"id": 5, "name": "no"}, {"id": 2, "name": "yes"}])
    notes = Coco(tmp_path).read().notes
    assert any("classes of the same name become one label" in note and "'no' (1, 5)" in note for note in notes)


def test_annotation_ids_that_repeat_are_told_apart_by_their_place(tmp_path: Path) -> None:
    ids = (0, 1, 0, "1", 0.0, None)
    coco(tmp_path, annotations=[{**BOX, "id": key} for key in ids])
    found = Coco(tmp_path).read()
    assert found.boxes["annotation"].tolist() == ["0", "1", "0#2", "1#3", "0#4", "#5"]
    assert any("3 annotation ids repeat, such as 0" in note for note in found.notes)


RLE = {"size": [6, 5], "counts": [7, 2, 4, 3, 14]}  # columns of 6: rows 1 to 2 of column 1, 1 to 3 of column 2


@pytest.mark.parametrize(
    ("segmentation", "box"),
    [
        ([[10, 20, 30, 20, 30, 60.5]], [10, 20, 30, 60.5]),
        ([[10, 20, 30, 20, 30, 60], [5, 25, 8, 25, 8, 90]], [5, 20, 30, 90]),
        ([10, 20, 30, 20, 30, 60], [10, 20, 30, 60]),
        ([[10, 20], [30, 20], [30, 60]], [10, 20, 30, 60]),
        (RLE, [1, 1, 3, 4]),
        ({"size": [6, 5], "counts": "7241:"}, [1, 1, 3, 4]),
        ([], None),
        ([[1, "a"]], None),
        ({"size": [2, 2], "counts": [0, 9]}, None),
    ],
)
@pytest.mark.parametrize("bbox", [{}, {"bbox": []}, {"bbox": None}, {"bbox": [0, 0, 0, 0]}])
def test_boxes_that_only_a_segmentation_gives(tmp_path: Path, bbox: dict, segmentation: object, box: list) -> None:
    row = {"id": 1, "image_id": 1000, "category_id": 3, "segmentation": segmentation, **bbox}
    coco(tmp_path, annotations=[row])
    found = Coco(tmp_path).read()
    if box is None:
        assert found.boxes["problem"].tolist() == ["malformed"]
    else:
        assert found.boxes[["x_min", "y_min", "x_max", "y_max"]].to_numpy().tolist() == [box]
        assert any("1 boxes have no bbox" in note for note in found.notes)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (r"..\..\media\upload\4\{}", "backslashes as slashes and the end of the path alone"),
        ("/home/somebody/data/{}", "the end of the path alone"),
        ("/data/upload/4/cb0618f6-{}", "ignoring an upload prefix"),
        ("/data/local-files/?d=photos/{}", "decoding a URL"),
    ],
)
def test_photos_are_found_where_they_are(tmp_path: Path, written: str, said: str) -> None:
    photos = [{"id": 1000, "file_name": written.format("p.jpg")}, {"id": 1001, "file_name": written.format("gone.jpg")}]
    coco(tmp_path, images=photos)
    (tmp_path / "train2017").rename(tmp_path / "elsewhere")
    for settings in ({}, {"images": "elsewhere"}):
        found = Coco(tmp_path, **settings).read()
        assert found.photos["path"].iloc[0] == str(tmp_path / "elsewhere/p.jpg")
        assert found.photos["problem"].tolist() == ["", "photo missing"]
        assert "gone.jpg" in found.photos["detail"].iloc[1]
        assert any(said in note for note in found.notes)


def test_photos_that_differ_by_their_suffix_alone_and_images_that_share_a_file(tmp_path: Path) -> None:
    names = ("p.jpg", "p.png", "empty.jpg", "empty.jpg")
    images = [{"id": key, "file_name": name, "width": 320, "height": 200} for key, name in enumerate(names)]
    coco(tmp_path, images=images, annotations=[{**BOX, "id": n, "image_id": n} for n in range(4)])
    (tmp_path / "train2017/p.png").write_bytes((tmp_path / "train2017/p.jpg").read_bytes())
    found = Coco(tmp_path).read()
    assert list(found.photos.index) == ["train2017/p.jpg", "train2017/p.png", "train2017/empty"]
    assert found.boxes["photo"].tolist() == [*found.photos.index, "train2017/empty"]
    assert found.boxes["position"].tolist() == [0, 0, 0, 1]
    assert any("1 images have the file of another one" in note for note in found.notes)


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


def test_blanks_around_names_of_categories_are_left_out_and_said(tmp_path: Path) -> None:
    write_coco(tmp_path, for_format("coco"))
    file = tmp_path / "annotations/instances_train2017.json"
    file.write_text(file.read_text().replace('"name": "stop"', '"name": " stop\\t"'))
    found = Coco(tmp_path).read()
    assert "stop" in set(found.boxes["label"]) and not any(label != label.strip() for label in found.boxes["label"])
    assert any(note.startswith(f"{file}: 1 names of classes") and r"' stop\t' (3)" in note for note in found.notes)


def test_coordinates_may_be_text_and_lists_must_be_lists(tmp_path: Path) -> None:
    write_coco(tmp_path, for_format("coco"))
    file = tmp_path / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    before = Coco(tmp_path).read().boxes
    for row in content["annotations"]:
        row["bbox"] = [str(value) for value in row["bbox"]]
    file.write_text(json.dumps(content))
    assert Coco(tmp_path).read().boxes.equals(before)
    content["images"] = {"3": "p.jpg"}
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="images is a dict, not a list"):
        Coco(tmp_path).read()


def test_boxes_in_another_convention(tmp_path: Path) -> None:
    row = {"image_id": 1000, "category_id": 3}
    boxes = [[200, 90, 300, 190], [180, 100, 320, 160], [10, 10, 90, 90]]
    coco(tmp_path, annotations=[{**row, "id": i, "bbox": box} for i, box in enumerate(boxes)])
    with pytest.raises(DataError, match=r"(?s)2 of 3 boxes leave their photo.*\[200, 90, 300, 190\] in a photo of 320"):
        Coco(tmp_path).read()
    boxes = [[200, 90, 300, 190], [180, 100, 320, 160], [90, 10, 30, 90]]  # the last is none of two corners
    coco(tmp_path, annotations=[{**row, "id": i, "bbox": box} for i, box in enumerate(boxes)])
    assert Coco(tmp_path).read().boxes["x_max"].tolist() == [500, 500, 120]
    coco(tmp_path, annotations=[{**row, "id": 1, "bbox": [0.1, 0.2, 0.3, 0.4]}])
    with pytest.raises(DataError, match="all 1 boxes are within 0 and 1, as fractions of the photo are"):
        Coco(tmp_path).read()
