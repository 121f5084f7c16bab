"""YOLO data sets: a text file a photo, a line a box, coordinates as shares of the photo's sides.

Source of the format: "Object Detection Datasets Overview" in Ultralytics' documentation. A label file lies where its
photo does, with the last ``images`` of the path replaced by ``labels`` (beside the photo where there is none). Photos
count as turned upright by EXIF, as OpenCV loads them there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlfix_train.data.annotations.base import (
    Annotations,
    check_root,
    collect,
    corners,
    photo_name,
    pictures_below,
    split_of,
)
from mlfix_train.errors import DataError, format_list, nearest

SPLITS = ("train", "val", "test", "valid", "minival")
NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "names.txt", "_darknet.labels")


def read_yolo(root: str | Path, file: str | Path | None = None) -> Annotations:
    """Reads a YOLO data set.

    Args:
        root: the folder of the data set.
        file: ``data.yaml`` (class names, and folders or lists of photos for each split), or a text file with a class
            name a line; by default found in ``root``. Without folders of splits all photos below ``root`` count.

    Returns:
        Photos and boxes, in shares of the photo's sides. ``annotation`` is the number of the line, from 1. Of polygons
        and oriented boxes (more than five numbers a line) the box around them is taken.

    Raises:
        DataError: no class names, no photos, or two photos that share a label file.
    """
    base = check_root(root)
    about = find_names(base, file)
    names, settings = read_names(about)
    notes: list[str] = []
    pictures = _listed(base, about, settings, notes)
    if pictures and not any(path.is_relative_to(base) for path, _ in pictures):  # `path:` leads elsewhere
        base = Path(os.path.commonpath([path.parent for path, _ in pictures]))
        base = base.parent if base.name.lower() == "images" else base
    pictures = pictures or [(path, _split_by_folder(base, path)) for path in pictures_below(base)]
    photos: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    owners: dict[str, str] = {}
    bare = 0
    for path, split in pictures:
        label_file = label_path(path)
        if owners.setdefault(label_file, str(path)) != str(path):
            raise DataError(f"two photos share {label_file}: {owners[label_file]} and {path}", "rename one of them")
        name = photo_name(Path(os.path.relpath(path, base)).as_posix())
        rows, problem = _read_lines(label_file, name, names)
        about_photo = {"name": name, "path": str(path), "split": split, "source": label_file}
        photos.append(about_photo | ({"problem": "annotation unreadable", "detail": problem} if problem else {}))
        bare += not rows
        boxes += rows
    boxes += _without_photos(base, owners, {about}, names)
    if bare:
        notes.append(f"{bare:,} photos have no boxes")
    if not any(row["photo"] for row in boxes):
        raise DataError(f"none of the {len(photos):,} photos below data.root={root} has a label file with boxes",
                        f"the first one's is looked for at {photos[0]['source'] if photos else 'labels/'}")  # fmt: skip
    more: dict[str, Any] = {"classes": tuple(names.values()), "notes": tuple(notes)}
    return collect("yolo", base, photos, boxes, shares=True, upright=True, **more)


def find_names(base: Path, file: str | Path | None) -> Path:
    """Returns the file that names the classes.

    Raises:
        DataError: none, or several.
    """
    if file:
        path = Path(os.path.normpath(base / Path(file).expanduser()))
        if not path.is_file():
            raise DataError(f"data.file={path} does not exist", "give data.yaml, or a file with a class name a line")
        return path
    found = [path for path in sorted({*base.glob("*.yaml"), *base.glob("*.yml")}) if "names" in _load_yaml(path)]
    if len(found) > 1:
        own = [path for path in found if path.stem == "data"]
        if len(own) != 1:
            raise DataError(f"{base} holds several lists of classes: {format_list(path.name for path in found)}",
                            "say which: data.file=<one of them>")  # fmt: skip
        found = own
    found = found or [path for path in name_files(base) if path.is_file()]
    if not found:
        raise DataError(f"no list of classes in data.root={base}",
                        "YOLO wants data.yaml with names, or classes.txt; give it with data.file=<file>")  # fmt: skip
    return found[0]


def name_files(base: Path) -> list[Path]:
    """Returns the text files that may name the classes, whether they are there or not."""
    below = sorted(entry for entry in base.iterdir() if entry.is_dir()) if base.is_dir() else []
    return [folder / name for folder in (base, *below) for name in NAME_FILES]


def _load_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read as YAML: {' '.join(str(error).split())[:200]}", "mend it") from error
    return dict(content) if isinstance(content, Mapping) else {}


def read_names(path: Path) -> tuple[dict[int, str], dict[str, Any]]:
    """Returns class number to name, and the other settings of a data.yaml.

    Raises:
        DataError: names that are none, or a number that stands twice.
    """
    if path.suffix.lower() not in (".yaml", ".yml"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        names = {place: line.strip() for place, line in enumerate(lines) if line.strip()}
        return _checked_names(path, names), {}
    settings = _load_yaml(path)
    given = settings.get("names")
    if isinstance(given, Mapping):
        return _checked_names(path, {key: given[key] for key in given}), settings
    if isinstance(given, list):
        return _checked_names(path, dict(enumerate(given))), settings
    raise DataError(f"{path}: names is {given!r}", "give a list of class names, or number: name")


def _checked_names(path: Path, names: Mapping[Any, Any]) -> dict[int, str]:
    try:
        found = {int(number): name for number, name in names.items()}
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: names has a key that is no number ({error})", "give number: name") from error
    if not found:
        raise DataError(f"{path} names no classes", "give a list of class names")
    for number, name in found.items():
        if isinstance(name, bool) or name is None:
            raise DataError(f"{path}: class {number} is called {name}, which is no text to YAML", "put it in quotes")
        if not str(name).strip():
            raise DataError(f"{path}: class {number} has an empty name", "give it one")
    return {number: str(name) for number, name in found.items()}


def _listed(base: Path, about: Path, settings: Mapping[str, Any], notes: list[str]) -> list[tuple[Path, str]]:
    """Returns the photos that the splits of a data.yaml name, and their split."""
    home = about.parent
    if settings.get("path"):
        stated = Path(str(settings["path"])).expanduser()
        places = [stated] if stated.is_absolute() else [about.parent / stated, base / stated]
        home = next((place for place in places if place.is_dir()), about.parent)
    pictures: dict[Path, str] = {}
    shared = 0
    for split in (name for name in SPLITS if settings.get(name)):
        given = settings[split]
        for entry in given if isinstance(given, list) else [given]:
            try:
                found = _pictures_of(about, home, base, split, str(entry))
            except DataError as error:
                if split != "test":  # a test split is often named and not there
                    raise
                notes.append(f"{error.problem}: it is left out")
                continue
            for path in found:
                shared += path in pictures
                pictures.setdefault(path, {"valid": "val"}.get(split, split))
    if shared:
        notes.append(f"{shared:,} photos stand in two splits of {about.name} and count for the first")
    return list(pictures.items())


def _pictures_of(about: Path, home: Path, base: Path, split: str, entry: str) -> list[Path]:
    """Returns the photos of a folder or of a list of photos."""
    stem = entry.removeprefix("../")
    for place in (home / entry, about.parent / entry, base / entry, home / stem, base / stem):
        if place.is_dir():
            return [Path(os.path.normpath(path)) for path in pictures_below(place)]
        if place.is_file() and place.suffix == ".txt":
            lines = [line.strip() for line in place.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
            return [Path(os.path.normpath(_from_list(line, place, home))) for line in lines]
    beside = (home / entry).parent
    near = nearest(Path(entry).name, [path.name for path in beside.iterdir()]) if beside.is_dir() else []
    raise DataError(f"{about}: {split}: {entry} is neither a folder nor a list of photos (looked in {home})",
                    f"did you mean {near[0]}?" if near else "mend it, or what path: says")  # fmt: skip


def _from_list(line: str, listed_in: Path, home: Path) -> Path:
    """Returns the photo that a line of a list names: from the list's folder, else from the data set's."""
    if os.path.isabs(line):
        return Path(line)
    places = [listed_in.parent / line, home / line]
    if not line.startswith("./"):  # CVAT's lists begin at a folder `data` that is the data set's own
        places.append(home / line.partition("/")[2])
    return next((place for place in places if place.exists()), places[0] if line.startswith("./") else places[1])


def _split_by_folder(base: Path, path: Path) -> str:
    return next((found for part in path.relative_to(base).parts[:-1] if (found := split_of(part))), "")


def label_path(photo: Path) -> str:
    """Returns where the label file of a photo lies."""
    parts = list(photo.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place].lower() == "images":
            parts[place] = {"images": "labels", "IMAGES": "LABELS"}.get(parts[place], "Labels")
            break
    return str(Path(*parts).with_suffix(".txt"))


def _without_photos(
    base: Path, owners: Mapping[str, str], others: set[Path], names: Mapping[int, str]
) -> list[dict[str, Any]]:
    """Returns the boxes of label files that lie beside those of the photos and belong to none."""
    rows: list[dict[str, Any]] = []
    for folder in sorted({os.path.dirname(path) for path in owners}):
        if not os.path.isdir(folder) or any(folder == os.path.dirname(photo) for photo in owners.values()):
            continue  # beside photos any text may lie
        for path in sorted(Path(folder).glob("*.txt")):
            if str(path) not in owners and path not in others and path.name not in NAME_FILES:
                found, _ = _read_lines(str(path), "", names)
                told = f"{path}: no photo of this name"
                for row in found:
                    row |= {"annotation": f"{path.name}:{row['annotation']}", "problem": "no photo", "detail": told}
                rows += found
    return rows


def _read_lines(file: str, photo: str, names: Mapping[int, str]) -> tuple[list[dict[str, Any]], str]:
    """Returns a row a line, none where there is no file, and why the file can't be read."""
    try:
        text = Path(file).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return [], ""
    except (OSError, UnicodeDecodeError) as error:
        return [], f"{file}: {error}"
    rows: list[dict[str, Any]] = []
    for line, content in enumerate(text.splitlines(), 1):
        words = content.split()
        if words:
            row = {"photo": photo, "annotation": str(line), "position": len(rows), "label": None, **corners([0] * 4)}
            rows.append(row | _read_line(f"{file}: line {line}", words, names))
    return rows, ""


def _read_line(where: str, words: list[str], names: Mapping[int, str]) -> dict[str, Any]:
    """Returns what a line says: ``class x y width height``, or ``class x1 y1 x2 y2 ...``."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return {"problem": "malformed", "detail": f"{where}: {' '.join(words)[:80]!r} are not all numbers"}
    count = len(numbers)
    if count < 5 or (count > 6 and count % 2 == 0):
        told = f"{where}: {count} numbers, not class and four of a box, or class and pairs of a polygon"
        return {"problem": "malformed", "detail": told}
    if count <= 6:
        x, y, width, height = numbers[1:5]
        row = corners([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    else:
        row = corners([min(numbers[1::2]), min(numbers[2::2]), max(numbers[1::2]), max(numbers[2::2])])
    if row.get("problem"):
        return {**row, "detail": f"{where}: {' '.join(words)[:80]}"}
    if not math.isfinite(numbers[0]) or numbers[0] != int(numbers[0]) or int(numbers[0]) not in names:
        known = f"the classes are {format_list(sorted(names), 12)}"
        return {**row, "problem": "unknown class", "detail": f"{where}: class {words[0]}, {known}"}
    return {**row, "label": names[int(numbers[0])]}
