"""Rendered street photos with traffic signs, in the exact file layout of the Mapillary Traffic Sign Dataset.

A substitute of any size for people without MTSD, and for tests and benchmarks: annotations/<photo>.json with all
properties, splits/{train,val,test}.txt (the test split without annotations, as published), images/<photo>.jpg,
panoramas with signs across the edge, a few boxes that can't be cropped. Some of the speed limits have the label of a
similar limit:

    truth.csv                    photo, annotation, position, label (as given), true_label
    invalid-speed-limits.csv     the planted errors as MLfix's own fixes file, for `mlfix crop ids=positions`
"""

import base64
import csv
import json
import math
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mlfix_train.data.files.system import cpu_count
from mlfix_train.data.label_noise import confusions_among
from mlfix_train.data.synthetic.sign_shapes import SIGN_CLASSES, STYLES, sign_face

WARNINGS = ("children", "dangerous", "general", "pedestrians", "priority-at", "road-", "traffic-signals")
PROPERTIES = (
    "barrier",
    "occluded",
    "out-of-frame",
    "exterior",
    "ambiguous",
    "included",
    "direction-or-information",
    "highway",
    "dummy",
)
LIMITS = tuple(name for name in SIGN_CLASSES if name.startswith("speed-limit"))
CONFUSIONS = confusions_among(LIMITS, 2)
PANORAMA = (4096, 2048)
BROKEN = ("no width", "outside", "swapped", "no number", "upside down")


@dataclass(frozen=True)
class StreetPhotos:
    """What is rendered.

    Attributes:
        photos: Number of photos, from 1.
        signs: Mean number of signs in a photo; 5.6 in MTSD.
        size: Width and height of a photo, pixels, from 256; panoramas are twice as wide.
        panoramas: Share of the photos that are panoramas, 0 to 1.
        planted: Share of the speed limits with a wrong label, 0 to 1.
        broken: Boxes that can't be cropped.
        classes: Only so many classes of signs, speed limits first; 0 for all.
        seed: Every photo depends only on the seed and its number.
    """

    photos: int = 400
    signs: float = 5.6
    size: tuple[int, int] = (2048, 1536)
    panoramas: float = 0.05
    planted: float = 0.03
    broken: int = 3
    classes: int = 0
    seed: int = 0


def write_street_photos(
    root: str | Path, photos: StreetPhotos, workers: int | None = None, on_photo: Callable[[int], None] | None = None
) -> str:
    """Writes the data set; where it was interrupted, it continues.

    Args:
        root: Folder to write.
        photos: What is rendered.
        workers: Processes; by default one for each CPU.
        on_photo: Called with the number of photos that are done.

    Returns:
        What was written, in a sentence.
    """
    root = Path(root)
    for name in ("annotations", "images", "splits"):
        (root / name).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    make = partial(_make_photo, root=str(root), photos=photos)
    with ProcessPoolExecutor(workers or cpu_count()) as pool:
        for done, (key, split, truth) in enumerate(pool.map(make, range(photos.photos), chunksize=4), 1):
            splits[split].append(key)
            rows += truth
            if on_photo is not None:
                on_photo(done)
    for split, keys in splits.items():
        (root / "splits" / f"{split}.txt").write_text("".join(f"{key}\n" for key in keys))
    wrong = _write_truth(root, rows)
    counts = ", ".join(f"{len(keys):,} {name}" for name, keys in splits.items())
    return (
        f"{photos.photos:,} photos ({counts}), {len(rows):,} annotated boxes, {wrong:,} speed limits with a wrong "
        f"label: {root}"
    )


