"""COCO instances: one JSON with images, annotations and categories for many photos.

Source of the format: the "Data format" page of the COCO data set. ``bbox`` is ``[x, y, width, height]`` in pixels from
the upper left corner. pycocotools reads the JSON alone and torchvision shows the pixels as stored, so corners refer to
the pixels as stored here, too.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlfix_train.data.annotations import base
from mlfix_train.data.annotations.base import AnnotationFormat, Annotations, LabelChanges, Row
from mlfix_train.data.annotations.mtsd import Mtsd
from mlfix_train.data.annotations.write_back import copy_path, write_copies
from mlfix_train.data.files.json_files import JsonPatch, read_json
from mlfix_train.errors import DataError, format_list

MAX_FILES = 200
"""JSON files that are opened to see whether they hold annotations."""
SECTIONS = ("images", "annotations", "categories")
OWN_MEMBERS = ("id", "image_id", "category_id", "bbox", "segmentation", "iscrowd", "keypoints")
"""Members of an annotation that don't become columns."""


@dataclass
class Coco(AnnotationFormat):
    """COCO instances. Photos without boxes are kept; crowd regions have the problem ``crowd``.

    Args:
        root: folder of the data set.
        file: the JSON, or several, below ``root`` or as absolute paths; by default ``annotations/instances_*.json``,
            otherwise every JSON in ``annotations/``, in ``root`` or one level below it that has the three sections.
            The split is taken from the name of the file or its folder (``instances_val2017``,
            ``valid/_annotations.coco.json``).
        images: folder that ``file_name`` is relative to; found by its files by default.
    """

    file: str | Path | Sequence[str] | None = None
    images: str | Path | None = None

    name = "coco"
    stable_keys = True

    @classmethod
    def detect(cls, root: Path) -> int:
        """Looks for JSON files in COCO's usual places, unless they are MTSD's."""
        patterns = ("annotations/*.json", "*.json", "*/*.coco.json")
        return 2 if any(next(root.glob(pattern), None) for pattern in patterns) and not Mtsd.detect(root) else 0

    def read(self) -> Annotations:
        """Reads all photos and boxes; a missing file, another schema, a repeated id or name of a photo is an error."""
        photos, boxes = list[Row](), list[Row]()
        classes: dict[str, None] = {}
        files, notes = self._load()
        for path, content in files.items():
            categories = _read_categories(path, content)
            classes |= dict.fromkeys(categories.values())
            by_id = self._read_photos(path, content)
            photos += by_id.values()
            boxes += _read_boxes(path, content, by_id, categories)
        return self.build(photos, boxes, classes, notes)

    def write_back(self, annotations: Annotations, changes: LabelChanges, out: Path) -> list[Path]:
        """Writes copies with new labels; a label that a file lacks becomes a category with an unused id."""
        files, _ = self._load()
        ids_anywhere: dict[str, Any] = {}  # a label of another file keeps its id
        used: set[Any] = set()
        for content in files.values():
            ids_anywhere |= {row["name"]: row["id"] for row in reversed(content["categories"])}
            used |= {row["id"] for row in content["categories"]}

        def patch(path: Path, labels: Mapping[str, str | None], target: Path) -> None:
            ids = {row["name"]: row["id"] for row in reversed(files[path]["categories"])}
            added = []
            for label in sorted({label for label in labels.values() if label is not None} - set(ids)):
                if label not in ids_anywhere or ids_anywhere[label] in ids.values():
                    ids_anywhere[label] = 1 + max((key for key in used if isinstance(key, int)), default=0)
                ids[label] = ids_anywhere[label]
                used.add(ids[label])
                added.append({"id": ids[label], "name": label})
            file = JsonPatch(path)
            keys = [_annotation_key(value, place) for place, (*_, value) in enumerate(file.listed("annotations"))]
            new_ids = {key: None if label is None else ids[label] for key, label in labels.items()}
            file.relabel("annotations", keys, "category_id", new_ids)
            if added:
                file.append("categories", added)
            file.write(target)

        return write_copies(annotations, changes, out, patch, files)

    def open_copies(self, annotations: Annotations, out: Path) -> AnnotationFormat:
        """Returns the data set of the copied annotations and the original photos."""
        files, _ = self._load()
        return Coco(self.root, [os.path.abspath(copy_path(annotations, path, out)) for path in files], self.images)

    def _load(self) -> tuple[dict[Path, dict[str, Any]], list[str]]:
        """Returns path to content of the annotation files, and notes on files that are left out."""
        root, notes = self.folder, list[str]()
        hint = "use COCO instances JSON: an object with the lists images, annotations and categories"
        search = False
        if self.file:
            given = [self.file] if isinstance(self.file, (str, Path)) else list(self.file)
            paths = [Path(os.path.normpath(root / Path(name).expanduser())) for name in given]
        elif paths := sorted(root.glob("annotations/instances_*.json")):
            others = format_list((path.name for path in sorted({*root.glob("annotations/*.json")} - {*paths})), 4)
            note = f"left out, because there are instances_*.json: {others} (data=coco data.file=[...] reads others)"
            notes = [note] if others else []
        else:
            search, hint = True, "repair or remove it, or name the files to read: data=coco data.file=..."
            paths = sorted({*root.glob("annotations/*.json"), *root.glob("*.json"), *root.glob("*/*.json")})
            if len(paths) > MAX_FILES:
                name_them = "list those with annotations: data=coco data.file=[train.json,val.json]"
                raise DataError(f"{len(paths):,} JSON files below data.root={root}", name_them)
        found = {}
        for path in paths:
            content, damage = read_json(path)
            problem = damage or _schema_problem(content)
            if damage or (problem and not search):  # found by a search, damaged files may be truncated annotations
                raise DataError(f"{path}: {problem}", hint)
            if problem:
                notes.append(f"left out: {path}: {problem}")
            else:
                found[path] = content
        if not found:
            example = "data.file=annotations/instances_train.json"
            hint = f"set the file: {example}; it must have images, annotations and categories"
            details = [note.removeprefix("left out: ") for note in notes[:5]]
            raise DataError(f"no COCO annotations below data.root={root}", hint, details)
        return found, notes[:5]

    def _read_photos(self, path: Path, content: Mapping[str, Any]) -> dict[Any, Row]:
        """Returns image id to the row of a photo."""
        for place, image in enumerate(content["images"]):
            if not isinstance(image.get("file_name"), str) or not image["file_name"].strip():
                raise DataError(f"{path}: images[{place}] (id {image['id']}) has no file_name", "add one")
        split = base.split_of(path.stem) or base.split_of(path.parent.name)
        folder = self._image_folder(path, content, split)
        found: dict[Any, Row] = {}
        for image in content["images"]:
            if image["id"] in found:
                files = f"{found[image['id']]['path']} and {image['file_name']}"
                raise DataError(f"{path}: image id {image['id']} is used twice: {files}", "ids must be unique")
            file = os.path.normpath(folder / image["file_name"].replace("\\", "/"))
            name = base.photo_name(Path(os.path.relpath(file, self.folder)).as_posix())
            found[image["id"]] = {"name": name, "path": file, "split": split, "source": str(path)}
            width, height = base.number(image.get("width")), base.number(image.get("height"))
            if 0 < width < 10**6 and 0 < height < 10**6:
                found[image["id"]] |= {"width": int(width), "height": int(height)}
        return found

    def _image_folder(self, path: Path, content: Mapping[str, Any], split: str) -> Path:
        """Returns the folder that contains most of the photos, judged by about 20 of them."""
        root = self.folder
        if self.images:
            return Path(os.path.normpath(root / Path(self.images).expanduser()))
        words = [word for word in (*path.stem.split("_"), split, path.parent.name) if word]
        folders = [path.parent, root, root / "images"]
        folders += [root / word for word in words] + [root / "images" / word for word in words]
        names = [row["file_name"].replace("\\", "/") for row in content["images"]]
        names = names[:: max(1, len(names) // 20)]
        return max(folders, key=lambda folder: sum((folder / name).is_file() for name in names))


def _schema_problem(content: Any) -> str:
    if isinstance(content, list):
        return "it is a list, as files of detections are, not an object with images, annotations and categories"
    if not isinstance(content, Mapping):
        return f"it is a {type(content).__name__}"
    missing = [name for name in SECTIONS if not isinstance(content.get(name), list)]
    if missing:
        return f"it lacks the lists {' and '.join(missing)}; it has {format_list(content, 6) or 'nothing'}"
    for name in SECTIONS:
        for place, row in enumerate(content[name]):
            if not isinstance(row, Mapping) or (name != "annotations" and "id" not in row):
                return f"{name}[{place}] is {str(row)[:80]!r}, not an object with an id"
            for key in ("id", "image_id", "category_id"):
                if key in row and not isinstance(row[key], (int, str)):
                    return f"{name}[{place}].{key} is {str(row[key])[:40]}, not a number or text"
    return ""


def _annotation_key(value: Mapping[str, Any], place: int) -> str:
    return str(value.get("id", f"#{place}"))


def _read_categories(path: Path, content: Mapping[str, Any]) -> dict[Any, str]:
    """Returns category id to name."""
    found: dict[Any, str] = {}
    for place, row in enumerate(content["categories"]):
        name = row.get("name")
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{path}: categories[{place}] (id {row['id']}) has no name", "add one")
        if found.setdefault(row["id"], name) != name:
            problem = f"{path}: category id {row['id']} is used for {found[row['id']]!r} and {name!r}"
            raise DataError(problem, "keep one of them")
    return found


def _read_boxes(
    path: Path, content: Mapping[str, Any], photos: Mapping[Any, Row], categories: Mapping[Any, str]
) -> list[Row]:
    rows: list[Row] = []
    counts, seen = Counter[str](), dict[str, int]()
    for place, value in enumerate(content["annotations"]):
        key = _annotation_key(value, place)
        if seen.setdefault(key, place) != place:
            problem = f"{path}: annotation id {key} is used twice: annotations[{seen[key]}] and [{place}]"
            raise DataError(problem, "ids must be unique")
        image_id, category = value.get("image_id"), value.get("category_id")
        photo = str(photos[image_id]["name"]) if image_id in photos else ""
        row: Row = {"photo": photo, "annotation": key, "position": counts[photo]}
        counts[photo] += 1
        row |= {"label": categories.get(category), **_corners(value.get("bbox"))}
        if image_id not in photos:
            row |= {"problem": "no photo", "detail": f"{path}: image_id {image_id!r} is not among images"}
        elif value.get("iscrowd"):
            row |= {"problem": "crowd", "detail": "iscrowd=1"}
        elif row["label"] is None:
            row |= {"problem": "unknown class", "detail": f"{path}: category_id {category!r} is not among categories"}
        rows.append(row | base.attributes({name: entry for name, entry in value.items() if name not in OWN_MEMBERS}))
    return rows


def _corners(box: Any) -> Row:
    if not isinstance(box, list) or len(box) != 4:
        detail = f"bbox is {str(box)[:80]}, not [x, y, width, height]"
        return {**base.corners([0] * 4), "problem": "malformed", "detail": detail}
    row = base.corners(box)
    if not row.get("problem"):
        row |= {"x_max": row["x_min"] + row["x_max"], "y_max": row["y_min"] + row["y_max"]}
    return row
