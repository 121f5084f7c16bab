"""The Mapillary Traffic Sign Dataset as downloaded: one JSON per photo, split lists, 360-degree panoramas.

Source of the layout: the README that comes with the data set (Ertl et al., "The Mapillary Traffic Sign Dataset for
Detection and Classification on a Global Scale", ECCV 2020).
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlfix_train.data.annotations import base
from mlfix_train.data.annotations.base import AnnotationFormat, Annotations, LabelChanges, Row
from mlfix_train.data.annotations.ids import UniqueKeys
from mlfix_train.data.annotations.outlines import around_segmentation
from mlfix_train.data.annotations.write_back import write_copies
from mlfix_train.data.files.documents import read_json
from mlfix_train.data.files.find import FileFinder
from mlfix_train.data.files.json_files import JsonPatch
from mlfix_train.errors import DataError, format_list

WITHOUT_ANNOTATIONS = {"test"}
"""Splits whose annotations are not public."""


@dataclass
class Mtsd(AnnotationFormat):
    """MTSD: ``annotations/<photo>.json``, ``splits/{train,val,test}.txt`` and ``images/`` below ``root``.

    The three may lie deeper, and the photos in several folders called ``images`` (archives unpacked side by side) or in
    folders within. A box whose left edge lies right of its right edge crosses the edge of a panorama; its ``x_max`` is
    then counted beyond the photo's width. Corners refer to the pixels as stored, as in Mapillary's own script. All
    ``properties`` of an object become columns.

    Args:
        root: folder of the data set.
        images: folder of the photos, if it is not below ``root``.
    """

    images: str | Path | None = None

    name = "mtsd"
    stable_keys = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.images = self._locate(self.images, "images")

    @classmethod
    def detect(cls, root: Path) -> int:
        """Looks for split lists, and JSON files in a folder ``annotations``."""
        jsons = (next(folder.glob("*.json"), None) for folder in base.find_folders(root, "annotations"))
        return 2 if base.find_folders(root, "splits") and any(jsons) else 0

    def read(self) -> Annotations:
        """Reads all photos and boxes; a missing folder, two photos of one name or a photo in two splits is an error."""
        files = _annotation_files(self.folder)
        split_folders = base.find_folders(self.folder, "splits")
        lists = base.read_split_lists(file for folder in split_folders for file in sorted(folder.glob("*.txt")))
        folders = (
            [self.folder / Path(self.images).expanduser()] if self.images else base.find_folders(self.folder, "images")
        )
        if not folders or not all(folder.is_dir() for folder in folders):
            missing = f"no folder called images below data.root={self.root}"
            problem = f"data.images={self.images} is not a folder" if self.images else missing
            raise DataError(problem, "unpack the image archives there, or set data.images=<folder>")
        images = _index_images(folders)
        keys = dict.fromkeys([*files, *lists])
        notes = _find_others(images, keys)
        photos, boxes = list[Row](), list[Row]()
        unannotated, repeated, outlined = 0, list[str](), 0
        for key in keys:
            split = lists[key].stem if key in lists else ""
            photo = {"name": key, "split": split, "path": str(images.get(key, folders[0] / f"{key}.jpg"))}
            if key in files:
                facts, rows = _read_photo(files[key], key, repeated)
                outlined += sum(row.pop("outlined", False) for row in rows)
                photos.append({**photo, "source": str(files[key]), **facts})
                boxes += rows
            elif split in WITHOUT_ANNOTATIONS:
                unannotated += 1
            else:
                detail = f"{lists[key]} lists it, but annotations/{key}.json does not exist"
                photos.append({**photo, "source": str(lists[key]), "problem": "no annotation", "detail": detail})
        if repeated:
            text = "object keys repeat within their file; these boxes are told apart by their place"
            notes.append(f"{len(repeated):,} {text}, such as {repeated[0]}")
        if outlined:
            notes.append(f"{outlined:,} boxes have no bbox; the box around their polygon is taken")
        if unannotated:
            notes.append(f"{unannotated:,} photos of the test split have no annotations (they are not public)")
        unlisted = [key for key in files if key not in lists]
        if lists and unlisted:
            notes.append(f"{len(unlisted):,} annotated photos are in no list of splits/: {format_list(unlisted, 3)}")
        return self.build(photos, boxes, notes=notes)

    def write_back(self, annotations: Annotations, changes: LabelChanges, out: Path) -> list[Path]:
        """Writes copies with new labels; arguments as in the base class."""
        homes = sorted({Path(path).parent.parent for path in annotations.photos["source"]})
        lists = [path for home in homes for path in sorted((home / "splits").glob("*.txt"))]
        return write_copies(annotations, changes, out, _patch, lists)

    def open_copies(self, annotations: Annotations, out: Path) -> AnnotationFormat:
        """Returns the data set of the copied annotations and the original photos."""
        return Mtsd(out, os.path.commonpath([os.path.dirname(path) for path in annotations.photos["path"]]))


def _annotation_files(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in base.find_folders(root, "annotations"):
        for path in sorted(path for path in folder.glob("*.json") if base.is_visible(path.name)):
            if found.setdefault(path.stem, path) != path:
                problem = f"two annotation files describe {path.stem}: {found[path.stem]} and {path}"
                raise DataError(problem, "keep one of them, or set data.root to a folder with one")
    if not found:
        hint = "set data.root to the unpacked MTSD (mtsd_v2_fully_annotated), or use another format: data=boxes"
        raise DataError(f"no folder annotations/ with one JSON per photo below data.root={root}", hint)
    return found


def _index_images(folders: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in (path for folder in folders for path in base.images_below(folder)):
        if found.setdefault(base.photo_name(path.name), path) != path:
            raise DataError(f"two photos are called {path.stem}: {found[path.stem]} and {path}", "remove or rename one")
    return found


def _find_others(images: dict[str, Path], keys: Iterable[str]) -> list[str]:
    """Adds the images of photos whose name is written in another case or Unicode form; returns notes."""
    missing = [key for key in keys if key not in images]
    if not missing or not images:
        return []
    finder = FileFinder(".", images, anywhere=False)
    names = [*(key for key in keys if key in images), *missing]
    images |= {key: images[name] for key, name in zip(names, finder.find_all(names), strict=True) if name is not None}
    return finder.notes()


def _read_photo(file: Path, key: str, repeated: list[str]) -> tuple[Row, list[Row]]:
    """Returns the columns of a photo and the rows of its boxes; adds keys that occur twice to ``repeated``."""
    content, problem = read_json(file, allow_nan=True)
    if problem := problem or _schema_problem(content):
        return {"problem": "annotation unreadable", "detail": f"{file}: {problem}"}, []
    width, height = (int(base.number(content[side])) for side in ("width", "height"))
    panorama, keys = bool(content.get("ispano", False)), UniqueKeys()
    rows = [
        _read_object(value, key, keys.add(_object_id(value), place, missing=""), place, width, panorama)
        for place, value in enumerate(content["objects"])
    ]
    repeated += (f"{name} in {file}" for name in keys.repeated)
    return {"width": width, "height": height, "panorama": panorama}, rows


def _patch(file: Path, labels: Mapping[str, str | None], target: Path) -> None:
    patch, unique = JsonPatch(file), UniqueKeys()
    objects = (value for *_, value in patch.listed("objects"))
    keys = [unique.add(_object_id(value), place, missing="") for place, value in enumerate(objects)]
    patch.relabel("objects", keys, "label", labels)
    patch.write(target)


def _object_id(value: Any) -> Any:
    return value.get("key") if isinstance(value, Mapping) else None


def _schema_problem(content: Any) -> str:
    if not isinstance(content, dict):
        return f"it is a {type(content).__name__} instead of an object with width, height and objects"
    missing = [name for name in ("width", "height", "objects") if name not in content]
    if missing:
        return f"no {' and no '.join(missing)}; it has {format_list(content, 6) or 'nothing'}"
    for name in ("width", "height"):
        if not 0 < base.number(content[name]) < 10**6:
            return f"{name} is {content[name]!r}"
    if not isinstance(content["objects"], list):
        return f"objects is a {type(content['objects']).__name__}, not a list"
    return ""


def _read_object(value: Any, photo: str, key: str, place: int, width: int, panorama: bool) -> Row:
    row: Row = {"photo": photo, "annotation": key, "position": place, "label": None, **base.corners([0] * 4)}
    box = value.get("bbox") if isinstance(value, Mapping) else None
    outline = around_segmentation(value.get("polygon")) if isinstance(value, Mapping) and not box else None
    if not isinstance(value, Mapping) or not (isinstance(box, Mapping) or outline):
        return {**row, "problem": "malformed", "detail": f"object {place} has no bbox: {json.dumps(value)[:120]}"}
    box = box if isinstance(box, Mapping) else {}
    row |= base.corners(outline or (box.get(name) for name in ("xmin", "ymin", "xmax", "ymax")))
    row |= base.attributes(value.get("properties"))
    row |= {"outlined": True} if outline else {}
    if (label := base.label_text(value.get("label"))) is not None:
        row["label"] = label
    elif not row.get("problem"):
        row |= {"problem": "no label", "detail": f"label is {value.get('label')!r}"}
    return row | _wrap_around(row, box.get("cross_boundary") or value.get("cross_boundary"), width, panorama)


def _wrap_around(row: Row, parts: Any, width: int, panorama: bool) -> Row:
    """Returns what changes in a box that crosses the edge of a panorama: ``x_max`` then exceeds the width.

    Without ``cross_boundary``, swapped corners in a panorama count as a crossing if the box is narrower that way;
    otherwise they stay swapped, which cropping reports.
    """
    left, right = row["x_min"], row["x_max"]
    if left > right and (parts or (panorama and width - left + right < left - right)):
        return {"x_max": right + width, "wraps": True}
    if isinstance(parts, Mapping) and all(isinstance(part, Mapping) for part in parts.values()) and len(parts) == 2:
        first, second = sorted(parts.values(), key=lambda part: -base.number(part.get("xmin")))
        left, right = base.number(first.get("xmin")), base.number(second.get("xmax"))
        if base.number(first.get("xmax")) >= width - 2 and base.number(second.get("xmin")) <= 2 and right < left:
            return {"x_min": left, "x_max": right + width, "wraps": True}
    return {"wraps": False}
