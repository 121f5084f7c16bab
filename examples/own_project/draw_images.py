"""Draws the pictures: 320 icons of four classes, one in ten with a wrong label.

It writes ``pictures/<number>.png`` and ``pictures/labels.tsv``, what an annotator said, and ``truth.csv``, which a real
project does not have: here it stands in for the person who reviews, and it says afterwards whether the errors were
found.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("circle", "cross", "square", "triangle")
SIDE, N_PICTURES, WRONG = 24, 320, 0.1


def draw(kind: str, rng: np.random.Generator) -> Image.Image:
    """Draws one icon: a light shape of random place, size and colour on a dark, noisy ground."""
    noise = rng.integers(0, 110, (SIDE, SIDE, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    pen, color = ImageDraw.Draw(picture), tuple(int(x) for x in rng.integers(130, 256, 3))
    radius = int(rng.integers(5, 9))
    x, y = (int(v) for v in rng.integers(radius + 1, SIDE - radius - 1, 2))
    box = (x - radius, y - radius, x + radius, y + radius)
    if kind == "circle":
        pen.ellipse(box, fill=color)
    elif kind == "square":
        pen.rectangle(box, fill=color)
    elif kind == "triangle":
        pen.polygon([(x, box[1]), (box[0], box[3]), (box[2], box[3])], fill=color)
    else:
        pen.line(box, fill=color, width=3)
        pen.line((box[0], box[3], box[2], box[1]), fill=color, width=3)
    return picture


def main(folder: str = "pictures") -> None:
    """Draws all pictures and writes their labels."""
    rng, place = np.random.default_rng(0), Path(folder)
    place.mkdir(exist_ok=True)
    truth = [CLASSES[number % 4] for number in range(N_PICTURES)]
    given = list(truth)
    for number in rng.choice(N_PICTURES, int(WRONG * N_PICTURES), replace=False):
        given[number] = str(rng.choice([name for name in CLASSES if name != truth[number]]))
    names = [f"{number:03d}.png" for number in range(N_PICTURES)]
    for name, kind in zip(names, truth, strict=True):
        draw(kind, rng).save(place / name)
    lines = [f"{name}\t{label}\n" for name, label in zip(names, given, strict=True)]
    (place / "labels.tsv").write_text("".join(lines), encoding="utf-8")
    with open("truth.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("sample_id", "label"), *zip(names, truth, strict=True)])


if __name__ == "__main__":
    main()
