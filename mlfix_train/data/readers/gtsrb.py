"""The German Traffic Sign Recognition Benchmark as its makers offer it.

Source: Stallkamp et al., "Man vs. computer: Benchmarking machine learning algorithms for traffic sign recognition",
Neural Networks 32 (2012), and the README files of the archives.
"""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train.data.annotations.base import check_root
from mlfix_train.data.samples import make_table
from mlfix_train.errors import DataError, check_choice

LABELS = (
    "speed-limit-20", "speed-limit-30", "speed-limit-50", "speed-limit-60", "speed-limit-70", "speed-limit-80",
    "end-of-speed-limit-80", "speed-limit-100", "speed-limit-120", "no-overtaking", "no-overtaking-trucks",
    "priority-at-next-intersection", "priority-road", "yield", "stop", "no-vehicles", "no-trucks", "no-entry",
    "general-caution", "dangerous-curve-left", "dangerous-curve-right", "double-curve", "bumpy-road", "slippery-road",
    "road-narrows-right", "road-work", "traffic-signals", "pedestrians", "children-crossing", "bicycles-crossing",
    "beware-of-ice", "wild-animals-crossing", "end-of-all-limits", "turn-right-ahead", "turn-left-ahead", "ahead-only",
    "go-straight-or-right", "go-straight-or-left", "keep-right", "keep-left", "roundabout", "end-of-no-overtaking",
    "end-of-no-overtaking-trucks",
)  # fmt: skip
"""What the class numbers 0 to 42 stand for."""
FRAME = re.compile(r"(\d{5})_\d{5}")


def read_gtsrb(root: str | Path, test: str | bool = "auto") -> pd.DataFrame:
    """Reads ``.../Images/00000/00000_00000.ppm`` to ``00042/`` below ``root``, and the test images where they are.

    Args:
        root: the folder that the archives were unpacked into (``GTSRB`` or the one above it).
        test: whether the official test images are taken in, as the split ``test``: ``auto`` where both
            ``Final_Test/Images`` and ``GT-final_test.csv`` are there.

    Returns:
        A sample table: labels are names (:data:`LABELS`), ``group`` is the track, whose 30 frames show one sign,
        ``split`` is ``train`` or ``test``, and ``class_id``, ``width``, ``height`` and the region of interest
        ``roi_x1, roi_y1, roi_x2, roi_y2`` (pixels) are metadata where the CSV files are there.

    Raises:
        DataError: no such folders, or test labels that are missing though ``test`` is true.
    """
    check_choice("data.test", test, ("auto", True, False))
    base = check_root(root)
    folders = _class_folders(base)
    rows = [row for folder in folders for row in _training(base, folder)]
    if not rows:
        raise DataError(f"the class folders below data.root={root} hold no .ppm files", "unpack the archive again")
    if test is not False:
        rows += _test(base, folders[0].parent, required=test is True)
    names = [str(row.pop("sample_id")) for row in rows]
    label, group, split = ([str(row.pop(key)) for row in rows] for key in ("label", "group", "split"))
    paths = [os.path.join(base, name) for name in names]
    return make_table(names, paths, label, group, split, pd.DataFrame(rows), source=f"data.root={root}")


def _class_folders(base: Path) -> list[Path]:
    """Returns the folders 00000 to 00042."""
    wanted = {f"{number:05d}" for number in range(len(LABELS))}
    for place, folders, _ in os.walk(base, followlinks=True):
        found = sorted(wanted & set(folders))
        if len(found) > 1:
            return [Path(place, name) for name in found]
    raise DataError(
        f"no folders 00000 to 00042 below data.root={base}",
        "unpack GTSRB_Final_Training_Images.zip there; class folders with names are read by data=folder",
    )


def _training(base: Path, folder: Path) -> list[dict[str, Any]]:
    number = int(folder.name)
    about = _read_csv(folder / f"GT-{folder.name}.csv")
    rows = []
    for name in sorted(os.listdir(folder)):
        if name.lower().endswith(".ppm"):
            track = FRAME.match(name)
            group = f"{folder.name}/{track.group(1)}" if track else f"{folder.name}/{name}"
            rows.append({
                "sample_id": (folder / name).relative_to(base).as_posix(), "label": LABELS[number], "group": group,
                "split": "train", "class_id": number, **_facts(about.get(name, {})),
            })  # fmt: skip
    return rows


def _test(base: Path, training: Path, required: bool) -> list[dict[str, Any]]:
    labels = next((path for path in sorted(base.rglob("GT-final_test.csv"))), None)
    folder = next((path for path in sorted(base.rglob("Final_Test/Images")) if path != training), None)
    if labels is None or folder is None:
        if required:
            lacking = "GT-final_test.csv" if labels is None else "Final_Test/Images"
            raise DataError(f"no {lacking} below data.root={base}", "unpack GTSRB_Final_Test_Images.zip and "
                            "GTSRB_Final_Test_GT.zip there, or data.test=false")  # fmt: skip
        return []
    rows = []
    for name, row in _read_csv(labels).items():
        number = int(row["ClassId"]) if str(row.get("ClassId", "")).isdigit() else -1
        if not 0 <= number < len(LABELS):
            raise DataError(f"{labels}: {name} has the ClassId {row.get('ClassId')!r}", "it is 0 to 42")
        place = (folder / name).relative_to(base).as_posix()
        rows.append({"sample_id": place, "label": LABELS[number], "group": place, "split": "test",
                     "class_id": number, **_facts(row)})  # fmt: skip
    return rows


def _read_csv(path: Path) -> dict[str, dict[str, str]]:
    """Returns file name to row; empty where there is no such file."""
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    if rows and "Filename" not in rows[0]:
        raise DataError(f"{path}: no column Filename; it has {', '.join(map(str, rows[0]))}",
                        "cells are parted by semicolons, as the makers' are")  # fmt: skip
    return {str(row["Filename"]): row for row in rows}


def _facts(row: dict[str, str]) -> dict[str, int]:
    columns = {"Width": "width", "Height": "height", "Roi.X1": "roi_x1", "Roi.Y1": "roi_y1", "Roi.X2": "roi_x2",
               "Roi.Y2": "roi_y2"}  # fmt: skip
    return {new: int(row[old]) for old, new in columns.items() if str(row.get(old) or "").isdigit()}
