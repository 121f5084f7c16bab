"""Cropping all photos of a data set: what one photo can't tell, the others may; and when too little can be used."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlfix_train.data.annotations.base import images_below
from mlfix_train.data.annotations.coco import Coco
from mlfix_train.data.annotations.yolo import Yolo
from mlfix_train.data.crops.folder import crop_dataset
from mlfix_train.data.crops.spec import CropSpec
from mlfix_train.errors import DataError

BOX = [10, 10, 40, 40]
TURNS = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
SPEC, NATIVE = CropSpec(size=16, format="png"), CropSpec(size=None, format="png")


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


def test_photos_of_twelve_bits_share_one_white(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "classes.txt").write_text("stop\n")
    for name, level in (("a", 1000), ("b", 4000)):
        Image.fromarray(np.full((20, 20), level, np.uint16)).save(tmp_path / "d" / f"{name}.png")
        (tmp_path / "d" / f"{name}.txt").write_text("0 0.5 0.5 0.8 0.8\n")
    with caplog.at_level(logging.INFO):
        crop_dataset(Yolo(tmp_path / "d"), tmp_path / "o", NATIVE, workers=1)
    levels = [int(np.asarray(Image.open(path)).max()) for path in sorted((tmp_path / "o/stop").iterdir())]
    assert levels == [62, 249]
    assert "the 16-bit images hold 12 bits at most: they are scaled so that 4,095 is white" in caplog.text
    Image.fromarray(np.full((20, 20), 60_000, np.uint16)).save(tmp_path / "d" / "b.png")
    crop_dataset(Yolo(tmp_path / "d"), tmp_path / "o", NATIVE, workers=1)
    levels = [int(np.asarray(Image.open(path)).max()) for path in sorted((tmp_path / "o/stop").iterdir())]
    assert levels == [4, 233], "another white: all are cropped again"


def test_photo_folders_are_walked_like_class_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("1.JPG", "@eaDir/1.JPG/SYNOPHOTO_THUMB_M.jpg", ".ipynb_checkpoints/1.jpg", "2.cr2", "._1.JPG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "again").symlink_to(tmp_path)
    assert images_below(tmp_path) == [tmp_path / "1.JPG"]
    assert "1 RAW file (2.cr2) is left out" in caplog.text and "1 link (again)" in caplog.text
