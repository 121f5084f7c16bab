"""Reading Pascal VOC."""

from __future__ import annotations

from pathlib import Path

import pytest
from box_helpers import ONE
from photos import Photo, for_format, write_voc

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
