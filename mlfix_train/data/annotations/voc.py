"""Pascal VOC: one XML per photo; corners count pixels from 1, the last one included.

Source of the format: the development kit's documentation (VOC2012). Its tools read the pixels as stored.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import escape

from mlfix_train.data.annotations import base
from mlfix_train.data.annotations.base import AnnotationFormat, Annotations, LabelChanges, Row
from mlfix_train.data.annotations.write_back import write_copies
from mlfix_train.errors import DataError

SPLITS = ("train", "val", "test")
OWN_ELEMENTS = ("name", "bndbox", "part", "polygon")
"""Elements of an object that don't become columns."""


@dataclass
class Voc(AnnotationFormat):
    """Pascal VOC: ``Annotations/*.xml``, ``JPEGImages/`` and ``ImageSets/Main/{train,val,test}.txt`` below ``root``.

    ``pose``, ``truncated``, ``difficult`` and the like become columns.

    Args:
        root: the folder (``VOC2012``, or one that holds several such); without a folder ``Annotations``, XML files
            beside their photos.
    """

    name = "voc"

    @classmethod
    def detect(cls, root: Path) -> int:
        """Looks for XML files in a folder ``Annotations``, or loose ones."""
        if any(next(folder.rglob("*.xml"), None) for folder in base.find_folders(root, "annotations")):
            return 2
        return 1 if next(root.glob("*.xml"), None) or next(root.glob("*/*.xml"), None) else 0

    def read(self) -> Annotations:
        """Reads all photos and boxes; no XML, or a photo in two splits, is an error."""
        root = self.folder
        photos, boxes = list[Row](), list[Row]()
        for folder in base.find_folders(root, "Annotations") or [root]:
            home = root if folder == root else folder.parent
            images = next(iter(base.find_folders(home, "JPEGImages", 1)), None) if folder != root else None
            lists = base.read_split_lists(home / "ImageSets" / "Main" / f"{split}.txt" for split in SPLITS)
            described = set()
            for file in sorted(folder.rglob("*.xml")):
                photo, rows = _read_file(file, root, folder, images)
                photo["split"] = lists[file.stem].stem if file.stem in lists else base.split_of(file.parent.name)
                photos.append(photo)
                described.add(file.stem)
                boxes += [{**row, "photo": photo["name"]} for row in rows]
            for stem, split_list in lists.items():
                if stem not in described and split_list.stem != "test":  # the test split is often not annotated
                    xml, image = folder / f"{stem}.xml", (images or folder) / f"{stem}.jpg"
                    photo = {"name": base.photo_name(xml.relative_to(root).as_posix()), "path": str(image)}
                    photo |= {"split": split_list.stem, "source": str(split_list), "problem": "no annotation"}
                    photos.append({**photo, "detail": f"{split_list} lists it, but {xml} does not exist"})
        if not photos:
            raise DataError(
                f"no XML below data.root={root}", "set data.root to the folder with Annotations/ and JPEGImages/"
            )
        return self.build(photos, boxes)

    def write_back(self, annotations: Annotations, changes: LabelChanges, out: Path) -> list[Path]:
        """Writes copies with new labels; arguments as in the base class."""
        folders = sorted({Path(path).parent.parent / "ImageSets" / "Main" for path in annotations.photos["source"]})
        lists = [path for folder in folders for path in sorted(folder.glob("*.txt"))]
        return write_copies(annotations, changes, out, _patch, lists)

    def open_copies(self, annotations: Annotations, out: Path) -> AnnotationFormat:
        """Returns the data set of the copied annotations, without photos."""
        return Voc(out)


