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
from mlfix_train.data.annotations.ids import Id, IdIndex, UniqueKeys, id_text, is_id
from mlfix_train.data.annotations.mtsd import Mtsd
from mlfix_train.data.annotations.outlines import around_segmentation
from mlfix_train.data.annotations.photos import PhotoFinder
from mlfix_train.data.annotations.write_back import copy_path, write_copies
from mlfix_train.data.files.documents import read_json
from mlfix_train.data.files.json_files import JsonPatch
from mlfix_train.errors import DataError, format_list

MAX_FILES = 200
"""JSON files that are opened to see whether they hold annotations."""
SECTIONS = ("images", "annotations", "categories")
OWN_MEMBERS = ("id", "image_id", "category_id", "bbox", "segmentation", "iscrowd", "keypoints")
"""Members of an annotation that don't become columns."""
FORM = "form of categories"
"""Added to the content of a file whose categories are an object, instead of a list: how it is read."""
OTHER_TOOLS = {
    ("data", "annotations"): "Label Studio's own JSON",
    ("shapes", "imagePath"): "labelme's JSON of one photo",
    ("image", "annotations"): "CreateML's JSON",
    ("asset", "regions"): "VoTT's JSON of one photo",
    ("_via_img_metadata",): "a project of the VGG Image Annotator",
}
"""Members that JSON of other tools has, and what it is."""
LOOKED_AT = 1 << 20
"""Bytes of a JSON file in which the names of the three sections are looked for, to detect the format."""


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

    def __post_init__(self) -> None:
        super().__post_init__()
        self.file, self.images = self._locate(self.file, "file"), self._locate(self.images, "images")
        self._originals: dict[Path, Path] = {}
        """Copies of annotation files, and the files beside whose photos they are read."""

    @classmethod
    def detect(cls, root: Path) -> int:
        """Looks for JSON files in COCO's usual places that name the three sections, unless they are MTSD's."""
        found = _json_files(root)
        if not found or Mtsd.detect(root):
            return 0
        return 2 if any(map(_names_sections, found[:MAX_FILES])) else 1

    def read(self) -> Annotations:
        """Reads all photos and boxes; a missing file, another schema or an id of two photos is an error."""
        photos, boxes = list[Row](), list[Row]()
        classes: dict[str, None] = {}
        files, notes = self._load()
        for path, content in files.items():
            reader = _FileReader(self, path, content)
            classes |= dict.fromkeys(reader.categories.values())
            photos += reader.read_photos()
            boxes += reader.read_boxes()
            notes += reader.notes()
        return self.build(photos, boxes, classes, notes)

    def write_back(self, annotations: Annotations, changes: LabelChanges, out: Path) -> list[Path]:
        """Writes copies with new labels; a label that a file lacks becomes a category with an unused id."""
        files, _ = self._load()
        categories = {path: _categories_of(path, content)[0] for path, content in files.items()}
        ids_anywhere: dict[str, Id] = {}  # a label of another file keeps its id
        used: set[Id] = set()
        for names in categories.values():
            ids_anywhere |= {name: key for key, name in reversed(names.items())}
            used |= set(names)
        for content in files.values():  # of categories without a name, too, and those that only annotations mention
            used |= {key for row in content["categories"] if is_id(key := _member(row, "id"))}
            used |= {key for row in content["annotations"] if is_id(key := _member(row, "category_id"))}

        as_text = all(isinstance(key, str) for names in categories.values() for key in names)

        def patch(path: Path, labels: Mapping[str, str | None], target: Path) -> None:
            ids = {name: key for key, name in reversed(categories[path].items())}
            added = []
            for label in sorted({label for label in labels.values() if label is not None} - set(ids)):
                if label not in ids_anywhere or ids_anywhere[label] in ids.values():
                    ids_anywhere[label] = _unused_id(used, as_text)
                ids[label] = ids_anywhere[label]
                used.add(ids[label])
                added.append({"id": ids[label], "name": label})
            file = JsonPatch(path)
            rows = [value for *_, value in file.listed("annotations")]
            unique = UniqueKeys()
            keys = [unique.add(_member(row, "id"), place) for place, row in enumerate(rows)]
            index = IdIndex(ids.values())
            new_ids: dict[str, Id | None] = {}
            for key, row in zip(keys, rows, strict=True):
                if (new := labels.get(key)) is not None:
                    new_ids[key] = _written_like(row.get("category_id"), ids[new], index)
                elif key in labels:
                    new_ids[key] = None
            file.relabel("annotations", keys, "category_id", new_ids)
            if added and FORM in files[path]:
                problem = f"{path}: categories is an object, to which {added[0]['name']!r} can't be added"
                raise DataError(problem, 'write it as COCO\'s list, [{"id": 1, "name": "stop"}, ...], and crop again')
            if added:
                file.append("categories", added)
            file.write(target)

        return write_copies(annotations, changes, out, patch, files)

    def open_copies(self, annotations: Annotations, out: Path) -> AnnotationFormat:
        """Returns the data set of the copied annotations and the original photos."""
        originals = {Path(os.path.abspath(copy_path(annotations, path, out))): path for path in self._load()[0]}
        copies = Coco(self.root, [str(path) for path in originals], self.images)
        copies._originals = originals
        return copies

    def _load(self) -> tuple[dict[Path, dict[str, Any]], list[str]]:
        """Returns path to content of the annotation files, and notes on files that are left out."""
        root, notes = self.folder, list[str]()
        hint = "use COCO instances JSON: an object with the lists images, annotations and categories"
        search = False
        if self.file:
            given = [self.file] if isinstance(self.file, (str, Path)) else list(self.file)
            paths = [Path(os.path.normpath(root / Path(name).expanduser())) for name in given]
        elif paths := _instances_files(root):
            beside = {path for folder in {path.parent for path in paths} for path in folder.glob("*.json")}
            others = format_list((path.name for path in sorted(beside - {*paths})), 4)
            note = f"left out, because there are instances_*.json: {others} (data=coco data.file=[...] reads others)"
            notes = [note] if others else []
        else:
            search, hint = True, "repair or remove it, or name the files to read: data=coco data.file=..."
            paths = _json_files(root)
            if len(paths) > MAX_FILES:
                name_them = "list those with annotations: data=coco data.file=[train.json,val.json]"
                raise DataError(f"{len(paths):,} JSON files below data.root={root}", name_them)
        found = {}
        for path in paths:
            content, damage = read_json(path, allow_nan=True)
            problem = damage or _list_categories(content) or _schema_problem(content)
            if damage or (problem and not search):  # found by a search, damaged files may be truncated annotations
                raise DataError(f"{path}: {problem}", hint)
            if problem:
                notes.append(f"left out: {path}: {problem}")
                continue
            if any(isinstance(_member(row, "name"), float) for row in content["categories"]):
                written = read_json(path, allow_nan=True, exact=True)[0]
                _list_categories(written)
                for row, exact in zip(content["categories"], written["categories"], strict=True):
                    if isinstance(_member(row, "name"), float):
                        row["name"] = _WrittenNumber(exact["name"])
            found[path] = content
        if not found:
            example = "data.file=annotations/instances_train.json"
            hint = f"set the file: {example}; it must have images, annotations and categories"
            details = [note.removeprefix("left out: ") for note in notes[:5]]
            raise DataError(f"no COCO annotations below data.root={root}", hint, details)
        return found, notes[:5]


