"""A format of one's own: read by its class, cropped in Python and by the command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from box_helpers import ONE, SMALL_PNG
from photos import Photo, paint

from mlfix_train.data.annotations.base import AnnotationFormat, Annotations, corners
from mlfix_train.data.crops.folder import crop_dataset, read_info
from mlfix_train.data.crops.spec import CropSpec
from mlfix_train.errors import DataError

MODULE = """
import csv
from dataclasses import dataclass
from mlfix_train.data.annotations.base import AnnotationFormat, corners


@dataclass
class CsvBoxes(AnnotationFormat):
    file: str = "boxes.csv"

    name = "csv"

    def read(self):
        with open(self.folder / self.file, newline="") as file:
            rows = list(csv.DictReader(file))
        photos = [{"name": "p", "path": str(self.folder / "p.jpg"), "source": str(self.folder / self.file)}]
        boxes = [
            {"photo": "p", "annotation": str(n), "position": n, "label": row["label"],
             **corners(float(row[edge]) for edge in ("x0", "y0", "x1", "y1"))}
            for n, row in enumerate(rows)
        ]
        return self.build(photos, boxes)
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    paint(Photo("p", boxes=ONE), tmp_path / "data/p.jpg")
    (tmp_path / "data/mine.csv").write_text("label,x0,y0,x1,y1\nstop,10,10,40,40\nyield,5,5,5,9\n")
    return tmp_path / "data"


def test_a_format_from_outside_the_package_by_the_command(tmp_path: Path, data: Path, mlfix, monkeypatch) -> None:
    (tmp_path / "my_boxes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    keys = ("data._target_=my_boxes.CsvBoxes", f"data.root={data}", "data.file=mine.csv")
    answer = mlfix("crop", *keys, f"out={tmp_path / 'o'}", *SMALL_PNG)
    assert answer.code == 0, answer.err
    assert "cropped    1 of 2 boxes" in answer.out and "1 no area" in answer.out
    (tmp_path / "fixes.csv").write_text("sample_id,new_label\n")
    export = ("export", "to=source", f"crops={tmp_path / 'o'}", f"fixes.path={tmp_path / 'fixes.csv'}")
    answer = mlfix(*export, f"out={tmp_path / 'fixed'}")
    assert answer.code == 1 and "implement write_back and open_copies in CsvBoxes" in answer.err
    answer = mlfix("crop", "data._target_=my_boxes.csv", f"data.root={data}")
    assert answer.code == 2


@dataclass
class OneBox(AnnotationFormat):
    name = "one"

    def read(self) -> Annotations:
        photos = [{"name": "p", "path": str(self.folder / "p.jpg"), "source": str(self.folder / "mine.csv")}]
        boxes = [{"photo": "p", "annotation": "1", "position": 0, "label": "stop", **corners([10, 10, 40, 40])}]
        return self.build(photos, boxes)


def test_cropping_in_python(tmp_path: Path, data: Path) -> None:
    read: list[Annotations] = []
    folder = crop_dataset(OneBox(data), tmp_path / "o", CropSpec(size=16), workers=1, on_read=read.append)
    assert folder.table["label"].tolist() == ["stop"] and len(read[0].boxes) == 1
    assert Path(folder.table["path"].iloc[0]).is_file()
    assert read_info(tmp_path / "o")["data"]["root"] == str(data)
    again = crop_dataset(OneBox(data), tmp_path / "o", CropSpec(size=16), workers=1)
    assert again.crops.reused == 1


def test_a_root_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        OneBox(tmp_path / "nowhere")
