"""How fast data are read: 200,000 images in class folders, GTSRB decoded into a pixel store, MTSD's annotations.

    python scripts/bench_intake.py <GTSRB's class folders> --work <folder>

Prints seconds. The class folders and annotations are made in ``--work`` and stay there: hard links to one small image,
and a JSON of six signs for each of 41,000 photos, in the layout of the Mapillary Traffic Sign Dataset.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from mlfix_train.data.annotations.mtsd import Mtsd
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.data.pixels.store import open_store
from mlfix_train.data.readers.folder import read_folder

IMAGES, CLASSES, PHOTOS, SIGNS = 200_000, 400, 41_000, 6
LINKS = 20_000
"""Hard links to a file, at most; file systems have limits."""


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="How fast data are read.")
    parser.add_argument("gtsrb", type=Path, help="GTSRB as class folders")
    parser.add_argument("--work", type=Path, default=Path("bench-intake"))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    folders, mtsd = args.work / "folders", args.work / "mtsd"
    make_folders(folders)
    make_mtsd(mtsd)
    print(f"{IMAGES:,} images listed     {best(args.rounds, lambda: read_folder(folders)):6.2f} s")
    print(f"{PHOTOS:,} annotations read  {best(args.rounds, lambda: Mtsd(mtsd).read()):6.2f} s")
    table = read_folder(args.gtsrb)
    print(f"{len(table):,} images stored      {best(args.rounds, lambda: store(args.gtsrb, args.work)):6.2f} s")


def best(rounds: int, function: Callable[[], object]) -> float:
    """Returns the shortest time of several calls, in seconds."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def store(images: Path, work: Path) -> None:
    """Reads class folders and decodes their images into a store of 40 px, which is deleted again."""
    cache = tempfile.mkdtemp(dir=work)
    try:
        open_store(read_folder(images), PixelSpec(), cache)
    finally:
        shutil.rmtree(cache)


def link_images(names: list[Path], work: Path) -> None:
    """Links each name to a small image."""
    work.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        source = work / f"image{number // LINKS}.jpg"
        if number % LINKS == 0:
            Image.new("RGB", (8, 8), (200, 30, 30)).save(source)
        name.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, name)


def make_folders(root: Path) -> None:
    """Makes the class folders, if they are not there."""
    if not root.exists():
        names = [root / f"class{number % CLASSES:03}" / f"image{number:06}.jpg" for number in range(IMAGES)]
        link_images(names, root.parent / "sources")


def make_mtsd(root: Path) -> None:
    """Makes annotations, lists of splits and photos in MTSD's layout, if they are not there."""
    if root.exists():
        return
    names = [f"photo{number:05}" for number in range(PHOTOS)]
    link_images([root / "images" / f"{name}.jpg" for name in names], root.parent / "photos")
    (root / "annotations").mkdir()
    for number, name in enumerate(names):
        objects = [
            {
                "key": f"{name}-{place}",
                "label": f"sign--{(number + place) % CLASSES}--g1",
                "bbox": {"xmin": 10.5 * place, "ymin": 20.0, "xmax": 10.5 * place + 9, "ymax": 41.25},
                "properties": dict.fromkeys(("barrier", "occluded", "out-of-frame", "ambiguous", "dummy"), False),
            }
            for place in range(SIGNS)
        ]
        content = {"width": 4000, "height": 3000, "ispano": False, "objects": objects}
        (root / "annotations" / f"{name}.json").write_text(json.dumps(content))
    (root / "splits").mkdir()
    for split, some in (("train", names[::2]), ("val", names[1::2])):
        (root / "splits" / f"{split}.txt").write_text("\n".join(some))


if __name__ == "__main__":
    main()
