"""Cropping and exporting data sets as people have them: several folders, odd files, odd layouts, odd moments."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from photos import Photo, for_format, paint, photos, write_coco, write_mtsd, write_voc, write_yolo
from shapes import REPO, start

from mlfix_train import api
from mlfix_train.data.annotations.coco import read_coco
from mlfix_train.data.annotations.detect import guess_formats, read_boxes
from mlfix_train.data.annotations.mtsd import read_mtsd
from mlfix_train.data.annotations.voc import read_voc
from mlfix_train.data.annotations.yolo import read_yolo
from mlfix_train.errors import DataError

PNG = ("format=png", "size=16")
WHERE = lambda work: (f"crops={work / 'crops'}", f"out={work / 'out'}", "fixes.allow=[new_labels]")  # noqa: E731
ONE = [("stop", (10, 10, 40, 40))]


def fix(path: Path, new: dict[str, str]) -> str:
    path.write_text("sample_id,new_label\n" + "".join(f'"{sample}",{label}\n' for sample, label in new.items()))
    return f"fixes.path={path}"


# What is read


def test_several_folders_of_a_format_are_all_read(tmp_path: Path) -> None:
    write_voc(tmp_path / "v/VOC2007", [Photo("p", boxes=ONE)])
    write_voc(tmp_path / "v/VOC2012", [Photo("p", boxes=ONE), Photo("q", boxes=ONE)])
    found = read_boxes(tmp_path / "v")
    assert sorted(found.photos.index) == ["VOC2007/p", "VOC2012/p", "VOC2012/q"]
    assert len(found.boxes) == 3 and all(Path(path).is_file() for path in found.photos["path"])
    write_mtsd(tmp_path / "m/full", [Photo("p", boxes=ONE)])
    write_mtsd(tmp_path / "m/partial", [Photo("q", boxes=ONE, split="val")])
    found = read_mtsd(tmp_path / "m")
    assert found.photos["split"].to_dict() == {"p": "train", "q": "val"} and len(found.boxes) == 2
    write_mtsd(tmp_path / "m/again", [Photo("q", boxes=ONE, split="val")])
    with pytest.raises(DataError, match="two annotation files speak of q"):
        read_mtsd(tmp_path / "m")


def test_coco_says_which_files_it_leaves_out_and_why(tmp_path: Path) -> None:
    write_coco(tmp_path, for_format("coco"))
    (tmp_path / "annotations/captions.json").write_text("{}")
    assert any("captions.json" in note for note in read_coco(tmp_path).notes)
    folder = tmp_path / "annotations"
    for split in ("train", "val"):
        (folder / f"instances_{split}2017.json").rename(folder / f"{split}2017.json")
    assert any("captions.json: it has no list images" in note for note in read_coco(tmp_path).notes)
    (folder / "train2017.json").write_text((folder / "train2017.json").read_text()[:-30])
    with pytest.raises(DataError, match=r"train2017\.json: it is no JSON"):
        read_coco(tmp_path)
    (folder / "train2017.json").unlink()
    for number in range(201):
        (tmp_path / f"{number}.json").write_text("{}")
    with pytest.raises(DataError, match="203 JSON files"):
        read_coco(tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"annotations": [{"id": 1, "image_id": 1000}, {"id": "1", "image_id": 1000}]}, "annotation id 1 stands twice"),
        ({"annotations": [{"id": [1]}]}, "annotations[0].id is [1], not a number or text"),
        ({"annotations": [{"id": 1, "image_id": {"a": 1}}]}, "annotations[0].image_id is {'a': 1}"),
        ({"images": [{"id": [1], "file_name": "a.jpg"}]}, "images[0].id is [1]"),
    ],
)
def test_coco_ids_that_are_none(tmp_path: Path, changes: dict, told: str) -> None:
    write_coco(tmp_path, [Photo("p", boxes=ONE)])
    file = tmp_path / "annotations/instances_train2017.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(DataError) as caught:
        read_coco(tmp_path, file)
    assert told in str(caught.value)


def test_numbers_and_texts_beyond_all_bounds(tmp_path: Path) -> None:
    write_mtsd(tmp_path, [Photo("p", boxes=ONE * 3)])
    file = tmp_path / "annotations/p.json"
    content = json.loads(file.read_text())
    content["objects"][0]["bbox"]["xmax"] = 10**400
    content["objects"][1]["properties"] = [1, 2]
    content["objects"][2]["label"] = "\ud800x"
    file.write_text(json.dumps(content))
    found = read_mtsd(tmp_path)
    assert found.boxes["problem"].tolist() == ["not a number", "", ""]
    assert found.boxes["label"][2] == "?x"
    table = api.crop(f"data.root={tmp_path}", f"out={tmp_path.parent / (tmp_path.name + '-out')}", *PNG)
    assert "%3Fx/p-" in " ".join(table.index)


def test_yolo_lines_of_nan_and_files_that_are_no_text(tmp_path: Path) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    (tmp_path / "labels/train/photo0.txt").write_text("nan 0.5 0.5 0.2 0.2\ninf 0.5 0.5 0.2 0.2\n")
    (tmp_path / "labels/train/photo1.txt").write_bytes(b"0 \xff\xfe")
    found = read_yolo(tmp_path)
    mine = found.boxes[found.boxes["photo"] == "train/photo0"]
    assert mine["problem"].tolist() == ["unknown class"] * 2
    assert found.photos.at["train/photo1", "problem"] == "annotation unreadable"


def test_yolo_label_files_without_a_photo_are_told(tmp_path: Path, mlfix) -> None:
    write_yolo(tmp_path / "y", for_format("yolo"))
    (tmp_path / "y/labels/train/orphan.txt").write_text("0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n")
    answer = mlfix("crop", f"data.root={tmp_path / 'y'}", f"out={tmp_path / 'o'}", *PNG)
    assert answer.code == 0
    dropped = pd.read_csv(tmp_path / "o/dropped.csv")
    assert dropped["problem"].tolist() == ["no photo"] * 2 and dropped["detail"].str.contains("orphan.txt").all()


def test_voc_lists_are_checked(tmp_path: Path) -> None:
    write_voc(tmp_path, [Photo("p", boxes=ONE), Photo("q", boxes=ONE, split="val")])
    lists = tmp_path / "ImageSets/Main"
    (lists / "train.txt").write_text("p\nmissing\n")
    (lists / "test.txt").write_text("unannotated\n")
    found = read_voc(tmp_path)
    assert found.photos["problem"].to_dict() == {"p": "", "q": "", "missing": "no annotation"}
    (lists / "val.txt").write_text("p\n")
    with pytest.raises(DataError, match=r"val\.txt: p stands in train\.txt too"):
        read_voc(tmp_path)


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
    assert guess_formats(tmp_path / "v") == ["voc"]
    assert set(read_boxes(tmp_path / "v").photos["split"]) == {"train", "val"}

    for split in ("train", "valid"):  # Roboflow's darknet: a list of names in each split
        paint(made[0], tmp_path / f"d/{split}/{split}0.jpg")
        (tmp_path / f"d/{split}/{split}0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        (tmp_path / f"d/{split}/_darknet.labels").write_text("stop\n")
    found = read_boxes(tmp_path / "d")
    assert found.format == "yolo" and len(found.boxes) == 2 and set(found.photos["split"]) == {"train", "val"}

    paint(made[0], tmp_path / "c/Images/photo0.jpg")  # capital letters
    (tmp_path / "c/Labels").mkdir()
    (tmp_path / "c/Labels/photo0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "c/classes.txt").write_text("stop\n")
    assert len(read_boxes(tmp_path / "c").boxes) == 1

    paint(made[0], tmp_path / "t/images/train/photo0.jpg")  # CVAT's lists begin at `data`
    (tmp_path / "t/labels/train").mkdir(parents=True)
    (tmp_path / "t/labels/train/photo0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "t/train.txt").write_text("data/images/train/photo0.jpg\n")
    (tmp_path / "t/data.yaml").write_text("path: .\ntrain: train.txt\nnames: [stop]\n")
    assert Path(read_boxes(tmp_path / "t").photos["path"].iloc[0]).is_file()

    write_coco(tmp_path / "l", [Photo("p", boxes=ONE)])  # Label Studio on Windows
    file = tmp_path / "l/annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = "train2017\\p.jpg"
    file.write_text(json.dumps(content))
    assert Path(read_coco(tmp_path / "l", file).photos["path"].iloc[0]).is_file()


@pytest.mark.parametrize(
    ("names", "told"), [("[a, null]", "class 1 is called None"), ("[true, no]", "class 0 is called True")]
)
def test_yolo_names_that_yaml_takes_for_something_else(tmp_path: Path, names: str, told: str) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    (tmp_path / "data.yaml").write_text(f"names: {names}\n")
    with pytest.raises(DataError, match=told):
        read_yolo(tmp_path)


# When


def test_an_unfinished_cropping_is_not_trained_on(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    api.crop(f"data.root={root}", f"out={tmp_path / 'o'}", *PNG)
    about = json.loads((tmp_path / "o/crop.json").read_text())
    (tmp_path / "o/crop.json").write_text(json.dumps({**about, "status": "running"}))
    answer = mlfix("train", "data=crops", f"data.root={tmp_path / 'o'}")
    assert answer.code == 1 and "unfinished cropping" in answer.err


def test_what_fails_before_it_begins_leaves_all_as_it_was(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    command = ("crop", f"data.root={root}", f"out={tmp_path / 'o'}", *PNG)
    assert mlfix(*command).code == 0
    before = (tmp_path / "o/crop.json").read_bytes()
    kept = [path.rename(path.with_suffix(".off")) for path in list((root / "images").iterdir())[:3]]
    assert mlfix(*command).code == 1
    assert (tmp_path / "o/crop.json").read_bytes() == before
    for path in kept:
        path.rename(path.with_suffix(".jpg"))
    # A first call that fails leaves no folder, and binds no later one to its settings.
    for file in (root / "annotations").iterdir():
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "width": 2 * content["width"], "height": 2 * content["height"]}))
    answer = mlfix("crop", f"data.root={root}", f"out={tmp_path / 'p'}", *PNG)
    assert answer.code == 1 and "rescale=true" in answer.err
    assert mlfix("crop", f"data.root={root}", f"out={tmp_path / 'p'}", *PNG, "rescale=true").code == 0
    assert mlfix("crop", f"data.root={tmp_path / 'nowhere'}", f"out={tmp_path / 'q'}").code == 1
    assert not (tmp_path / "q").exists()


def test_two_at_once_with_other_settings_are_told(tmp_path: Path) -> None:
    root = write_mtsd(tmp_path / "data", photos(count=60))
    pair = [start("crop", f"data.root={root}", "out=o", f"size={size}", cwd=tmp_path) for size in (24, 48)]
    said = [process.communicate(timeout=60)[1] for process in pair]
    codes = [process.returncode for process in pair]
    assert sorted(codes) == [0, 1], said
    assert "holds crops of other settings" in said[codes.index(1)]


def test_labels_called_as_our_files(tmp_path: Path) -> None:
    root = write_mtsd(tmp_path / "data", [Photo("p", boxes=ONE)])
    file = root / "annotations/p.json"
    for name in ("crop.json", "samples.parquet", "dropped.csv"):
        content = json.loads(file.read_text())
        content["objects"][0]["label"] = name
        file.write_text(json.dumps(content))
        table = api.crop(f"data.root={root}", f"out={tmp_path / name.partition('.')[0]}", *PNG)
        assert table["label"].tolist() == [name]


def test_out_among_the_photos_is_refused(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    answer = mlfix("crop", f"data.root={root}", f"out={root / 'images/crops'}")
    assert answer.code == 2 and "would take the crops for photos" in answer.err
    assert mlfix("crop", f"data.root={root}", f"out={root / 'crops'}", *PNG).code == 0


# Export


LAYOUT = (
    '\ufeff{"width":320, "height":200,\r\n "ispano": false,\r\n "objects":[\r\n'
    '  {"key":"a", "label":"stop",\t"bbox":{"xmin":1.50,"ymin":1e1,"xmax":40.0,"ymax":40},'
    ' "properties":{"n":"\\u00fc\\/x"}},\r\n'
    '  {"key":"b", "bbox":{"xmin":50,"ymin":10,"xmax":90,"ymax":40}, "label" : "yield"},\r\n'
    '  {"key":"c", "bbox":{"xmin":100,"ymin":10,"xmax":140,"ymax":40}, "label":"stop"}\r\n ] }\r\n'
)


@pytest.mark.parametrize(
    ("fixes", "changes"),
    [
        ({"a": "other"}, [('"label":"stop",\t', '"label":"other",\t')]),
        ({"b": "größe"}, [('"label" : "yield"', '"label" : "gr\\u00f6\\u00dfe"')]),
        ({"a": "invalid"}, [(LAYOUT[LAYOUT.index('{"key":"a"') : LAYOUT.index('{"key":"b"')], "")]),
        ({"c": "invalid"}, [(LAYOUT[LAYOUT.index(",\r\n  {\"key\":\"c\"") : LAYOUT.index("\r\n ] }")], "")]),
        ({"a": "invalid", "b": "invalid"}, [(LAYOUT[LAYOUT.index('{"key":"a"') : LAYOUT.index('{"key":"c"')], "")]),
    ],
)  # fmt: skip
def test_json_is_changed_in_single_places(tmp_path: Path, mlfix, fixes: dict, changes: list) -> None:
    root = write_mtsd(tmp_path / "data", [Photo("p", boxes=ONE)])
    (root / "annotations/p.json").write_bytes(LAYOUT.encode())
    table = api.crop(f"data.root={root}", f"out={tmp_path / 'crops'}", *PNG)
    ids = dict(zip(table["annotation"], table.index, strict=True))
    answer = mlfix("export", "to=mtsd", *WHERE(tmp_path),
                   fix(tmp_path / "f.csv", {ids[key]: label for key, label in fixes.items()}))  # fmt: skip
    assert answer.code == 0, answer.err
    wanted = LAYOUT
    for old, new in changes:
        assert wanted.count(old) == 1
        wanted = wanted.replace(old, new)
    assert (tmp_path / "out/annotations/p.json").read_bytes().decode() == wanted


def test_taking_all_boxes_out_leaves_an_empty_list(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", [Photo("p", boxes=[*ONE, ("yield", (50, 10, 90, 40))])])
    table = api.crop(f"data.root={root}", f"out={tmp_path / 'crops'}", *PNG)
    answer = mlfix("export", "to=mtsd", f"crops={tmp_path / 'crops'}", f"out={tmp_path / 'out'}",
                   fix(tmp_path / "f.csv", dict.fromkeys(table.index, "invalid")))  # fmt: skip
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "out/annotations/p.json").read_text())["objects"] == []


def test_xml_is_changed_in_single_places(tmp_path: Path, mlfix) -> None:
    root = write_voc(
        tmp_path / "data", [Photo("p", boxes=[*ONE, ("yield", (50, 10, 90, 40)), ("stop", (100, 9, 140, 40))])]
    )
    file = root / "Annotations/p.xml"
    text = file.read_text().replace(
        "<name>yield", "<!-- <object><name>no</name></object> --><part><name>x</name></part><name>yield"
    )
    text = "\ufeff<?xml version='1.0' encoding='utf-8'?>\r\n<!DOCTYPE annotation>\r\n" + text.replace("\n", "\r\n")
    text = text.replace("</annotation>", "<empty></empty></annotation>")
    file.write_bytes(text.encode())
    table = api.crop(f"data.root={root}", f"out={tmp_path / 'crops'}", *PNG)
    ids = dict(zip(table["annotation"], table.index, strict=True))
    answer = mlfix("export", "to=voc", *WHERE(tmp_path),
                   fix(tmp_path / "f.csv", {ids["1"]: "a<b", ids["2"]: "invalid"}))  # fmt: skip
    assert answer.code == 0, answer.err
    last = re.findall(r"(?s)<object><name>stop</name>.*?</object>", text)[-1]
    wanted = text.replace("<name>yield</name>", "<name>a&lt;b</name>").replace(last, "")
    assert (tmp_path / "out/Annotations/p.xml").read_bytes().decode() == wanted


@pytest.mark.parametrize(
    ("yaml", "wanted"),
    [
        ("names: [a, b]  # two\r\nnc: 2\r\n", "names: [a, b, \"new\"]  # two\r\nnc: 3\r\n"),
        ("# top\nnc: 2\nnames:\n- a # one\n- b\n\n# end\ntrain: images/train\nval: images/val\n",
         "# top\nnc: 3\nnames:\n- a # one\n- b\n- \"new\"\n\n# end\ntrain: images/train\nval: images/val\n"),
        ("names: {0: a, 1: b}\npath: .  # here\n", "names: {0: a, 1: b, 2: \"new\"}\npath: OUT  # here\n"),
        ("names:\n  0: a\n  # between\n  1: b\ntrain: images/train\nval: images/val\n",
         "names:\n  0: a\n  # between\n  1: b\n  2: \"new\"\ntrain: images/train\nval: images/val\n"),
    ],
)  # fmt: skip
def test_a_new_class_in_yaml_leaves_the_rest_as_it_is(tmp_path: Path, mlfix, yaml: str, wanted: str) -> None:
    root = tmp_path / "data"
    for split in ("train", "val"):
        paint(Photo(split, boxes=ONE), root / f"images/{split}/{split}.jpg")
        (root / f"labels/{split}").mkdir(parents=True)
        (root / f"labels/{split}/{split}.txt").write_bytes(b"\xef\xbb\xbf0 0.5 0.5 0.2 0.2\r\n1 0.2 0.2 0.1 0.1")
    (root / "data.yaml").write_bytes(yaml.encode())
    table = api.crop(f"data.root={root}", f"out={tmp_path / 'crops'}", *PNG)
    sample = table.index[(table["split"] == "val") & (table["label"] == "a")][0]
    answer = mlfix("export", "to=yolo", *WHERE(tmp_path),
                   fix(tmp_path / "f.csv", {sample: "new"}))  # fmt: skip
    assert answer.code == 0, answer.err
    assert (tmp_path / "out/data.yaml").read_bytes().decode() == wanted.replace("OUT", str(tmp_path / "out"))
    found = (tmp_path / "out/labels/val/val.txt").read_bytes()
    assert found == b"\xef\xbb\xbf2 0.5 0.5 0.2 0.2\r\n1 0.2 0.2 0.1 0.1"
    assert "2 files differ" in answer.out


def test_classes_with_blank_lines_at_the_end_and_lists_of_whole_paths(tmp_path: Path, mlfix) -> None:
    root = tmp_path / "data"
    paint(Photo("p", boxes=ONE), root / "images/p.jpg")
    (root / "labels").mkdir()
    (root / "labels/p.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "classes.txt").write_bytes(b"a\r\nb\r\n\r\n\r\n")
    table = api.crop(f"data.root={root}", f"out={tmp_path / 'crops'}", *PNG)
    command = ("export", "to=yolo", "fixes.allow=[new_labels]", fix(tmp_path / "f.csv", {table.index[0]: "new"}))
    answer = mlfix(*command, f"crops={tmp_path / 'crops'}", f"out={tmp_path / 'out'}")
    assert answer.code == 0, answer.err
    assert (tmp_path / "out/classes.txt").read_bytes() == b"a\r\nb\r\nnew\r\n\r\n\r\n"
    (root / "classes.txt").unlink()
    (root / "train.txt").write_text(f"{root}/images/p.jpg\n")
    (root / "data.yaml").write_text("train: train.txt\nnames: [a, b]\n")
    api.crop(f"data.root={root}", f"out={tmp_path / 'crops2'}", *PNG)
    answer = mlfix(*command, f"crops={tmp_path / 'crops2'}", f"out={tmp_path / 'out2'}")
    assert answer.code == 0, answer.err
    assert (tmp_path / "out2/train.txt").read_text() == f"{tmp_path}/out2/images/p.jpg\n"


def test_a_yaml_whose_path_leads_elsewhere(tmp_path: Path, mlfix) -> None:
    write_yolo(tmp_path / "there", for_format("yolo"))
    (tmp_path / "here").mkdir()
    text = (tmp_path / "there/data.yaml").read_text().replace("../elsewhere", str(tmp_path / "there"))
    (tmp_path / "here/data.yaml").write_text(text)
    (tmp_path / "there/data.yaml").unlink()
    table = api.crop(f"data.root={tmp_path / 'here'}", f"out={tmp_path / 'crops'}", *PNG)
    assert table["group"].str.match(r"(train|val)/photo\d").all()
    sample = table.index[table["label"] != "stop"][0]
    answer = mlfix("export", "to=yolo", f"crops={tmp_path / 'crops'}", f"out={tmp_path / 'out'}",
                   fix(tmp_path / "f.csv", {sample: "stop"}))  # fmt: skip
    assert answer.code == 0, answer.err
    assert "1 boxes with a new label" in answer.out


def test_a_new_category_has_a_number_that_no_file_uses(tmp_path: Path, mlfix) -> None:
    write_coco(tmp_path / "data", for_format("coco"))
    files = {split: tmp_path / f"data/annotations/instances_{split}2017.json" for split in ("train", "val")}
    content = json.loads(files["val"].read_text())
    content["categories"] += [{"id": 90, "name": "only-in-val"}]
    files["val"].write_text(json.dumps(content))
    table = api.crop(f"data.root={tmp_path / 'data'}", f"out={tmp_path / 'crops'}", *PNG)
    train = table.index[table["split"] == "train"][:2]
    answer = mlfix("export", "to=coco", *WHERE(tmp_path),
                   fix(tmp_path / "f.csv", {train[0]: "new", train[1]: "only-in-val"}))  # fmt: skip
    assert answer.code == 0, answer.err
    written = json.loads((tmp_path / "out/annotations/instances_train2017.json").read_text())["categories"]
    assert written[-2:] == [{"id": 91, "name": "new"}, {"id": 90, "name": "only-in-val"}]


def test_labels_of_other_files_that_share_a_number_get_numbers_of_their_own(tmp_path: Path, mlfix) -> None:
    (tmp_path / "data/annotations").mkdir(parents=True)
    for place, name in enumerate(("cat", "dog", "bird")):
        photo = Photo(f"p{place}", boxes=ONE)
        paint(photo, tmp_path / f"data/p{place}.jpg")
        boxes = [{"id": 10 * place + n, "image_id": 1, "category_id": 1 + place // 2, "bbox": [10 + 9 * n, 10, 30, 30]}
                 for n in range(2)]  # fmt: skip
        content = {"images": [{"id": 1, "file_name": f"p{place}.jpg"}], "annotations": boxes,
                   "categories": [{"id": 1 + place // 2, "name": name}]}  # fmt: skip
        (tmp_path / f"data/annotations/s{place}.json").write_text(json.dumps(content))
    table = api.crop(f"data.root={tmp_path / 'data'}", f"out={tmp_path / 'crops'}", *PNG)
    birds = table.index[table["label"] == "bird"]
    answer = mlfix(
        "export", "to=coco", *WHERE(tmp_path), fix(tmp_path / "f.csv", dict(zip(birds, ("cat", "dog"), strict=True)))
    )
    assert answer.code == 0, answer.err
    written = json.loads((tmp_path / "out/annotations/s2.json").read_text())["categories"]
    assert len({row["id"] for row in written}) == 3 and [row["name"] for row in written] == ["bird", "cat", "dog"]


def test_yaml_paths_in_quotes_and_files_that_are_no_lists(tmp_path: Path, mlfix) -> None:
    for number, (text, place) in enumerate(
        (('"../y#x/../data0"  # here', "out0"), ("'.'", "out # 1"), (". # c", "out2"))
    ):
        root = tmp_path / f"data{number}"
        write_yolo(root, for_format("yolo"))
        (root / "readme.txt").write_bytes("größe".encode("latin-1"))
        (root / "data.yaml").write_text(
            re.sub(r"path: .*", lambda _, text=text: f"path: {text}", (root / "data.yaml").read_text())
        )
        table = api.crop(f"data.root={root}", f"out={tmp_path / f'crops{number}'}", *PNG)
        sample = table.index[table["label"] != "stop"][0]
        answer = mlfix("export", "to=yolo", f"crops={tmp_path / f'crops{number}'}", f"out={tmp_path / place}",
                       fix(tmp_path / "f.csv", {sample: "stop"}))  # fmt: skip
        assert answer.code == 0, answer.err
        written = (tmp_path / place / "data.yaml").read_text()
        assert yaml.safe_load(written)["path"] == str(tmp_path / place)
        assert ("# here" in written) == (number == 0) and ("# c" in written) == (number == 2)
        assert (tmp_path / place / "readme.txt").read_bytes() == "größe".encode("latin-1")


XML = """<annotation><filename>p.jpg</filename><size><width>320</width><height>200</height></size><object/>
<object><attributes><attribute><name>colour</name></attribute></attributes><part><name>x</name></part>
<name lang="en">stop</name><bndbox><xmin>11</xmin><ymin>11</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object>
<object ><name><![CDATA[yi&eld]]></name><bndbox><xmin>61</xmin><ymin>11</ymin>
<xmax>90</xmax><ymax>40</ymax></bndbox></object >
</annotation>"""


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1", "utf-16"])
def test_xml_of_other_shapes_and_encodings(tmp_path: Path, mlfix, encoding: str) -> None:
    root = write_voc(tmp_path / "data", [Photo("p", boxes=ONE)])
    head = f'<?xml version="1.0" encoding="{encoding}"?>'
    (root / "Annotations/p.xml").write_bytes((head + XML).encode(encoding))
    table = api.crop(f"data.root={root}", f"out={tmp_path / 'crops'}", *PNG)
    assert sorted(table["label"]) == ["stop", "yi&eld"]
    ids = dict(zip(table["annotation"], table.index, strict=True))
    answer = mlfix(
        "export", "to=voc", *WHERE(tmp_path), fix(tmp_path / "f.csv", {ids["1"]: "日本", ids["2"]: "invalid"})
    )
    assert answer.code == 0, answer.err
    written = (tmp_path / "out/Annotations/p.xml").read_bytes().decode(encoding)
    new = "日本" if encoding != "iso-8859-1" else "&#26085;&#26412;"
    assert written == (head + XML[: XML.index("<object ><name>")] + "\n</annotation>").replace(">stop<", f">{new}<")


def test_a_failed_export_leaves_nothing(tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlfix_train.commands import export_annotations

    root = write_mtsd(tmp_path / "data", photos())
    table = api.crop(f"data.root={root}", f"out={tmp_path / 'crops'}", *PNG)
    command = ("export", "to=mtsd", f"crops={tmp_path / 'crops'}", f"out={tmp_path / 'out'}",
               fix(tmp_path / "f.csv", {table.index[0]: "invalid"}))  # fmt: skip
    real = export_annotations.check_copies

    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export_annotations, "check_copies", stops)
    assert mlfix(*command).code == 130
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(export_annotations, "check_copies", real)
    assert mlfix(*command).code == 0


# Scripts


def test_scripts_name_what_is_missing(tmp_path: Path) -> None:
    script = REPO / "scripts"
    for command, told in (
        ((sys.executable, script / "estimate_mtsd.py", "nowhere", "--runs", "3"), "data.root=nowhere does not exist"),
        ((sys.executable, script / "make_fake_mtsd.py", "x", "--size", "abc"), "abc is no size"),
        (("bash", script / "reproduce_mtsd.sh", tmp_path, "nofile.csv"), "nofile.csv does not exist"),
        (("bash", script / "reproduce_mtsd.sh", tmp_path / "no", "none"), "does not exist"),
    ):
        done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert told in done.stderr and "Traceback" not in done.stderr
