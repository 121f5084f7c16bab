"""The interface of an annotation format, the tables that reading returns, and helpers that readers share."""

import contextlib
import math
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import pandas as pd

from mlfix_train.data.files.documents import decode_text
from mlfix_train.data.files.find import fold, plain_path, stem
from mlfix_train.data.files.walk import find_images
from mlfix_train.data.readers.files import SPLIT_NAMES, check_root, find_given
from mlfix_train.errors import DataError, format_list

PHOTO_COLUMNS = ("path", "split", "width", "height", "panorama", "source", "problem", "detail")
BOX_COLUMNS = ("photo", "annotation", "position", "label", "x_min", "y_min", "x_max", "y_max", "problem", "detail")
EDGES = BOX_COLUMNS[4:8]
CROP_COLUMNS = {"sample_id", "path", "group", "split", "width", "height", "aspect", "clipped", "wraps", "photo_path"}
CROP_COLUMNS |= {"photo_width", "photo_height"}
FOLDERS_LEFT_OUT = {"images", "jpegimages", "annotations"}
FOLDERS_OF_A_KIND = FOLDERS_LEFT_OUT | {"image", "imgs", "img", "photos", "pictures", "annotation", "anns", "labels"}
FOLDERS_OF_A_KIND |= {"label", "xml", "xmls", "txt"}
"""Folders in which photos or annotations lie side by side: ``train/images/1.jpg`` and ``train/labels/1.xml``."""

Row = dict[str, Any]
"""Columns of a photo or box."""
LabelChanges = Mapping[str, Mapping[str, str | None]]
"""Annotation file -> annotation key -> new label, or ``None`` to remove the box."""


