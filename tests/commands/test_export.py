"""Boxes -> crops -> fixes -> annotations -> boxes changes exactly the fixed labels, in every format."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml
from box_helpers import ONE, SMALL_PNG, write_fixes_file
from photos import WRITE, Photo, for_format, paint, photos, write_coco, write_mtsd, write_voc, write_yolo

from mlfix_train import run_command
from mlfix_train.data.annotations import write_back
from mlfix_train.data.annotations.base import Annotations
from mlfix_train.data.annotations.formats import open_annotations


def hashes(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def rows(found: Annotations) -> dict[tuple, str]:
    table = found.boxes
    edges = ("x_min", "y_min", "x_max", "y_max")
    found_rows = {}
    for row in table.itertuples():
        found_rows[row.photo.rpartition("/")[2], *(round(getattr(row, edge), 5) for edge in edges)] = row.label
    return found_rows


@pytest.mark.parametrize("name", list(WRITE))
def test_round_trip(name: str, tmp_path: Path, mlfix) -> None:
    made = for_format(name, count=9)
    root, crops, out = WRITE[name](tmp_path / "data", made), tmp_path / "crops", tmp_path / "out"
    before, originals = rows(open_annotations(root).read()), hashes(root)
    table = run_command("crop", f"data.root={root}", f"out={crops}", *SMALL_PNG)
    samples = list(table.index[::4])
    new = {
        sample: (
            "invalid"
            if place % 3 == 2
            else next(label for label in ("stop", "yield", "other-sign") if label != table.at[sample, "label"])
        )
        for place, sample in enumerate(samples)
    }
    assert "invalid" in new.values() and len(new) >= 4
    fixes = write_fixes_file(tmp_path / "fixes.csv", new)
    answer = mlfix("export", "to=source", f"crops={crops}", fixes, f"out={out}")
    assert answer.code == 0, answer.err
    taken = sum(label == "invalid" for label in new.values())
    assert (
        f"{len(new) - taken} boxes with a new label, {taken} removed, {len(table) - len(new)} unchanged" in answer.out
    )
    assert hashes(root) == originals

    # The copies, read anew where the source's photos are, differ in the fixed labels alone.
    if name == "mtsd":
        (out / "images").symlink_to(root / "images")
    elif name == "coco":
        for split in ("train2017", "val2017"):
            (out / split).symlink_to(root / split)
    elif name in ("voc", "cvat"):
        folder = {"voc": "JPEGImages", "cvat": "images"}[name]
        (out / folder).symlink_to(root / folder)
    after = rows(open_annotations(out).read())
    wanted = dict(before)
    for sample, label in new.items():
        row = table.loc[sample]
        edges = [row[edge] for edge in ("x_min", "y_min", "x_max", "y_max")]
        if name == "yolo":
            sides = [row["photo_width"], row["photo_height"]] * 2
            edges = [edge / side for edge, side in zip(edges, sides, strict=True)]
        photo = str(row["group"]).rpartition("/")[2]
        (key,) = [
            key
            for key in wanted
            if key[0] == photo and all(abs(a - b) < 1e-4 for a, b in zip(key[1:], edges, strict=True))
        ]
        if label == "invalid":
            del wanted[key]
        else:
            wanted[key] = label
    assert after == wanted

    # Cropped again, exactly the fixed ones lie elsewhere; names of the others, and their numbers, are as they were.
    again = run_command("crop", f"data.root={out}", f"out={tmp_path / 'again'}", *SMALL_PNG)
    assert set(table.index) - set(again.index) == set(new)
    moved = {sample.rpartition("/")[2] for sample, label in new.items() if label != "invalid"}
    assert {sample.rpartition("/")[2] for sample in set(again.index) - set(table.index)} == moved


def test_untouched_files_are_copied_byte_by_byte_and_layout_is_kept(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    for place, file in enumerate(sorted((root / "annotations").iterdir())):
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content, indent=(None, 2, 4, "\t")[place % 4]) + "\n" * (place % 2))
    table = run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    new = {}
    for photo in ("photo0", "photo1", "photo2", "photo3"):
        sample = table.index[table["group"] == photo][0]
        new[sample] = "yield" if table.at[sample, "label"] != "yield" else "stop"
    fixes = write_fixes_file(tmp_path / "fixes.csv", new)
    answer = mlfix("export", "to=mtsd", f"crops={tmp_path / 'crops'}", fixes, f"out={tmp_path / 'out'}")
    assert answer.code == 0, answer.err
    a, b = hashes(root / "annotations"), hashes(tmp_path / "out/annotations")
    assert {name for name in a if a[name] != b[name]} == {f"photo{number}.json" for number in range(4)}
    assert hashes(root / "splits") == hashes(tmp_path / "out/splits")
    for number in range(4):
        old = (root / f"annotations/photo{number}.json").read_text().splitlines()
        now = (tmp_path / f"out/annotations/photo{number}.json").read_text().splitlines()
        assert len(old) == len(now)
        if len(old) > 1:
            assert sum(x != y for x, y in zip(old, now, strict=True)) == 1


def test_yolo_keeps_everything_but_the_number(tmp_path: Path, mlfix) -> None:
    root = write_yolo(tmp_path / "data", for_format("yolo"))
    file = root / "labels/train/photo0.txt"
    file.write_text(file.read_text().replace(" ", "   ").strip() + "\t \r\n\r\n2 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n")
    table = run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    first = table[(table["group"] == "train/photo0") & (table["annotation"] == "1")].iloc[0]
    fixes = write_fixes_file(tmp_path / "fixes.csv", {first.name: "a-new-one"})
    command = ("export", "to=yolo", f"crops={tmp_path / 'crops'}", fixes, f"out={tmp_path / 'out'}")
    refused = mlfix(*command)
    assert refused.code == 1 and "a-new-one" in refused.err and "new_labels" in refused.err
    answer = mlfix(*command, "fixes.ignore=[new_labels]")
    assert answer.code == 0, answer.err
    old, now = file.read_bytes(), (tmp_path / "out/labels/train/photo0.txt").read_bytes()
    assert now == b"4" + old[1:]
    old_yaml, new_yaml = ((place / "data.yaml").read_text() for place in (root, tmp_path / "out"))
    assert new_yaml == old_yaml.replace("../elsewhere", str(tmp_path / "out")) + '  4: "a-new-one"\n'
    assert f"{tmp_path / 'out/data.yaml'}: path is the folder of the copies, not ../elsewhere" in answer.err
    assert (tmp_path / "out/images/train/photo0.jpg").resolve() == (root / "images/train/photo0.jpg").resolve()


def test_a_new_category_in_coco(tmp_path: Path, mlfix) -> None:
    root = write_coco(tmp_path / "data", for_format("coco"))
    table = run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    sample = table.index[table["split"] == "val"][0]
    fixes = write_fixes_file(tmp_path / "fixes.csv", {sample: "new"})
    answer = mlfix(
        "export",
        "to=coco",
        f"crops={tmp_path / 'crops'}",
        fixes,
        f"out={tmp_path / 'out'}",
        "fixes.ignore=[new_labels]",
    )
    assert answer.code == 0, answer.err
    content = json.loads((tmp_path / "out/annotations/instances_val2017.json").read_text())
    assert content["categories"][-1] == {"id": 25, "name": "new"}
    assert [row["id"] for row in content["annotations"] if row["category_id"] == 25] == [
        int(table.at[sample, "annotation"])
    ]
    train = "annotations/instances_train2017.json"
    assert (tmp_path / "out" / train).read_bytes() == (root / train).read_bytes()


def test_categories_that_are_an_object_are_kept(tmp_path: Path, mlfix) -> None:
    root = write_coco(tmp_path / "data", for_format("coco"))
    for file in (root / "annotations").glob("*.json"):
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "categories": {c["name"]: c["id"] for c in content["categories"]}}))
    table = run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    sample = table.index[table["label"] != "stop"][0]
    command = ("export", "to=coco", f"crops={tmp_path / 'crops'}", f"out={tmp_path / 'out'}")
    refused = mlfix(*command, write_fixes_file(tmp_path / "f.csv", {sample: "new"}), "fixes.ignore=[new_labels]")
    assert refused.code == 1 and "categories is an object, to which 'new' can't be added" in refused.err
    assert mlfix(*command, write_fixes_file(tmp_path / "f.csv", {sample: "stop"})).code == 0


@pytest.mark.parametrize(("invalid", "label"), [("keep", None), ("other-sign", "other-sign")])
def test_what_becomes_of_invalid_ones(tmp_path: Path, mlfix, invalid: str, label: str | None) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    table = run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    sample = table.index[table["label"] == "stop"][0]
    fixes = write_fixes_file(tmp_path / "fixes.csv", {sample: "invalid"})
    command = ("export", "to=mtsd", f"crops={tmp_path / 'crops'}", fixes, f"out={tmp_path / 'out'}")
    answer = mlfix(*command, "invalid=other-sgin")
    assert answer.code == 2 and "did you mean 'other-sign'" in answer.err
    assert mlfix(*command, f"invalid={invalid}").code == 0
    content = json.loads((tmp_path / f"out/annotations/{table.at[sample, 'group']}.json").read_text())
    labels = {entry["key"]: entry["label"] for entry in content["objects"]}
    assert labels[table.at[sample, "annotation"]] == (label or "stop")


def test_annotations_that_changed_since_are_not_written_over(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    table = run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    sample, other = table.index[table["group"] == "photo3"][:2]
    fixes = write_fixes_file(tmp_path / "fixes.csv", {sample: "invalid", other: "invalid"})
    file = root / "annotations/photo3.json"
    content = json.loads(file.read_text())
    kept = [entry for entry in content["objects"] if entry["key"] != table.at[other, "annotation"]]
    for entry in kept:
        entry["label"] = "changed"
    file.write_text(json.dumps({**content, "objects": kept}))
    answer = mlfix("export", "to=mtsd", f"crops={tmp_path / 'crops'}", fixes, f"out={tmp_path / 'out'}")
    assert answer.code == 1
    assert "1 of the fixed boxes are gone or were moved" in answer.err and f"({other})" in answer.err
    fixes = write_fixes_file(tmp_path / "fixes.csv", {sample: "invalid"})
    answer = mlfix("export", "to=mtsd", f"crops={tmp_path / 'crops'}", fixes, f"out={tmp_path / 'out'}")
    assert "1 of the fixed boxes have another label now" in answer.err
    assert "when it was cropped, 'changed' now" in answer.err
    assert not (tmp_path / "out").exists()


def test_wrong_settings_name_the_way(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    table = run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    fixes = write_fixes_file(tmp_path / "fixes.csv", {table.index[0]: "invalid"})
    crops, path = f"crops={tmp_path / 'crops'}", fixes
    for arguments, code, expected in (
        (("to=coco", crops, path), 2, "came from mtsd"),
        (("to=mtsd", path), 2, "needs crops"),
        (("to=mtsd", crops), 2, "needs fixes.path"),
        (("to=mtsd", f"crops={root}", path), 1, "contains no crops"),
        (("to=mtsd", crops, path, f"out={tmp_path / 'crops'}"), 2, "is not empty"),
        (("to=mtsd", crops, path, f"out={root / 'fixed'}"), 2, "is inside the annotated data"),
        (("to=fiftyone",), 2, "needs audit"),
        (("to=pascal", crops, path), 2, "to=pascal is not one of"),
    ):
        answer = mlfix("export", f"out={tmp_path / 'x'}", *arguments)
        assert (answer.code, expected in answer.err) == (code, True), (arguments, answer.err)
    about = json.loads((tmp_path / "crops/crop.json").read_text())
    (tmp_path / "crops/crop.json").write_text(json.dumps({**about, "status": "running"}))
    assert "unfinished crops" in mlfix("export", "to=mtsd", crops, path).err


# What is changed in files


def places(work: Path) -> tuple[str, ...]:
    return f"crops={work / 'crops'}", f"out={work / 'out'}", "fixes.ignore=[new_labels]"


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
        ({"c": "invalid"}, [(LAYOUT[LAYOUT.index(',\r\n  {"key":"c"') : LAYOUT.index("\r\n ] }")], "")]),
        ({"a": "invalid", "b": "invalid"}, [(LAYOUT[LAYOUT.index('{"key":"a"') : LAYOUT.index('{"key":"c"')], "")]),
    ],
)
def test_json_is_changed_in_single_places(tmp_path: Path, mlfix, fixes: dict, changes: list) -> None:
    root = write_mtsd(tmp_path / "data", [Photo("p", boxes=ONE)])
    (root / "annotations/p.json").write_bytes(LAYOUT.encode())
    table = run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    ids = dict(zip(table["annotation"], table.index, strict=True))
    answer = mlfix(
        "export",
        "to=mtsd",
        *places(tmp_path),
        write_fixes_file(tmp_path / "f.csv", {ids[key]: label for key, label in fixes.items()}),
    )
    assert answer.code == 0, answer.err
    wanted = LAYOUT
    for old, new in changes:
        assert wanted.count(old) == 1
        wanted = wanted.replace(old, new)
    assert (tmp_path / "out/annotations/p.json").read_bytes().decode() == wanted


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("ids", ["text", "numbers"])
def test_coco_with_ids_as_text_and_ids_that_repeat(tmp_path: Path, mlfix, encoding: str, ids: str) -> None:
    as_text = str if ids == "text" else int
    paint(Photo("p", boxes=ONE), tmp_path / "data/images/cb0618f6-p.jpg")
    rows = [
        {"id": key, "image_id": as_text(7), "category_id": as_text(category), "bbox": [10 + 9 * n, 10, 30, 30]}
        for n, (key, category) in enumerate([(0, 1), ("0", 2), (0, 1), (None, 2), (5, 9)])
    ]
    content = {
        "images": [{"id": 7, "file_name": r"..\media\upload\4\cb0618f6-p.jpg"}],
        "annotations": [*rows, None],
        "categories": [{"id": 1, "name": 30}, {"id": 2, "name": "stop"}, {"id": 4}],
    }
    file = tmp_path / "data/result.json"
    file.write_bytes(json.dumps(content, indent=1).encode(encoding))
    table = run_command("crop", f"data.root={tmp_path / 'data'}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    names = dict(zip(table["annotation"], table.index, strict=True))
    assert table.set_index("annotation")["label"].to_dict() == {"0": "30", "0#1": "stop", "0#2": "30", "#3": "stop"}
    new = {names["0#1"]: "30", names["0#2"]: "new", names["#3"]: "invalid"}
    answer = mlfix("export", "to=source", *places(tmp_path), write_fixes_file(tmp_path / "f.csv", new))
    assert answer.code == 0, answer.err
    written = json.loads((tmp_path / "out/result.json").read_bytes().decode(encoding))
    expected = [rows[0], {**rows[1], "category_id": as_text(1)}, {**rows[2], "category_id": as_text(10)}, rows[4], None]
    assert written["annotations"] == expected
    assert written["categories"] == [*content["categories"], {"id": 10, "name": "new"}]


def test_yolo_all_in_one_folder_with_names_as_written(tmp_path: Path, mlfix) -> None:
    root = tmp_path / "data"
    paint(Photo("p", boxes=ONE), root / "p.jpg")
    (root / "p.txt").write_bytes(b"\xff\xfe" + "0 0.5 0.5 0.2 0.2\nno 0.2 0.2 0.1 0.1\n".encode("utf-16-le"))
    (root / "data.yaml").write_text("names: [020, no, 1.10]  # as written\nnc: 3\n")
    (root / ".ipynb_checkpoints").mkdir()
    (root / ".ipynb_checkpoints/p.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    table = run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    assert table["label"].tolist() == ["020", "no"]
    new = dict(zip(table.index, ("1.10", "030"), strict=True))
    answer = mlfix("export", "to=source", *places(tmp_path), write_fixes_file(tmp_path / "f.csv", new))
    assert answer.code == 0, answer.err
    assert (tmp_path / "out/p.txt").read_bytes().decode("utf-16") == "2 0.5 0.5 0.2 0.2\n3 0.2 0.2 0.1 0.1\n"
    assert (tmp_path / "out/data.yaml").read_text() == 'names: [020, no, 1.10, "030"]  # as written\nnc: 4\n'


def test_taking_all_boxes_out_leaves_an_empty_list(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", [Photo("p", boxes=[*ONE, ("yield", (50, 10, 90, 40))])])
    table = run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    answer = mlfix(
        "export",
        "to=mtsd",
        f"crops={tmp_path / 'crops'}",
        f"out={tmp_path / 'out'}",
        write_fixes_file(tmp_path / "f.csv", dict.fromkeys(table.index, "invalid")),
    )
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
    table = run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    ids = dict(zip(table["annotation"], table.index, strict=True))
    answer = mlfix(
        "export",
        "to=voc",
        *places(tmp_path),
        write_fixes_file(tmp_path / "f.csv", {ids["1"]: "a<b", ids["2"]: "invalid"}),
    )
    assert answer.code == 0, answer.err
    last = re.findall(r"(?s)<object><name>stop</name>.*?</object>", text)[-1]
    wanted = text.replace("<name>yield</name>", "<name>a&lt;b</name>").replace(last, "")
    assert (tmp_path / "out/Annotations/p.xml").read_bytes().decode() == wanted


@pytest.mark.parametrize(
    ("yaml", "wanted"),
    [
        ("names: [a, b]  # two\r\nnc: 2\r\n", 'names: [a, b, "new"]  # two\r\nnc: 3\r\n'),
        (
            "# top\nnc: 2\nnames:\n- a # one\n- b\n\n# end\ntrain: images/train\nval: images/val\n",
            '# top\nnc: 3\nnames:\n- a # one\n- b\n- "new"\n\n# end\ntrain: images/train\nval: images/val\n',
        ),
        ("names: {0: a, 1: b}\npath: .  # here\n", 'names: {0: a, 1: b, 2: "new"}\npath: OUT  # here\n'),
        (
            "names:\n  0: a\n  # between\n  1: b\ntrain: images/train\nval: images/val\n",
            'names:\n  0: a\n  # between\n  1: b\n  2: "new"\ntrain: images/train\nval: images/val\n',
        ),
    ],
)
def test_a_new_class_in_yaml_leaves_the_rest_as_it_is(tmp_path: Path, mlfix, yaml: str, wanted: str) -> None:
    root = tmp_path / "data"
    for split in ("train", "val"):
        paint(Photo(split, boxes=ONE), root / f"images/{split}/{split}.jpg")
        (root / f"labels/{split}").mkdir(parents=True)
        (root / f"labels/{split}/{split}.txt").write_bytes(b"\xef\xbb\xbf0 0.5 0.5 0.2 0.2\r\n1 0.2 0.2 0.1 0.1")
    (root / "data.yaml").write_bytes(yaml.encode())
    table = run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    sample = table.index[(table["split"] == "val") & (table["label"] == "a")][0]
    answer = mlfix("export", "to=yolo", *places(tmp_path), write_fixes_file(tmp_path / "f.csv", {sample: "new"}))
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
    table = run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    command = (
        "export",
        "to=yolo",
        "fixes.ignore=[new_labels]",
        write_fixes_file(tmp_path / "f.csv", {table.index[0]: "new"}),
    )
    answer = mlfix(*command, f"crops={tmp_path / 'crops'}", f"out={tmp_path / 'out'}")
    assert answer.code == 0, answer.err
    assert (tmp_path / "out/classes.txt").read_bytes() == b"a\r\nb\r\nnew\r\n\r\n\r\n"
    no_sample_has_it = write_fixes_file(tmp_path / "b.csv", {table.index[0]: "b"})
    answer = mlfix("export", "to=yolo", no_sample_has_it, f"crops={tmp_path / 'crops'}", f"out={tmp_path / 'out-b'}")
    assert answer.code == 0 and (tmp_path / "out-b/labels/p.txt").read_text() == "1 0.5 0.5 0.2 0.2\n"
    (root / "classes.txt").unlink()
    (root / "train.txt").write_text(f"{root}/images/p.jpg\n")
    (root / "data.yaml").write_text("train: train.txt\nnames: [a, b]\n")
    run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops2'}", *SMALL_PNG)
    answer = mlfix(*command, f"crops={tmp_path / 'crops2'}", f"out={tmp_path / 'out2'}")
    assert answer.code == 0, answer.err
    assert (tmp_path / "out2/train.txt").read_text() == f"{tmp_path}/out2/images/p.jpg\n"
    assert "train.txt: its photos are those beside the copied labels" in answer.err


def test_a_yaml_whose_path_leads_elsewhere(tmp_path: Path, mlfix) -> None:
    write_yolo(tmp_path / "there", for_format("yolo"))
    (tmp_path / "here").mkdir()
    text = (tmp_path / "there/data.yaml").read_text().replace("../elsewhere", str(tmp_path / "there"))
    (tmp_path / "here/data.yaml").write_text(text)
    (tmp_path / "there/data.yaml").unlink()
    table = run_command("crop", f"data.root={tmp_path / 'here'}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    assert table["group"].str.match(r"(train|val)/photo\d").all()
    sample = table.index[table["label"] != "stop"][0]
    answer = mlfix(
        "export",
        "to=yolo",
        f"crops={tmp_path / 'crops'}",
        f"out={tmp_path / 'out'}",
        write_fixes_file(tmp_path / "f.csv", {sample: "stop"}),
    )
    assert answer.code == 0, answer.err
    assert "1 boxes with a new label" in answer.out


def test_a_new_category_has_a_number_that_no_file_uses(tmp_path: Path, mlfix) -> None:
    write_coco(tmp_path / "data", for_format("coco"))
    files = {split: tmp_path / f"data/annotations/instances_{split}2017.json" for split in ("train", "val")}
    content = json.loads(files["val"].read_text())
    content["categories"] += [{"id": 90, "name": "only-in-val"}]
    files["val"].write_text(json.dumps(content))
    table = run_command("crop", f"data.root={tmp_path / 'data'}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    train = table.index[table["split"] == "train"][:2]
    answer = mlfix(
        "export",
        "to=coco",
        *places(tmp_path),
        write_fixes_file(tmp_path / "f.csv", {train[0]: "new", train[1]: "only-in-val"}),
    )
    assert answer.code == 0, answer.err
    written = json.loads((tmp_path / "out/annotations/instances_train2017.json").read_text())["categories"]
    assert written[-2:] == [{"id": 91, "name": "new"}, {"id": 90, "name": "only-in-val"}]


def test_labels_of_other_files_that_share_a_number_get_numbers_of_their_own(tmp_path: Path, mlfix) -> None:
    (tmp_path / "data/annotations").mkdir(parents=True)
    for place, name in enumerate(("cat", "dog", "bird")):
        photo = Photo(f"p{place}", boxes=ONE)
        paint(photo, tmp_path / f"data/p{place}.jpg")
        boxes = [
            {"id": 10 * place + n, "image_id": 1, "category_id": 1 + place // 2, "bbox": [10 + 9 * n, 10, 30, 30]}
            for n in range(2)
        ]
        content = {
            "images": [{"id": 1, "file_name": f"p{place}.jpg"}],
            "annotations": boxes,
            "categories": [{"id": 1 + place // 2, "name": name}],
        }
        (tmp_path / f"data/annotations/s{place}.json").write_text(json.dumps(content))
    table = run_command("crop", f"data.root={tmp_path / 'data'}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    birds = table.index[table["label"] == "bird"]
    answer = mlfix(
        "export",
        "to=coco",
        *places(tmp_path),
        write_fixes_file(tmp_path / "f.csv", dict(zip(birds, ("cat", "dog"), strict=True))),
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
        table = run_command("crop", f"data.root={root}", f"out={tmp_path / f'crops{number}'}", *SMALL_PNG)
        sample = table.index[table["label"] != "stop"][0]
        answer = mlfix(
            "export",
            "to=yolo",
            f"crops={tmp_path / f'crops{number}'}",
            f"out={tmp_path / place}",
            write_fixes_file(tmp_path / "f.csv", {sample: "stop"}),
        )
        assert answer.code == 0, answer.err
        written = (tmp_path / place / "data.yaml").read_text()
        assert yaml.safe_load(written)["path"] == str(tmp_path / place)
        assert ("# here" in written) == (number == 0) and ("# c" in written) == (number == 2)
        assert (tmp_path / place / "readme.txt").read_bytes() == "größe".encode("latin-1")


XML = """<annotation><filename>p.jpg</filename><size><width>320</width><height>200</height></size><object/>
<object><attributes><attribute><name>color</name></attribute></attributes><part><name>x</name></part>
<name lang="en">stop</name><bndbox><xmin>11</xmin><ymin>11</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object>
<object ><name><![CDATA[yi&eld]]></name><bndbox><xmin>61</xmin><ymin>11</ymin>
<xmax>90</xmax><ymax>40</ymax></bndbox></object >
</annotation>"""


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1", "utf-16"])
def test_xml_of_other_shapes_and_encodings(tmp_path: Path, mlfix, encoding: str) -> None:
    root = write_voc(tmp_path / "data", [Photo("p", boxes=ONE)])
    head = f'<?xml version="1.0" encoding="{encoding}"?>'
    (root / "Annotations/p.xml").write_bytes((head + XML).encode(encoding))
    table = run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    assert sorted(table["label"]) == ["stop", "yi&eld"]
    ids = dict(zip(table["annotation"], table.index, strict=True))
    answer = mlfix(
        "export",
        "to=voc",
        *places(tmp_path),
        write_fixes_file(tmp_path / "f.csv", {ids["1"]: "日本", ids["2"]: "invalid"}),
    )
    assert answer.code == 0, answer.err
    written = (tmp_path / "out/Annotations/p.xml").read_bytes().decode(encoding)
    new = "日本" if encoding != "iso-8859-1" else "&#26085;&#26412;"
    assert written == (head + XML[: XML.index("<object ><name>")] + "\n</annotation>").replace(">stop<", f">{new}<")


def test_a_failed_export_leaves_nothing(tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    table = run_command("crop", f"data.root={root}", f"out={tmp_path / 'crops'}", *SMALL_PNG)
    command = (
        "export",
        "to=mtsd",
        f"crops={tmp_path / 'crops'}",
        f"out={tmp_path / 'out'}",
        write_fixes_file(tmp_path / "f.csv", {table.index[0]: "invalid"}),
    )
    real = write_back.check_copies

    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write_back, "check_copies", stops)
    assert mlfix(*command).code == 130
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(write_back, "check_copies", real)
    assert mlfix(*command).code == 0
