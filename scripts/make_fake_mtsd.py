"""Renders street photos with traffic signs in the exact file layout of the Mapillary Traffic Sign Dataset.

    python scripts/make_fake_mtsd.py fake-mtsd --photos 400 --planted 0.05
    mlfix crop data.root=fake-mtsd out=crops

What it writes is told by `mlfix_train.data.synthetic.streets`. Run again, the script continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import time

from mlfix_train.data.synthetic.streets import StreetPhotos, write_street_photos


def main() -> None:
    """Writes the data set."""
    parser = argparse.ArgumentParser(description="Renders a substitute for the Mapillary Traffic Sign Dataset.")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--signs", type=float, default=5.6, help="mean signs per photo, as in MTSD")
    parser.add_argument("--size", default="2048x1536", type=sides, help="of a photo; panoramas are twice as wide")
    parser.add_argument("--panoramas", type=float, default=0.05, help="fraction of the photos")
    parser.add_argument("--planted", type=float, default=0.03, help="fraction of the speed limits with a wrong label")
    parser.add_argument("--broken", type=int, default=3, help="boxes that can't be cropped")
    parser.add_argument("--classes", type=int, default=0, help="only so many classes of signs, speed limits first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes; by default one for each CPU")
    options = vars(parser.parse_args())
    out, workers = options.pop("out"), options.pop("workers")
    started = said = time.monotonic()

    def tell(done: int) -> None:
        nonlocal said
        if time.monotonic() - said > 2:
            said = time.monotonic()
            rate = done / (said - started)
            print(f"rendering photos: {done:,} of {options['photos']:,}, {rate:.1f}/s", file=sys.stderr, flush=True)

    print(write_street_photos(out, StreetPhotos(**options), workers, tell))


def sides(text: str) -> tuple[int, int]:
    """Returns width and height of ``2048x1536``."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and min(int(width), int(height)) >= 256):
        raise argparse.ArgumentTypeError(f"{text} is not a size: use width x height of 256 or more, such as 2048x1536")
    return int(width), int(height)


if __name__ == "__main__":
    main()
