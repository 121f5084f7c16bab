"""Pascal VOC: one XML per photo; corners count pixels from 1, the last one included.

Source of the format: the development kit's documentation (VOC2012). Its tools read the pixels as stored.
"""

import math
import os
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.sax.saxutils import escape

from mlfix_train.data.annotations import base
from mlfix_train.data.annotations.base import AnnotationFormat, Annotations, LabelChanges, Row
from mlfix_train.data.annotations.cvat import is_cvat
from mlfix_train.data.annotations.outlines import Corners, around_points, around_rotated
from mlfix_train.data.annotations.write_back import write_copies
from mlfix_train.data.files.find import FileFinder, stem
from mlfix_train.data.files.xml_files import Edit, Element, edit_xml
from mlfix_train.data.pixels.decode import open_image
from mlfix_train.errors import DataError, format_list

SPLITS = ("train", "val", "test")
OWN_ELEMENTS = ("name", "bndbox", "part", "polygon", "robndbox", "segmentation")
"""Elements of an object that don't become columns."""
MAX_MEGAPIXELS = 10_000.0
"""Photos are opened for their size alone."""
LAYOUTS = "Annotations/ and JPEGImages/, annotations/ and images/, train/labels and train/images, or all in one folder"


@dataclass
class Voc(AnnotationFormat):
    """Pascal VOC: ``Annotations/*.xml``, ``JPEGImages/`` and ``ImageSets/Main/{train,val,test}.txt`` below ``root``.

    XML files and photos may also lie in ``annotations/`` and ``images/``, ``train/labels/`` and ``train/images/``, or
    side by side. The photo with the name of the XML counts, and if there is none, the one that ``<filename>`` names.
    ``pose``, ``truncated``, ``difficult`` and the like become columns.

    Args:
        root: the folder (``VOC2012``, or one that holds several such).
    """

    name = "voc"

    @classmethod
    def detect(cls, root: Path) -> int:
        """Looks for XML files in a folder ``Annotations``, or loose ones, that are not CVAT's."""
        folders = base.find_folders(root, "annotations")
        if any(not is_cvat(path) for folder in folders for path in folder.rglob("*.xml")):
            return 2
        loose = (path for pattern in ("*.xml", "*/*.xml", "*/*/*.xml") for path in root.glob(pattern))
        return 1 if any(not is_cvat(path) for path in loose) else 0

    def read(self) -> Annotations:
        """Reads all photos and boxes; no XML, or a photo in two splits, is an error."""
        root = self.folder
        images, others = base.files_below(root)
        files = [root / name for name in others if name.lower().endswith(".xml")]
        folders = base.find_folders(root, "Annotations")
        if any(path.is_relative_to(folder) for path in files for folder in folders):
            files = [path for path in files if any(path.is_relative_to(folder) for folder in folders)]
        else:
            folders = []
        if not files:
            raise DataError(f"no XML below data.root={root}", f"set data.root to a folder with {LAYOUTS}")
        described: dict[Path, set[str]] = {folder: set() for folder in folders or [root]}
        lists = {folder: _split_lists(folder if folder == root else folder.parent) for folder in described}
        photos, boxes, notes = list[Row](), list[Row](), list[str]()
        for file in files:
            photo, rows = _read_file(file, root)
            folder = next(folder for folder in described if file.is_relative_to(folder))
            inner = file.relative_to(folder).with_suffix("").as_posix()
            listed = lists[folder].get(inner) or lists[folder].get(file.stem)
            split = listed.stem if listed else ""
            parts = reversed(file.relative_to(root).parts[:-1])
            photo["split"] = split or next(filter(None, map(base.split_of, parts)), "")
            described[folder] |= {file.stem, inner}
            photos.append(photo)
            boxes += [{**row, "photo": photo["name"]} for row in rows]
        notes += _find_photos(root, photos, images)
        used = {photo["path"] for photo in photos}
        loose = [name for name in images if str(root / name) not in used and "/segmentation" not in f"/{name}".lower()]
        if loose:
            notes.append(f"{len(loose):,} photos have no XML and are left out, such as {loose[0]}")
        for folder, stems in described.items():
            for name, split_list in lists[folder].items():
                if name not in stems and split_list.stem != "test":  # the test split is often not annotated
                    xml = folder / f"{name}.xml"
                    photo = {
                        "name": base.photo_name(xml.relative_to(root).as_posix()),
                        "path": str(xml.with_suffix(".jpg")),
                    }
                    photo |= {"split": split_list.stem, "source": str(split_list), "problem": "no annotation"}
                    photos.append({**photo, "detail": f"{split_list} lists it, but {xml} does not exist"})
        outlined = sum(row.pop("outlined", False) for row in boxes)
        if outlined:
            notes.append(f"{outlined:,} boxes have no bndbox; the box around their polygon or rotated box is taken")
        return self.build(photos, boxes, notes=notes)

    def write_back(self, annotations: Annotations, changes: LabelChanges, out: Path) -> list[Path]:
        """Writes copies with new labels; arguments as in the base class."""
        folders = sorted({Path(path).parent.parent / "ImageSets" / "Main" for path in annotations.photos["source"]})
        lists = [path for folder in folders for path in sorted(folder.glob("*.txt"))]
        return write_copies(annotations, changes, out, _patch, lists)

    def open_copies(self, annotations: Annotations, out: Path) -> AnnotationFormat:
        """Returns the data set of the copied annotations, without photos."""
        return Voc(out)


