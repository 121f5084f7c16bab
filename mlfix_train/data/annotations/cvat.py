"""CVAT's own XML, "CVAT for images 1.1": one file with the photos and shapes of a task, a job or a project.

Source of the format: "XML annotation format" and "CVAT" in CVAT's documentation. Coordinates are pixels from the upper
left corner; CVAT shows photos as their EXIF orientation turns them, and states the size that they then have.
"""

import math
import os
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from xml.sax.saxutils import escape

from mlfix_train.data.annotations import base
from mlfix_train.data.annotations.base import AnnotationFormat, Annotations, LabelChanges, Row
from mlfix_train.data.annotations.outlines import Corners, around_ellipse, around_rotated
from mlfix_train.data.annotations.photos import PhotoFinder
from mlfix_train.data.annotations.write_back import copy_path, write_copies
from mlfix_train.data.files.find import plain_path, stem
from mlfix_train.data.files.xml_files import LOOKED_AT, Edit, Element, attribute_span, edit_xml, quote, root_tag
from mlfix_train.errors import DataError, format_list

EXPORT_AGAIN = "in CVAT, export the task as `CVAT for images 1.1` with images, or as `COCO 1.0`"
OWN_ATTRIBUTES = ("label", "points", "rle", "left", "top", "width", "height", "cx", "cy", "rx", "ry")
"""Attributes of a shape that don't become columns, beside its corners."""


@dataclass
class Cvat(AnnotationFormat):
    """CVAT for images 1.1: ``annotations.xml`` with the boxes of many photos, and the photos in ``images/``.

    Of polygons, masks, ellipses, cuboids, skeletons, lines and rotated boxes the box around them is taken, of a tag the
    whole photo. ``shape_type`` says which it was; ``occluded`` and all attributes become columns. ``annotation`` is the
    number of the shape in the file, from 0.

    Args:
        root: folder of the data set.
        file: the XML, or several, below ``root``; by default every XML of CVAT there.
        images: folder that the names of photos are relative to; found by its files by default.
    """

    file: str | Path | Sequence[str] | None = None
    images: str | Path | None = None

    name = "cvat"
    exif_applied = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.file, self.images = self._locate(self.file, "file"), self._locate(self.images, "images")

    @classmethod
    def detect(cls, root: Path) -> int:
        """Looks for XML files that begin as CVAT's do."""
        return (
            2
            if any(is_cvat(path) for pattern in ("*.xml", "*/*.xml", "*/*/*.xml") for path in root.glob(pattern))
            else 0
        )

    def read(self) -> Annotations:
        """Reads all photos and shapes; XML that is not valid, of a video, or of another tool is an error."""
        photos, boxes, notes = list[Row](), list[Row](), list[str]()
        classes: dict[str, None] = {}
        for path in self._files():
            tree = _parse(path)
            classes |= dict.fromkeys(_defined_labels(tree))
            reader = _FileReader(self, path, tree)
            photos += reader.photos
            boxes += reader.boxes
            notes += reader.notes
        return self.build(photos, boxes, classes, notes)

    def write_back(self, annotations: Annotations, changes: LabelChanges, out: Path) -> list[Path]:
        """Writes copies with new labels; a label that the file does not define is added to its labels."""

        def patch(file: Path, labels: Mapping[str, str | None], target: Path) -> None:
            wanted = {label for label in labels.values() if label is not None}
            added = sorted(wanted - set(_defined_labels(_parse(file))))
            edits = partial(_find_edits, labels=labels, added=added)
            target.write_bytes(edit_xml(file.read_bytes(), edits))

        return write_copies(annotations, changes, out, patch, self._files())

    def open_copies(self, annotations: Annotations, out: Path) -> AnnotationFormat:
        """Returns the data set of the copied annotations, without photos."""
        return Cvat(out, [os.path.abspath(copy_path(annotations, path, out)) for path in self._files()])

    def _files(self) -> list[Path]:
        if self.file:
            given = [self.file] if isinstance(self.file, (str, Path)) else list(self.file)
            return [Path(os.path.normpath(self.folder / Path(name).expanduser())) for name in given]
        found = [self.folder / name for name in base.files_below(self.folder)[1] if name.lower().endswith(".xml")]
        files = [path for path in found if is_cvat(path)]
        if not files:
            problem = f"no XML of CVAT below data.root={self.root}"
            others = f" ({len(found):,} other XML file(s), such as {found[0].name})" if found else ""
            raise DataError(f"{problem}{others}", f"unpack the export there: {EXPORT_AGAIN}")
        return files


def is_cvat(path: Path) -> bool:
    """Returns whether the first element of an XML file is CVAT's ``annotations``."""
    try:
        with open(path, "rb") as file:
            return root_tag(file.read(LOOKED_AT)) == "annotations"
    except OSError:
        return False