def _json_files(root: Path) -> list[Path]:
    """Returns the JSON files in ``annotations/``, in the root, one level below it, or in ``annotations/`` there."""
    found = {*root.glob("*.json"), *root.glob("*/*.json")}
    for folder in base.find_folders(root, "annotations", 2):
        found |= {*folder.glob("*.json")}
    return sorted(path for path in found if base.is_visible(path.relative_to(root)))


def _instances_files(root: Path) -> list[Path]:
    folders = base.find_folders(root, "annotations", 1)
    return sorted(path for folder in folders for path in folder.glob("instances_*.json"))


def _names_sections(path: Path) -> bool:
    """Returns whether a file seems to be COCO instances, by its beginning and end; large files are not read whole."""
    try:
        with open(path, "rb") as file:
            text = file.read(LOOKED_AT)
            if os.path.getsize(path) > LOOKED_AT:
                file.seek(-LOOKED_AT, os.SEEK_END)
                text += file.read()
    except OSError:
        return False
    text = text.replace(b"\0", b"")  # UTF-16
    return sum(f'"{name}"'.encode() in text for name in SECTIONS) >= (2 if len(text) > LOOKED_AT else 3)


class _FileReader:
    """Reads one JSON file: its categories at once, then the photos, then the boxes."""

    def __init__(self, source: Coco, path: Path, content: Mapping[str, Any]) -> None:
        self.root, self.path, self.content = source.folder, path, content
        names = filter(None, map(_file_name, content["images"]))
        self.finder = PhotoFinder(source.folder, source.images, source._originals.get(path, path), names)
        self.categories, self._bad_categories = _categories_of(path, content)
        self._photos: dict[Id, Row] = {}
        self._notes = [f"{self.path.name}: {problem}" for problem in self._bad_categories.values()]
        numbers = [
            row["name"] for row in content["categories"] if isinstance(_member(row, "name"), (int, _WrittenNumber))
        ]
        self._notes += base.same_names(path, self.categories.items())
        pairs = ((_member(row, "id"), _member(row, "name")) for row in content["categories"])
        self._notes += base.padded_names(path, pairs)
        if FORM in content:
            self._notes.append(f"{path.name}: categories is an object, not a list; it is read as {content[FORM]}")
        if numbers:
            text = "category names are numbers; their digits are the labels"
            self._notes.append(f"{path.name}: {len(numbers):,} {text}, such as {base.label_text(numbers[0])!r}")

    def read_photos(self) -> list[Row]:
        """Returns a row per photo; of images that have no id or file name, a row with a problem."""
        images, rows = self._read_images()
        sizes = {image["id"]: image for image in self.content["images"] if is_id(_member(image, "id"))}
        found = dict(zip(images, self.finder.find(list(images.values())), strict=True))
        by_path: dict[str, Row] = {}
        shared = 0
        for key, (path, problem) in found.items():
            name = base.photo_name(Path(os.path.relpath(path, self.root)).as_posix())
            row: Row = {"name": name, "path": path, "split": self.finder.split, "source": str(self.path)}
            row |= {"problem": "photo missing", "detail": f"{self.path}: {problem}"} if problem else {}
            width, height = base.number(sizes[key].get("width")), base.number(sizes[key].get("height"))
            if 0 < width < 10**6 and 0 < height < 10**6:
                row |= {"width": int(width), "height": int(height)}
            first = by_path.setdefault(path, row)
            if any(first.get(side) != row.get(side) for side in ("width", "height")):
                rows.append(row)  # two photos by their sizes: one of the names is wrong
                first = row
            self._photos[key] = first
            shared += first is not row
        if shared:
            repeated = [path for path, count in Counter(path for path, _ in found.values()).items() if count > 1]
            text = (
                f"images have the file of another one, in the same size, such as {repeated[0]}; their boxes are joined"
            )
            remedy = "if they are different photos, write the folder of each into file_name"
            self._notes.append(f"{self.path.name}: {shared:,} {text}; {remedy}")
        counts = Counter(row["name"] for row in by_path.values())
        for path, row in by_path.items():
            if counts[row["name"]] > 1:  # p.jpg beside p.png
                row["name"] += Path(path).suffix
        return [*by_path.values(), *rows]

    def _read_images(self) -> tuple[dict[Id, str], list[Row]]:
        """Returns image id to file name, and rows of images that lack one of them."""
        rows: list[Row] = []
        images: dict[Id, str] = {}
        for place, image in enumerate(self.content["images"]):
            name, key, problem = _file_name(image), _member(image, "id"), ""
            if not is_id(key):
                problem = f"images[{place}] is {str(image)[:80]}, not an object with an id"
            elif not name:
                problem = f"images[{place}] (id {key}) has no file_name"
            elif images.setdefault(key, name) != name:
                hint = "give each image an id of its own, in its annotations, too"
                raise DataError(f"{self.path}: image id {key} is used twice: {images[key]} and {name}", hint)
            if problem:
                row = {"name": f"{self.path.stem}.images[{place}]", "path": "", "split": self.finder.split}
                row |= {"source": str(self.path), "problem": "malformed", "detail": f"{self.path}: {problem}"}
                rows.append(row)
                if is_id(key):
                    self._photos.setdefault(key, row)
        if rows and not images:
            raise DataError(str(rows[0]["detail"]), "add one")
        return images, rows

    def read_boxes(self) -> list[Row]:
        """Returns a row per annotation."""
        rows: list[Row] = []
        positions, keys, outlined = Counter[str](), UniqueKeys(), 0
        photos, categories = IdIndex(self._photos), IdIndex(self.categories)
        for place, value in enumerate(self.content["annotations"]):
            key = keys.add(_member(value, "id"), place)
            if not isinstance(value, Mapping):
                row = {
                    "photo": "",
                    "annotation": key,
                    "position": positions[""],
                    "label": None,
                    **base.corners([0] * 4),
                }
                positions[""] += 1
                detail = f"{self.path}: annotations[{place}] is {str(value)[:80]}, not an object"
                rows.append({**row, "problem": "malformed", "detail": detail})
                continue
            image_id, category_id = photos.find(value.get("image_id")), categories.find(value.get("category_id"))
            photo = "" if image_id is None else str(self._photos[image_id]["name"])
            row = {"photo": photo, "annotation": key, "position": positions[photo]}
            positions[photo] += 1
            label = None if category_id is None else self.categories[category_id]
            box = _corners(value.get("bbox"))
            if box.get("problem") == "malformed" and (around := around_segmentation(value.get("segmentation"))):
                box, outlined = base.corners(around), outlined + 1
            row |= {"label": label, **box}
            if image_id is None:
                detail = f"image_id {value.get('image_id')!r} is not among images"
                row |= {"problem": "no photo", "detail": f"{self.path}: annotations[{place}]: {detail}"}
            elif value.get("iscrowd"):
                row |= {"problem": "crowd", "detail": "iscrowd=1"}
            elif category_id is None:
                given = value.get("category_id")
                known = self._bad_categories.get(given) if is_id(given) else None
                detail = known or f"category_id {given!r} is not among categories"
                row |= {"problem": "unknown class", "detail": f"{self.path}: annotations[{place}]: {detail}"}
            elif row.get("problem"):
                row["detail"] = f"{self.path}: annotations[{place}]: {row['detail']}"
            others = {name: entry for name, entry in value.items() if name not in OWN_MEMBERS}
            rows.append(row | base.attributes(others))
        for name, index in (("image_id", photos), ("category_id", categories)):
            if index.by_digits:
                text = "values are text where the id is a number, or the other way round; their digits are matched"
                self._notes.append(f"{self.path.name}: {index.by_digits:,} {name} {text}")
        self._check_convention(rows)
        if keys.repeated:
            text = f"annotation ids repeat, such as {keys.repeated[0]}"
            text += "; these boxes are told apart by their place in the file"
            self._notes.append(f"{self.path.name}: {len(keys.repeated):,} {text}")
        if outlined:
            text = "boxes have no bbox; the box around their segmentation is taken"
            self._notes.append(f"{self.path.name}: {outlined:,} {text}")
        return rows

    def _check_convention(self, rows: list[Row]) -> None:
        """Raises a DataError if most boxes leave their photo, and all would fit in as two corners."""
        sizes = {str(row["name"]): (row.get("width", 0), row.get("height", 0)) for row in self._photos.values()}
        leaving, number, example = 0, 0, ""
        for row in rows:
            width, height = sizes.get(row["photo"], (0, 0))
            if row.get("problem") or not width:
                continue
            x, y, right, bottom = (row[edge] for edge in base.EDGES)
            if not (x < right - x <= width + 1 and y < bottom - y <= height + 1):
                return
            number += 1
            if right > width + 1 or bottom > height + 1:
                leaving += 1
                box = f"[{x:g}, {y:g}, {right - x:g}, {bottom - y:g}] in a photo of {width} x {height}"
                example = example or f"{row['photo']}: {box}"
        if number > 1 and leaving > number / 2:
            problem = (
                f"{self.path}: {leaving:,} of {number:,} boxes leave their photo as [x, y, width, height], and all"
            )
            hint = "COCO's bbox is [x, y, width, height]: write x2 - x1 and y2 - y1 as the last two numbers"
            raise DataError(f"{problem} fit as two corners [x1, y1, x2, y2], such as {example}", hint)

    def notes(self) -> list[str]:
        """Returns what the user should know about the reading."""
        return [*self._notes, *(f"{self.path.name}: {note}" for note in self.finder.notes())]


