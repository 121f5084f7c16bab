"""Boxes -> crops -> fixes -> annotations -> boxes changes exactly the fixed labels, in every format."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest
from photos import WRITE, for_format, photos, write_coco, write_mtsd, write_yolo

from mlfix_train import api
from mlfix_train.data.annotations.base import Annotations
from mlfix_train.data.annotations.detect import read_boxes

PNG = ("format=png", "size=16")


def hashes(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*")) if path.is_file()}  # fmt: skip


def rows(found: Annotations) -> dict[tuple, str]:
    table = found.boxes
    edges = ("x_min", "y_min", "x_max", "y_max")
    found_rows = {}
    for row in table.itertuples():
        found_rows[row.photo.rpartition("/")[2], *(round(getattr(row, edge), 5) for edge in edges)] = row.label
    return found_rows


def write_fixes(crops: pd.DataFrame, path: Path, new: dict[str, str]) -> Path:
    lines = [f'"{sample}",{label}' for sample, label in new.items()]
    path.write_text("sample_id,new_label\n" + "\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("name", list(WRITE))
def test_round_trip(name: str, tmp_path: Path, mlfix) -> None:
    made = for_format(name, count=9)
    root, crops, out = WRITE[name](tmp_path / "data", made), tmp_path / "crops", tmp_path / "out"
    before, originals = rows(read_boxes(root)), hashes(root)
    table = api.crop(f"data.root={root}", f"out={crops}", *PNG)
    samples = list(table.index[::4])
    new = {sample: ("invalid" if place % 3 == 2 else next(label for label in ("stop", "yield", "other-sign")
                    if label != table.at[sample, "label"])) for place, sample in enumerate(samples)}  # fmt: skip
    assert "invalid" in new.values() and len(new) >= 4
    fixes = write_fixes(table, tmp_path / "fixes.csv", new)
    answer = mlfix("export", "to=source", f"crops={crops}", f"fixes.path={fixes}", f"out={out}")
    assert answer.code == 0, answer.err
    taken = sum(label == "invalid" for label in new.values())
    assert (
        f"{len(new) - taken} boxes with a new label, {taken} taken out, {len(table) - len(new)} as they were"
        in answer.out
    )
    assert hashes(root) == originals

    # The copies, read anew where the source's photos are, differ in the fixed labels alone.
    if name == "mtsd":
        (out / "images").symlink_to(root / "images")
    elif name == "coco":
        for split in ("train2017", "val2017"):
            (out / split).symlink_to(root / split)
    elif name == "voc":
        (out / "JPEGImages").symlink_to(root / "JPEGImages")
    after = rows(read_boxes(out))
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
    again = api.crop(f"data.root={out}", f"out={tmp_path / 'again'}", *PNG)
    assert set(table.index) - set(again.index) == set(new)
    moved = {sample.rpartition("/")[2] for sample, label in new.items() if label != "invalid"}
    assert {sample.rpartition("/")[2] for sample in set(again.index) - set(table.index)} == moved


def test_untouched_files_are_copied_byte_by_byte_and_layout_is_kept(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    for place, file in enumerate(sorted((root / "annotations").iterdir())):
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content, indent=(None, 2, 4, "\t")[place % 4]) + "\n" * (place % 2))
    table = api.crop(f"data.root={root}", f"out={tmp_path / 'crops'}", *PNG)
    new = {}
    for photo in ("photo0", "photo1", "photo2", "photo3"):
        sample = table.index[table["group"] == photo][0]
        new[sample] = "yield" if table.at[sample, "label"] != "yield" else "stop"
    fixes = write_fixes(table, tmp_path / "fixes.csv", new)
    answer = mlfix("export", "to=mtsd", f"crops={tmp_path / 'crops'}", f"fixes.path={fixes}", f"out={tmp_path / 'out'}")
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
    table = api.crop(f"data.root={root}", f"out={tmp_path / 'crops'}", *PNG)
    first = table[(table["group"] == "train/photo0") & (table["annotation"] == "1")].iloc[0]
    fixes = write_fixes(table, tmp_path / "fixes.csv", {first.name: "a-new-one"})
    command = ("export", "to=yolo", f"crops={tmp_path / 'crops'}", f"fixes.path={fixes}", f"out={tmp_path / 'out'}")
    refused = mlfix(*command)
    assert refused.code == 1 and "a-new-one" in refused.err and "new_labels" in refused.err
    answer = mlfix(*command, "fixes.allow=[new_labels]")
    assert answer.code == 0, answer.err
    old, now = file.read_bytes(), (tmp_path / "out/labels/train/photo0.txt").read_bytes()
    assert now == b"4" + old[1:]
    old_yaml, new_yaml = ((place / "data.yaml").read_text() for place in (root, tmp_path / "out"))
    assert new_yaml == old_yaml.replace("../elsewhere", str(tmp_path / "out")) + '  4: "a-new-one"\n'
    assert (tmp_path / "out/images/train/photo0.jpg").resolve() == (root / "images/train/photo0.jpg").resolve()


def test_a_new_category_in_coco(tmp_path: Path, mlfix) -> None:
    root = write_coco(tmp_path / "data", for_format("coco"))
    table = api.crop(f"data.root={root}", f"out={tmp_path / 'crops'}", *PNG)
    sample = table.index[table["split"] == "val"][0]
    fixes = write_fixes(table, tmp_path / "fixes.csv", {sample: "new"})
    answer = mlfix("export", "to=coco", f"crops={tmp_path / 'crops'}", f"fixes.path={fixes}", f"out={tmp_path / 'out'}",
                   "fixes.allow=[new_labels]")  # fmt: skip
    assert answer.code == 0, answer.err
    content = json.loads((tmp_path / "out/annotations/instances_val2017.json").read_text())
    assert content["categories"][-1] == {"id": 25, "name": "new"}
    assert [row["id"] for row in content["annotations"] if row["category_id"] == 25] == [
        int(table.at[sample, "annotation"])
    ]
    train = "annotations/instances_train2017.json"
    assert (tmp_path / "out" / train).read_bytes() == (root / train).read_bytes()


@pytest.mark.parametrize(("invalid", "label"), [("keep", None), ("other-sign", "other-sign")])
def test_what_becomes_of_invalid_ones(tmp_path: Path, mlfix, invalid: str, label: str | None) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    table = api.crop(f"data.root={root}", f"out={tmp_path / 'crops'}", *PNG)
    sample = table.index[table["label"] == "stop"][0]
    fixes = write_fixes(table, tmp_path / "fixes.csv", {sample: "invalid"})
    command = ("export", "to=mtsd", f"crops={tmp_path / 'crops'}", f"fixes.path={fixes}", f"out={tmp_path / 'out'}")
    answer = mlfix(*command, "invalid=other-sgin")
    assert answer.code == 2 and "did you mean 'other-sign'" in answer.err
    assert mlfix(*command, f"invalid={invalid}").code == 0
    content = json.loads((tmp_path / f"out/annotations/{table.at[sample, 'group']}.json").read_text())
    labels = {entry["key"]: entry["label"] for entry in content["objects"]}
    assert labels[table.at[sample, "annotation"]] == (label or "stop")


def test_annotations_that_changed_since_are_not_written_over(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    table = api.crop(f"data.root={root}", f"out={tmp_path / 'crops'}", *PNG)
    sample, other = table.index[table["group"] == "photo3"][:2]
    fixes = write_fixes(table, tmp_path / "fixes.csv", {sample: "invalid", other: "invalid"})
    file = root / "annotations/photo3.json"
    content = json.loads(file.read_text())
    kept = [entry for entry in content["objects"] if entry["key"] != table.at[other, "annotation"]]
    for entry in kept:
        entry["label"] = "changed"
    file.write_text(json.dumps({**content, "objects": kept}))
    answer = mlfix("export", "to=mtsd", f"crops={tmp_path / 'crops'}", f"fixes.path={fixes}", f"out={tmp_path / 'out'}")
    assert answer.code == 1
    assert "1 fixed boxes are gone, 1 bear another label now" in answer.err
    assert "when it was cropped, 'changed' now" in answer.err
    assert not (tmp_path / "out").exists()


def test_wrong_settings_name_the_way(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    table = api.crop(f"data.root={root}", f"out={tmp_path / 'crops'}", *PNG)
    fixes = write_fixes(table, tmp_path / "fixes.csv", {table.index[0]: "invalid"})
    crops, path = f"crops={tmp_path / 'crops'}", f"fixes.path={fixes}"
    for arguments, code, told in (
        (("to=coco", crops, path), 2, "came from mtsd"),
        (("to=mtsd", path), 2, "needs crops"),
        (("to=mtsd", crops), 2, "needs fixes.path"),
        (("to=mtsd", f"crops={root}", path), 1, "holds no crops"),
        (("to=mtsd", crops, path, f"out={tmp_path / 'crops'}"), 2, "is not empty"),
        (("to=mtsd", crops, path, f"out={root / 'fixed'}"), 2, "lies in data.root"),
        (("to=fiftyone",), 2, "needs audit"),
        (("to=pascal", crops, path), 2, "to=pascal is not a value"),
    ):
        answer = mlfix("export", f"out={tmp_path / 'x'}", *arguments)
        assert (answer.code, told in answer.err) == (code, True), (arguments, answer.err)
    about = json.loads((tmp_path / "crops/crop.json").read_text())
    (tmp_path / "crops/crop.json").write_text(json.dumps({**about, "status": "running"}))
    assert "is not finished" in mlfix("export", "to=mtsd", crops, path).err
