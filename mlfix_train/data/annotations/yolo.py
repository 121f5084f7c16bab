"""YOLO data sets: one text file per photo, one line per box, coordinates as fractions of the photo's sides.

Source of the format: "Object Detection Datasets Overview" in Ultralytics' documentation. The label file of a photo has
its path with the last ``images`` replaced by ``labels`` (it lies beside the photo if there is none). Corners refer to
photos rotated by their EXIF orientation, as OpenCV loads them there.
"""

import contextlib
import json
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mlfix_train.data.annotations import base
from mlfix_train.data.annotations.base import AnnotationFormat, Annotations, LabelChanges, Row
from mlfix_train.data.annotations.write_back import copy_path, write_copies
from mlfix_train.data.files.documents import NULL, decode_text, parse_yaml, read_yaml
from mlfix_train.data.files.find import FileFinder
from mlfix_train.errors import DataError, format_list, nearest

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test", "valid", "minival")
OUTLINE_TASKS = ("segment", "obb")
"""What ``task`` in a ``data.yaml`` says of lines that are polygons or oriented boxes."""
MOST = 0.5
"""Share of the lines with coordinates of pixels from which on there is an error."""
CLASS_FILES = ("classes.txt", "obj.names", "labels.txt", "names.txt", "_darknet.labels")


@dataclass
class Yolo(AnnotationFormat):
    """A YOLO data set. ``annotation`` is the line number, from 1.

    Of polygons and oriented boxes (four corners) the bounding box is taken, of pose labels (``kpt_shape`` in
    ``data.yaml``) the box before the key points. Lines that may be both need ``kpt_shape`` or ``task: segment``.

    Args:
        root: folder of the data set.
        file: ``data.yaml`` (class names, and folders or lists of photos for each split), or a text file with one class
            name per line; by default found in ``root``. If it names no splits, all photos below ``root`` are read.
    """

    file: str | Path | None = None

    name = "yolo"
    normalized = True
    exif_applied = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.file = self._locate(self.file, "file")

    @classmethod
    def detect(cls, root: Path) -> int:
        """Looks for a YAML that mentions ``names``, or for a class list."""
        return 2 if any(map(_mentions_names, _yaml_files(root))) or _class_files(root) else 0

    def read(self) -> Annotations:
        """Reads all photos and boxes; no class names, photos or boxes, or photos that share labels, is an error."""
        root = self.folder
        names_file = find_class_names(root, self.file)
        names, settings = read_class_names(names_file)
        listed = _ListedPhotos(root, names_file, settings or _darknet_settings(names_file))
        images, notes = listed.splits, listed.notes
        if images and not any(path.is_relative_to(root) for path in images):  # `path:` leads elsewhere
            root = Path(os.path.commonpath([path.parent for path in images]))
            root = root.parent if root.name.lower() == "images" else root
        for path in [] if images else base.images_below(root):
            images[path] = next(filter(None, map(base.split_of, path.relative_to(root).parts[:-1])), "")
        label_files, found_notes = _find_label_files(root, images, names_file)
        photos, boxes = list[Row](), list[Row]()
        owners: dict[str, Path] = {}
        parser = _LineParser(names, names_file, settings)
        empty = 0
        for path, split in images.items():
            label_file = label_files[path]
            if owners.setdefault(label_file, path) != path:
                raise DataError(f"two photos share {label_file}: {owners[label_file]} and {path}", "rename one of them")
            name = base.photo_name(Path(os.path.relpath(path, root)).as_posix())
            rows, problem = _read_label_file(label_file, name, parser)
            photo = {"name": name, "path": str(path), "split": split, "source": label_file}
            if path in listed.missing:
                photo |= {"problem": "photo missing", "detail": listed.missing[path]}
            elif problem:
                photo |= {"problem": "annotation unreadable", "detail": problem}
            photos.append(photo)
            empty += not rows and path not in listed.missing
            boxes += rows
        boxes += _orphaned_boxes(owners, names_file, parser)
        notes += _disagreeing_lists(root, names_file, names) if self.file is None else []
        given = settings.get("names") or []
        notes += base.padded_names(names_file, given.items() if isinstance(given, Mapping) else enumerate(given))
        notes += base.same_names(names_file, names.items()) + found_notes + parser.finish()
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
            text, encoding, mark = decode_text(file.read_bytes())
            target.write_bytes(mark + _relabel_lines(text, labels, numbers).encode(encoding))

        written = write_copies(annotations, changes, out, patch)
        for photo in map(Path, annotations.photos["path"]):  # YOLO's tools look for photos beside the labels
            target = copy_path(annotations, photo, out)
            if photo.exists() and not target.exists():
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
            reason = "is a folder" if path.is_dir() else f"does not exist in {root}"
            raise DataError(f"data.file={file} {reason}", hint)
        return path
    found, unreadable = list[Path](), list[DataError]()
    for path in filter(_mentions_names, _yaml_files(root)):
        try:
            found += [path] if "names" in _load_yaml(path) else []
        except DataError as error:
            if path.stem == "data":
                raise
            unreadable.append(error)
    if unreadable and not found:
        raise unreadable[0]
    if len(found) > 1:
        names = format_list(path.name for path in found)
        found = [path for path in found if path.stem == "data"]
        if len(found) != 1:
            raise DataError(f"{root} contains several class lists: {names}", "choose one: data.file=<file>")
    if not found:
        found = _class_files(root)
        listed = {path: [line for line in _read_lines(path) if line] for path in found}
        others = [path for path in found if listed[path] != listed[found[0]]]
        if others:
            problem = f"{root} contains class lists that disagree: {found[0].relative_to(root)} has "
            problem += f"{format_list(listed[found[0]], 3)}, {others[0].relative_to(root)} has "
            hint = f"choose one: data=yolo data.file={found[0].relative_to(root)}, or remove the other"
            raise DataError(problem + format_list(listed[others[0]], 3), hint)
    if not found:
        hint = "YOLO needs data.yaml with names, or classes.txt; set data.file=<file>"
        raise DataError(f"no class list in data.root={root}", hint)
    return found[0]