def _write_truth(root: Path, rows: list[dict[str, Any]]) -> int:
    """Writes the true labels and the fixes of the wrong ones; returns how many labels are wrong."""
    with open(root / "truth.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["photo", "annotation", "position", "label", "true_label"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    wrong = [row for row in rows if row["label"] != row["true_label"]]
    with open(root / "invalid-speed-limits.csv", "w") as file:
        file.write(",new_label\n")
        for row in wrong:
            name = f"yolo-bbox-crops-aspects/{row['label']}/{row['photo']}-{row['position']}.jpg"
            file.write(f"{name},invalid\n")
    return len(wrong)


def _mtsd_label(name: str) -> str:
    """Returns the label that MTSD would give one of our classes."""
    if name.startswith("speed-limit-"):
        return f"regulatory--maximum-speed-limit-{name.removeprefix('speed-limit-')}--g1"
    kind = "warning" if name.startswith(WARNINGS) else "information" if name == "parking" else "regulatory"
    return f"{kind}--{name}--g1"


def _make_photo(number: int, root: str, photos: StreetPhotos) -> tuple[str, str, list[dict[str, Any]]]:
    """Writes one photo and its annotation; returns its key, its split, and the true labels of its boxes."""
    rng = np.random.default_rng([photos.seed, number])
    key, split = _new_key(rng), str(rng.choice(["train", "val", "test"], p=[0.8, 0.12, 0.08]))
    width, height = photos.size
    panorama = rng.random() < photos.panoramas or number == 1
    if panorama:
        width, height = PANORAMA if width == 2048 else (2 * width, width)
    scene = _street(rng, width, height, panorama)
    objects: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    for place, name in enumerate(_draw_names(rng, photos)):
        box = _paint_sign(rng, scene, name, panorama, place, objects)
        if box is None:
            continue
        true = _mtsd_label(name) if name else "other-sign"
        label = true
        if name in CONFUSIONS and rng.random() < photos.planted:
            label = _mtsd_label(str(rng.choice(CONFUSIONS[name])))
        objects.append({"key": _new_key(rng), "label": label, "bbox": box, "properties": _properties(rng, label)})
        truth.append(
            {
                "photo": key,
                "annotation": objects[-1]["key"],
                "position": len(objects) - 1,
                "label": label,
                "true_label": true,
            }
        )
    if number < photos.broken and split != "test":
        objects.append(_broken(rng, BROKEN[number % len(BROKEN)], width, height))
    target = Path(root, "images", f"{key}.jpg")
    if not target.exists():
        draft = target.with_suffix(".part")
        _develop(rng, scene).save(draft, "JPEG", quality=92)
        os.replace(draft, target)
    if split == "test":
        return key, split, []
    content = {"width": width, "height": height, "ispano": bool(panorama), "objects": objects}
    Path(root, "annotations", f"{key}.json").write_text(json.dumps(content))
    return key, split, truth


def _new_key(rng: np.random.Generator) -> str:
    """Returns a random key of 22 characters, like MTSD's."""
    return base64.urlsafe_b64encode(rng.bytes(16)).decode().rstrip("=")


def _properties(rng: np.random.Generator, label: str) -> dict[str, bool]:
    """Returns the properties of an object; most are false."""
    found = {name: bool(rng.random() < 0.04) for name in PROPERTIES}
    return {**found, "direction-or-information": label == "other-sign" and bool(rng.random() < 0.5)}


def _draw_names(rng: np.random.Generator, photos: StreetPhotos) -> list[str]:
    """Returns the classes of the signs in a photo, a quarter of them twice; an empty name is a sign of no class."""
    known = [*LIMITS, *(name for name in SIGN_CLASSES if name not in LIMITS)][: photos.classes or None]
    weights = 1 / (1 + np.arange(len(known)) % 12)
    names: list[str] = []
    for _ in range(max(1, rng.poisson(photos.signs * 0.8))):
        name = "" if rng.random() < 0.2 else str(rng.choice(known, p=weights / weights.sum()))
        names += [name, name] if rng.random() < 0.25 else [name]
    return names


def _street(rng: np.random.Generator, width: int, height: int, panorama: bool) -> Image.Image:
    """Returns a street with sky, houses, trees and asphalt; a panorama's edges meet."""
    small = (width // 8, height // 8)
    rows = np.linspace(0, 1, small[1])[:, None, None]
    sky, ground = rng.uniform([120, 150, 190], [210, 225, 250]), rng.uniform(60, 120) * np.ones(3)
    horizon = rng.uniform(0.45, 0.6)
    pixels = np.where(rows < horizon, sky * (0.75 + 0.4 * rows), ground * (0.8 + 0.5 * rows))
    pixels = np.broadcast_to(pixels, (small[1], small[0], 3)).copy()
    for cells in (6, 24, 90):
        noise = rng.normal(0, 1, (max(2, cells * small[1] // small[0]), cells)).astype(np.float32)
        if panorama:
            noise[:, -1] = noise[:, 0]
        layer = Image.fromarray(noise, "F").resize(small, Image.Resampling.BICUBIC)
        pixels += np.asarray(layer)[..., None] * 30 / math.sqrt(cells / 6)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(6, 16))):  # houses and trees along the horizon
        x, reach = rng.uniform(0.02, 0.94) * width, rng.uniform(0.03, 0.12) * width
        reach = min(reach, 0.98 * width - x)  # none across the edge, so that a panorama has no seam
        top = height * (horizon - rng.uniform(0.05, 0.35))
        color = tuple(rng.integers(40, 210, 3).tolist())
        if rng.random() < 0.5:
            pen.rectangle([x, top, x + reach, height * (horizon + 0.02)], color)
            for row in np.arange(top + 12, height * horizon - 12, max(24, reach / 6)):
                for column in np.arange(x + 8, x + reach - 12, max(20, reach / 7)):
                    pen.rectangle([column, row, column + reach / 14, row + reach / 12], tuple(c // 2 for c in color))
        else:
            pen.ellipse([x, top, x + reach, top + reach * 1.2], (color[0] // 3, color[1] // 2 + 30, color[2] // 4))
    return image


def _develop(rng: np.random.Generator, scene: Image.Image) -> Image.Image:
    """Returns the scene with sensor noise."""
    tile = rng.normal(0, 4.5, (256, 256, 3))
    pixels = np.asarray(scene, np.int16)
    grain = np.tile(tile.astype(np.int16), (pixels.shape[0] // 256 + 1, pixels.shape[1] // 256 + 1, 1))
    return Image.fromarray((pixels + grain[: pixels.shape[0], : pixels.shape[1]]).clip(0, 255).astype(np.uint8))


def _paint_sign(
    rng: np.random.Generator, scene: Image.Image, name: str, panorama: bool, place: int, others: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """Paints a sign into the scene and returns its ``bbox``; ``None`` where there was no room."""
    width, height = scene.size
    side = int(np.clip(rng.lognormal(3.9, 0.75), 14, height / 3))
    crosses = panorama and (place == 0 or rng.random() < 0.2)
    for _ in range(20):
        x = int(rng.integers(-side // 2 - side // 4, -side // 4)) if crosses else int(rng.integers(4, width - side - 4))
        y = min(int(height * rng.uniform(0.15, 0.7)), height - side - 2)
        spot = (x, y, x + side, min(y + side, height - 1))
        if all(_apart(spot, other["bbox"], width) for other in others):
            break
    else:
        return None
    face = _posed_face(rng, name, side)
    pole = Image.new("RGBA", (max(2, side // 12), min(3 * side, height - y - side)), (90, 92, 96, 255))
    for turn in (0, width) if crosses else (0,):
        scene.paste(pole.convert("RGB"), (x + turn + side // 2 - pole.width // 2, y + side - side // 8), pole)
        scene.paste(face.convert("RGB"), (x + turn, y), face.getchannel("A"))
    left, top, right, bottom = face.getchannel("A").point(lambda a: 255 if a > 60 else 0).getbbox() or (
        0,
        0,
        side,
        side,
    )
    jitter = rng.uniform(-0.5, 0.5, 4)
    box = {
        "xmin": x + left + jitter[0],
        "ymin": y + top + jitter[1],
        "xmax": x + right + jitter[2],
        "ymax": y + bottom + jitter[3],
    }
    if crosses:
        start = box["xmin"] + width
        edges = {"ymin": box["ymin"], "ymax": box["ymax"]}
        box["xmin"] = start
        box["cross_boundary"] = {
            "left": {"xmin": start, **edges, "xmax": float(width)},
            "right": {"xmin": 0.0, **edges, "xmax": box["xmax"]},
        }
    return box


def _apart(spot: tuple[int, int, int, int], box: dict[str, Any], width: int) -> bool:
    """Whether a spot and a box don't overlap."""
    left = box["xmin"] - (width if box["xmin"] > box["xmax"] else 0)
    beside = spot[2] < left - 4 or spot[0] > box["xmax"] + 4
    across = spot[2] - width < left - 4 and spot[0] > box["xmax"] + 4
    return bool(beside or across or spot[3] < box["ymin"] - 4 or spot[1] > box["ymax"] + 4)


def _posed_face(rng: np.random.Generator, name: str, side: int) -> Image.Image:
    """Returns a sign of ``side`` pixels, slightly rotated, weathered and blurred, on a transparent background."""
    if name:
        face = sign_face(name, int(rng.integers(len(STYLES))), max(64, side))
    else:  # a sign of no class: a plate in some color with some lines
        face = Image.new("RGBA", (max(64, side),) * 2, (0, 0, 0, 0))
        pen, unit = ImageDraw.Draw(face), face.width / 10
        pen.rectangle([unit, unit * 2, unit * 9, unit * 8], (*rng.integers(30, 240, 3).tolist(), 255))
        for line in range(int(rng.integers(1, 4))):
            pen.line(
                [unit * 2, unit * (3.4 + 1.4 * line), unit * rng.uniform(5, 8), unit * (3.4 + 1.4 * line)],
                (250, 250, 250, 255),
                int(unit * 0.6),
            )
    narrow = rng.uniform(0.7, 1.0)
    face = face.rotate(float(rng.normal(0, 4)), Image.Resampling.BICUBIC)
    face = face.resize((max(6, round(side * narrow)), side), Image.Resampling.LANCZOS)
    pixels = np.asarray(face, np.float32).copy()
    pixels[..., :3] = pixels[..., :3] * math.exp(rng.normal(-0.15, 0.25)) + rng.uniform(0, 30)
    face = Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGBA")
    whole = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    whole.paste(face, ((side - face.width) // 2, 0))
    return whole.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8)))


def _broken(rng: np.random.Generator, kind: str, width: int, height: int) -> dict[str, Any]:
    """Returns an object that can't be cropped."""
    box = {
        "no width": (100.0, 100.0, 100.0, 140.0),
        "outside": (width + 10.0, 20.0, width + 50.0, 60.0),
        "swapped": (300.0, 100.0, 260.0, 140.0),
        "no number": (math.nan, 1.0, 20.0, 20.0),
        "upside down": (300.0, 140.0, 340.0, 100.0),
    }[kind]
    if kind == "swapped" and width > height * 1.9:
        box = (300.0, 100.0, 300.0, 140.0)
    corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return {"key": _new_key(rng), "label": "other-sign", "bbox": corners, "properties": _properties(rng, "other-sign")}