class _WrittenNumber(str):
    """The digits of a number, as they are written."""

    __slots__ = ()


def _member(row: Any, name: str) -> Any:
    return row.get(name) if isinstance(row, Mapping) else None


def _file_name(image: Any) -> str:
    """Returns the ``file_name`` of an image, empty if it has none."""
    name = _member(image, "file_name")
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    return name if isinstance(name, str) and name.strip() else ""


def _list_categories(content: Any) -> str:
    """Makes COCO's list of categories that are an object; returns why that can't be done.

    It gives names by ids, ids by names (whichever the annotations' ids fit), or categories by ids.
    """
    given = content.get("categories") if isinstance(content, Mapping) else None
    if not isinstance(given, Mapping) or not given or not isinstance(content.get("annotations"), list):
        return ""
    if all(isinstance(value, Mapping) for value in given.values()):
        rows, form = [{"id": key, **value} for key, value in given.items()], "id: category"
    else:
        used = {id_text(key) for row in content["annotations"] if is_id(key := _member(row, "category_id"))}
        fitting = [len(used & {id_text(key) for key in ids if is_id(key)}) for ids in (given.keys(), given.values())]
        if fitting[0] == fitting[1]:
            return "categories is an object, of which it is not certain whether it gives names by ids or ids by names"
        by_id = fitting[0] > fitting[1]
        rows = [dict(zip(("id", "name") if by_id else ("name", "id"), pair, strict=True)) for pair in given.items()]
        form = "id: name" if by_id else "name: id"
    content |= {"categories": rows, FORM: form}
    return ""