def _disagreeing_lists(root: Path, names_file: Path, names: Mapping[int, str]) -> list[str]:
    """Returns a note if other files in the folder name other classes, or in another order, than the one read."""
    for path in [*filter(_mentions_names, _yaml_files(root)), *_class_files(root)]:
        with contextlib.suppress(DataError):
            others = [] if path == names_file else [*read_class_names(path)[0].values()]
            if others and others != [*names.values()]:
                shown = (
                    f"{format_list(names.values(), 3)}, not {format_list(others, 3)} as {path.relative_to(root)} says"
                )
                return [f"class names are those of {names_file.name}: {shown} (data=yolo data.file=... chooses)"]
    return []


def _class_files(root: Path) -> list[Path]:
    """Returns the text files that may name the classes."""
    below = sorted(entry for entry in root.iterdir() if entry.is_dir())
    return [folder / name for folder in (root, *below) for name in CLASS_FILES if (folder / name).is_file()]


def _is_yaml(path: Path) -> bool:
    return path.suffix.lower() in (".yaml", ".yml")


def _yaml_files(root: Path) -> list[Path]:
    return sorted(path for path in {*root.glob("*.yaml"), *root.glob("*.yml")} if base.is_visible(path.name))


def _mentions_names(path: Path) -> bool:
    return b"names" in path.read_bytes().replace(b"\0", b"")  # UTF-16


