"""Reading YOLO data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from box_helpers import pixels
from photos import COLORS, Photo, for_format, paint, write_yolo

from mlfix_train.data.annotations.base import EDGES
from mlfix_train.data.annotations.write_back import write_fixed_annotations
from mlfix_train.data.annotations.yolo import Yolo, _relabel_lines
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
        ("names: 3", "names is '3'"),
        ("names: {0: a, 00: b}", "names has the number 0 twice"),
        ("names: {0: a, 0: b}", "the key '0' stands in line 1 and in line 1"),
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


def test_yolo_class_lists_that_contradict_themselves(tmp_path: Path) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    text = (tmp_path / "data.yaml").read_text()
    (tmp_path / "data.yaml").write_text(f"nc: 7\n{text}")
    with pytest.raises(DataError, match=r"data.yaml: nc is 7, and there are 4 names: stop"):
        Yolo(tmp_path).read()
    (tmp_path / "data.yaml").write_text(f"nc: 4\n{text}".replace("yield", "stop"))
    notes = Yolo(tmp_path).read().notes
    assert any(
        "data.yaml: classes of the same name become one label" in note and "'stop' (0, 1)" in note for note in notes
    )


def test_yolo_leaves_out_yaml_files_of_other_programs(tmp_path: Path) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    (tmp_path / "args.yaml").write_text("names_of: x\nlr: [1\n")
    assert len(Yolo(tmp_path).read().photos) == 6
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("stop\n")
    with pytest.raises(DataError, match=r"args\.yaml is not valid YAML"):
        Yolo(tmp_path).read()


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
    "names", ["[020, no]", "{0: 020, 1: no}", "\n- 020\n- no", "\n  0: 020\n  1: no", "['020', \"no\"]"]
)
def test_yolo_names_are_as_they_are_written(tmp_path: Path, names: str) -> None:
    write_yolo(tmp_path, [Photo("photo0", boxes=[("stop", (10, 10, 30, 40)), ("yield", (50, 10, 80, 40))])])
    (tmp_path / "data.yaml").write_bytes(f"path: null\ntrain: images\nnames: {names}\n".encode("utf-16"))
    found = Yolo(tmp_path).read()
    assert found.classes == ("020", "no") and found.boxes["label"].tolist() == ["020", "no"]


def one_photo(root: Path, line: str, yaml: str = "") -> Yolo:
    write_yolo(root, [Photo("photo0", boxes=[("stop", (10, 10, 30, 40))])])
    (root / "labels/train/photo0.txt").write_text(line + "\n")
    (root / "data.yaml").write_text(f"train: images\nnames: [stop, yield]\n{yaml}")
    return Yolo(root)


POSE = "1 0.5 0.4 0.2 0.3 0.45 0.45 2 0.55 0.45 2 0.55 0.5 1 0 0 0"


@pytest.mark.parametrize(
    ("yaml", "line", "box"),
    [
        ("kpt_shape: [4, 3]\n", POSE, [0.4, 0.25, 0.6, 0.55]),
        ("kpt_shape: [2, 2]\n", "1 0.5 0.4 0.2 0.3 0.45 0.45 0.5 0.5", [0.4, 0.25, 0.6, 0.55]),
        ("kpt_shape: [1, 3]\n", "1 0.5 0.4 0.2 0.3 0.45 0.45 2", [0.4, 0.25, 0.6, 0.55]),
        ("kpt_shape: [4, 3]\n", "1 0.5 0.4 0.2 0.3", [0.4, 0.25, 0.6, 0.55]),
        ("", "1 0.5 0.4 0.6 0.5 0.5 0.6 0.4 0.5", [0.4, 0.4, 0.6, 0.6]),  # four corners of an oriented box
        ("", "1 0.9 0.8 0.95 0.8 0.95 0.85", [0.9, 0.8, 0.95, 0.85]),  # a polygon
        ("task: segment\n", "1 0.4 0.4 0.5 0.4 0.5 0.5 0.45 0.55 0.4 0.5", [0.4, 0.4, 0.5, 0.55]),
        ("", "yield 0.5 0.4 0.2 0.3", [0.4, 0.25, 0.6, 0.55]),
        ("", "1 0.5 0.4 0.2 0.3 0.87", [0.4, 0.25, 0.6, 0.55]),  # a score
        ("", "1 0.5 0.4 0.2 0.3 17", [0.4, 0.25, 0.6, 0.55]),  # a track
    ],
)
def test_yolo_kinds_of_lines(tmp_path: Path, yaml: str, line: str, box: list) -> None:
    found = one_photo(tmp_path, line, yaml).read().boxes
    assert found["label"].tolist() == ["yield"]
    assert found[["x_min", "y_min", "x_max", "y_max"]].to_numpy()[0].tolist() == pytest.approx(box)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (POSE, "say so in data.yaml, beside names: kpt_shape: [4, 3]"),
        (POSE[:-6], "say so in data.yaml, beside names: kpt_shape: [3, 3]"),  # an even count
        ("1 0.5 0.4 0.2 0.3 0.45 0.45 0.55 0.3", "kpt_shape: [2, 2] or task: segment"),
        ("1 0.4 0.4 0.5 0.4 0.5 0.5 0.45 0.55 0.4 0.5", "kpt_shape: [3, 2] or task: segment"),
    ],
)
def test_yolo_pose_labels_without_kpt_shape_are_refused_by_name(tmp_path: Path, line: str, expected: str) -> None:
    with pytest.raises(DataError, match="key points") as caught:
        one_photo(tmp_path, line).read()
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("yaml", "line", "expected"),
    [
        ("kpt_shape: [4, 3]\n", POSE[:-6], "14 numbers instead of 17, as kpt_shape in data.yaml says"),
        ("", "1 0.5 0.4 0.2 0.3 0.5\n1 0.5 0.4 0.2 0.3 -0.7", "the last of 6 numbers is an angle"),
        ("", "1 0.5 0.4 0.2 0.3 45.5", "the last of 6 numbers is an angle"),
    ],
)
def test_yolo_lines_of_another_kind_are_named(tmp_path: Path, yaml: str, line: str, expected: str) -> None:
    found = one_photo(tmp_path, line, yaml).read().boxes
    assert set(found["problem"]) == {"malformed"}
    assert found["detail"].str.contains(expected).all()


def test_yolo_with_a_kpt_shape_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"kpt_shape is 17 *\n"):
        one_photo(tmp_path, POSE, "kpt_shape: 17\n").read()


def test_yolo_lists_written_on_another_machine_and_photos_that_are_missing(tmp_path: Path) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    whole = pixels(Yolo(tmp_path).read())
    val = [f"C:\\\\data\\images\\val\\photo{n}.jpg" for n in (2, 5)]
    for lines in (
        val,
        [line.replace("\\", "/") for line in val],
        ["images\\val\\photo2.jpg", "./images/val/photo5.jpg"],
    ):
        (tmp_path / "val.txt").write_text("\r\n".join(lines))
        (tmp_path / "data.yaml").write_text(
            "train: /home/somebody/data/images/train\nval: val.txt\nnames: [stop, yield, other-sign, speed/50 km:h]\n"
        )
        found = Yolo(tmp_path).read()
        assert pixels(found) == whole
        assert any("/home/somebody/data/images/train is not there" in note for note in found.notes)
        assert any("found by" in note and "photo2.jpg" in note for note in found.notes)
    (tmp_path / "val.txt").write_text("images/val/photo2.jpg\nimages/val/photo7.jpg\n")
    row = Yolo(tmp_path).read().photos.loc["val/photo7"]
    assert row["problem"] == "photo missing" and "val.txt: line 2: no file is called" in row["detail"]
    (tmp_path / "val.txt").write_text("images\\val\\x.jpg\n")
    with pytest.raises(DataError, match=r"none of its 1 photos is there, such as line 1: images\\val\\x.jpg"):
        Yolo(tmp_path).read()


def test_yolo_label_files_in_unusual_places(tmp_path: Path) -> None:
    tmp_path = tmp_path / "data"
    write_yolo(tmp_path, for_format("yolo"))
    whole = pixels(Yolo(tmp_path).read())
    (tmp_path / "labels/train").rename(tmp_path / "images/train/labels")  # photos are in images/train itself
    (tmp_path / "images/val/photo2.jpg").rename(tmp_path / "images/val/Capture d\u00e9cran photo2.jpg")
    (tmp_path / "labels/val/photo2.txt").rename(tmp_path / "labels/val/Capture%20d%C3%A9cran%20photo2.txt")
    (tmp_path / "labels/val/photo5.txt").rename(tmp_path / "labels/val/cb0618f6-photo5.txt")
    found = Yolo(tmp_path).read()
    fixes = found.boxes.groupby("photo").first().reset_index()[["photo", "annotation", "label"]]
    fixes = fixes.rename(columns={"label": "old_label"}).assign(new_label="new")
    write_fixed_annotations(Yolo(tmp_path), found, fixes, tmp_path.parent / "out")
    assert (tmp_path.parent / "out/labels/val/cb0618f6-photo5.txt").read_text().startswith("4 ")
    names = {"val/Capture d\u00e9cran photo2": "val/photo2"}
    found.boxes["photo"] = found.boxes["photo"].replace(names)
    assert pixels(replace(found, photos=found.photos.rename(index=names))) == whole
    notes = " ".join(found.notes)
    assert "4 label files are not where YOLO's tools look" in notes
    assert "decoding a URL" in notes and "ignoring an upload prefix" in notes


def test_yolo_hidden_files_are_passed_over(tmp_path: Path) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("stop\nyield\nother-sign\nspeed/50 km:h\n")
    count = len(Yolo(tmp_path).read().boxes)
    hidden = tmp_path / "images/.ipynb_checkpoints"
    hidden.mkdir()
    (hidden / "photo0.jpg").write_bytes((tmp_path / "images/train/photo0.jpg").read_bytes())
    (hidden / "photo0.txt").write_bytes((tmp_path / "labels/train/photo0.txt").read_bytes())
    (tmp_path / "labels/train/._photo0.txt").write_bytes(b"\0\5\x16\7")
    (tmp_path / "._x.yaml").write_bytes(b"\0\5\x16\7names\xff")
    assert len(Yolo(tmp_path).read().boxes) == count


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    found = Yolo(tmp_path).read()
    (note,) = (note for note in found.notes if "path:" in note)
    place = f"{tmp_path.parent}/elsewhere"
    assert note == f"data.yaml: path: ../elsewhere is not there (looked for at {place}); {tmp_path} is read instead"
    file = tmp_path / "data.yaml"
    file.write_text(file.read_text().replace("train: images/train", "train: pictures"))
    with pytest.raises(
        DataError, match=r"train: pictures is neither .*; path: ../elsewhere is not there \(looked for at"
    ):
        Yolo(tmp_path).read()


def test_files_given_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_yolo(tmp_path / "data", for_format("yolo"))
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO"):
        source = Yolo(root, "data/data.yaml")
    assert source.file == str(root / "data.yaml")
    assert len(source.read().boxes) and f"data.file=data/data.yaml was found in {tmp_path}" in caplog.text
    (tmp_path / "data.yaml").write_text("names: [other]\n")
    with pytest.raises(DataError, match=r"data.file=data.yaml may be \S+ or \S+, which differ"):
        Yolo(root, "data.yaml")


def test_pixels_are_said(tmp_path: Path) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    (tmp_path / "labels/train/photo0.txt").write_text("0 160 100 30 20\n")
    found = Yolo(tmp_path).read()
    assert any("lines have coordinates beyond 1" in note and note.startswith("1 of ") for note in found.notes)
    assert found.boxes["problem"].tolist().count("malformed") == 1
    for file in tmp_path.glob("labels/*/*.txt"):
        file.write_text("0 160 100 30 20\n")
    with pytest.raises(DataError, match=r"(?s)6 of 6 lines have coordinates beyond 1.*divide x and width"):
        Yolo(tmp_path).read()


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("1,0.5,0.5,0.2,0.4", "1 lines have commas between their numbers"),
        ("1, 0.5, 0.5, 0.2, 0.4,", "1 lines have commas between their numbers"),
        ("1 0,5 0,5 0,2 0,4", "1 lines have commas that are read as decimal points"),
    ],
)
def test_yolo_commas(tmp_path: Path, line: str, note: str) -> None:
    paint(Photo("p"), tmp_path / "d/p.jpg")
    (tmp_path / "d/p.txt").write_text(f"{line}\n")
    (tmp_path / "d/classes.txt").write_text("a\nb\n")
    found = Yolo(tmp_path / "d").read()
    (row,) = found.boxes.to_dict("records")
    assert row["label"] == "b" and [row[edge] for edge in EDGES] == pytest.approx([0.4, 0.3, 0.6, 0.7])
    assert note in found.notes
    fixes = pd.DataFrame([["p", "1", "b", "a"]], columns=["photo", "annotation", "old_label", "new_label"])
    write_fixed_annotations(Yolo(tmp_path / "d"), found, fixes, tmp_path / "out")
    assert (tmp_path / "out/p.txt").read_text() == f"0{line[1:]}\n"


def test_yolo_lines_of_floats(tmp_path: Path) -> None:
    """As numpy's savetxt writes them."""
    paint(Photo("p"), tmp_path / "d/p.jpg")
    numbers = "5.000e-01 5.000e-01 2.000e-01 4.000e-01"
    (tmp_path / "d/p.txt").write_text(f"1.000e+00 {numbers}\n")
    (tmp_path / "d/classes.txt").write_text("a\nb\n")
    found = Yolo(tmp_path / "d").read()
    (row,) = found.boxes.to_dict("records")
    assert row["label"] == "b" and [row[edge] for edge in EDGES] == pytest.approx([0.4, 0.3, 0.6, 0.7])
    fixes = pd.DataFrame([["p", "1", "b", "a"]], columns=["photo", "annotation", "old_label", "new_label"])
    write_fixed_annotations(Yolo(tmp_path / "d"), found, fixes, tmp_path / "out")
    assert (tmp_path / "out/p.txt").read_text() == f"0 {numbers}\n"