def _schema_problem(content: Any) -> str:
    first = content[0] if isinstance(content, list) and content else content
    keys = set(first) if isinstance(first, Mapping) else set()
    for marks, tool in OTHER_TOOLS.items():
        if keys.issuperset(marks):
            return f"it is {tool}; export or convert it as COCO, YOLO or Pascal VOC"
    if isinstance(content, list):
        return "it is a list, as files of detections are, not an object with images, annotations and categories"
    if not isinstance(content, Mapping):
        return f"it is a {type(content).__name__}"
    missing = [name for name in SECTIONS if not isinstance(content.get(name), list)]
    no_lists = [f"{name} is a {type(content[name]).__name__}" for name in missing if content.get(name) is not None]
    if no_lists:
        return f"{' and '.join(no_lists)}, not a list"
    if missing:
        return f"it lacks the lists {' and '.join(missing)}; it has {format_list(content, 6) or 'nothing'}"
    return ""


def _categories_of(path: Path, content: Mapping[str, Any]) -> tuple[dict[Id, str], dict[Any, str]]:
    """Returns category id to name, and id to what is wrong with categories that can't be used."""
    found: dict[Id, str] = {}
    problems: dict[Any, str] = {}
    for place, row in enumerate(content["categories"]):
        key, name = _member(row, "id"), base.label_text(_member(row, "name"))
        if not is_id(key):
            problems[f"#{place}"] = f"categories[{place}] is {str(row)[:80]}, not an object with an id"
        elif name is None:
            problems[key] = f"categories[{place}] (id {key}) has no name"
        elif found.setdefault(key, name) != name:
            problem = f"{path}: category id {key} is used for {found[key]!r} and {name!r}"
            raise DataError(problem, "keep one of them")
    if problems and not found:
        raise DataError(f"{path}: {next(iter(problems.values()))}", "add one")
    return found, problems


def _unused_id(used: set[Id], as_text: bool) -> Id:
    """Returns an id for a new category, as text or as a number."""
    texts = [id_text(key) for key in used]
    number = 1 + max((int(text) for text in texts if text.isascii() and text.isdecimal()), default=0)
    return str(number) if as_text else number


def _written_like(old: Any, new: Id, known: IdIndex) -> Id:
    """Returns a category's id as text or number, as the annotation had it before, if it means the same category."""
    text = id_text(new)
    if isinstance(old, str) and not isinstance(new, str) and known.find(text) == new:
        return text
    if isinstance(old, int) and isinstance(new, str) and text.isdecimal() and known.find(int(text)) == new:
        return int(text)
    return new


def _corners(box: Any) -> Row:
    if not isinstance(box, list) or len(box) != 4 or not any(box):
        detail = f"bbox is {str(box)[:80]}, not [x, y, width, height]"
        return {**base.corners([0] * 4), "problem": "malformed", "detail": detail}
    row = base.corners(box)
    if not row.get("problem"):
        row |= {"x_max": row["x_min"] + row["x_max"], "y_max": row["y_min"] + row["y_max"]}
    return row
