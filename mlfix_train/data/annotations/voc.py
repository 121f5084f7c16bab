"""Pascal VOC: an XML a photo; corners count pixels from 1, the last one included.

Source of the format: the development kit's documentation (VOC2012). Its tools read pixels as stored.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from mlfix_train.data.annotations.base import (
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

SPLITS = ("train", "val", "test")


def read_voc(root: str | Path) -> Annotations:
    """Reads ``Annotations/*.xml``, ``JPEGImages/`` and ``ImageSets/Main/{train,val,test}.txt`` below ``root``.

    Args:
        root: the folder (``VOC2012``, or one that holds several such); without a folder ``Annotations``, XML and photos
            side by side.

    Returns:
        Photos and boxes; ``pose``, ``truncated``, ``difficult`` and the like are columns.

    Raises:
        DataError: no XML, or a photo in two splits.
    """
    base = check_root(root)
    photos: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for folder in find_folders(base, "Annotations") or [base]:
        pictures = next(iter(find_folders(folder.parent, "JPEGImages", 1)), None) if folder != base else None
        splits = _read_splits(folder.parent if folder != base else base)
        read: set[str] = set()
        for file in sorted(folder.rglob("*.xml")):
            about, rows = _read_file(file, base, folder, pictures)
            about["split"] = splits.get(file.stem, ("", ""))[0] or split_of(file.parent.name)
            photos.append(about)
            read.add(file.stem)
            boxes += [{**row, "photo": about["name"]} for row in rows]
        photos += _unannotated(base, folder, pictures, splits, read)
    if not photos:
        raise DataError(f"no XML below data.root={root}", "give the folder that holds Annotations/ and JPEGImages/")
    return collect("voc", base, photos, boxes)


def _read_splits(home: Path) -> dict[str, tuple[str, str]]:
    """Returns photo to split and the list that says so."""
    splits: dict[str, tuple[str, str]] = {}
    for name in SPLITS:
        file = home / "ImageSets" / "Main" / f"{name}.txt"
        for line in file.read_text(encoding="utf-8-sig").splitlines() if file.is_file() else []:
            if line.split():
                photo = line.split()[0]
                if splits.setdefault(photo, (name, str(file)))[0] != name:
                    raise DataError(f"{file}: {photo} stands in {splits[photo][0]}.txt too",
                                    "take it out of one of the lists")  # fmt: skip
    return splits


def _unannotated(
    base: Path, folder: Path, pictures: Path | None, splits: dict[str, tuple[str, str]], read: set[str]
) -> list[dict[str, Any]]:
    """Returns photos that a list names and no XML describes; those of the test split need none."""
    rows = []
    for photo, (split, file) in splits.items():
        if photo not in read and split != "test":
            xml = folder / f"{photo}.xml"
            rows.append({
                "name": photo_name(xml.relative_to(base).as_posix()), "source": file, "split": split,
                "path": str((pictures or folder) / f"{photo}.jpg"), "problem": "no annotation",
                "detail": f"{file} lists it, {xml} is not there",
            })  # fmt: skip
    return rows


def _read_file(
    file: Path, base: Path, home: Path, pictures: Path | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    name = photo_name(file.relative_to(base).as_posix())
    about: dict[str, Any] = {"name": name, "source": str(file), "path": str(file.with_suffix(".jpg"))}
    try:
        tree = ET.parse(file).getroot()
    except (ET.ParseError, OSError, ValueError, LookupError) as error:
        return about | {"problem": "annotation unreadable", "detail": f"{file}: {error}"}, []
    if tree.tag != "annotation":
        detail = f"{file}: it holds <{tree.tag}>, not <annotation>"
        return about | {"problem": "annotation unreadable", "detail": detail}, []
    named = (tree.findtext("filename") or "").strip() or f"{file.stem}.jpg"
    folder = file.parent if pictures is None else pictures / file.relative_to(home).parent
    about["path"] = str(folder / Path(named.replace("\\", "/")).name)
    if not Path(about["path"]).is_file() and (folder / f"{file.stem}.jpg").is_file():
        about["path"] = str(folder / f"{file.stem}.jpg")
    for side in ("width", "height"):
        text = (tree.findtext(f"size/{side}") or "").strip()
        about[side] = int(text) if text.isdigit() and len(text) < 7 else 0
    return about, [_read_object(file, value, place) for place, value in enumerate(tree.findall("object"))]


def _read_object(file: Path, value: ET.Element, place: int) -> dict[str, Any]:
    label = (value.findtext("name") or "").strip() or None
    row: dict[str, Any] = {"annotation": str(place), "position": place, "label": label}
    box = value.find("bndbox")
    texts = [box.findtext(name) if box is not None else None for name in ("xmin", "ymin", "xmax", "ymax")]
    row |= corners(_float(text) for text in texts)
    if row.get("problem"):
        row["detail"] = f"{file}: object {place}: corners {', '.join(map(str, texts))}"
    elif label is None:
        row |= {"problem": "no label", "detail": f"{file}: object {place} has no name"}
    row["x_min"], row["y_min"] = row["x_min"] - 1, row["y_min"] - 1
    skip = ("name", "bndbox", "part", "polygon")
    return row | metadata({e.tag: (e.text or "").strip() for e in value if e.tag not in skip and len(e) == 0})


def _float(text: str | None) -> Any:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return text
