"""Which format a folder holds, and every box of every format."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from box_helpers import ONE, pixels
from photos import WRITE, Photo, for_format, paint, write_coco, write_mtsd, write_voc

from mlfix_train.data.annotations.coco import Coco
from mlfix_train.data.annotations.formats import detect_formats, open_annotations
from mlfix_train.data.annotations.mtsd import Mtsd
from mlfix_train.data.annotations.write_back import write_fixed_annotations
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
    (tmp_path / "data.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)no annotations below.*unpack data.zip there"):
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


FIX = ["photo", "annotation", "old_label", "new_label"]
LINE = "1 0.5 0.5 0.25 0.5\n"
OUTLINE = {"segmentation": [[120, 50, 200, 50, 200, 150, 120, 150]]}
XML = (
    "<annotation><folder/><filename>{}</filename><size><width>320</width><height>200</height><depth>3</depth></size>"
    "<object><name>yield</name><bndbox><xmin>121.0</xmin><ymin>51</ymin><xmax>200</xmax><ymax>150</ymax></bndbox>"
    "</object></annotation>"
)


def instances(*names: str, **box: object) -> str:
    images = [{"id": n, "file_name": name, "width": 320, "height": 200} for n, name in enumerate(names)]
    rows = [{"id": n, "image_id": n, "category_id": 1, **(box or OUTLINE)} for n in range(len(names))]
    return json.dumps({"info": {}, "categories": [{"id": 1, "name": "yield"}], "images": images, "annotations": rows})


YAML = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['stop', 'yield']\n"
EXPORTS = {
    "Label Studio, COCO": {
        **{f"images/cb0618f6-p{n}.jpg": None for n in range(2)},
        "result.json": instances(*(f"images\\cb0618f6-p{n}.jpg" for n in range(2)), bbox=[120.0, 50, 80, 100]),
    },
    "Label Studio, COCO of uploads": {
        **{f"images/cb0618f6-p{n}.jpg": None for n in range(2)},
        "result.json": instances(*(f"../../label-studio/data/media/upload/4/cb0618f6-p{n}.jpg" for n in range(2))),
    },
    "Label Studio, YOLO": {
        **{f"images/cb0618f6-p{n}.jpg": None for n in range(2)},
        **{f"labels/cb0618f6-p{n}.txt": LINE for n in range(2)},
        "classes.txt": "stop\nyield\n",
        "notes.json": '{"categories": [{"id": 0, "name": "stop"}], "info": {"year": 2026}}',
    },
    "Label Studio, VOC": {
        **{f"images/cb0618f6-p{n}.jpg": None for n in range(2)},
        **{f"Annotations/cb0618f6-p{n}.xml": XML.format(f"cb0618f6-p{n}") for n in range(2)},
    },
    "CVAT, COCO 1.0": {
        **{f"images/default/p{n}.jpg": None for n in range(2)},
        "annotations/instances_default.json": instances("p0.jpg", "p1.jpg"),
    },
    "CVAT, YOLO 1.1": {
        **{f"obj_train_data/p{n}.jpg": None for n in range(2)},
        **{f"obj_train_data/p{n}.txt": LINE for n in range(2)},
        "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
        "obj.names": "stop\nyield\n",
        "train.txt": "data/obj_train_data/p0.jpg\ndata/obj_train_data/p1.jpg\n",
    },
    "CVAT, Pascal VOC": {
        **{f"JPEGImages/street/p{n}.jpg": None for n in range(2)},
        **{f"Annotations/street/p{n}.xml": XML.format(f"street/p{n}.jpg") for n in range(2)},
        "ImageSets/Main/default.txt": "street/p0\nstreet/p1\n",
        "labelmap.txt": "# label:color_rgb:parts:actions\nyield:1,2,3::\n",
    },
    "Roboflow, COCO": {
        **{f"{split}/p_jpg.rf.{split}.jpg": None for split in ("train", "valid")},
        **{f"{split}/_annotations.coco.json": instances(f"p_jpg.rf.{split}.jpg") for split in ("train", "valid")},
        "README.roboflow.txt": "x",
    },
    "Roboflow, YOLOv8": {
        **{f"{split}/images/{split}.jpg": None for split in ("train", "valid")},
        **{f"{split}/labels/{split}.txt": LINE for split in ("train", "valid")},
        "data.yaml": YAML,
        "README.dataset.txt": "x",
    },
    "Kaggle, road signs": {
        **{f"images/road{n}.jpg": None for n in range(2)},
        **{f"annotations/road{n}.xml": XML.format(f"road{n}.png") for n in range(2)},
    },
    "all in one folder, VOC": {
        f"p{n}.{kind}": None if kind == "jpg" else XML.format("x.jpg") for n in range(2) for kind in ("jpg", "xml")
    },
    "one JSON a photo, COCO": {
        **{f"Images/p{n}.jpg": None for n in range(2)},
        **{f"Annotations/p{n}.json": instances(f"p{n}.jpg", bbox=[120, 50, 80, 100]) for n in range(2)},
    },
}


@pytest.mark.parametrize("tool", EXPORTS)
def test_exports_of_tools_are_read_as_they_are_unpacked(tool: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name, content in EXPORTS[tool].items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            paint(Photo("photo", boxes=ONE), root / name)
        else:
            (root / name).write_text(content)
    (root / ".ipynb_checkpoints").mkdir()
    (root / ".ipynb_checkpoints/p0-checkpoint.txt").write_text(LINE)
    assert len(detect_formats(root)) == 1
    source = open_annotations(root)
    found = source.read()
    assert (found.photos["problem"] == "").all() and len(found.photos) == 2
    assert all(Path(path).is_file() for path in found.photos["path"])
    assert found.boxes["problem"].tolist() == [""] * 2 and found.boxes["label"].tolist() == ["yield"] * 2
    assert found.boxes["photo"].tolist() == list(found.photos.index)
    sides = [320, 200, 320, 200] if found.normalized else [1] * 4
    edges = found.boxes[["x_min", "y_min", "x_max", "y_max"]].to_numpy() * sides
    assert edges.tolist() == [pytest.approx([120, 50, 200, 150])] * 2
    splits = {"train", "val"} if "Roboflow" in tool else {"train"} if "YOLO 1.1" in tool else {""}
    assert set(found.photos["split"]) == splits

    # Fixes go back into copies, which are read back and compared.
    box = found.boxes.iloc[1]
    fixes = pd.DataFrame([(box["photo"], box["annotation"], "yield", "stop")], columns=FIX)
    written = write_fixed_annotations(source, found, fixes, tmp_path / "out")
    assert written.relabeled == 1 and len(written.files) == 1