def _split_lists(home: Path) -> dict[str, Path]:
    return base.read_split_lists(home / "ImageSets" / "Main" / f"{split}.txt" for split in SPLITS)


def _read_file(file: Path, root: Path) -> tuple[Row, list[Row]]:
    """Returns the columns of a photo, with ``stated``, its name in the XML, and the rows of its boxes."""
    name = base.photo_name(file.relative_to(root).as_posix())
    photo: Row = {"name": name, "source": str(file), "path": "", "stated": ""}
    try:
        tree = ET.parse(file).getroot()
        problem = "" if tree.tag.lower() == "annotation" else f"its root is <{tree.tag}>, not <annotation>"
        problem += "; it is CVAT's own XML, which data=cvat reads" if tree.tag == "annotations" else ""
    except (ET.ParseError, OSError, ValueError, LookupError) as error:
        problem = str(error)
    if problem:
        return photo | {"problem": "annotation unreadable", "detail": f"{file}: {problem}"}, []
    photo["stated"] = (tree.findtext("filename") or "").strip()
    for side in ("width", "height"):
        size = base.number(tree.findtext(f"size/{side}"))
        photo[side] = int(size) if 0 < size < 10**6 else 0
    return photo, [_read_object(file, value, place) for place, value in enumerate(tree.findall("object"))]


def _find_photos(root: Path, photos: list[Row], images: list[str]) -> list[str]:
    """Sets the ``path`` of the photos: the image with the name of the XML, or the one that ``<filename>`` names.

    Where the two are different photos, the one beside the XML counts unless only the other has the stated size. Returns
    notes on what was decided.
    """
    beside, named = FileFinder(root, images), FileFinder(root, images)
    by_place: dict[str, list[str]] = {}
    for image in images:
        by_place.setdefault(base.place_of(image), []).append(image)
    places = [Path(photo["source"]).relative_to(root).as_posix() for photo in photos]
    own: list[str | None] = []
    for photo, place in zip(photos, places, strict=True):
        candidates = by_place.get(base.place_of(place), [])
        stated = PurePosixPath(photo["stated"].replace("\\", "/")).name
        exact = [image for image in candidates if PurePosixPath(image).name == stated]
        own.append(candidates[0] if len(candidates) == 1 else exact[0] if len(exact) == 1 else None)
        if len(candidates) > 1 and not exact:
            detail = f"{photo['source']}: it is not certain which photo is meant: {format_list(candidates, 3)}"
            photo |= {"problem": photo.get("problem") or "photo missing", "detail": photo.get("detail") or detail}
    missing = [place for place, image in enumerate(own) if image is None and not photos[place].get("problem")]
    loose = beside.find_all([stem(PurePosixPath(places[at]).name) for at in missing])
    own_anywhere = dict(zip(missing, loose, strict=True))
    stated_at = [_stated_place(place, photo["stated"]) for photo, place in zip(photos, places, strict=True)]
    by_name = [_of_place(by_place, place, photo["stated"]) for place, photo in zip(stated_at, photos, strict=True)]
    contradicting, renamed = list[str](), list[str]()
    for at, photo in enumerate(photos):
        first, second = own[at], by_name[at]
        if first and second and first != second:
            if _has_size(root / second, photo) and not _has_size(root / first, photo):
                first = second
            contradicting.append(f"{photo['source']} says {photo['stated']}, taken is {first}")
        elif first and photo["stated"] and not second and stem(_last(photo["stated"])) != stem(_last(first)):
            renamed.append(f"{photo['source']} says {photo['stated']}, taken is {first}")
        chosen = first or second or own_anywhere.get(at)
        if not chosen and photo["stated"] and not photo.get("problem"):
            chosen = named.find(photo["stated"])
        photo["path"] = str(root / (chosen or _expected(places[at], photo["stated"])))
    claims = Counter(photo["path"] for photo in photos)
    for photo in photos:
        wrong = claims[photo["path"]] > 1 and stem(_last(photo["path"])) != stem(_last(photo["source"]))
        if wrong and not photo.get("problem") and os.path.isfile(photo["path"]):
            detail = f"{photo['source']}: its filename {photo['stated']} is the photo of another XML, too"
            photo |= {"problem": "photo missing", "detail": detail}
        del photo["stated"]
    notes = [*beside.notes(), *named.notes()]
    if contradicting:
        text = "XML files name another photo in filename than the one beside them"
        notes.append(f"{len(contradicting):,} {text}, whose size fits: {contradicting[0]}")
    if renamed:
        text = "XML files name a photo in filename that is not there; the one beside them is taken"
        notes.append(f"{len(renamed):,} {text}: {renamed[0]}")
    return notes


