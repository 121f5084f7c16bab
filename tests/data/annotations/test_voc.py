"""Reading Pascal VOC."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from box_helpers import ONE
from photos import Photo, for_format, write_voc

from mlfix_train.data.annotations.base import Annotations
from mlfix_train.data.annotations.formats import detect_formats
from mlfix_train.data.annotations.voc import Voc
from mlfix_train.errors import DataError


def test_voc_reports_what_is_wrong(tmp_path: Path) -> None:
    write_voc(tmp_path, for_format("voc"))
    (tmp_path / "Annotations/photo0.xml").write_text("<annotation><object>")
    (tmp_path / "Annotations/photo1.xml").write_text("<html/>")
    bad = "<object><name>stop</name><bndbox><xmin>a</xmin></bndbox></object><object><bndbox/></object>"
    (tmp_path / "Annotations/photo2.xml").write_text(f"<annotation>{bad}</annotation>")
    found = Voc(tmp_path).read()
    assert found.photos.loc["photo0", "problem"] == found.photos.loc["photo1", "problem"] == "annotation unreadable"
    boxes = found.boxes[found.boxes["photo"] == "photo2"]
    assert boxes["problem"].tolist() == ["not a number"] * 2
    assert "corners a, None" in boxes["detail"].iloc[0]
    assert set(found.boxes["pose"].dropna()) == {"Left"}


def test_voc_photos_without_xml_are_said(tmp_path: Path) -> None:
    write_voc(tmp_path, [Photo("p", boxes=ONE), Photo("q", boxes=ONE)])
    for file in ("Annotations/q.xml", "ImageSets/Main/train.txt", "ImageSets/Main/val.txt"):
        (tmp_path / file).unlink()
    found = Voc(tmp_path).read()
    assert list(found.photos.index) == ["p"]
    assert "1 photos have no XML and are left out, such as JPEGImages/q.jpg" in found.notes


def test_voc_lists_are_checked(tmp_path: Path) -> None:
    write_voc(tmp_path, [Photo("p", boxes=ONE), Photo("q", boxes=ONE, split="val")])
    lists = tmp_path / "ImageSets/Main"
    (lists / "train.txt").write_text("p\nmissing\n")
    (lists / "test.txt").write_text("unannotated\n")
    found = Voc(tmp_path).read()
    assert found.photos["problem"].to_dict() == {"p": "", "q": "", "missing": "no annotation"}
    (lists / "val.txt").write_text("p\n")
    with pytest.raises(DataError, match=r"val\.txt: p is also in train\.txt"):
        Voc(tmp_path).read()


def stems(found: Annotations) -> dict[str, str]:
    return {name: Path(path).name for name, path in found.photos["path"].items()}


def renamed(root: Path, names: dict[str, str]) -> None:
    """Changes ``<filename>`` in XML files: stem to what it says."""
    for stem, name in names.items():
        file = next(root.rglob(f"{stem}.xml"))
        file.write_text(re.sub("<filename>.*?</filename>", f"<filename>{name}</filename>", file.read_text()))


def three(root: Path, widths: tuple[int, ...] = (320, 320, 320)) -> Path:
    return write_voc(root, [Photo(f"photo{n}", width=width, boxes=ONE) for n, width in enumerate(widths)])


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations", "images"),
        ("Annotations", "Images"),
        ("labels", "images"),
        ("train/labels", "train/images"),
        ("labels/train", "images/train"),
        ("train", "train"),
        ("xml", "photos"),
        ("", ""),
    ],
)
def test_voc_layouts(tmp_path: Path, annotations: str, images: str) -> None:
    three(tmp_path / "made")
    for source, target in (("Annotations", annotations), ("JPEGImages", images)):
        (tmp_path / "data" / target).mkdir(parents=True, exist_ok=True)
        for path in (tmp_path / "made" / source).iterdir():
            path.rename(tmp_path / "data" / target / path.name)
    assert detect_formats(tmp_path / "data") == ["voc"]
    found = Voc(tmp_path / "data").read()
    assert len(found.boxes) == 3 and all(Path(path).is_file() for path in found.photos["path"])
    assert set(found.photos["split"]) == ({"train"} if "train" in annotations else {""})


def test_voc_takes_the_photo_beside_the_xml_and_says_so(tmp_path: Path) -> None:
    three(tmp_path)
    renamed(tmp_path, {"photo0": "photo1.jpg", "photo1": "photo2.jpg", "photo2": "photo0.jpg"})
    found = Voc(tmp_path).read()
    assert stems(found) == {f"photo{n}": f"photo{n}.jpg" for n in range(3)}
    assert any("3 XML files name another photo in filename" in note and "photo0.xml" in note for note in found.notes)


def test_voc_takes_the_photo_that_filename_names_if_only_that_has_the_size(tmp_path: Path) -> None:
    three(tmp_path, (320, 336, 352))
    files = [tmp_path / f"Annotations/photo{n}.xml" for n in range(3)]
    texts = [file.read_text() for file in files]
    for n, file in enumerate(files):  # XML files in another order than their photos: filename is right
        file.write_text(texts[(n + 1) % 3])
    found = Voc(tmp_path).read()
    assert stems(found) == {"photo0": "photo1.jpg", "photo1": "photo2.jpg", "photo2": "photo0.jpg"}


@pytest.mark.parametrize(
    ("stated", "photo"),
    [
        ("photo0", "photo0.png"),
        ("photo0.JPG", "photo0.png"),
        ("", "photo0.png"),
        (r"C:\\photos\\photo0.png", "photo0.png"),
        ("renamed.jpg", "photo0.png"),
    ],
)
def test_voc_filenames_that_name_no_file(tmp_path: Path, stated: str, photo: str) -> None:
    three(tmp_path)
    (tmp_path / "JPEGImages/photo0.jpg").rename(tmp_path / "JPEGImages/photo0.png")
    renamed(tmp_path, {"photo0": stated})
    found = Voc(tmp_path).read()
    assert stems(found)["photo0"] == photo
    assert any("not there; the one beside them is taken" in note for note in found.notes) == (stated == "renamed.jpg")


def test_voc_photos_that_only_filename_gives(tmp_path: Path) -> None:
    three(tmp_path)
    for n in (0, 1):
        (tmp_path / f"JPEGImages/photo{n}.jpg").rename(tmp_path / f"JPEGImages/street {n}.jpg")
    renamed(tmp_path, {"photo0": "street 0.jpg", "photo1": "street%201.jpg"})
    found = Voc(tmp_path).read()
    assert stems(found) == {"photo0": "street 0.jpg", "photo1": "street 1.jpg", "photo2": "photo2.jpg"}
    renamed(tmp_path, {"photo1": "street 0.jpg"})  # now two XML files claim one photo, and its name decides for none
    found = Voc(tmp_path).read()
    assert found.photos["problem"].to_dict() == {"photo0": "photo missing", "photo1": "photo missing", "photo2": ""}
    assert "is the photo of another XML, too" in found.photos.at["photo0", "detail"]


def test_voc_passes_over_hidden_files_and_sees_that_a_photo_is_not_certain(tmp_path: Path) -> None:
    three(tmp_path)
    hidden = tmp_path / "Annotations/.ipynb_checkpoints"
    hidden.mkdir()
    (hidden / "photo0-checkpoint.xml").write_bytes((tmp_path / "Annotations/photo0.xml").read_bytes())
    (tmp_path / "JPEGImages/photo1.png").write_bytes((tmp_path / "JPEGImages/photo1.jpg").read_bytes())
    renamed(tmp_path, {"photo1": ""})
    found = Voc(tmp_path).read()
    assert len(found.photos) == 3
    assert found.photos["problem"].to_dict() == {"photo0": "", "photo1": "photo missing", "photo2": ""}
    assert "JPEGImages/photo1.jpg, JPEGImages/photo1.png" in found.photos.at["photo1", "detail"]


@pytest.mark.parametrize(
    ("outline", "box"),
    [
        ("<polygon><x1>11</x1><y1>21</y1><x2>31</x2><y2>21</y2><x3>31</x3><y3>61</y3></polygon>", [10, 20, 31, 61]),
        ("<polygon><pt><x>11</x><y>21</y></pt><pt><x>31</x><y>61.5</y></pt></polygon>", [10, 20, 31, 61.5]),
        (
            "<robndbox><cx>50</cx><cy>40</cy><w>20</w><h>10</h><angle>1.5707963267948966</angle></robndbox>",
            [44, 29, 55, 50],
        ),
        ("<polygon><x1>11</x1><y1>a</y1></polygon>", None),
    ],
)
def test_voc_boxes_that_only_an_outline_gives(tmp_path: Path, outline: str, box: list | None) -> None:
    write_voc(tmp_path, [Photo("p", boxes=ONE)])
    (tmp_path / "Annotations/p.xml").write_text(f"<annotation><object><name>stop</name>{outline}</object></annotation>")
    found = Voc(tmp_path).read()
    if box is None:
        assert found.boxes["problem"].tolist() == ["not a number"]
    else:
        assert found.boxes[["x_min", "y_min", "x_max", "y_max"]].to_numpy()[0].tolist() == pytest.approx(box)
        assert any("1 boxes have no bndbox" in note for note in found.notes)
        assert "outlined" not in found.boxes


def test_the_root_may_begin_with_a_capital(tmp_path: Path) -> None:
    write_voc(tmp_path, [Photo("p", boxes=ONE)])
    file = tmp_path / "Annotations/p.xml"
    file.write_text(file.read_text().replace("annotation>", "Annotation>"))
    assert Voc(tmp_path).read().boxes["label"].tolist() == ["stop"]


def test_lists_of_other_tools(tmp_path: Path) -> None:
    names = ("photo0", "my photo", "street/photo2")
    write_voc(tmp_path, [Photo(name, boxes=ONE) for name in names[:2]])
    for folder, suffix in (("Annotations", "xml"), ("JPEGImages", "jpg")):
        (tmp_path / folder / "street").mkdir()
        file = tmp_path / folder / f"photo0.{suffix}"
        (tmp_path / folder / f"street/photo2.{suffix}").write_bytes(file.read_bytes())
    lists = tmp_path / "ImageSets/Main"
    (lists / "train.txt").write_text("photo0.jpg\r\nmy photo  -1\r\n", encoding="utf-16")
    (lists / "val.txt").write_text("street\\photo2.jpg 1\n")
    found = Voc(tmp_path).read()
    assert (found.photos["problem"] == "").all()
    assert found.photos["split"].to_dict() == {"my photo": "train", "photo0": "train", "street/photo2": "val"}
