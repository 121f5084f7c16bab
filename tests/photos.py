"""Photos with colored boxes, written in each format of annotations: what a crop must show is known."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {"stop": (200, 30, 40), "yield": (40, 60, 200), "other-sign": (30, 160, 60), "speed/50 km:h": (220, 190, 20)}


@dataclass
class Photo:
    """``boxes``: label and corners x, y, x, y in whole pixels, the last one excluded; x may exceed a panorama's."""

    name: str
    width: int = 320
    height: int = 200
    split: str = "train"
    panorama: bool = False
    boxes: list[tuple[str, tuple[int, int, int, int]]] = field(default_factory=list)


def photos(seed: int = 0, count: int = 6) -> list[Photo]:
    """Some photos of one to four boxes that don't overlap; the second is a panorama with a box across its edge."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        photo = Photo(f"photo{number}", 320 + 16 * number, 200, ("train", "train", "val")[number % 3], number == 1)
        for place in range(1 + number % 4):
            side = rng.integers(12, 60, 2)
            x, y = 75 * place + int(rng.integers(0, 10)), int(rng.integers(0, 130))
            label = list(COLORS)[int(rng.integers(len(COLORS)))]
            photo.boxes.append((label, (x, y, x + int(side[0]), y + int(side[1]))))
        if photo.panorama:
            photo.boxes.append(("stop", (photo.width - 20, 150, photo.width + 14, 186)))
        found.append(photo)
    return found


def paint(photo: Photo, path: Path, quality: int = 97) -> None:
    """Writes the photo: grey noise, every box in the color of its label with a white left half of its upper row."""
    rng = np.random.default_rng(len(photo.name) + photo.width)
    pixels = rng.integers(90, 130, (photo.height, photo.width, 3)).astype(np.uint8)
    for label, (x0, y0, x1, y1) in photo.boxes:
        pixels[y0:y1, np.arange(x0, x1) % photo.width if photo.panorama else slice(x0, x1)] = COLORS[label]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=quality, **({"subsampling": 0} if path.suffix == ".jpg" else {}))


def write_mtsd(root: Path, found: list[Photo]) -> Path:
    for folder in ("annotations", "splits", "images"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for photo in found:
        paint(photo, root / "images" / f"{photo.name}.jpg")
        objects = []
        for place, (label, (x0, y0, x1, y1)) in enumerate(photo.boxes):
            box: dict[str, object] = {"xmin": float(x0), "ymin": float(y0), "xmax": float(x1), "ymax": float(y1)}
            if x1 > photo.width:
                box["xmax"] = float(x1 - photo.width)
                left = {**box, "xmax": float(photo.width)}
                box["cross_boundary"] = {"left": left, "right": {**box, "xmin": 0.0}}
            properties = {"occluded": place == 0, "ambiguous": False, "out-of-frame": False}
            objects.append({"key": f"{photo.name}key{place}", "label": label, "bbox": box, "properties": properties})
        content = {"width": photo.width, "height": photo.height, "ispano": photo.panorama, "objects": objects}
        (root / "annotations" / f"{photo.name}.json").write_text(json.dumps(content))
    for split in ("train", "val", "test"):
        names = "".join(f"{photo.name}\n" for photo in found if photo.split == split)
        (root / "splits" / f"{split}.txt").write_text(names + ("unpublished\n" if split == "test" else ""))
    return root


def write_coco(root: Path, found: list[Photo]) -> Path:
    """A JSON a split; ids have gaps and don't begin at 1."""
    numbers = {name: 7 * place + 3 for place, name in enumerate(COLORS)}
    for split in ("train", "val"):
        some = [photo for photo in found if photo.split == split]
        images, annotations = [], []
        for place, photo in enumerate(some):
            paint(photo, root / f"{split}2017" / f"{photo.name}.jpg")
            number = 1000 - 13 * place
            images.append(
                {"id": number, "file_name": f"{photo.name}.jpg", "width": photo.width, "height": photo.height}
            )
            for label, (x0, y0, x1, y1) in photo.boxes:
                annotations.append(
                    {
                        "id": 50_000 - 11 * len(annotations),
                        "image_id": number,
                        "iscrowd": 0,
                        "area": 1.5,
                        "category_id": numbers[label],
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                    }
                )
        categories = [{"id": number, "name": name, "supercategory": "sign"} for name, number in numbers.items()]
        content = {"info": {"year": 2017}, "images": images, "annotations": annotations, "categories": categories}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content, indent=2))
    return root