def _last(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name


def _stated_place(xml: str, stated: str) -> str:
    return base.place_of((PurePosixPath(xml).parent / _last(stated)).as_posix()) if _last(stated) else ""


def _of_place(by_place: dict[str, list[str]], place: str, stated: str) -> str | None:
    """Returns the image that ``<filename>`` names in the folder that belongs to the XML's."""
    images = by_place.get(place, []) if place else []
    exact = [image for image in images if _last(image) == _last(stated)]
    return exact[0] if len(exact) == 1 else images[0] if len(images) == 1 else None


def _expected(xml: str, stated: str) -> str:
    """Returns where a missing photo would be, for messages."""
    name = _last(stated) or f"{stem(_last(xml))}.jpg"
    parts = [{"annotations": "JPEGImages"}.get(part.lower(), part) for part in PurePosixPath(xml).parts[:-1]]
    return PurePosixPath(*parts, name if "." in name else f"{name}.jpg").as_posix()


def _has_size(image: Path, photo: Row) -> bool:
    """Returns whether an image has the size that its annotation states, turned or not; true if none is stated."""
    stated = photo.get("width", 0), photo.get("height", 0)
    if not all(stated):
        return True
    try:
        with open_image(str(image), MAX_MEGAPIXELS) as opened:
            return stated in (opened.size, opened.size[::-1])
    except Exception:  # Pillow raises many types for a damaged file
        return False


def _read_object(file: Path, value: ET.Element, place: int) -> Row:
    label = (value.findtext("name") or "").strip() or None
    row: Row = {"annotation": str(place), "position": place, "label": label}
    box = value.find("bndbox")
    texts = [box.findtext(name) if box is not None else None for name in ("xmin", "ymin", "xmax", "ymax")]
    row |= base.corners(texts)
    if not any(texts) and (outline := _outline(value)):
        row |= {"problem": "", **base.corners(outline), "outlined": True}
    if row.get("problem"):
        row["detail"] = f"{file}: object {place}: corners {', '.join(map(str, texts))}"
    elif label is None:
        row |= {"problem": "no label", "detail": f"{file}: object {place} has no name"}
    row["x_min"], row["y_min"] = row["x_min"] - 1, row["y_min"] - 1
    others = [item for item in value if item.tag not in OWN_ELEMENTS and len(item) == 0]
    return row | base.attributes({item.tag: (item.text or "").strip() for item in others})


def _outline(value: ET.Element) -> Corners | None:
    """Returns the box around a ``polygon`` (``x1, y1, ...`` or ``pt`` with ``x, y``) or a ``robndbox`` (rotated)."""
    rotated = value.find("robndbox")
    if rotated is not None:
        numbers = [base.number(rotated.findtext(name)) for name in ("cx", "cy", "w", "h", "angle")]
        return around_rotated(*numbers) if all(map(math.isfinite, numbers)) else None
    polygon = value.find("polygon")
    points = [] if polygon is None else [item for item in polygon.iter() if len(item) == 0]
    sides = ([item.text for item in points if re.fullmatch(rf"{axis}\d*", item.tag)] for axis in "xy")
    return around_points(*sides) if points else None


def _patch(file: Path, labels: Mapping[str, str | None], target: Path) -> None:
    target.write_bytes(patch_xml(file.read_bytes(), {int(key): label for key, label in labels.items()}))


def patch_xml(raw: bytes, labels: Mapping[int, str | None]) -> bytes:
    """Returns an annotation file with other names, by number of the ``<object>``, from 0; ``None`` removes it."""

    def find_edits(raw: bytes, elements: list[Element]) -> Iterator[Edit]:
        objects = [element for element in elements if element.path == ("object",)]
        names = [element for element in elements if element.path == ("object", "name") and element.inner >= 0]
        for place, label in labels.items():
            whole = objects[place]
            name = next((one for one in names if whole.start < one.start < whole.end), None)
            if label is None:
                yield whole.start, whole.end, ""
            elif name is not None:
                yield name.inner, name.outer, escape(label)

    return edit_xml(raw, find_edits)
