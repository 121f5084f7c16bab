"""COCO instances: one JSON with images, annotations and categories for many photos.

Source of the format: the "Data format" page of the COCO data set. ``bbox`` is ``[x, y, width, height]`` in pixels from
the upper left corner; pycocotools reads the JSON alone and torchvision shows the pixels as stored, so that is what
corners refer to here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlfix_train.data.annotations.base import (
    Annotations,
    check_root,
    collect,
    corners,
    metadata,
    number,
    photo_name,
    split_of,
)
from mlfix_train.data.files.json_files import read_json
from mlfix_train.errors import DataError, format_list

MOST = 200
"""JSON files that are looked at."""
SECTIONS = ("images", "annotations", "categories")


def read_coco(
    root: str | Path, file: str | Path | Sequence[str] | None = None, images: str | Path | None = None
) -> Annotations:
    """Reads COCO instances JSON.

    Args:
        root: the folder of the data set.
        file: the JSON, or several, below ``root`` or with their whole path; by default
            ``annotations/instances_*.json``, else every JSON in ``annotations/``, in ``root`` or one level below it
            that has the three sections. A file's name or folder tells the split (``instances_val2017``,
            ``valid/_annotations.coco.json``).
        images: folder that ``file_name`` starts from; by default found by its files.

    Returns:
        Photos and boxes; photos without boxes are there, crowd regions have the problem ``crowd``.

    Raises:
        DataError: no such file, another schema, an id that stands twice, or two photos of one name.
    """
    base = check_root(root)
    photos: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    classes: dict[str, None] = {}
    notes: list[str] = []
    for path, content in load_files(base, file, notes).items():
        categories = _categories(path, content)
        classes |= dict.fromkeys(categories.values())
        found = _photos(base, path, content, images)
        photos += found.values()
        boxes += _boxes(path, content, found, categories)
    return collect("coco", base, photos, boxes, classes=tuple(classes), notes=tuple(notes))


def load_files(
    base: Path, file: str | Path | Sequence[str] | None, notes: list[str] | None = None
) -> dict[Path, dict[str, Any]]:
    """Returns path to content of the annotation files; ``notes`` takes in which others are left out, and why.

    Raises:
        DataError: none, one that is missing or can't be read, or of another schema.
    """
    asked = [file] if isinstance(file, (str, Path)) else list(file or ())
    if asked:
        paths = [Path(os.path.normpath(base / Path(name).expanduser())) for name in asked]
        return {path: _checked(path) for path in paths}
    paths = sorted(base.glob("annotations/instances_*.json"))
    if paths:
        others = sorted(set(base.glob("annotations/*.json")) - set(paths))
        if others and notes is not None:
            names = format_list((path.name for path in others), 4)
            notes.append(f"left out, for there are instances_*.json: {names} (data=coco data.file=[...] reads others)")
        return {path: _checked(path) for path in paths}
    paths = sorted({*base.glob("annotations/*.json"), *base.glob("*.json"), *base.glob("*/*.json")})
    if len(paths) > MOST:
        raise DataError(f"{len(paths):,} JSON files below data.root={base}",
                        "say which hold the annotations: data=coco data.file=[train.json,val.json]")  # fmt: skip
    found = {}
    reasons = []
    for path in paths:
        content, problem = read_json(path)
        if problem:  # it may be one that was cut short
            raise DataError(f"{path}: {problem}", "mend or remove it, or say what to read: data=coco data.file=...")
        problem = _schema(content)
        if problem:
            reasons.append(f"{path}: {problem}")
        else:
            found[path] = content
    if not found:
        raise DataError(
            f"no COCO annotations below data.root={base}",
            "give the file: data.file=annotations/instances_train.json; it has images, annotations and categories",
            reasons[:5],
        )
    if notes is not None:
        notes += [f"left out: {reason}" for reason in reasons[:5]]
    return found


def _checked(path: Path) -> dict[str, Any]:
    content, problem = read_json(path)
    problem = problem or _schema(content)
    if problem:
        raise DataError(
            f"{path}: {problem}", "give COCO instances JSON: images, annotations and categories, three lists"
        )
    return dict(content)


def _schema(content: Any) -> str:
    """Says what is not as in COCO's instances files; empty where all is."""
    if isinstance(content, list):
        return "it holds a list, as files of detections do, not images, annotations and categories"
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}"
    lacking = [name for name in SECTIONS if not isinstance(content.get(name), list)]
    if lacking:
        return f"it has no list {' and no list '.join(lacking)}; it has {format_list(content, 6) or 'nothing'}"
    for name in SECTIONS:
        for place, row in enumerate(content[name]):
            if not isinstance(row, Mapping) or (name != "annotations" and "id" not in row):
                return f"{name}[{place}] is {str(row)[:80]!r}, not an object with an id"
            for key in ("id", "image_id", "category_id"):
                if key in row and not isinstance(row[key], (int, str)):
                    return f"{name}[{place}].{key} is {str(row[key])[:40]}, not a number or text"
    return ""


