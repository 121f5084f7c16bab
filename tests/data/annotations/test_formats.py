"""Which format a folder holds, and every box of every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from box_helpers import ONE, pixels
from photos import WRITE, Photo, for_format, paint, write_coco, write_mtsd, write_voc

from mlfix_train.data.annotations.coco import Coco
from mlfix_train.data.annotations.formats import detect_formats, open_annotations
from mlfix_train.data.annotations.mtsd import Mtsd
from mlfix_train.errors import DataError


@pytest.mark.parametrize("name", list(WRITE))
def test_every_box_is_read(name: str, tmp_path: Path) -> None:
    made = for_format(name)
    WRITE[name](tmp_path, made)
    found = open_annotations(tmp_path).read()
    assert found.format == name
    assert list(found.photos.index.str.rpartition("/").get_level_values(2).sort_values()) == [p.name for p in made]
    assert (found.boxes["problem"] == "").all()
    if found.normalized:
        for photo in made:
            assert photo.width == 320 + 16 * int(photo.name[5:])
    wanted = sorted((p.name, label, p.split, *map(float, box)) for p in made for label, box in p.boxes)
    assert pixels(found) == wanted
    assert all(Path(path).is_file() for path in found.photos["path"])


def test_a_folder_of_no_format_or_of_two_is_asked_about(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no annotations below"):
        open_annotations(tmp_path).read()
    write_coco(tmp_path, for_format("coco"))
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert detect_formats(tmp_path) == ["coco", "yolo"]
    with pytest.raises(DataError, match="looks like coco and yolo"):
        open_annotations(tmp_path).read()
    with pytest.raises(DataError, match="does not exist"):
        open_annotations(tmp_path / "nowhere").read()


def test_several_folders_of_a_format_are_all_read(tmp_path: Path) -> None:
    write_voc(tmp_path / "v/VOC2007", [Photo("p", boxes=ONE)])
    write_voc(tmp_path / "v/VOC2012", [Photo("p", boxes=ONE), Photo("q", boxes=ONE)])
    found = open_annotations(tmp_path / "v").read()
    assert sorted(found.photos.index) == ["VOC2007/p", "VOC2012/p", "VOC2012/q"]
    assert len(found.boxes) == 3 and all(Path(path).is_file() for path in found.photos["path"])
    write_mtsd(tmp_path / "m/full", [Photo("p", boxes=ONE)])
    write_mtsd(tmp_path / "m/partial", [Photo("q", boxes=ONE, split="val")])
    found = Mtsd(tmp_path / "m").read()
    assert found.photos["split"].to_dict() == {"p": "train", "q": "val"} and len(found.boxes) == 2
    write_mtsd(tmp_path / "m/again", [Photo("q", boxes=ONE, split="val")])
    with pytest.raises(DataError, match="two annotation files describe q"):
        Mtsd(tmp_path / "m").read()


def test_layouts_of_other_tools(tmp_path: Path) -> None:
    made = [Photo("photo0", boxes=ONE), Photo("photo1", split="val", boxes=ONE)]
    write_voc(tmp_path / "v", made)  # Roboflow's VOC: XML beside the photos
    for split in ("train", "valid"):
        (tmp_path / "v" / split).mkdir()
    for name, split in (("photo0", "train"), ("photo1", "valid")):
        (tmp_path / f"v/Annotations/{name}.xml").rename(tmp_path / f"v/{split}/{name}.xml")
        (tmp_path / f"v/JPEGImages/{name}.jpg").rename(tmp_path / f"v/{split}/{name}.jpg")
    for folder in ("Annotations", "JPEGImages"):
        (tmp_path / "v" / folder).rmdir()
    assert detect_formats(tmp_path / "v") == ["voc"]
    assert set(open_annotations(tmp_path / "v").read().photos["split"]) == {"train", "val"}

    for split in ("train", "valid"):  # Roboflow's darknet: a list of names in each split
        paint(made[0], tmp_path / f"d/{split}/{split}0.jpg")
        (tmp_path / f"d/{split}/{split}0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        (tmp_path / f"d/{split}/_darknet.labels").write_text("stop\n")
    found = open_annotations(tmp_path / "d").read()
    assert found.format == "yolo" and len(found.boxes) == 2 and set(found.photos["split"]) == {"train", "val"}

    paint(made[0], tmp_path / "c/Images/photo0.jpg")  # capital letters
    (tmp_path / "c/Labels").mkdir()
    (tmp_path / "c/Labels/photo0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "c/classes.txt").write_text("stop\n")
    assert len(open_annotations(tmp_path / "c").read().boxes) == 1

    paint(made[0], tmp_path / "t/images/train/photo0.jpg")  # CVAT's lists begin at `data`
    (tmp_path / "t/labels/train").mkdir(parents=True)
    (tmp_path / "t/labels/train/photo0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "t/train.txt").write_text("data/images/train/photo0.jpg\n")
    (tmp_path / "t/data.yaml").write_text("path: .\ntrain: train.txt\nnames: [stop]\n")
    assert Path(open_annotations(tmp_path / "t").read().photos["path"].iloc[0]).is_file()

    write_coco(tmp_path / "l", [Photo("p", boxes=ONE)])  # Label Studio on Windows
    file = tmp_path / "l/annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = "train2017\\p.jpg"
    file.write_text(json.dumps(content))
    assert Path(Coco(tmp_path / "l", file).read().photos["path"].iloc[0]).is_file()
