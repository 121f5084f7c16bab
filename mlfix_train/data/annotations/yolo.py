"""YOLO data sets: one text file per photo, one line per box, coordinates as fractions of the photo's sides.

Source of the format: "Object Detection Datasets Overview" in Ultralytics' documentation. The label file of a photo has
its path with the last ``images`` replaced by ``labels`` (it lies beside the photo if there is none). Corners refer to
photos rotated by their EXIF orientation, as OpenCV loads them there.
"""

import contextlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlfix_train.data.annotations import base
from mlfix_train.data.annotations.base import AnnotationFormat, Annotations, LabelChanges, Row
from mlfix_train.data.annotations.write_back import copy_path, write_copies
from mlfix_train.errors import DataError, format_list, nearest

SPLITS = ("train", "val", "test", "valid", "minival")
CLASS_FILES = ("classes.txt", "obj.names", "labels.txt", "names.txt", "_darknet.labels")


@dataclass
class Yolo(AnnotationFormat):
    """A YOLO data set. ``annotation`` is the line number, from 1.

    Of polygons and oriented boxes (more than five numbers per line) the bounding box is taken.

    Args:
        root: folder of the data set.
        file: ``data.yaml`` (class names, and folders or lists of photos for each split), or a text file with one class
            name per line; by default found in ``root``. If it names no splits, all photos below ``root`` are read.
    """

    file: str | Path | None = None

    name = "yolo"
    normalized = True
    exif_applied = True

    @classmethod
    def detect(cls, root: Path) -> int:
        """Looks for a YAML that mentions ``names``, or for a class list."""
        yaml = [*root.glob("*.yaml"), *root.glob("*.yml")]
        named = any("names" in path.read_text(encoding="utf-8", errors="replace") for path in yaml)
        return 2 if named or _class_files(root) else 0

    def read(self) -> Annotations:
        """Reads all photos and boxes; no class names, photos or boxes, or photos that share labels, is an error."""
        root = self.folder
        names_file = find_class_names(root, self.file)
        names, settings = read_class_names(names_file)
        images, notes = _listed_images(root, names_file, settings)
        if images and not any(path.is_relative_to(root) for path in images):  # `path:` leads elsewhere
            root = Path(os.path.commonpath([path.parent for path in images]))
            root = root.parent if root.name.lower() == "images" else root
        for path in [] if images else base.images_below(root):
            images[path] = next(filter(None, map(base.split_of, path.relative_to(root).parts[:-1])), "")
        photos, boxes = list[Row](), list[Row]()
        owners: dict[str, Path] = {}
        empty = 0
        for path, split in images.items():
            label_file = label_path(path)
            if owners.setdefault(label_file, path) != path:
                raise DataError(f"two photos share {label_file}: {owners[label_file]} and {path}", "rename one of them")
            name = base.photo_name(Path(os.path.relpath(path, root)).as_posix())
            rows, problem = _read_label_file(label_file, name, names)
            photo = {"name": name, "path": str(path), "split": split, "source": label_file}
            photos.append(photo | ({"problem": "annotation unreadable", "detail": problem} if problem else {}))
            empty += not rows
            boxes += rows
        boxes += _orphaned_boxes(owners, names_file, names)
        if empty:
            notes.append(f"{empty:,} photos have no boxes")
        if not any(row["photo"] for row in boxes):
            problem = f"none of the {len(photos):,} photos below data.root={self.root} has a label file with boxes"
            first = photos[0]["source"] if photos else "in labels/"
            raise DataError(problem, f"the label file of the first one would be {first}")
        return self.build(photos, boxes, names.values(), notes, root)

    def write_back(self, annotations: Annotations, changes: LabelChanges, out: Path) -> list[Path]:
        """Writes copies with new labels, beside links to the photos; a new label is added to the class list.

        ``path`` in ``data.yaml``, and lists of photos, lead to the copies.
        """
        names_file = find_class_names(self.folder, self.file)
        names, settings = read_class_names(names_file)
        numbers = {name: number for number, name in sorted(names.items(), reverse=True)}
        wanted = {label for labels in changes.values() for label in labels.values() if label is not None}
        added = dict(enumerate(sorted(wanted - set(numbers)), start=max(names) + 1))
        numbers |= {label: number for number, label in added.items()}

        def patch(file: Path, labels: Mapping[str, str | None], target: Path) -> None:
            target.write_bytes(_relabel_lines(file.read_bytes().decode(), labels, numbers).encode())

        written = write_copies(annotations, changes, out, patch)
        for photo in map(Path, annotations.photos["path"]):  # YOLO's tools look for photos beside the labels
            target = copy_path(annotations, photo, out)
            if not target.exists():
                target.symlink_to(photo)
        return written + _write_class_names(annotations, names_file, settings, added, out)

    def open_copies(self, annotations: Annotations, out: Path) -> AnnotationFormat:
        """Returns the data set of the copies, with links to the photos."""
        names_file = find_class_names(self.folder, self.file)
        return Yolo(out, os.path.abspath(_names_copy(annotations, names_file, out)))