@dataclass(frozen=True)
class Annotations:
    """The photos and boxes of a data set. Nothing is left out: what can't be used has a ``problem``.

    Args:
        format, normalized, exif_applied, stable_keys: as in :class:`AnnotationFormat`.
        root: folder that was read.
        photos: indexed by name (the path below ``root`` without ``images/`` and suffix), with ``path`` (absolute),
            ``split``, ``width`` and ``height`` (pixels as stated, 0 if not stated), ``panorama`` (the left and right
            edges meet), ``source`` (the annotation file), ``problem`` (why it gives no crops, in the words of
            ``docs/reference.md``, or empty) and ``detail`` (what was found).
        boxes: one row per box: ``photo``, ``annotation`` (key in the source, unique within the photo's source),
            ``position`` (from 0, among the photo's boxes), ``label``, the corners ``x_min, y_min, x_max, y_max``
            (outer edges; pixels, or fractions of the photo's sides if ``normalized``), ``problem``, ``detail``, and
            further attributes that the source gives.
        classes: the source's class list, in its order; empty if it has none.
        notes: what the user should know about the reading, one sentence each.
    """

    format: str
    root: Path
    photos: pd.DataFrame
    boxes: pd.DataFrame
    normalized: bool = False
    exif_applied: bool = False
    stable_keys: bool = False
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class AnnotationFormat(ABC):
    """A data set in some annotation format: subclass it to read boxes of your own.

    A subclass is a dataclass if it takes more settings than ``root``; they are the keys of ``data`` on the command
    line (``data._target_=my_package.MyBoxes data.root=photos``). :meth:`read` is all that cropping needs::

        class MyBoxes(AnnotationFormat):
            name = "mine"

            def read(self) -> Annotations:
                photo = {"name": "street", "path": f"{self.root}/street.jpg", "source": f"{self.root}/boxes.csv"}
                box = {"photo": "street", "annotation": "1", "position": 0, "label": "stop", **corners([5, 5, 40, 40])}
                return self.build([photo], [box])

    Args:
        root: folder of the data set; made absolute.

    Raises:
        DataError: ``root`` is not a folder.
    """

    root: str | Path

    name: ClassVar[str] = ""
    """What errors and ``mlfix export to=`` call the format."""
    normalized: ClassVar[bool] = False
    """Corners are fractions of the photo's sides, 0 to 1, instead of pixels."""
    exif_applied: ClassVar[bool] = False
    """Corners refer to the photo rotated by its EXIF orientation, instead of the pixels as stored."""
    stable_keys: ClassVar[bool] = False
    """``annotation`` is an id that the source gives, instead of a position or line number."""

    def __post_init__(self) -> None:
        self.root = str(check_root(self.root, "set data.root to the folder with photos and annotations"))

    def _locate(self, given: Any, key: str) -> Any:
        """Returns paths of a setting as they are, or absolute if they start at the current folder, not at the root."""
        if given is None:
            return None
        if not isinstance(given, (str, Path)):
            return [self._locate(one, key) for one in given]
        found = find_given(given, f"data.{key}", self.folder, Path().absolute())
        return given if found == self.folder / Path(given).expanduser() else os.path.normpath(found)

    @property
    def folder(self) -> Path:
        """The folder of the data set."""
        return Path(self.root)

    def settings(self) -> dict[str, Any]:
        """Returns the class and arguments that build this object again (``_target_``, ``root``, ...)."""
        target = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"_target_": target, **{key: value for key, value in vars(self).items() if not key.startswith("_")}}

    @classmethod
    def detect(cls, root: Path) -> int:
        """Returns how well a folder fits: 2 has the format's layout, 1 has files that may be of it, 0 neither."""
        return 0

    @abstractmethod
    def read(self) -> Annotations:
        """Reads all photos and boxes.

        Raises:
            DataError: the annotations as a whole can't be used. (A single bad file or box gets a ``problem`` instead.)
        """

    def build(
        self,
        photos: list[Row],
        boxes: list[Row],
        classes: Iterable[str] = (),
        notes: Iterable[str] = (),
        root: Path | None = None,
    ) -> Annotations:
        """Builds :class:`Annotations` from rows; ``root`` is by default ``self.folder``.

        ``photos`` have ``name``, ``path``, ``source``, and other columns where they are known; ``boxes`` the columns of
        boxes (``problem`` and ``detail`` only if there is one), and attributes.

        Raises:
            DataError: there are no photos, or two with one name, or the boxes are fractions instead of pixels.
        """
        if not photos:
            hint = f"is the format {self.name}? Set data.root to the folder of the data set"
            raise DataError(f"data.root={self.root} lists no photos", hint)
        defaults = {"split": "", "width": 0, "height": 0, "panorama": False, "problem": "", "detail": ""}
        photo_table = pd.DataFrame([{**defaults, **photo} for photo in photos]).set_index("name")
        repeated = photo_table.index[photo_table.index.duplicated()].unique()
        if len(repeated):
            same = photo_table.loc[[repeated[0]]]
            files = (f"{path} (in {source})" for path, source in zip(same["path"], same["source"], strict=True))
            problem = f"{len(repeated):,} photo name(s) are used twice, such as {repeated[0]}: {' and '.join(files)}"
            raise DataError(problem, "rename one of the photos, or read fewer files")
        for row in boxes:
            row |= {key: to_unicode(row[key]) for key in ("label", "annotation", "photo") if isinstance(row[key], str)}
        box_table = pd.DataFrame(boxes, columns=None if boxes else list(BOX_COLUMNS))
        for key in ("problem", "detail"):
            box_table[key] = box_table[key].fillna("") if key in box_table else ""
        usable = box_table[box_table["problem"] == ""]
        if not self.normalized and len(usable) and 0 < usable[["x_max", "y_max"]].to_numpy(float).max() <= 1:
            first = usable.iloc[0]
            edges = format_list((f"{edge} {first[edge]:g}" for edge in EDGES), 4)
            hint = "multiply them by the width and height of their photo; of the formats only YOLO has fractions"
            problem = (
                f"data.root={self.root}: all {len(usable):,} boxes are within 0 and 1, as fractions of the photo are"
            )
            raise DataError(f"{problem}, not pixels ({self.name}): {first['photo']}: {edges}", hint)
        columns = [*BOX_COLUMNS, *(key for key in box_table.columns if key not in BOX_COLUMNS)]
        tables = (root or self.folder, photo_table[list(PHOTO_COLUMNS)], box_table[columns])
        flags = (self.normalized, self.exif_applied, self.stable_keys)
        return Annotations(self.name, *tables, *flags, tuple(classes), tuple(notes))

    def write_back(self, annotations: Annotations, changes: LabelChanges, out: Path) -> list[Path]:
        """Writes copies of all annotation files, with some labels changed, below ``out`` and laid out as in ``root``.

        ``out`` is an empty or new folder. Returns the copies that differ from their source.

        Raises:
            DataError: the format can't be written.
        """
        raise self._not_writable()

    def open_copies(self, annotations: Annotations, out: Path) -> "AnnotationFormat":
        """Returns the data set made of the original photos and the annotations that :meth:`write_back` wrote."""
        raise self._not_writable()

    def _not_writable(self) -> DataError:
        hint = f"implement write_back and open_copies in {type(self).__name__}"
        return DataError(f"annotations of the format {self.name} can't be written back", hint)


def number(value: Any) -> float:
    """Returns a coordinate, which may be written as text, as a float; NaN if it is not a number."""
    if isinstance(value, str):
        try:
            return float(value) if "_" not in value else math.nan  # Python reads 1_0 as 10
        except ValueError:
            return math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return math.nan


def corners(values: Iterable[Any]) -> Row:
    """Returns the columns of ``x_min, y_min, x_max, y_max``, with a problem if one of them is not a finite number."""
    given = list(values)
    row: Row = dict(zip(EDGES, map(number, given), strict=True))
    if not all(map(math.isfinite, row.values())):
        row |= {"problem": "not a number", "detail": f"corners {format_list(map(repr, given))}"}
    return row


