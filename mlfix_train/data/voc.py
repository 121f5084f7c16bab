"""Pascal VOC: an XML a photo; corners count pixels from 1, the last one included.

Source of the format: the development kit's documentation (VOC2012). Its tools read pixels as stored.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from mlfix_train.data.boxes import (
    Annotations,
    check_root,
    collect,
    corners,
    find_folders,
    metadata,
    photo_name,
    split_of,
)
from mlfix_train.errors import DataError


def read_voc(root: str | Path) -> Annotations:
    """Reads ``Annotations/*.xml``, ``JPEGImages/`` and ``ImageSets/Main/{train,val,test}.txt`` below ``root``.

    Args:
        root: the folder (``VOC2012``, or one that holds it); without the three folders, XML and photos side by side.

    Returns:
        Photos and boxes; ``pose``, ``truncated``, ``difficult`` and the like are columns.

    Raises:
        DataError: no XML.
    """
    base = check_root(root)
    folders = find_folders(base, "Annotations") or [base]
    files = sorted(path for path in folders[0].rglob("*.xml"))
    if not files:
        raise DataError(f"no XML below {folders[0]}", "give the folder that holds Annotations/ and JPEGImages/")
    pictures = find_folders(folders[0].parent if folders[0] != base else base, "JPEGImages")
    splits = _read_splits(folders[0].parent)
    photos: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for file in files:
        about, rows = _read_file(file, folders[0], pictures[0] if pictures else None)
        about["split"] = splits.get(file.stem) or split_of(file.parent.name)
        photos.append(about)
        boxes += [{**row, "photo": about["name"]} for row in rows]
    return collect("voc", base, photos, boxes)


def _read_splits(home: Path) -> dict[str, str]:
    splits: dict[str, str] = {}
    for name in ("train", "val", "test"):
        file = home / "ImageSets" / "Main" / f"{name}.txt"
        if file.is_file():
            splits |= {line.split()[0]: name for line in file.read_text().splitlines() if line.split()}
    return splits


def _read_file(file: Path, home: Path, pictures: Path | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    below = file.relative_to(home).with_suffix("").as_posix()
    about: dict[str, Any] = {"name": photo_name(below), "source": str(file), "path": str(file.with_suffix(".jpg"))}
    try:
        tree = ET.parse(file).getroot()
    except (ET.ParseError, OSError, ValueError) as error:
        return about | {"problem": "annotation unreadable", "detail": f"{file}: {error}"}, []
    if tree.tag != "annotation":
        return about | {
            "problem": "annotation unreadable",
            "detail": f"{file}: it holds <{tree.tag}>, not <annotation>",
        }, []
    named = (tree.findtext("filename") or "").strip() or f"{file.stem}.jpg"
    folder = file.parent if pictures is None else pictures / file.relative_to(home).parent
    about["path"] = str(folder / Path(named.replace("\\", "/")).name)
    if not Path(about["path"]).is_file() and (folder / f"{file.stem}.jpg").is_file():
        about["path"] = str(folder / f"{file.stem}.jpg")
    for side in ("width", "height"):
        text = (tree.findtext(f"size/{side}") or "").strip()
        about[side] = int(text) if text.isdigit() else 0
    return about, [_read_object(file, value, place) for place, value in enumerate(tree.findall("object"))]


def _read_object(file: Path, value: ET.Element, place: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "annotation": str(place),
        "position": place,
        "label": (value.findtext("name") or "").strip() or None,
    }
    box = value.find("bndbox")
    texts = [box.findtext(name) if box is not None else None for name in ("xmin", "ymin", "xmax", "ymax")]
    row |= corners(_float(text) for text in texts)
    if row.get("problem"):
        row["detail"] = f"{file}: object {place}: corners {', '.join(map(str, texts))}"
    elif row["label"] is None:
        row |= {"problem": "no label", "detail": f"{file}: object {place} has no name"}
    row["x_min"], row["y_min"] = row["x_min"] - 1, row["y_min"] - 1
    skip = ("name", "bndbox", "part", "polygon")
    return row | metadata({e.tag: (e.text or "").strip() for e in value if e.tag not in skip and len(e) == 0})


def _float(text: str | None) -> Any:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return text
