"""Photos with labelled boxes, from whatever format of annotations they came.

A reader returns :class:`Annotations`: a table of photos and a table of boxes. It leaves nothing out: a photo or box
that can't be used has a ``problem``, one of :data:`PROBLEMS`, and ``detail`` says what was found.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from mlfix_train.data.readers.files import IMAGE_SUFFIXES
from mlfix_train.errors import DataError, format_list

PROBLEMS = {
    "photo missing": "there is no such file",
    "photo unreadable": "the file can't be decoded: cut short, empty or no image",
    "photo too large": "more megapixels than max_megapixels",
    "other size": "the photo is not of the size that the annotations state",
    "no annotation": "a photo of a split that has annotations lacks them",
    "annotation unreadable": "the annotation file is no JSON or XML, or of another schema",
    "no photo": "the box names a photo that the annotations don't list",
    "malformed": "the box is not written as its format wants it",
    "no label": "the box has no label",
    "unknown class": "the box's class is not in the class list",
    "not a number": "a coordinate is missing, NaN, infinite or text",
    "swapped corners": "the left edge lies right of the right one, or the upper one below the lower",
    "no area": "the box has no width or no height",
    "outside": "the box lies wholly outside of the photo",
    "too small": "what lies inside of the photo is narrower or lower than min_side",
    "crowd": "a region of many things (iscrowd) rather than one",
}
"""Why a box is not cropped."""

PHOTO_COLUMNS = ("path", "split", "width", "height", "panorama", "source", "problem", "detail")
BOX_COLUMNS = ("photo", "annotation", "position", "label", "x_min", "y_min", "x_max", "y_max", "problem", "detail")
PARTS_LEFT_OUT = {"images", "jpegimages", "annotations"}


@dataclass(frozen=True)
class Annotations:
    """What a reader found.

    Args:
        format: ``mtsd``, ``coco``, ``yolo`` or ``voc``.
        root: the folder that was read.
        photos: indexed by name (the path below ``root`` without ``images/`` and suffix), with ``path`` (absolute),
            ``split``, ``width`` and ``height`` (pixels as stated, 0 where nothing is), ``panorama`` (its left and
            right edges meet), ``source`` (the annotation file), ``problem`` and ``detail``.
        boxes: a row a box: ``photo``, ``annotation`` (its key in the source, unique within the photo's source),
            ``position`` (from 0, among the photo's boxes), ``label``, the corners ``x_min, y_min, x_max, y_max``
            (pixels, or shares of the photo's sides where ``shares``; at the pixels' outer edges), ``problem``,
            ``detail``, and all that the source tells beside it.
        shares: corners are shares of the sides, 0 to 1, rather than pixels.
        upright: corners refer to the photo turned by its EXIF orientation, rather than to the pixels as stored.
        classes: the source's class list, in its order; empty where it has none.
        notes: what a person should know of the reading, a sentence each.
    """

    format: str
    root: Path
    photos: pd.DataFrame
    boxes: pd.DataFrame
    shares: bool = False
    upright: bool = False
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def collect(
    format_: str, root: Path, photos: list[dict[str, Any]], boxes: list[dict[str, Any]], **more: Any
) -> Annotations:
    """Builds :class:`Annotations` from rows, and checks that photos have names of their own.

    Args:
        format_: name of the format.
        root: the folder.
        photos: rows with ``name`` and the columns of photos (those that are missing get defaults).
        boxes: rows with the columns of boxes, and more.
        more: further fields of :class:`Annotations`.

    Raises:
        DataError: no photos, or two of one name.
    """
    if not photos:
        raise DataError(
            f"data.root={root} lists no photos", f"is it {format_}? Give the folder that holds the data set"
        )
    empty = {"split": "", "width": 0, "height": 0, "panorama": False, "problem": "", "detail": ""}
    frame = pd.DataFrame([{**empty, **photo} for photo in photos]).set_index("name")
    twice = frame.index[frame.index.duplicated()].unique()
    if len(twice):
        same = frame.loc[[twice[0]]]
        raise DataError(
            f"{len(twice):,} name(s) stand for two photos, such as {twice[0]}: "
            + " and ".join(f"{path} (in {source})" for path, source in zip(same["path"], same["source"], strict=True)),
            "rename one of them, or read fewer files (data.file= data.images=)",
        )
    for row in boxes:
        row |= {name: clean(row[name]) for name in ("label", "annotation", "photo") if isinstance(row[name], str)}
    table = pd.DataFrame(boxes, columns=None if boxes else list(BOX_COLUMNS))
    for name in BOX_COLUMNS:
        if name in ("problem", "detail") and len(table):
            table[name] = table[name].fillna("") if name in table else ""
    table = table[[*BOX_COLUMNS, *(name for name in table.columns if name not in BOX_COLUMNS)]]
    return Annotations(format_, root, frame[list(PHOTO_COLUMNS)], table, **more)


def number(value: Any) -> float:
    """Returns a coordinate, NaN where it is none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return math.nan


def corners(values: Iterable[Any]) -> dict[str, Any]:
    """Returns the columns of four corners, with the problem where one is no number."""
    given = list(values)
    found = [number(value) for value in given]
    row: dict[str, Any] = dict(zip(("x_min", "y_min", "x_max", "y_max"), found, strict=True))
    if not all(map(math.isfinite, found)):
        row |= {"problem": "not a number", "detail": f"corners {format_list(map(repr, given))}"}
    return row


def metadata(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what an annotation says beside box and label, flat, under names that our own columns don't have."""
    taken = {*BOX_COLUMNS, "sample_id", "path", "group", "split", "width", "height", "aspect", "clipped",
             "photo_width", "photo_height", "wraps", "photo_path"}  # fmt: skip
    flat: dict[str, Any] = {}
    if not isinstance(values, Mapping):
        return flat
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(metadata(value))
        elif isinstance(value, (str, int, float, bool)):
            value = clean(value) if isinstance(value, str) else value
            flat[f"source_{key}" if key in taken else key] = value
    return flat


def clean(text: str) -> str:
    """Returns text with what is no character (half of a surrogate pair, as JSON may hold it) as a question mark."""
    return text.encode("utf-8", "replace").decode()


def photo_name(relative: str) -> str:
    """Returns a photo's name: its path without suffix and without folders called ``images``."""
    path = PurePosixPath(relative)
    parts = [part for part in path.parts[:-1] if part.lower() not in PARTS_LEFT_OUT]
    return "/".join([*parts, path.stem])


def find_folders(root: Path, name: str, depth: int = 3) -> list[Path]:
    """Returns the folders called ``name`` (in any case) at most ``depth`` levels below ``root``, the nearest first."""
    found: list[Path] = []
    level = [root]
    for _ in range(depth):
        below: list[Path] = []
        for folder in level:
            try:
                entries = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
            except OSError:
                continue
            for path in map(Path, entries):
                if path.name.lower() == name.lower():
                    found.append(path)
                elif not path.name.startswith("."):
                    below.append(path)
        level = below
        if len(level) > 1000:  # class folders or the like: nothing to be found below
            break
    return found


def pictures_below(folder: Path) -> Iterator[Path]:
    """Yields the picture files in ``folder`` and below, sorted."""
    for base, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(base, name)


def check_root(root: str | Path) -> Path:
    """Returns the folder of a data set, absolute.

    Raises:
        DataError: it is no folder.
    """
    base = Path(str(root)).expanduser()
    if not str(root).strip() or not base.is_dir():
        what = "is a file" if base.is_file() else "does not exist"
        raise DataError(f"data.root={root} {what}", "give the folder that holds photos and annotations")
    return Path(os.path.abspath(base))


def split_of(name: str) -> str:
    """Returns ``train``, ``val`` or ``test`` where a name (``instances_val2017``) says so, else nothing."""
    words = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
             "testing": "test"}  # fmt: skip
    hits = [words[word] for word in re.findall(r"[a-z]+", name.lower()) if word in words]
    return hits[-1] if hits else ""


def tally(problems: Iterable[str]) -> str:
    """Returns ``"3 no area, 2 outside"``, the most frequent first."""
    counts = sorted(Counter(problems).items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count:,} {name}" for name, count in counts)
