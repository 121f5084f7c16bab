"""The Mapillary Traffic Sign Dataset as it is downloaded: a JSON a photo, split lists, panoramas.

Source of the layout: the README that comes with the data set (Ertl et al., "The Mapillary Traffic Sign Dataset for
Detection and Classification on a Global Scale", ECCV 2020).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlfix_train.data.annotations.base import (
    Annotations,
    check_root,
    collect,
    corners,
    find_folders,
    metadata,
    number,
    photo_name,
    pictures_below,
)
from mlfix_train.data.files.json_files import read_json
from mlfix_train.errors import DataError, format_list

UNANNOTATED = {"test"}
"""Splits whose annotations are not public."""


def read_mtsd(root: str | Path, images: str | Path | None = None) -> Annotations:
    """Reads MTSD: ``annotations/<photo>.json``, ``splits/{train,val,test}.txt`` and ``images/`` below ``root``.

    The three may lie deeper, and images in several folders called ``images`` (the archives unpacked side by side) or in
    folders within. A box whose left edge lies right of its right edge crosses the edge of a panorama; its ``x_max`` is
    then counted on beyond the photo's width. Corners refer to the pixels as stored, as Mapillary's own script has them.

    Args:
        root: the folder.
        images: folder of the photos, where it is not below ``root``.

    Returns:
        Photos and boxes; all ``properties`` of an object are columns.

    Raises:
        DataError: no such folders, two photos of one name, or a photo in two splits.
    """
    base = check_root(root)
    files = _annotation_files(base)
    splits = _read_splits(base)
    places = [Path(images).expanduser()] if images else find_folders(base, "images")
    if not places or not all(place.is_dir() for place in places):
        where = f"data.images={images} is no folder" if images else f"no folder called images below data.root={root}"
        raise DataError(where, "unpack the archives of the images there, or give data.images=<folder>")
    pictures = _index_pictures(places)
    photos: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for key, file in files.items():
        photo = {"name": key, "source": str(file), "split": splits.get(key, ""),
                 "path": str(pictures.get(key, places[0] / f"{key}.jpg"))}  # fmt: skip
        about, found = _read_photo(file, key)
        photos.append({**photo, **about})
        boxes += found
    notes = _unannotated(splits, files, pictures, places[0], photos)
    if splits and (loose := [key for key in files if key not in splits]):
        notes.append(f"{len(loose):,} annotated photos stand in no list of splits/: {format_list(loose, 3)}")
    return collect("mtsd", base, photos, boxes, notes=tuple(notes))


def _annotation_files(base: Path) -> dict[str, Path]:
    """Returns photo to annotation file."""
    found: dict[str, Path] = {}
    for folder in find_folders(base, "annotations"):
        for path in sorted(folder.glob("*.json")):
            if path.stem in found:
                raise DataError(f"two annotation files speak of {path.stem}: {found[path.stem]} and {path}",
                                "keep one of them, or give a data.root that holds one")  # fmt: skip
            found[path.stem] = path
    if found:
        return found
    raise DataError(
        f"no folder annotations/ with a JSON a photo below data.root={base}",
        "give the folder that MTSD was unpacked into (mtsd_v2_fully_annotated), or the format: data=coco, yolo, voc",
    )


def _read_splits(base: Path) -> dict[str, str]:
    """Returns photo to split."""
    splits: dict[str, str] = {}
    for folder in find_folders(base, "splits"):
        for file in sorted(folder.glob("*.txt")):
            for key in file.read_text(encoding="utf-8-sig").split():
                if splits.setdefault(key, file.stem) != file.stem:
                    raise DataError(f"{file}: {key} stands in {splits[key]}.txt too", "take it out of one of the lists")
    return splits


def _index_pictures(places: list[Path]) -> dict[str, Path]:
    """Returns photo to picture file."""
    found: dict[str, Path] = {}
    for place in places:
        for path in pictures_below(place):
            if path.stem in found and found[path.stem] != path:
                raise DataError(
                    f"two photos are called {path.stem}: {found[path.stem]} and {path}", "remove or rename one"
                )
            found[photo_name(path.name)] = path
    return found


def _read_photo(file: Path, key: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns what a JSON says of its photo and of its boxes."""
    content, problem = read_json(file)
    if not problem:
        problem = _schema(content)
    if problem:
        return {"problem": "annotation unreadable", "detail": f"{file}: {problem}"}, []
    wide = content.get("ispano", False)
    width, height = int(content["width"]), int(content["height"])
    about = {"width": width, "height": height, "panorama": bool(wide)}
    seen: set[str] = set()
    objects = [(object_key(value, place, seen), value) for place, value in enumerate(content["objects"])]
    rows = [_read_object(value, key, name, place, width, bool(wide)) for place, (name, value) in enumerate(objects)]
    return about, rows