def attributes(values: Any) -> Row:
    """Returns the attributes of an annotation, flat; those named like a column of ours are prefixed ``source_``."""
    flat: Row = {}
    for key, value in values.items() if isinstance(values, Mapping) else ():
        if isinstance(value, Mapping):
            flat.update(attributes(value))
        elif isinstance(value, (str, int, float, bool)):
            name = f"source_{key}" if key in BOX_COLUMNS or key in CROP_COLUMNS else key
            flat[name] = to_unicode(value) if isinstance(value, str) else value
    return flat


def to_unicode(text: str) -> str:
    """Returns text with unpaired surrogates, which JSON may hold, replaced by question marks."""
    return text.encode("utf-8", "replace").decode()


def photo_name(relative: str) -> str:
    """Returns the name of a photo: its path without suffix and without folders called ``images``."""
    path = PurePosixPath(relative)
    parts = [part for part in path.parts[:-1] if part.lower() not in FOLDERS_LEFT_OUT]
    return "/".join([*parts, path.stem])


def place_of(relative: str) -> str:
    """Returns what a photo and its annotation have in common: the path without suffix and :data:`FOLDERS_OF_A_KIND`."""
    *folders, name = relative.split("/")
    return "/".join([*(part for part in map(fold, folders) if part not in FOLDERS_OF_A_KIND), fold(stem(name))])


def is_visible(relative: str | PurePosixPath | Path) -> bool:
    """Returns whether neither a file nor a folder on its way is hidden (``.ipynb_checkpoints``, ``._1.xml``)."""
    return not any(part.startswith(".") and part != ".." for part in PurePosixPath(relative).parts)


def label_text(value: Any) -> str | None:
    """Returns a label as text without blanks around it, a number by its digits; ``None`` if it is empty, or neither."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def find_folders(root: Path, name: str, depth: int = 3) -> list[Path]:
    """Returns the folders called ``name`` (in any case) at most ``depth`` levels below ``root``, nearest first."""
    found: list[Path] = []
    level = [root]
    for _ in range(depth):
        below: list[Path] = []
        for folder in level:
            with contextlib.suppress(OSError):
                below += map(Path, sorted(entry.path for entry in os.scandir(folder) if entry.is_dir()))
        found += [path for path in below if path.name.lower() == name.lower()]
        level = [path for path in below if path.name.lower() != name.lower() and not path.name.startswith(".")]
        if len(level) > 1000:  # class folders or the like: no annotations below
            break
    return found


def same_names(path: Path, names: Iterable[tuple[Any, str]]) -> list[str]:
    """Returns a note if classes, given by number or id and name, have the same name."""
    numbers: dict[str, list[str]] = {}
    for number, name in names:
        numbers.setdefault(name, []).append(str(number))
    repeated = {name: found for name, found in numbers.items() if len(found) > 1}
    if not repeated:
        return []
    shown = format_list((f"{name!r} ({', '.join(found)})" for name, found in repeated.items()), 3)
    return [f"{path.name}: classes of the same name become one label; correct it if they are not one: {shown}"]


def padded_names(path: Path, names: Iterable[tuple[Any, Any]]) -> list[str]:
    """Returns a note if names of classes, given by number or id, have blanks around them, which labels don't have."""
    padded = [f"{name!r} ({number})" for number, name in names if isinstance(name, str) and name != name.strip()]
    text = "names of classes have blanks around them, which are left out"
    return [f"{path}: {len(padded):,} {text}: {format_list(padded, 3)}"] if padded else []


def files_below(folder: Path) -> tuple[list[str], list[str]]:
    """Returns the images and the other files in ``folder`` and below, sorted, except hidden ones."""
    found = find_images(folder)
    return found.images, found.others


def images_below(folder: Path) -> list[Path]:
    """Returns the image files in ``folder`` and below, sorted; see :func:`find_images`."""
    return [folder / name for name in find_images(folder).images]


def split_of(name: str) -> str:
    """Returns the split that a name such as ``instances_val2017`` mentions: ``train``, ``val``, ``test`` or empty."""
    mentioned = [SPLIT_NAMES[word] for word in re.findall(r"[a-z]+", name.lower()) if word in SPLIT_NAMES]
    return mentioned[-1] if mentioned else ""


def read_split_lists(files: Iterable[Path]) -> dict[str, Path]:
    """Reads lists of photos that exist: photo to its list, whose stem is the split; a DataError if it is in two.

    Photos are called without their suffix. The number behind a name, which some lists have, is left out.
    """
    splits: dict[str, Path] = {}
    for file in files:
        lines = decode_text(file.read_bytes())[0].splitlines() if file.is_file() else []
        for photo in (stem(plain_path(re.sub(r"\s+-?[01]\s*$", "", line))) for line in lines if line.strip()):
            if splits.setdefault(photo, file).stem != file.stem:
                raise DataError(f"{file}: {photo} is also in {splits[photo].name}", "remove it from one of the lists")
    return splits


def summarize_counts(problems: Iterable[str]) -> str:
    """Returns ``"3 no area, 2 outside"``, most frequent first."""
    counts = sorted(Counter(problems).items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count:,} {name}" for name, count in counts)
