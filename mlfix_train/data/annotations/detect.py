"""Boxes in whichever of the known formats a folder holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mlfix_train.data.annotations.base import Annotations, check_root, find_folders
from mlfix_train.data.annotations.coco import read_coco
from mlfix_train.data.annotations.mtsd import read_mtsd
from mlfix_train.data.annotations.voc import read_voc
from mlfix_train.data.annotations.yolo import name_files, read_yolo
from mlfix_train.errors import DataError

READERS: dict[str, Callable[..., Annotations]] = {
    "mtsd": read_mtsd,
    "coco": read_coco,
    "yolo": read_yolo,
    "voc": read_voc,
}


def read_boxes(root: str | Path) -> Annotations:
    """Reads MTSD, COCO, YOLO or Pascal VOC, told apart by the files that are there.

    Args:
        root: the folder of the data set.

    Returns:
        Photos and boxes.

    Raises:
        DataError: no format is told, or two are; and what its reader raises.
    """
    base = check_root(root)
    formats = guess_formats(base)
    if len(formats) == 1:
        return READERS[formats[0]](root)
    told = (
        f"data.root={root} looks like {' and '.join(formats)}" if formats else f"no annotations below data.root={root}"
    )
    raise DataError(
        told,
        "say which format it is: data=mtsd (annotations/*.json and splits/), data=coco (instances JSON; data.file=), "
        "data=yolo (data.yaml or classes.txt) or data=voc (Annotations/*.xml)",
    )


def guess_formats(base: Path) -> list[str]:
    """Returns the formats whose marks a folder bears."""
    found = []
    folders = find_folders(base, "annotations")
    if any(next(folder.rglob("*.xml"), None) for folder in folders):
        found.append("voc")
    if find_folders(base, "splits") and any(next(folder.glob("*.json"), None) for folder in folders):
        found.append("mtsd")
    elif (
        next(base.glob("annotations/*.json"), None)
        or next(base.glob("*.json"), None)
        or next(base.glob("*/*.coco.json"), None)
    ):
        found.append("coco")
    yaml = [*base.glob("*.yaml"), *base.glob("*.yml")]
    if any("names" in path.read_text(encoding="utf-8", errors="replace") for path in yaml) or any(
        path.is_file() for path in name_files(base)
    ):
        found.append("yolo")
    if not found and (next(base.glob("*.xml"), None) or next(base.glob("*/*.xml"), None)):
        found.append("voc")
    return found
