"""Cropping all photos of a data set: what one photo can't tell, the others may; and when too little can be used."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlfix_train.data.annotations.coco import Coco
from mlfix_train.data.crops.folder import crop_dataset
from mlfix_train.data.crops.spec import CropSpec
from mlfix_train.errors import DataError

BOX = [10, 10, 40, 40]
TURNS = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
SPEC = CropSpec(size=16, format="png")


def turned(root: Path, orientations: list[int], upright: bool | list[bool]) -> Coco:
    """Photos with a red box, stored with these EXIF orientations; the box is that of the upright or stored photo."""
    images, rows = [], []
    root.mkdir()
    for n, orientation in enumerate(orientations):
        is_upright = upright if isinstance(upright, bool) else upright[n]
        shown = Image.new("RGB", (200, 120), (90, 90, 90))
        shown.paste((220, 20, 20), (10, 10, 50, 50))
        turn = TURNS[orientation]
        stored = shown.transpose(turn) if turn is not None and is_upright else shown
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(root / f"p{n}.jpg", exif=exif, quality=95)
        images.append({"id": n, "file_name": f"p{n}.jpg", "width": 200, "height": 120})
        rows.append({"id": n, "image_id": n, "category_id": 0, "bbox": BOX})
    content = {"images": images, "annotations": rows, "categories": [{"id": 0, "name": "red"}]}
    (root / "_annotations.coco.json").write_text(json.dumps(content))
    return Coco(root)


def red(out: Path) -> list[bool]:
    """Whether each crop, in order of its photo, shows the red box."""
    colors = [np.asarray(Image.open(path)).mean((0, 1)) for path in sorted((out / "red").iterdir())]
    return [bool(color[0] > 180 and color[1] < 60) for color in colors]


@pytest.mark.parametrize(
    ("orientations", "upright", "said"),
    [
        ([6, 8, 3, 1], True, "refer to the photo as EXIF turns it, as the sizes of 2 others prove"),
        ([6, 8, 3, 1], False, "refer to the photo as stored, as the sizes of 2 others prove"),
        ([3, 1], False, "refer to the photo as stored, as tools of the format coco do"),
        ([6, 8, 3], [True, False, False], "the sizes of others prove both (1 turned, 1 as stored)"),
        ([6, 8, 1], True, ""),
    ],
)
def test_what_other_photos_prove_of_exif_holds_where_a_size_can_not_tell(
    tmp_path: Path, caplog, orientations: list[int], upright: bool | list[bool], said: str
) -> None:
    caplog.set_level(logging.INFO)
    source = turned(tmp_path / "data", orientations, upright)
    crop_dataset(source, tmp_path / "out", SPEC, workers=1)
    assert red(tmp_path / "out") == [True] * len(orientations)
    assert said in caplog.text and ("exif=apply or ignore" in caplog.text) == bool(said)
    again = crop_dataset(source, tmp_path / "out", SPEC, workers=1)
    assert again.crops.reused == len(orientations) and red(tmp_path / "out") == [True] * len(orientations)


def test_a_file_of_which_nearly_all_rows_are_bad_is_refused(tmp_path: Path) -> None:
    source = turned(tmp_path / "data", [1], True)
    file = tmp_path / "data/_annotations.coco.json"
    content = json.loads(file.read_text())
    for bad, refused in ((9, False), (10, True)):
        rows = [{"id": n, "image_id": None, "category_id": 0, "bbox": []} for n in range(1, bad + 1)]
        file.write_text(json.dumps({**content, "annotations": [*content["annotations"], *rows]}))
        if refused:
            with pytest.raises(DataError, match=r"10 of 11 boxes can't be used \(10 no photo\)"):
                crop_dataset(source, tmp_path / f"out{bad}", SPEC, workers=1)
        folder = crop_dataset(source, tmp_path / f"out{bad}", SPEC, workers=1, max_unreadable=1 if refused else 0.01)
        assert len(folder.table) == 1 and folder.crops.dropped["problem"].tolist() == ["no photo"] * bad