def _parse(path: Path) -> ET.Element:
    hint = EXPORT_AGAIN
    try:
        tree = ET.parse(path).getroot()
    except FileNotFoundError:
        raise DataError(f"data.file={path} does not exist", "set the annotations.xml that CVAT exported") from None
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}", "check its permissions") from error
    except (ET.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path} is not valid XML: {error}", f"it may be cut off: {hint}") from error
    if tree.tag != "annotations":
        raise DataError(f"{path}: its root is <{tree.tag}>, not <annotations>", hint)
    if tree.find("image") is None:
        reason = "it is of a video (<track>), without images" if tree.find("track") is not None else "it has no <image>"
        raise DataError(f"{path}: {reason}", hint)
    return tree


def _texts(tree: ET.Element, path: str) -> Iterator[str]:
    return (item.text for item in tree.iterfind(path) if item.text)


def _defined_labels(tree: ET.Element) -> list[str]:
    return [name.strip() for name in _texts(tree, "meta/*/labels/label/name")]


class _FileReader:
    """Reads one XML: ``photos`` and ``boxes`` are rows, ``notes`` what the user should know."""

    def __init__(self, source: Cvat, path: Path, tree: ET.Element) -> None:
        self.path, self.photos, self.boxes = path, list[Row](), list[Row]()
        images = tree.findall("image")
        subset = next(_texts(tree, "meta/*/subset"), "")
        subsets = [image.get("subset", subset) for image in images]
        stated = [(image.get("name") or "").strip() for image in images]
        wanted = [_without_root(plain_path(name)) for name in stated]
        counts = Counter(wanted)  # a project may have one name in several subsets
        wanted = [f"{of}/{name}" if counts[name] > 1 else name for of, name in zip(subsets, wanted, strict=True)]
        finder = PhotoFinder(source.folder, source.images, path, filter(None, wanted))
        found = finder.find(wanted)
        names = _unique_names(
            path.relative_to(source.folder).parent if path.is_relative_to(source.folder) else Path(), wanted
        )
        self._place, self._shapes = 0, Counter[str]()
        for place, image in enumerate(images):
            photo: Row = {"name": names[place], "path": found[place][0], "source": str(path)}
            photo["split"] = base.split_of(subsets[place]) or finder.split
            for side in ("width", "height"):
                size = base.number(image.get(side))
                photo[side] = int(size) if 0 < size < 10**6 else 0
            if not stated[place]:
                detail = f"{path}: image {place} (id {image.get('id')}) has no name"
                photo |= {"name": f"{path.stem}.image[{place}]", "path": "", "problem": "malformed", "detail": detail}
            elif found[place][1]:
                photo |= {"problem": "photo missing", "detail": f"{path}: {found[place][1]}"}
            self.photos.append(photo)
            self._read_shapes(image, photo)
        self.notes = [f"{path.name}: {note}" for note in (*finder.notes(), *self._shape_notes())]

    def _read_shapes(self, image: ET.Element, photo: Row) -> None:
        shapes = [shape for shape in image if shape.get("label") is not None or shape.tag in SHAPES]
        for position, shape in enumerate(shapes):
            where = f"{self.path}: {photo['name']}: {shape.tag} {position}"
            row: Row = {"photo": photo["name"], "annotation": str(self._place), "position": position}
            row |= {"label": base.label_text(shape.get("label")), "shape_type": shape.tag}
            self._place += 1
            if shape.tag not in SHAPES:
                row |= {**base.corners([0] * 4), "problem": "malformed", "detail": f"{where}: unknown kind of shape"}
            else:
                row |= base.corners(SHAPES[shape.tag](shape, photo))
                self._shapes["rotated box" if _is_rotated(shape) else shape.tag] += 1
            if row.get("problem") == "not a number":
                text = ", ".join(f"{key}={value!r}" for key, value in shape.items() if key not in ("label", "source"))
                row["detail"] = f"{where}: {text[:120]}"
            elif row["label"] is None and not row.get("problem"):
                row |= {"problem": "no label", "detail": f"{where} has no label"}
            self.boxes.append(row | base.attributes(_attributes(shape)))

    def _shape_notes(self) -> list[str]:
        tags, boxes = self._shapes.pop("tag", 0), self._shapes.pop("box", 0)
        notes = []
        if self._shapes:
            kinds = format_list((f"{count:,} {kind}" for kind, count in self._shapes.items()), 8)
            notes.append(f"of shapes that are not upright boxes the box around them is taken: {kinds}")
        if tags:
            more = " beside shapes; `labels=` chooses" if boxes or self._shapes else ""
            notes.append(f"{tags:,} tags of whole photos are read as boxes around the photo{more}")
        return notes