def _load_yaml(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    return dict(content) if isinstance(content, Mapping) else {}


def _setting(settings: Mapping[str, Any], key: str) -> Any:
    """Returns a setting of a ``data.yaml`` as text, list or mapping; ``None`` if it is not set or null."""
    value = settings.get(key)
    return None if isinstance(value, str) and value in NULL else value


def read_class_names(path: Path) -> tuple[dict[int, str], dict[str, Any]]:
    """Returns class number to name, and the other settings of a ``data.yaml``, which has to name classes.

    Names and settings are text as it is written: a class ``020`` or ``no`` is called so.
    """
    settings: dict[str, Any] = {}
    if _is_yaml(path):
        settings = _load_yaml(path)
        given = settings.get("names")
        if not isinstance(given, (Mapping, list)):
            raise DataError(f"{path}: names is {given!r}", "use a list of class names, or number: name")
        listed = dict(given) if isinstance(given, Mapping) else {str(place): name for place, name in enumerate(given)}
    else:
        lines = _read_lines(path)
        listed = {str(place): line for place, line in enumerate(lines) if line}
    names: dict[int, str] = {}
    for key, name in listed.items():
        if not (key.isascii() and key.isdecimal()):
            raise DataError(f"{path}: names has a key that is not a number ({key!r})", "use number: name")
        if int(key) in names:
            raise DataError(f"{path}: names has the number {int(key)} twice", "remove or renumber one of them")
        if not isinstance(name, str):
            raise DataError(f"{path}: class {key} is called {name!r}, which is not text", 'quote it: "name"')
        if not name.strip():
            raise DataError(f"{path}: class {key} has an empty name", "add one")
        names[int(key)] = name.strip()
    if not names:
        raise DataError(f"{path} lists no classes", "add a list of class names")
    count = str(settings.get("nc", len(names)))
    if count.isdecimal() and int(count) not in (len(names), max(names) + 1):
        problem = f"{path}: nc is {count}, and there are {len(names):,} names: {format_list(names.values(), 5)}"
        raise DataError(problem, "complete the names, or correct or remove nc")
    return names, settings


def _read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file without blanks around them."""
    try:
        return [line.strip() for line in decode_text(path.read_bytes())[0].splitlines()]
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}: line {line} is not {error.encoding.upper()}", "save it again as UTF-8") from error


def _darknet_settings(names_file: Path) -> dict[str, Any]:
    """Returns the lists of photos that ``obj.data`` beside a class list names, as far as they exist."""
    settings: dict[str, Any] = {}
    for file in sorted(names_file.parent.glob("*.data")):
        pairs = (line.partition("=") for line in _read_lines(file) if "=" in line)
        for key, _, value in ((key.strip(), _, value.strip()) for key, _, value in pairs):
            lists = (names_file.parent / value, names_file.parent / value.removeprefix("data/"))
            found = next((path for path in lists if path.is_file()), None)
            if key in SPLITS and found:
                settings[key] = str(found)
    return settings


class _ListedPhotos:
    """The photos that a ``data.yaml`` or ``obj.data`` names.

    ``splits`` are photo to split, ``missing`` the photos among them that a list names and that are not there, with the
    reason, ``notes`` what is left out or was read otherwise than as written.
    """

    def __init__(self, root: Path, names_file: Path, settings: Mapping[str, Any]) -> None:
        self.root, self.names_file, self.home = root, names_file, names_file.parent
        self.splits: dict[Path, str] = {}
        self.missing: dict[Path, str] = {}
        self.notes: list[str] = []
        self._finders: dict[Path, FileFinder] = {}
        self._no_home = ""
        if stated := _setting(settings, "path"):
            path = Path(str(stated)).expanduser()
            candidates = [path] if path.is_absolute() else list(dict.fromkeys([self.home / path, root / path]))
            home = next((folder for folder in candidates if folder.is_dir()), None)
            if home is None:
                places = " and ".join(str(Path(os.path.normpath(place))) for place in candidates)
                self._no_home = f"path: {stated} is not there (looked for at {places})"
            self.home = home or self.home
        repeated = 0
        for split in SPLITS:
            given = _setting(settings, split) or []
            for entry in given if isinstance(given, list) else [given]:
                try:
                    found = self._photos_of(split, str(entry))
                except DataError as error:
                    if split != "test":  # a test split is often named but not shipped
                        raise
                    self.notes.append(f"{error.problem}: it is left out")
                    continue
                for photo in found:
                    repeated += photo in self.splits
                    self.splits.setdefault(photo, {"valid": "val"}.get(split, split))
        if self._no_home:
            self.notes.append(f"{names_file.name}: {self._no_home}; {self.home} is read instead")
        if repeated:
            self.notes.append(f"{repeated:,} photos are in two splits of {names_file.name}; the first one counts")
        self.notes += [note for finder in self._finders.values() for note in finder.notes()]

    def _photos_of(self, split: str, entry: str) -> list[Path]:
        """Returns the photos of an entry, a folder or a list of photos."""
        home, root, beside = self.home, self.root, self.names_file.parent
        posix = entry.replace("\\", "/")
        bare = posix.removeprefix("../")
        places = [home / entry, beside / entry, root / entry, home / posix, root / posix, home / bare, root / bare]
        if found := next(filter(None, map(self._read_place, places)), None):
            return found
        parts = [part for part in PurePosixPath(posix).parts if part not in ("/", "..") and ":" not in part]
        for start in range(len(parts)):  # a path of another machine
            place = home.joinpath(*parts[start:])
            if found := self._read_place(place):
                self.notes.append(f"{self.names_file.name}: {split}: {entry} is not there; {place} is read instead")
                return found
        parent = (home / posix).parent
        close = nearest(Path(posix).name, [path.name for path in parent.iterdir()]) if parent.is_dir() else []
        problem = f"{self.names_file}: {split}: {entry} is neither a folder nor a list of photos (searched in {home})"
        problem += f"; {self._no_home}" if self._no_home else ""
        raise DataError(problem, f"did you mean {close[0]}?" if close else "correct it, or path:")

    def _read_place(self, place: Path) -> list[Path]:
        """Returns the photos in a folder or of a list; none if it is neither."""
        if place.is_dir():
            return [Path(os.path.normpath(path)) for path in base.images_below(place)]
        return self._read_list(place) if place.suffix == ".txt" and place.is_file() else []

    def _read_list(self, file: Path) -> list[Path]:
        lines = {number: line for number, line in enumerate(_read_lines(file), 1) if line}
        paths = {number: Path(os.path.normpath(_listed_path(line, file, self.home))) for number, line in lines.items()}
        there = {number: path.is_file() for number, path in paths.items()}
        if all(there.values()):
            return list(paths.values())
        if self.home not in self._finders:
            self._finders[self.home] = FileFinder(self.home, base.files_below(self.home)[0])
        finder = self._finders[self.home]
        wanted = [str(paths[number]) if there[number] else line for number, line in lines.items()]
        found = dict(zip(lines, finder.find_all(wanted), strict=True))
        if not any(found.values()):
            number, line = next(iter(lines.items()))
            hint = "correct the list, or remove it from the splits to read all photos"
            raise DataError(f"{file}: none of its {len(lines):,} photos is there, such as line {number}: {line}", hint)
        for number, name in found.items():
            if there[number]:
                continue
            if name:
                paths[number] = Path(os.path.normpath(self.home / name))
            else:
                self.missing[paths[number]] = f"{file}: line {number}: {finder.problem(lines[number])}"
        return list(paths.values())


def _listed_path(line: str, list_file: Path, home: Path) -> Path:
    """Returns the photo that a line of a list names, relative to the list's folder or to the data set's."""
    if os.path.isabs(line):
        return Path(line)
    candidates = [list_file.parent / line, home / line]
    if line.startswith("data/"):  # CVAT's lists begin with a folder `data`, which stands for the data set
        candidates.append(home / line.removeprefix("data/"))
    found = (path for path in candidates if path.is_file())
    return next(found, candidates[0] if line.startswith("./") else candidates[1])


def label_path(photo: Path) -> str:
    """Returns the path of a photo's label file."""
    parts = list(photo.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place].lower() == "images":
            parts[place] = {"images": "labels", "IMAGES": "LABELS"}.get(parts[place], "Labels")
            break
    return str(Path(*parts).with_suffix(".txt"))


def _find_label_files(root: Path, photos: Iterable[Path], names_file: Path) -> tuple[dict[Path, str], list[str]]:
    """Returns the label file of each photo, which may not exist, and notes on those found in an unusual place."""
    found = {photo: label_path(photo) for photo in photos}
    without = [photo for photo, file in found.items() if not os.path.isfile(file)]
    if not without:
        return found, []
    used, notes = set(found.values()), list[str]()
    texts = [
        name for name in base.files_below(root)[1] if name.endswith(".txt") and not _is_list(root / name, names_file)
    ]
    spare = [name for name in texts if str(root / name) not in used]
    wanted = [Path(os.path.relpath(found[photo], root)).as_posix() for photo in without]
    finder = FileFinder(root, spare, anywhere=False)
    found |= {p: str(root / file) for p, file in zip(without, finder.find_all(wanted), strict=True) if file is not None}
    taken, elsewhere = set(found.values()), list[str]()
    by_place: dict[str, list[str]] = {}
    for name in spare:
        if str(root / name) not in taken:
            by_place.setdefault(base.place_of(name), []).append(name)
    for photo in without if by_place else ():
        files = by_place.get(base.place_of(Path(os.path.relpath(photo, root)).as_posix()), [])
        if len(files) == 1 and not os.path.isfile(found[photo]):
            found[photo] = str(root / files[0])
            elsewhere.append(f"{files[0]} for {photo.name}")
    if elsewhere:
        notes.append(f"{len(elsewhere):,} label files are not where YOLO's tools look, such as {elsewhere[0]}")
    return found, notes + finder.notes()


def _is_list(path: Path, names_file: Path) -> bool:
    """Returns whether a text file is a class list, or beside one, where lists of photos and notes lie."""
    return path == names_file or path.name in CLASS_FILES or path.name.lower().startswith("readme")


def _read_label_file(file: str, photo: str, parser: "_LineParser") -> tuple[list[Row], str]:
    """Returns one row per line (none if there is no file), and why the file can't be read."""
    try:
        text = decode_text(Path(file).read_bytes())[0]
    except FileNotFoundError:
        return [], ""
    except (OSError, UnicodeDecodeError) as error:
        return [], f"{file}: {error}"
    rows: list[Row] = []
    for line, content in enumerate(text.splitlines(), 1):
        if words := parser.words(content):
            row = {"photo": photo, "annotation": str(line), "position": len(rows), "label": None}
            row |= base.corners([0] * 4)
            rows.append(parser.parse(row, f"{file}: line {line}", words))
    return rows, ""


class _LineParser:
    """Reads lines of label files, and checks at the end that all of them are of one known kind.

    ``class x y width height [score or track]``, with key points behind them if ``data.yaml`` has ``kpt_shape``; or
    ``class x1 y1 x2 y2 ...``, a polygon or the four corners of an oriented box.
    """

    def __init__(self, names: Mapping[int, str], names_file: Path, settings: Mapping[str, Any]) -> None:
        self.names, self.names_file = names, names_file
        self._numbers = {name: number for number, name in names.items()}
        self._pose = _keypoint_numbers(names_file, settings)
        self._lines, self._outlines, self._named, self._pixels = 0, 0, 0, list[str]()
        self._separated, self._decimal = 0, 0
        self._lengths: set[int] = set()
        self._is_outline = str(settings.get("task", "")) in OUTLINE_TASKS
        self._first_long, self._keypoints = "", {2, 3}
        self._scored: list[tuple[Row, str]] = []
        self._angle = ""

    def words(self, line: str) -> list[str]:
        """Returns the words of a line; they may be separated by commas, or be numbers with decimal commas."""
        words = line.split()
        if "," in line:
            if _has_commas(line):
                words, self._separated = _cells(line), self._separated + 1
            elif all(re.fullmatch(r"-?\d+(,\d+)?", word) for word in words):
                words, self._decimal = [word.replace(",", ".") for word in words], self._decimal + 1
        return words

    def parse(self, row: Row, where: str, words: list[str]) -> Row:
        """Returns a row with the columns of a line."""
        if words[0] in self._numbers and not _is_number(words[0]):  # the class by its name
            words = [str(self._numbers[words[0]]), *words[1:]]
            self._named += 1
        text = " ".join(words)[:80]
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            return row | {"problem": "malformed", "detail": f"{where}: {text!r} are not all numbers"}
        count = len(numbers)
        if count in (5, 6) or (self._pose and count in (self._pose, self._pose + 1)):
            x, y, width, height = numbers[1:5]
            row |= base.corners([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        elif self._pose and count > 6:
            detail = f"{where}: {count} numbers instead of {self._pose}, as kpt_shape in {self.names_file.name} says"
            return row | {"problem": "malformed", "detail": detail}
        else:
            if count > 6:
                self._lengths.add(count)
                self._keypoints &= _keypoint_steps(numbers)
                self._first_long = self._first_long or where
            if count < 5 or count % 2 == 0:
                detail = f"{where}: {count} numbers instead of class and box (5) or class and points of a polygon"
                return row | {"problem": "malformed", "detail": detail}
            row |= base.corners([min(numbers[1::2]), min(numbers[2::2]), max(numbers[1::2]), max(numbers[2::2])])
            self._outlines += 1
        if row.get("problem"):
            return {**row, "detail": f"{where}: {text}"}
        self._lines += 1
        if max(map(abs, numbers[1:5])) > 2:
            self._pixels.append(f"{where}: {text}")
            row |= {"problem": "malformed", "detail": f"{where}: {text}: coordinates beyond 1, as pixels have"}
        number = numbers[0]
        if not math.isfinite(number) or number != int(number) or int(number) not in self.names:
            known = f"the classes are {format_list(sorted(self.names), 12)}"
            return {**row, "problem": "unknown class", "detail": f"{where}: class {words[0]}, {known}"}
        row["label"] = self.names[int(number)]
        if count == 6:
            self._scored.append((row, f"{where}: {text}"))
            if numbers[5] < 0 or (numbers[5] > 1 and numbers[5] != int(numbers[5])):
                self._angle = self._angle or f"{where}: {words[5]}"
        return row

    def finish(self) -> list[str]:
        """Returns notes on what was read; pose labels without ``kpt_shape``, and pixels, are an error."""
        if len(self._lengths) == 1 and self._keypoints and not self._is_outline:
            step = max(self._keypoints)
            shape = f"kpt_shape: [{(max(self._lengths) - 5) // step}, {step}]"
            text = f"{self._first_long}: the numbers behind the first five"
            if step == 3:  # with visibilities of 0, 1 or 2
                raise DataError(f"{text} are key points (pose labels)", f"say so in data.yaml, beside names: {shape}")
            hint = f"say which in data.yaml, beside names: {shape} or task: segment"
            raise DataError(f"{text} may be key points (pose labels) or corners of a polygon", hint)
        notes = []
        if self._pixels:
            text = "lines have coordinates beyond 1, as pixels have; YOLO's are fractions of the photo's sides"
            text = f"{len(self._pixels):,} of {self._lines:,} {text}, such as {self._pixels[0]}"
            if len(self._pixels) > MOST * self._lines:
                raise DataError(text, "divide x and width by the photo's width, y and height by its height")
            notes.append(f"{text}; they are left out")
        if self._angle:
            problem = f"the last of 6 numbers is an angle ({self._angle}); write oriented boxes as four corners"
            for row, where in self._scored:
                row |= {"problem": "malformed", "detail": f"{where}: {problem}"}
        if self._outlines:
            notes.append(f"{self._outlines:,} boxes are those around polygons or oriented boxes")
        if self._separated:
            notes.append(f"{self._separated:,} lines have commas between their numbers")
        if self._decimal:
            notes.append(f"{self._decimal:,} lines have commas that are read as decimal points")
        if self._named:
            notes.append(f"{self._named:,} lines give the class by its name instead of its number")
        return notes


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _keypoint_numbers(names_file: Path, settings: Mapping[str, Any]) -> int:
    """Returns how many numbers a line of pose labels has, by ``kpt_shape: [points, 2 or 3]``; 0 without it."""
    shape = _setting(settings, "kpt_shape")
    if shape is None:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or not all(str(v).isdecimal() for v in shape):
        raise DataError(f"{names_file}: kpt_shape is {shape}", "use [number of key points, 2 or 3]")
    points, numbers = map(int, shape)
    return 5 + points * numbers if points else 0


def _keypoint_steps(numbers: Sequence[float]) -> set[int]:
    """Returns how many numbers a key point may have, 2 or 3, if a line can be a box and key points inside of it."""
    x, y, width, height = numbers[1:5]
    rest = numbers[5:]
    if len(numbers) == 9:
        xs, ys = numbers[1::2], numbers[2::2]
        if max(abs(side[0] + side[2] - side[1] - side[3]) for side in (xs, ys)) < 1e-3:  # an oriented box
            return set()
    if width <= 0 or height <= 0 or min(x - width / 2, y - height / 2) < -0.01:
        return set()
    if max(x + width / 2, y + height / 2) > 1.01:
        return set()
    steps = set()
    for step in (2, 3):
        points = [rest[at : at + step] for at in range(0, len(rest), step)]
        near = all(
            abs(point[0] - x) <= 0.55 * width and abs(point[1] - y) <= 0.55 * height
            for point in points
            if len(point) == step and any(point[:2])
        )
        seen = step == 2 or all(point[-1] in (0, 1, 2) for point in points)
        if len(rest) % step == 0 and near and seen:
            steps.add(step)
    return steps


def _orphaned_boxes(owners: Mapping[str, Path], names_file: Path, parser: _LineParser) -> list[Row]:
    """Returns the boxes of label files that belong to no photo."""
    rows: list[Row] = []
    image_folders = {photo.parent for photo in owners.values()}
    for folder in sorted({Path(path).parent for path in owners} - image_folders):  # beside photos, any text may lie
        for path in sorted(folder.glob("*.txt")):
            if str(path) not in owners and base.is_visible(path.name) and not _is_list(path, names_file):
                problem = {"problem": "no photo", "detail": f"{path}: no photo has this name"}
                for row in _read_label_file(str(path), "", parser)[0]:
                    rows.append({**row, "annotation": f"{path.name}:{row['annotation']}", **problem})
    return rows


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().rstrip(",").split(",")]


def _has_commas(line: str) -> bool:
    """Returns whether commas separate the words of a line."""
    return "," in line and all(re.fullmatch(r"\S+", cell) for cell in _cells(line))


def _relabel_lines(text: str, labels: Mapping[str, str | None], numbers: Mapping[str, int]) -> str:
    """Returns a label file with other class numbers; ``labels`` are by line number, ``None`` removes the line."""
    lines = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        label = labels.get(str(number))
        if label is not None:
            number_alone = re.compile(r"[^\s,\ufeff]+(?=\s*,)" if _has_commas(line) else r"[^\s\ufeff]+")
            lines.append(number_alone.sub(str(numbers[label]), line, count=1))
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
    home, written = names_file.parent, []
    lists = [home / str(_setting(settings, split)) for split in SPLITS if isinstance(_setting(settings, split), str)]
    lists += [*home.glob("*.txt"), *home.glob("*.data")]
    labels = {*annotations.photos["source"], str(names_file)}
    for path in (names_file, *sorted(path for path in {*lists} if path.is_file() and str(path) not in labels)):
        target = _names_copy(annotations, path, out)
        before = path.read_bytes()
        try:
            text, encoding, mark = decode_text(before)
        except UnicodeDecodeError:  # not a list of photos
            target.write_bytes(before)
            continue
        stated = _setting(settings, "path")
        if path != names_file:
            whole, text = text, text.replace(f"{annotations.root}{os.sep}", f"{os.path.abspath(out)}{os.sep}")
            if text != whole:
                log.info(
                    "%s: its photos are those beside the copied labels, not %s%s...", target, annotations.root, os.sep
                )
        elif _is_yaml(path):
            copies = os.path.abspath(target.parent)
            text = patch_yaml(text, added, copies if stated else None, (str(annotations.root), os.path.abspath(out)))
            if stated:
                log.info("%s: path is the folder of the copies, not %s", target, stated)
        elif added:
            body = text.rstrip()
            newline = "\r\n" if "\r\n" in text else "\n"
            text = body + "".join(f"{newline}{name}" for name in added.values()) + (text[len(body) :] or newline)
        after = mark + text.encode(encoding)
        target.write_bytes(after)
        if after != before:
            written.append(target)
    return written


def patch_yaml(text: str, added: Mapping[int, str], path: str | None, moved: tuple[str, str] | None = None) -> str:
    """Returns a ``data.yaml`` with further classes, and another ``path`` if given; all else stays as written.

    Whole paths of splits below the first folder of ``moved`` are below its second one then.
    """
    import yaml

    here = Path("data.yaml")
    settings = parse_yaml(text, here)
    names = settings["names"]
    if isinstance(names, Mapping):
        settings["names"] = {**names, **{str(number): name for number, name in added.items()}}
    else:
        settings["names"] = [*names, *added.values()]
    if added and "nc" in settings:
        settings["nc"] = str(len(settings["names"]))
    if path is not None:
        settings["path"] = path
    edits = _move_splits(text, settings, *moved) if moved else list[tuple[int, int, str]]()
    for key, value in yaml.compose(text).value:
        span = (value.start_mark.index, value.end_mark.index)
        if key.value == "names" and added:
            edits.append(_class_insertion(text, value, added))
        elif key.value == "nc" and added:
            edits.append((*span, settings["nc"]))
        elif key.value == "path" and path is not None:
            edits.append((*span, _plain(path)))
    patched = text
    for start, end, new in sorted(edits, reverse=True):
        patched = patched[:start] + new + patched[end:]
    with contextlib.suppress(DataError):
        if parse_yaml(patched, here) == settings:
            return patched
    changed = {key: settings[key] for key in ("names", "path", *SPLITS) if key in settings}
    rewritten = {**yaml.safe_load(text), **changed}
    if isinstance(names, Mapping):
        rewritten["names"] = {int(number): name for number, name in settings["names"].items()}
    if "nc" in settings:
        rewritten["nc"] = int(settings["nc"])
    return str(yaml.safe_dump(rewritten, sort_keys=False, allow_unicode=True))  # an unusual layout is rewritten


def _move_splits(text: str, settings: dict[str, Any], old: str, new: str) -> list[tuple[int, int, str]]:
    """Changes whole paths of splits below one folder to those below another; returns the edits of the text."""
    import yaml

    edits: list[tuple[int, int, str]] = []
    for key, value in yaml.compose(text).value:
        entries = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for place, entry in enumerate(entries if key.value in SPLITS else ()):
            if not f"{entry.value}{os.sep}".startswith(f"{old}{os.sep}"):
                continue
            there = new + entry.value[len(old) :]
            edits.append((entry.start_mark.index, entry.end_mark.index, _plain(there)))
            if entry is value:
                settings[key.value] = there
            else:
                settings[key.value][place] = there
    return edits


def _plain(path: str) -> str:
    """Returns a path as a value of YAML, in quotes where it needs them."""
    import yaml

    return path if yaml.safe_load(f"a: {path}") == {"a": path} else json.dumps(path)


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