def _categories(path: Path, content: Mapping[str, Any]) -> dict[Any, str]:
    """Returns id to name."""
    found: dict[Any, str] = {}
    for place, row in enumerate(content["categories"]):
        name = row.get("name")
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{path}: categories[{place}] (id {row['id']}) has no name", "give it one")
        if found.setdefault(row["id"], name) != name:
            raise DataError(
                f"{path}: category id {row['id']} stands for {found[row['id']]!r} and {name!r}", "keep one of them"
            )
    return found


def _photos(base: Path, path: Path, content: Mapping[str, Any], images: str | Path | None) -> dict[Any, dict[str, Any]]:
    """Returns id to the row of a photo."""
    for place, row in enumerate(content["images"]):
        if not isinstance(row.get("file_name"), str) or not row["file_name"].strip():
            raise DataError(f"{path}: images[{place}] (id {row['id']}) has no file_name", "give it one")
    split = split_of(path.stem) or split_of(path.parent.name)
    folder = _image_folder(base, path, content, images, split)
    found: dict[Any, dict[str, Any]] = {}
    for row in content["images"]:
        if row["id"] in found:
            raise DataError(f"{path}: image id {row['id']} stands twice: {found[row['id']]['path']} and "
                            f"{row['file_name']}", "ids must be unique")  # fmt: skip
        place = os.path.normpath(folder / row["file_name"].replace("\\", "/"))
        size = [number(row.get(side)) for side in ("width", "height")]
        known = all(0 < side < 10**6 for side in size)
        found[row["id"]] = {
            "name": photo_name(Path(os.path.relpath(place, base)).as_posix()), "path": place, "split": split,
            "width": int(size[0]) if known else 0, "height": int(size[1]) if known else 0, "source": str(path),
        }  # fmt: skip
    return found


def _image_folder(base: Path, path: Path, content: Mapping[str, Any], images: str | Path | None, split: str) -> Path:
    """Returns the folder that holds the most of some photos."""
    if images:
        return Path(os.path.normpath(base / Path(images).expanduser()))
    words = path.stem.split("_")
    near = [word for word in (*words, split, path.parent.name) if word]
    places = [path.parent, base, base / "images", *(base / word for word in near), *(base / "images" / w for w in near)]
    names = [row["file_name"].replace("\\", "/") for row in content["images"]]
    some = names[:: max(1, len(names) // 20)]
    return max(places, key=lambda place: sum((place / name).is_file() for name in some))


def _boxes(
    path: Path, content: Mapping[str, Any], photos: Mapping[Any, Mapping[str, Any]], categories: Mapping[Any, str]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    seen: dict[str, int] = {}
    for place, value in enumerate(content["annotations"]):
        key = str(value.get("id", f"#{place}"))
        if key in seen:
            raise DataError(f"{path}: annotation id {key} stands twice: annotations[{seen[key]}] and [{place}]",
                            "ids must be unique")  # fmt: skip
        seen[key] = place
        photo = photos.get(value.get("image_id"))
        name = str(photo["name"]) if photo else ""
        row: dict[str, Any] = {"photo": name, "annotation": key, "position": counts.get(name, 0)}
        counts[name] = row["position"] + 1
        row |= {"label": categories.get(value.get("category_id")), **_corners(value.get("bbox"))}
        if photo is None:
            row |= {"problem": "no photo", "detail": f"{path}: image_id {value.get('image_id')!r} is in no images"}
        elif value.get("iscrowd"):
            row |= {"problem": "crowd", "detail": "iscrowd=1"}
        elif row["label"] is None:
            row |= {"problem": "unknown class",
                    "detail": f"{path}: category_id {value.get('category_id')!r} is in no categories"}  # fmt: skip
        skip = ("id", "image_id", "category_id", "bbox", "segmentation", "iscrowd", "keypoints")
        rows.append(row | metadata({name: entry for name, entry in value.items() if name not in skip}))
    return rows


def _corners(box: Any) -> dict[str, Any]:
    """Returns the corners of ``[x, y, width, height]``."""
    if not isinstance(box, list) or len(box) != 4:
        return {
            **corners([0] * 4),
            "problem": "malformed",
            "detail": f"bbox is {str(box)[:80]}, not [x, y, width, height]",
        }
    row = corners(box)
    if not row.get("problem"):
        row |= {"x_max": row["x_min"] + row["x_max"], "y_max": row["y_min"] + row["y_max"]}
    return row
