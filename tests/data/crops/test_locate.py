"""Boxes found again after the annotations changed between cropping and export, in every format."""

from __future__ import annotations

from pathlib import Path

import pytest
from photos import WRITE, Photo, write_voc

from mlfix_train.data.annotations.formats import open_annotations
from mlfix_train.data.annotations.write_back import box_fixes, group_changes
from mlfix_train.data.crops.folder import crop_dataset
from mlfix_train.data.crops.locate import locate_boxes
from mlfix_train.data.crops.spec import CropSpec
from mlfix_train.errors import DataError

FIRST, SECOND, OTHER = ("stop", (5, 5, 25, 25)), ("stop", (30, 10, 60, 40)), ("yield", (90, 2, 120, 39))
SPEC = CropSpec(size=16)


@pytest.mark.parametrize("name", WRITE)
def test_a_box_is_told_by_its_corners(tmp_path: Path, name: str) -> None:
    def write(*boxes: tuple[str, tuple[int, int, int, int]]) -> None:
        WRITE[name](tmp_path / "data", [Photo("p", boxes=list(boxes)), Photo("q", split="val", boxes=[OTHER])])

    write(FIRST, SECOND, OTHER)
    source = open_annotations(tmp_path / "data")
    table = crop_dataset(source, tmp_path / "crops", SPEC, workers=1).table
    crops = table[table["label"] == "stop"].sort_values("x_min")
    assert locate_boxes(source.read(), crops, SPEC)["annotation"].tolist() == crops["annotation"].tolist()

    write(OTHER, SECOND, FIRST)
    keys = source.read().boxes["annotation"]
    assert locate_boxes(source.read(), crops, SPEC)["annotation"].tolist() == [keys[2], keys[1]]

    write(SECOND, OTHER)  # the second box has the place of the first, which is gone
    assert locate_boxes(source.read(), crops.tail(1), SPEC)["annotation"].tolist() == [
        source.read().boxes["annotation"][0]
    ]
    with pytest.raises(DataError, match="1 of the fixed boxes are gone or were moved") as caught:
        locate_boxes(source.read(), crops, SPEC)
    file = source.read().photos["source"].iloc[0]
    assert f"{file}: {source.read().photos.index[0]}: 'stop' at x 5 to 25, y 5 to 25" in str(caught.value)

    write(("stop", (12, 5, 32, 25)), SECOND, OTHER)
    with pytest.raises(DataError, match="gone or were moved"):
        locate_boxes(source.read(), crops, SPEC)


def test_of_boxes_with_the_same_corners_it_is_the_one_with_the_label(tmp_path: Path) -> None:
    same = ("yield", FIRST[1])
    source = open_annotations(write_voc(tmp_path / "data", [Photo("p", boxes=[FIRST, same, FIRST])]))
    table = crop_dataset(source, tmp_path / "crops", SPEC, workers=1).table
    assert locate_boxes(source.read(), table, SPEC)["annotation"].to_dict() == table["annotation"].to_dict()
    write_voc(tmp_path / "data", [Photo("p", boxes=[same, FIRST])])
    found = locate_boxes(source.read(), table[table["label"] == "yield"], SPEC)
    assert found["annotation"].tolist() == ["0"]
    stops = table[table["label"] == "stop"]
    located = locate_boxes(source.read(), stops, SPEC)
    fixes = box_fixes(located, stops[[]].assign(new_label="yield"), ["stop", "yield"])
    with pytest.raises(DataError, match="1 of the fixed boxes have another label now"):
        group_changes(source.read(), fixes)