def test_yolo_whole_paths_of_splits_lead_to_the_copies(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "d", for_format("yolo"))
    text = (root / "data.yaml").read_text().replace("path: ../elsewhere\n", "")
    text = text.replace("images/train", f"[{root}/images/train]").replace(
        "images/val", f"{root}/images/val  # held out"
    )
    (root / "data.yaml").write_text(text)
    found = Yolo(root).read()
    fixes = found.boxes[["photo", "annotation", "label"]].head(1).rename(columns={"label": "old_label"})
    write_fixed_annotations(Yolo(root), found, fixes.assign(new_label="yield"), tmp_path / "out")
    assert (tmp_path / "out/data.yaml").read_text() == text.replace(str(root), str(tmp_path / "out"))


def test_class_lists_that_disagree(tmp_path: Path) -> None:
    write_yolo(tmp_path, for_format("yolo"))
    names = "".join(f"{name}\n" for name in COLORS)
    (tmp_path / "data.yaml").unlink()
    for file in ("classes.txt", "labels/classes.txt"):
        (tmp_path / file).write_text(names)
    assert Yolo(tmp_path).read().classes == tuple(COLORS)
    (tmp_path / "labels/classes.txt").write_text("yield\nstop\n")
    with pytest.raises(
        DataError, match=r"(?s)classes.txt has stop, yield.*labels/classes.txt has yield, stop.*data.file="
    ):
        Yolo(tmp_path).read()
    assert Yolo(tmp_path, "classes.txt").read().classes == tuple(COLORS)
    (tmp_path / "data.yaml").write_text("names: [yield, stop, a, b]\n")
    (note,) = (note for note in Yolo(tmp_path).read().notes if "class names" in note)
    assert note.startswith("class names are those of data.yaml: yield, stop, a and 1 more, not stop, yield, other-sign")


def test_the_class_alone_is_replaced() -> None:
    text = "stop,sign 0.5 0.5 0.2 0.2\n0, 0.5, 0.5, 0.2, 0.2\n0 0,5 0,5 0,2 0,2\n"
    wanted = "7 0.5 0.5 0.2 0.2\n7, 0.5, 0.5, 0.2, 0.2\n7 0,5 0,5 0,2 0,2\n"
    assert _relabel_lines(text, {str(line): "b" for line in (1, 2, 3)}, {"b": 7}) == wanted