def find_class_names(root: Path, file: str | Path | None) -> Path:
    """Returns the file that names the classes; a :class:`DataError` if there is none, or several."""
    if file:
        path = Path(os.path.normpath(root / Path(file).expanduser()))
        if not path.is_file():
            hint = "use data.yaml, or a file with one class name per line"
            raise DataError(f"data.file={path} does not exist", hint)
        return path
    found = [path for path in sorted({*root.glob("*.yaml"), *root.glob("*.yml")}) if "names" in _load_yaml(path)]
    if len(found) > 1:
        names = format_list(path.name for path in found)
        found = [path for path in found if path.stem == "data"]
        if len(found) != 1:
            raise DataError(f"{root} contains several class lists: {names}", "choose one: data.file=<file>")
    found = found or _class_files(root)
    if not found:
        hint = "YOLO needs data.yaml with names, or classes.txt; set data.file=<file>"
        raise DataError(f"no class list in data.root={root}", hint)
    return found[0]


def _class_files(root: Path) -> list[Path]:
    """Returns the text files that may name the classes."""
    below = sorted(entry for entry in root.iterdir() if entry.is_dir())
    return [folder / name for folder in (root, *below) for name in CLASS_FILES if (folder / name).is_file()]


def _is_yaml(path: Path) -> bool:
    return path.suffix.lower() in (".yaml", ".yml")


def _load_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = f"{path} is not valid YAML: {' '.join(str(error).split())[:200]}"
        raise DataError(problem, "correct the line that the message shows") from error
    return dict(content) if isinstance(content, Mapping) else {}


def read_class_names(path: Path) -> tuple[dict[int, str], dict[str, Any]]:
    """Returns class number to name, and the other settings of a ``data.yaml``, which has to name classes."""
    settings: dict[str, Any] = {}
    if _is_yaml(path):
        settings = _load_yaml(path)
        given = settings.get("names")
        if not isinstance(given, (Mapping, list)):
            raise DataError(f"{path}: names is {given!r}", "use a list of class names, or number: name")
        listed = dict(given) if isinstance(given, Mapping) else dict(enumerate(given))
    else:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        listed = {place: line.strip() for place, line in enumerate(lines) if line.strip()}
    try:
        names = {int(number): name for number, name in listed.items()}
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: names has a key that is not a number ({error})", "use number: name") from error
    if not names:
        raise DataError(f"{path} lists no classes", "add a list of class names")
    for number, name in names.items():
        if isinstance(name, bool) or name is None:
            raise DataError(f"{path}: class {number} is called {name}, which YAML does not read as text", "quote it")
        if not str(name).strip():
            raise DataError(f"{path}: class {number} has an empty name", "add one")
    return {number: str(name) for number, name in names.items()}, settings


def _listed_images(root: Path, names_file: Path, settings: Mapping[str, Any]) -> tuple[dict[Path, str], list[str]]:
    """Returns the photos that a ``data.yaml`` names, with their splits, and notes on what is left out."""
    home, notes = names_file.parent, []
    if settings.get("path"):
        stated = Path(str(settings["path"])).expanduser()
        candidates = [stated] if stated.is_absolute() else [names_file.parent / stated, root / stated]
        home = next((folder for folder in candidates if folder.is_dir()), home)
    images: dict[Path, str] = {}
    repeated = 0
    for split in SPLITS:
        given = settings.get(split) or []
        for entry in given if isinstance(given, list) else [given]:
            try:
                found = _images_of_entry(names_file, home, root, split, str(entry))
            except DataError as error:
                if split != "test":  # a test split is often named but not shipped
                    raise
                notes.append(f"{error.problem}: it is left out")
                continue
            for path in found:
                repeated += path in images
                images.setdefault(path, {"valid": "val"}.get(split, split))
    if repeated:
        notes.append(f"{repeated:,} photos are in two splits of {names_file.name}; the first one counts")
    return images, notes