def write_yolo(root: Path, found: list[Photo]) -> Path:
    names = list(COLORS)
    for photo in found:
        paint(photo, root / "images" / photo.split / f"{photo.name}.jpg")
        lines = []
        for label, (x0, y0, x1, y1) in photo.boxes:
            w, h = photo.width, photo.height
            numbers = ((x0 + x1) / 2 / w, (y0 + y1) / 2 / h, (x1 - x0) / w, (y1 - y0) / h)
            lines.append(f"{names.index(label)} " + " ".join(f"{number:.8f}" for number in numbers))
        file = root / "labels" / photo.split / f"{photo.name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n")
    told = "".join(f"  {place}: '{name}'\n" for place, name in enumerate(names))
    (root / "data.yaml").write_text(f"# ours\npath: ../elsewhere\ntrain: images/train\nval: images/val\nnames:\n{told}")
    return root


def write_voc(root: Path, found: list[Photo]) -> Path:
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for photo in found:
        paint(photo, root / "JPEGImages" / f"{photo.name}.jpg")
        told = "".join(
            f"<object><name>{label}</name><pose>Left</pose><difficult>0</difficult><bndbox><xmin>{x0 + 1}</xmin>"
            f"<ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>\n"
            for label, (x0, y0, x1, y1) in photo.boxes
        )
        size = f"<size><width>{photo.width}</width><height>{photo.height}</height><depth>3</depth></size>"
        (root / "Annotations" / f"{photo.name}.xml").write_text(
            f"<annotation><filename>{photo.name}.jpg</filename>{size}\n{told}</annotation>\n"
        )
    for split in ("train", "val"):
        names = "".join(f"{photo.name}\n" for photo in found if photo.split == split)
        (root / "ImageSets/Main" / f"{split}.txt").write_text(names)
    return root


def write_cvat(root: Path, found: list[Photo]) -> Path:
    """One XML, as a project of CVAT is exported: the subset of each image is its split."""
    images = []
    for number, photo in enumerate(found):
        paint(photo, root / "images" / f"{photo.name}.jpg")
        boxes = "".join(
            f'    <box label="{label}" source="manual" occluded="{place % 2}" xtl="{x0:.2f}" ytl="{y0:.2f}" '
            f'xbr="{x1:.2f}" ybr="{y1:.2f}" z_order="0">\n      <attribute name="pole">left</attribute>\n    </box>\n'
            for place, (label, (x0, y0, x1, y1)) in enumerate(photo.boxes)
        )
        subset = {"train": "Train", "val": "Validation"}[photo.split]
        size = f'width="{photo.width}" height="{photo.height}"'
        images.append(f'  <image id="{number}" name="{photo.name}.jpg" subset="{subset}" {size}>\n{boxes}  </image>\n')
    labels = "".join(f"\n        <label>\n          <name>{name}</name>\n        </label>" for name in COLORS)
    meta = f"<meta>\n    <project>\n      <labels>{labels}\n      </labels>\n    </project>\n  </meta>"
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  '
    (root / "annotations.xml").write_text(f"{head}{meta}\n{''.join(images)}</annotations>\n")
    return root


WRITE = {"mtsd": write_mtsd, "coco": write_coco, "yolo": write_yolo, "voc": write_voc, "cvat": write_cvat}


def plain(found: list[Photo]) -> list[Photo]:
    """The photos as formats without panoramas can have them."""
    return [
        Photo(p.name, p.width, p.height, p.split, False, [box for box in p.boxes if box[1][2] <= p.width])
        for p in found
    ]


def for_format(name: str, seed: int = 0, count: int = 6) -> list[Photo]:
    return photos(seed, count) if name == "mtsd" else plain(photos(seed, count))
