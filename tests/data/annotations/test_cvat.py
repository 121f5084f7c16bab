"""Reading CVAT's own XML, and writing fixes back into it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from box_helpers import ONE
from photos import Photo, paint, write_cvat

from mlfix_train.data.annotations.base import EDGES
from mlfix_train.data.annotations.cvat import Cvat
from mlfix_train.data.annotations.formats import detect_formats, open_annotations
from mlfix_train.data.annotations.voc import Voc
from mlfix_train.data.annotations.write_back import write_fixed_annotations
from mlfix_train.errors import DataError

LABELS = "<labels><label><name>stop</name></label><label><name> yield </name></label></labels>"


def export(root: Path, *images: str, meta: str = f"<task>{LABELS}</task>", name: str = "annotations.xml") -> Path:
    """Writes a photo p0.jpg and an export with some ``<image>``."""
    paint(Photo("p0", boxes=ONE), root / "images/p0.jpg")
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(f"<annotations><version>1.1</version><meta>{meta}</meta>{''.join(images)}</annotations>")
    return root


def image(*shapes: str, name: str = "p0.jpg", more: str = "") -> str:
    return f'<image id="0" name="{name}" width="320" height="200" {more}>{"".join(shapes)}</image>'


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ('<box label="stop" xtl="10.5" ytl="20" xbr="30" ybr="61.25"/>', [10.5, 20, 30, 61.25]),
        ('<box label="stop" xtl="100" ytl="50" xbr="120" ybr="90" rotation="90.0"/>', [90, 60, 130, 80]),
        ('<box label="stop" xtl="100" ytl="50" xbr="120" ybr="90" rotation="360"/>', [100, 50, 120, 90]),
        ('<polygon label="stop" points="10,20;30.5,20;30,61"/>', [10, 20, 30.5, 61]),
        ('<polyline label="stop" points="10,20;30,61"/>', [10, 20, 30, 61]),
        ('<points label="stop" points="10,20;12,61"/>', [10, 20, 12, 61]),
        ('<mask label="stop" rle="3, 2" left="5" top="6" width="20" height="10"/>', [5, 6, 25, 16]),
        ('<ellipse label="stop" cx="100" cy="60" rx="20" ry="10"/>', [80, 50, 120, 70]),
        ('<ellipse label="stop" cx="100" cy="60" rx="20" ry="10" rotation="90"/>', [90, 40, 110, 80]),
        (
            '<cuboid label="stop" xtl1="10" ytl1="20" xbl1="10" ybl1="40" xtr1="30" ytr1="20" xbr1="30" ybr1="40" '
            'xtl2="15" ytl2="15" xbl2="15" ybl2="35" xtr2="35" ytr2="15" xbr2="35" ybr2="35"/>',
            [10, 15, 35, 40],
        ),
        (
            '<skeleton label="stop"><points label="a" points="10,20" outside="0"/><points label="b" points="30,61"/>'
            '<points label="c" points="300,190" outside="1"/></skeleton>',
            [10, 20, 30, 61],
        ),
        ('<tag label="stop"/>', [0, 0, 320, 200]),
    ],
)
def test_the_box_around_each_shape(tmp_path: Path, shape: str, box: list[float]) -> None:
    found = Cvat(export(tmp_path, image(shape))).read()
    row = found.boxes.iloc[0]
    assert (row["label"], row["problem"], row["shape_type"]) == ("stop", "", shape[1:].partition(" ")[0])
    assert row[list(EDGES)].tolist() == pytest.approx(box)
    is_upright = row["shape_type"] == "box" and 'rotation="90' not in shape
    assert len(found.notes) == (0 if is_upright else 1), found.notes


def test_attributes_become_columns(tmp_path: Path) -> None:
    attribute = '<attribute name="colour"> red </attribute><attribute name="group">7</attribute>'
    box = '<box label=" stop " occluded="{}" xtl="1" ytl="2" xbr="30" ybr="40" z_order="3">{}</box>'
    found = Cvat(export(tmp_path, image(box.format(1, attribute), box.format(0, "")))).read()
    assert found.boxes["label"].tolist() == ["stop", "stop"] and found.classes == ("stop", "yield")
    assert found.boxes["occluded"].tolist() == [True, False] and found.boxes["z_order"].tolist() == ["3", "3"]
    assert found.boxes["colour"].iloc[0] == "red" and found.boxes["source_group"].iloc[0] == "7"


@pytest.mark.parametrize(
    ("shape", "problem", "detail"),
    [
        ('<box label="stop" xtl="a" ytl="2" xbr="3" ybr="4"/>', "not a number", "box 0: xtl='a', ytl='2'"),
        ('<box label="stop" xtl="1"/>', "not a number", "xtl='1'"),
        ('<box xtl="1" ytl="2" xbr="30" ybr="40"/>', "no label", "box 0 has no label"),
        ('<polygon label="stop" points="1,2;3"/>', "not a number", "points='1,2;3'"),
        ('<polygon label="stop"/>', "not a number", "p0: polygon 0"),
        ('<blob label="stop" x="1"/>', "malformed", "unknown kind of shape"),
    ],
)
def test_one_bad_shape_is_named_and_the_rest_is_read(tmp_path: Path, shape: str, problem: str, detail: str) -> None:
    good = '<box label="yield" xtl="1" ytl="2" xbr="30" ybr="40"/>'
    found = Cvat(export(tmp_path, image(shape, good))).read()
    assert found.boxes["problem"].tolist() == [problem, ""]
    assert "annotations.xml" in found.boxes["detail"].iloc[0] and detail in found.boxes["detail"].iloc[0]


BOX = '<box label="stop" xtl="10" ytl="10" xbr="40" ybr="40"/>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"<annotations>{image(BOX)[:-9]}", r"annotations.xml is not valid XML: .*line 1"),
        ("<annotations><version>1.1</version></annotations>", "it has no <image>"),
        (
            '<annotations><track id="0" label="stop"><box frame="0" xtl="1"/></track></annotations>',
            r"(?s)it is of a video \(<track>\), without images.*CVAT for images 1.1. with images",
        ),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    export(tmp_path, image(BOX))
    (tmp_path / "annotations.xml").write_text(text)
    assert detect_formats(tmp_path) == ["cvat"]
    with pytest.raises(DataError, match=message):
        open_annotations(tmp_path).read()


def test_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<annotation><object/></annotation>")
    with pytest.raises(
        DataError, match=r"(?s)no XML of CVAT below .*1 other XML file\(s\), such as a.xml.*CVAT for im"
    ):
        Cvat(tmp_path).read()
    with pytest.raises(DataError, match="its root is <annotation>, not <annotations>"):
        Cvat(tmp_path, "a.xml").read()
    with pytest.raises(DataError, match=r"b\.xml does not exist"):
        Cvat(tmp_path, "b.xml").read()
    (tmp_path / "a.xml").write_text("<annotations/>")
    assert "data=cvat reads" in Voc(tmp_path).read().photos["detail"].iloc[0]


def test_photos_of_subsets_tasks_and_other_machines(tmp_path: Path) -> None:
    root = tmp_path / "project"
    for name in ("train/p.jpg", "val/p.jpg", "q.PNG", "sub/r.jpg"):
        paint(Photo("p0", boxes=ONE), root / "images" / name)
    names = [("p.jpg", "train"), ("p.jpg", "Validation"), ("q", "default"), (r"C:\\photos\\sub\\r.jpg", "")]
    (root / "images/Validation").mkdir()
    (root / "images/val/p.jpg").rename(root / "images/Validation/p.jpg")
    export(root, *(image(BOX, name=name.replace("\\\\", "\\"), more=f'subset="{of}"') for name, of in names))
    found = open_annotations(root).read()
    places = [Path(path).relative_to(root / "images").as_posix() for path in found.photos["path"]]
    assert places == ["train/p.jpg", "Validation/p.jpg", "q.PNG", "sub/r.jpg"]
    assert found.photos["split"].tolist() == ["train", "val", "", ""]
    assert list(found.boxes["photo"]) == list(found.photos.index) and found.boxes["annotation"].tolist() == list("0123")

    job = tmp_path / "job"  # the subset of a task; photos elsewhere; two files of which one is read
    export(job, image(BOX), meta=f"<job><subset>Test</subset>{LABELS}</job>", name="1/annotations.xml")
    export(job, image(BOX, name="gone.jpg"), name="2/annotations.xml")
    found = open_annotations(job).read()
    assert found.photos["problem"].tolist() == ["", "photo missing"]
    assert found.photos["split"].tolist() == ["test", ""]
    (job / "images").rename(tmp_path / "photos")
    found = Cvat(job, "1/annotations.xml", tmp_path / "photos").read()
    assert found.photos["path"].tolist() == [str(tmp_path / "photos/p0.jpg")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_fixes_change_single_places(tmp_path: Path, encoding: str) -> None:
    shapes = [
        "<box\n occluded='0' label='stop' xtl=\"10\" ytl='10' xbr='40' ybr='40' note='a > b'/>",
        '<!-- <box label="no"/> --><polygon points="10,20;30.5,20;30,61" label="stop"><attribute name="label">x'
        "</attribute></polygon>",
        '<blob label="stop"/><tag label = "stop" source="manual"></tag>',
    ]
    head = f'\ufeff<?xml version="1.0" encoding="{encoding}"?>\r\n<!-- ü -->'
    root = export(tmp_path / "data", image(*shapes))
    text = head + (root / "annotations.xml").read_text()
    (root / "annotations.xml").write_bytes(text.encode(encoding if encoding == "utf-8" else "utf-16-le"))
    source = open_annotations(root)
    found = source.read()
    assert found.boxes["annotation"].tolist() == ["0", "1", "2", "3"]
    photo = found.photos.index[0]
    rows = [(photo, "0", "stop", 'a"<b>é'), (photo, "1", "stop", "yield"), (photo, "3", "stop", None)]
    fixes = pd.DataFrame(rows, columns=["photo", "annotation", "old_label", "new_label"], dtype=object)
    written = write_fixed_annotations(source, found, fixes, tmp_path / "out")
    assert (written.relabeled, written.removed, written.unchanged) == (2, 1, 1)
    after = text.replace("label='stop'", 'label="a&quot;&lt;b&gt;é"').replace('61" label="stop"', '61" label="yield"')
    after = after.replace('<tag label = "stop" source="manual"></tag>', "")
    new = '<label><name>a"&lt;b&gt;é</name><attributes></attributes></label></labels>'
    after = after.replace("</labels>", new)
    raw = (tmp_path / "out/annotations.xml").read_bytes()
    assert raw.decode(encoding if encoding == "utf-8" else "utf-16-le") == after
    assert Cvat(tmp_path / "out").read().classes == ("stop", "yield", 'a"<b>é')


def test_a_folder_of_cvat_and_one_of_voc_are_told_apart(tmp_path: Path) -> None:
    write_cvat(tmp_path / "c/annotations", [Photo("p", boxes=ONE)])
    assert detect_formats(tmp_path / "c") == ["cvat"]
    export(tmp_path / "v", image(BOX), name="annotations/p.xml")
    (tmp_path / "v/annotations/p.xml").write_text("<annotation><object/></annotation>")
    assert detect_formats(tmp_path / "v") == ["voc"]