def _images_of_entry(names_file: Path, home: Path, root: Path, split: str, entry: str) -> list[Path]:
    stem = entry.removeprefix("../")
    for place in (home / entry, names_file.parent / entry, root / entry, home / stem, root / stem):
        if place.is_dir():
            return [Path(os.path.normpath(path)) for path in base.images_below(place)]
        if place.is_file() and place.suffix == ".txt":
            lines = [line.strip() for line in place.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
            return [Path(os.path.normpath(_listed_path(line, place, home))) for line in lines]
    parent = (home / entry).parent
    close = nearest(Path(entry).name, [path.name for path in parent.iterdir()]) if parent.is_dir() else []
    problem = f"{names_file}: {split}: {entry} is neither a folder nor a list of photos (searched in {home})"
    raise DataError(problem, f"did you mean {close[0]}?" if close else "correct it, or path:")


def _listed_path(line: str, list_file: Path, home: Path) -> Path:
    """Returns the photo that a line of a list names, relative to the list's folder or to the data set's."""
    if os.path.isabs(line):
        return Path(line)
    candidates = [list_file.parent / line, home / line]
    if not line.startswith("./"):  # CVAT's lists begin with a folder `data`, which stands for the data set
        candidates.append(home / line.partition("/")[2])
    found = (path for path in candidates if path.exists())
    return next(found, candidates[0] if line.startswith("./") else candidates[1])


def label_path(photo: Path) -> str:
    """Returns the path of a photo's label file."""
    parts = list(photo.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place].lower() == "images":
            parts[place] = {"images": "labels", "IMAGES": "LABELS"}.get(parts[place], "Labels")
            break
    return str(Path(*parts).with_suffix(".txt"))


def _read_label_file(file: str, photo: str, names: Mapping[int, str]) -> tuple[list[Row], str]:
    """Returns one row per line (none if there is no file), and why the file can't be read."""
    try:
        text = Path(file).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return [], ""
    except (OSError, UnicodeDecodeError) as error:
        return [], f"{file}: {error}"
    rows: list[Row] = []
    for line, content in enumerate(text.splitlines(), 1):
        if words := content.split():
            row = {"photo": photo, "annotation": str(line), "position": len(rows), "label": None}
            rows.append(row | base.corners([0] * 4) | _parse_line(f"{file}: line {line}", words, names))
    return rows, ""


def _parse_line(where: str, words: list[str], names: Mapping[int, str]) -> Row:
    """Returns the columns of a line: ``class x y width height [score]``, or ``class x1 y1 x2 y2 ...``."""
    text = " ".join(words)[:80]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return {"problem": "malformed", "detail": f"{where}: {text!r} are not all numbers"}
    count = len(numbers)
    if count < 5 or (count > 6 and count % 2 == 0):
        detail = f"{where}: {count} numbers instead of class and box (5) or class and points of a polygon"
        return {"problem": "malformed", "detail": detail}
    if count <= 6:
        x, y, width, height = numbers[1:5]
        row = base.corners([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    else:
        row = base.corners([min(numbers[1::2]), min(numbers[2::2]), max(numbers[1::2]), max(numbers[2::2])])
    if row.get("problem"):
        return {**row, "detail": f"{where}: {text}"}
    number = numbers[0]
    if not math.isfinite(number) or number != int(number) or int(number) not in names:
        known = f"the classes are {format_list(sorted(names), 12)}"
        return {**row, "problem": "unknown class", "detail": f"{where}: class {words[0]}, {known}"}
    return {**row, "label": names[int(number)]}


def _orphaned_boxes(owners: Mapping[str, Path], names_file: Path, names: Mapping[int, str]) -> list[Row]:
    """Returns the boxes of label files that belong to no photo."""
    rows: list[Row] = []
    image_folders = {photo.parent for photo in owners.values()}
    for folder in sorted({Path(path).parent for path in owners} - image_folders):  # beside photos, any text may lie
        for path in sorted(folder.glob("*.txt")):
            if str(path) not in owners and path != names_file and path.name not in CLASS_FILES:
                problem = {"problem": "no photo", "detail": f"{path}: no photo has this name"}
                for row in _read_label_file(str(path), "", names)[0]:
                    rows.append({**row, "annotation": f"{path.name}:{row['annotation']}", **problem})
    return rows


def _relabel_lines(text: str, labels: Mapping[str, str | None], numbers: Mapping[str, int]) -> str:
    """Returns a label file with other class numbers; ``labels`` are by line number, ``None`` removes the line."""
    lines = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        label = labels.get(str(number))
        if label is not None:
            lines.append(re.sub(r"[^\s\ufeff]+", str(numbers[label]), line, count=1))
        elif str(number) not in labels:
            lines.append(line)
    return "".join(lines)


def _names_copy(annotations: Annotations, path: Path, out: Path) -> Path:
    """Returns the place of the copy of the class list, or of a file beside it."""
    return copy_path(annotations, path, out) if path.is_relative_to(annotations.root) else out / path.name


def _write_class_names(
    annotations: Annotations, names_file: Path, settings: Mapping[str, Any], added: Mapping[int, str], out: Path
) -> list[Path]:
    """Copies the class list, with new classes, and the lists of photos; returns the copies that differ."""
    written = []
    for path in (names_file, *sorted({*names_file.parent.glob("*.txt")} - {names_file})):
        target = _names_copy(annotations, path, out)
        before = path.read_bytes()
        try:
            text = before.decode()
        except UnicodeDecodeError:  # not a list of photos
            target.write_bytes(before)
            continue
        if path != names_file:
            text = text.replace(f"{annotations.root}{os.sep}", f"{os.path.abspath(out)}{os.sep}")
        elif _is_yaml(path):
            text = patch_yaml(text, added, os.path.abspath(target.parent) if settings.get("path") else None)
        elif added:
            body = text.rstrip()
            newline = "\r\n" if "\r\n" in text else "\n"
            text = body + "".join(f"{newline}{name}" for name in added.values()) + (text[len(body) :] or newline)
        target.write_bytes(text.encode())
        if text.encode() != before:
            written.append(target)
    return written


def patch_yaml(text: str, added: Mapping[int, str], path: str | None) -> str:
    """Returns a ``data.yaml`` with further classes, and another ``path`` if given; all else stays as written."""
    import yaml

    settings = yaml.safe_load(text)
    names = settings["names"]
    settings["names"] = {**names, **added} if isinstance(names, Mapping) else [*names, *added.values()]
    if added and "nc" in settings:
        settings["nc"] = len(settings["names"])
    if path is not None:
        settings["path"] = path
    edits: list[tuple[int, int, str]] = []
    for key, value in yaml.compose(text).value:
        span = (value.start_mark.index, value.end_mark.index)
        if key.value == "names" and added:
            edits.append(_class_insertion(text, value, added))
        elif key.value == "nc" and added:
            edits.append((*span, str(settings["nc"])))
        elif key.value == "path" and path is not None:
            edits.append((*span, path if yaml.safe_load(f"a: {path}") == {"a": path} else json.dumps(path)))
    patched = text
    for start, end, new in sorted(edits, reverse=True):
        patched = patched[:start] + new + patched[end:]
    with contextlib.suppress(yaml.YAMLError):
        if yaml.safe_load(patched) == settings:
            return patched
    return str(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))  # an unusual layout is rewritten


def _class_insertion(text: str, names: Any, added: Mapping[int, str]) -> tuple[int, int, str]:
    """Returns where new classes go, behind the last one of a YAML node, and their text."""
    last, is_mapping = names.value[-1], isinstance(names.value[-1], tuple)
    at: int = (last[1] if is_mapping else last).end_mark.index
    if names.flow_style:
        separator, marker = ", ", ""
    else:
        at += len(re.split(r"[\r\n]", text[at:], maxsplit=1)[0])  # behind a comment
        separator, marker = ("\r\n" if "\r\n" in text else "\n") + " " * names.start_mark.column, "- "
    entries = (f"{f'{number}: ' if is_mapping else marker}{json.dumps(name)}" for number, name in added.items())
    return at, at, "".join(separator + entry for entry in entries)