def object_key(value: Any, place: int, seen: set[str]) -> str:
    """Returns an object's key, or its place where it has none; a key that stands once more gets its place."""
    name = str(value["key"]) if isinstance(value, Mapping) and value.get("key") else str(place)
    name = f"{name}#{place}" if name in seen else name
    seen.add(name)
    return name


def _schema(content: Any) -> str:
    """Says what is not as in MTSD; empty where all is."""
    if not isinstance(content, dict):
        return f"it holds a {type(content).__name__}, MTSD's hold an object with width, height and objects"
    lacking = [name for name in ("width", "height", "objects") if name not in content]
    if lacking:
        return f"no {' and no '.join(lacking)}; it has {format_list(content, 6) or 'nothing'}"
    for name in ("width", "height"):
        if not isinstance(content[name], (int, float)) or not 0 < content[name] < 10**6:
            return f"{name} is {content[name]!r}"
    if not isinstance(content["objects"], list):
        return f"objects is a {type(content['objects']).__name__}, not a list"
    return ""


def _read_object(value: Any, key: str, name: str, place: int, width: int, panorama: bool) -> dict[str, Any]:
    """Returns the row of one object."""
    row: dict[str, Any] = {"photo": key, "annotation": name, "position": place, "label": None, **corners([0] * 4)}
    if not isinstance(value, Mapping) or not isinstance(value.get("bbox"), Mapping):
        return {**row, "problem": "malformed", "detail": f"object {place} has no bbox: {json.dumps(value)[:120]}"}
    box = value["bbox"]
    row |= corners(box.get(name) for name in ("xmin", "ymin", "xmax", "ymax"))
    row |= metadata(value.get("properties") or {})
    if isinstance(value.get("label"), str) and value["label"].strip():
        row["label"] = value["label"]
    elif not row.get("problem"):
        row |= {"problem": "no label", "detail": f"label is {value.get('label')!r}"}
    row |= _across_the_edge(row, box.get("cross_boundary") or value.get("cross_boundary"), width, panorama)
    return row


def _across_the_edge(row: Mapping[str, Any], parts: Any, width: int, panorama: bool) -> dict[str, Any]:
    """Returns what changes of a box that crosses the edge of a panorama; its right edge is counted on beyond the width.

    Where ``cross_boundary`` is missing, corners the wrong way round in a panorama are taken for a crossing if the box
    is narrower so than the other way round; elsewhere they are swapped.
    """
    left, right = row["x_min"], row["x_max"]
    if left > right and (parts or (panorama and width - left + right < left - right)):
        return {"x_max": right + width, "wraps": True}
    if isinstance(parts, Mapping) and all(isinstance(part, Mapping) for part in parts.values()) and len(parts) == 2:
        begin, end = sorted(parts.values(), key=lambda part: -number(part.get("xmin")))
        left, right = number(begin.get("xmin")), number(end.get("xmax"))
        if number(begin.get("xmax")) >= width - 2 and number(end.get("xmin")) <= 2 and right < left:
            return {"x_min": left, "x_max": right + width, "wraps": True}
    return {"wraps": False}


def _unannotated(
    splits: dict[str, str],
    files: Mapping[str, Path],
    pictures: Mapping[str, Path],
    place: Path,
    photos: list[dict[str, Any]],
) -> list[str]:
    """Adds the photos that a list names and no JSON describes; returns what to say of those that need none."""
    lacking = [key for key in splits if key not in files]
    public = [key for key in lacking if splits[key] in UNANNOTATED]
    for key in lacking:
        if splits[key] not in UNANNOTATED:
            photos.append({
                "name": key, "path": str(pictures.get(key, place / f"{key}.jpg")), "split": splits[key],
                "source": f"splits/{splits[key]}.txt", "problem": "no annotation",
                "detail": f"splits/{splits[key]}.txt lists it, annotations/{key}.json is not there",
            })  # fmt: skip
    words = f"{len(public):,} photos of the test split have no annotations (they are not public)"
    return [words] if public else []