def _read_file(file: Path, root: Path, folder: Path, images: Path | None) -> tuple[Row, list[Row]]:
    """Returns the columns of a photo and the rows of its boxes; without a folder of ``images`` it is beside the XML."""
    name = base.photo_name(file.relative_to(root).as_posix())
    photo: Row = {"name": name, "source": str(file), "path": str(file.with_suffix(".jpg"))}
    try:
        tree = ET.parse(file).getroot()
        problem = "" if tree.tag == "annotation" else f"its root is <{tree.tag}>, not <annotation>"
    except (ET.ParseError, OSError, ValueError, LookupError) as error:
        problem = str(error)
    if problem:
        return photo | {"problem": "annotation unreadable", "detail": f"{file}: {problem}"}, []
    stated = (tree.findtext("filename") or "").strip() or f"{file.stem}.jpg"
    image_folder = file.parent if images is None else images / file.relative_to(folder).parent
    named, beside = image_folder / Path(stated.replace("\\", "/")).name, image_folder / f"{file.stem}.jpg"
    photo["path"] = str(beside if beside.is_file() and not named.is_file() else named)
    for side in ("width", "height"):
        text = (tree.findtext(f"size/{side}") or "").strip()
        photo[side] = int(text) if text.isdigit() and len(text) < 7 else 0
    return photo, [_read_object(file, value, place) for place, value in enumerate(tree.findall("object"))]


def _read_object(file: Path, value: ET.Element, place: int) -> Row:
    label = (value.findtext("name") or "").strip() or None
    row: Row = {"annotation": str(place), "position": place, "label": label}
    box = value.find("bndbox")
    texts = [box.findtext(name) if box is not None else None for name in ("xmin", "ymin", "xmax", "ymax")]
    row |= base.corners(map(_to_float, texts))
    if row.get("problem"):
        row["detail"] = f"{file}: object {place}: corners {', '.join(map(str, texts))}"
    elif label is None:
        row |= {"problem": "no label", "detail": f"{file}: object {place} has no name"}
    row["x_min"], row["y_min"] = row["x_min"] - 1, row["y_min"] - 1
    others = [item for item in value if item.tag not in OWN_ELEMENTS and len(item) == 0]
    return row | base.attributes({item.tag: (item.text or "").strip() for item in others})


def _to_float(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _patch(file: Path, labels: Mapping[str, str | None], target: Path) -> None:
    target.write_bytes(patch_xml(file.read_bytes(), {int(key): label for key, label in labels.items()}))


def patch_xml(raw: bytes, labels: Mapping[int, str | None], encoding: str | None = None) -> bytes:
    """Returns an annotation file with other names, by number of the ``<object>``, from 0; ``None`` removes it.

    Every other byte stays as it is. The encoding is by default the one that the file declares.
    """
    for mark, codec in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if raw.startswith(mark):  # expat reports byte positions in UTF-8
            text = raw[2:].decode(codec).encode()
            return mark + patch_xml(text, labels, "utf-8").decode().encode(codec)
    if encoding is None:
        declared = re.match(rb"<\?xml[^>]*encoding=[\"']([\w.-]+)[\"']", raw.lstrip(b"\xef\xbb\xbf"))
        encoding = declared[1].decode() if declared else "utf-8"
    objects = _find_objects(raw, encoding)
    for place in sorted(labels, reverse=True):
        start, end, name = objects[place]
        label = labels[place]
        if label is None:
            raw = raw[:start] + raw[end:]
        elif name is not None:
            raw = raw[: name[0]] + escape(label).encode(encoding, "xmlcharrefreplace") + raw[name[1] :]
    return raw


def _find_objects(raw: bytes, encoding: str) -> list[tuple[int, int, tuple[int, int] | None]]:
    """Returns the bytes of each ``<object>`` below the root, start and end, and those of the text of its ``<name>``."""
    parser = expat.ParserCreate(encoding)
    found: list[tuple[int, int, tuple[int, int] | None]] = []
    path: list[tuple[str, int]] = []  # the open elements, and where they start
    names: list[tuple[int, int]] = []

    def on_end(_: str) -> None:
        here, start = parser.CurrentByteIndex, path[-1][1]
        tags, self_closing = [tag for tag, _ in path[1:]], raw[here : here + 2] != b"</"
        if tags == ["object", "name"] and not self_closing:
            names.append((raw.index(b">", start) + 1, here))
        elif tags == ["object"]:
            end = raw.index(b">", start if self_closing else here) + 1
            found.append((start, end, names[0] if names else None))
            names.clear()
        path.pop()

    parser.StartElementHandler = lambda tag, _: path.append((tag, parser.CurrentByteIndex))
    parser.EndElementHandler = on_end
    parser.Parse(raw, True)
    return found