def _without_root(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _unique_names(folder: Path, names: Sequence[str]) -> list[str]:
    """Returns the names of photos, with their suffix where two would be the same."""
    short = [base.photo_name((folder / f"{stem(name)}.x").as_posix()) for name in names]
    counts = Counter(short)
    return [
        name if counts[name] == 1 else name + PurePosixPath(stated).suffix
        for name, stated in zip(short, names, strict=True)
    ]


def _numbers(shape: ET.Element, *names: str) -> list[float]:
    return [base.number(shape.get(name)) for name in names]


def _is_rotated(shape: ET.Element) -> bool:
    return shape.tag == "box" and base.number(shape.get("rotation", "0")) % 360 != 0


def _around_box(shape: ET.Element, photo: Row) -> Sequence[float]:
    left, top, right, bottom = box = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
    if not _is_rotated(shape):
        return box
    angle = math.radians(base.number(shape.get("rotation")))
    return around_rotated((left + right) / 2, (top + bottom) / 2, right - left, bottom - top, angle)


def _around_points(shape: ET.Element, photo: Row) -> Sequence[float]:
    return _around([point.split(",") for point in (shape.get("points") or "").split(";")])


def _around(points: Sequence[Sequence[str]]) -> Sequence[float]:
    numbers = [[base.number(value) for value in point] for point in points]
    if not numbers or any(len(point) != 2 or not all(map(math.isfinite, point)) for point in numbers):
        return [math.nan] * 4
    xs, ys = zip(*numbers, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _around_skeleton(shape: ET.Element, photo: Row) -> Sequence[float]:
    seen = [point for point in shape.iterfind("points") if point.get("outside") != "1"]
    return _around([(point.get("points") or "").split(",") for point in seen])


def _around_cuboid(shape: ET.Element, photo: Row) -> Sequence[float]:
    ends = [f"{end}{side}" for side in "12" for end in ("tl", "bl", "tr", "br")]
    return _around([(shape.get(f"x{end}") or "", shape.get(f"y{end}") or "") for end in ends])


def _around_mask(shape: ET.Element, photo: Row) -> Sequence[float]:
    left, top, width, height = _numbers(shape, "left", "top", "width", "height")
    return left, top, left + width, top + height


def _around_ellipse(shape: ET.Element, photo: Row) -> Corners:
    x, y, rx, ry = _numbers(shape, "cx", "cy", "rx", "ry")
    return around_ellipse(x, y, rx, ry, math.radians(base.number(shape.get("rotation", "0"))))


def _whole_photo(shape: ET.Element, photo: Row) -> Sequence[float]:
    return (0, 0, photo["width"], photo["height"]) if photo["width"] and photo["height"] else [math.nan] * 4


SHAPES: dict[str, Callable[[ET.Element, Row], Sequence[float]]] = {
    "box": _around_box,
    "polygon": _around_points,
    "polyline": _around_points,
    "points": _around_points,
    "mask": _around_mask,
    "ellipse": _around_ellipse,
    "cuboid": _around_cuboid,
    "skeleton": _around_skeleton,
    "tag": _whole_photo,
}
"""Kinds of shapes, and the box around one."""


def _attributes(shape: ET.Element) -> Row:
    """Returns the attributes of a shape that become columns."""
    corners = (
        "xtl",
        "ytl",
        "xbr",
        "ybr",
        *(f"{axis}{end}{n}" for axis in "xy" for end in ("tl", "bl", "tr", "br") for n in "12"),
    )
    own: Row = {key: value for key, value in shape.items() if key not in (*OWN_ATTRIBUTES, *corners)}
    if "occluded" in own:
        own["occluded"] = own["occluded"] == "1"
    given = {item.get("name") or "": (item.text or "").strip() for item in shape.iterfind("attribute")}
    return own | {name: value for name, value in given.items() if name}


def _find_edits(
    raw: bytes, elements: list[Element], labels: Mapping[str, str | None], added: Sequence[str]
) -> Iterator[Edit]:
    """Yields the labels that change, the shapes that go, and labels that the file does not define yet."""
    images = sorted((one for one in elements if one.path[:1] == ("image",) and len(one.path) == 2), key=_start)
    shapes = [(one, attribute_span(raw, one.start, "label")) for one in images]
    shapes = [(one, span) for one, span in shapes if span is not None or one.path[1] in SHAPES]
    for key, label in labels.items():
        shape, span = shapes[int(key)]
        if label is None:
            yield shape.start, shape.end, ""
        elif span is not None:
            yield *span, quote(label)
    for whole in (one for one in elements if one.path[:1] == ("meta",) and one.path[2:] == ("labels",) and added):
        known = [one for one in elements if one.path[2:] == ("labels", "label") and whole.start < one.start < whole.end]
        first, last = min(known, key=_start, default=None), max(known, key=_start, default=None)
        space = raw[whole.inner : first.start].decode("ascii") if first else ""
        new = "".join(f"{space}<label><name>{escape(name)}</name><attributes></attributes></label>" for name in added)
        if whole.inner < 0:
            yield whole.start, whole.end, f"<labels>{new}</labels>"
        else:
            at = last.end if last else whole.inner
            yield at, at, new


def _start(element: Element) -> int:
    return element.start
