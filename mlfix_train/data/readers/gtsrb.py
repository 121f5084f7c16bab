"""The German Traffic Sign Recognition Benchmark as downloaded.

Source: Stallkamp et al., "Man vs. computer: Benchmarking machine learning algorithms for traffic sign recognition",
Neural Networks 32 (2012), and the README files of the archives.
"""

import csv
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train.data.readers.files import check_root
from mlfix_train.data.samples import make_table
from mlfix_train.errors import DataError, check_choice

_NAMES = """
speed-limit-20 speed-limit-30 speed-limit-50 speed-limit-60 speed-limit-70 speed-limit-80 end-of-speed-limit-80
speed-limit-100 speed-limit-120 no-overtaking no-overtaking-trucks priority-at-next-intersection priority-road yield
stop no-vehicles no-trucks no-entry general-caution dangerous-curve-left dangerous-curve-right double-curve bumpy-road
slippery-road road-narrows-right road-work traffic-signals pedestrians children-crossing bicycles-crossing
beware-of-ice wild-animals-crossing end-of-all-limits turn-right-ahead turn-left-ahead ahead-only go-straight-or-right
go-straight-or-left keep-right keep-left roundabout end-of-no-overtaking end-of-no-overtaking-trucks
"""
LABELS = tuple(_NAMES.split())
"""Names of the class numbers 0 to 42."""
FRAME = re.compile(r"(\d{5})_\d{5}")
METADATA = ("Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2")
"""Columns of the CSV files that are kept, as ``width`` ... ``roi_y2``."""


def read_gtsrb(root: str | Path, test: str | bool = "auto") -> pd.DataFrame:
    """Reads ``.../Images/00000/00000_00000.ppm`` to ``00042/`` below ``root``, and the test images if they are there.

    Args:
        root: The folder that the archives were unpacked into (``GTSRB`` or the one above it).
        test: Whether to include the official test images, as the split ``test``; ``auto``: if both
            ``Final_Test/Images`` and ``GT-final_test.csv`` exist.

    Returns:
        A sample table: labels are names (:data:`LABELS`), ``group`` is the track, whose 30 frames show one sign,
        ``split`` is ``train`` or ``test``, and ``class_id``, ``width``, ``height`` and the region of interest
        ``roi_x1, roi_y1, roi_x2, roi_y2`` (pixels) are metadata, if the CSV files are there.

    Raises:
        DataError: There are no such folders, or ``test`` is true and the test images or labels are missing.
    """
    check_choice("data.test", test, ("auto", True, False))
    base = check_root(root, "set data.root to the folder that the archives were unpacked into")
    folders = _class_folders(base)
    rows = [row for folder in folders for row in _training_rows(base, folder)]
    if not rows:
        raise DataError(f"the class folders below data.root={root} contain no .ppm files", "unpack the archive again")
    if test is not False:
        rows += _test_rows(base, folders[0].parent, required=test is True)
    table = pd.DataFrame(rows)
    ids, labels, groups, splits = (table.pop(key).tolist() for key in ("sample_id", "label", "group", "split"))
    paths = [os.path.join(base, name) for name in ids]
    return make_table(ids, paths, labels, groups, splits, table, source=f"data.root={root}")


def _class_folders(base: Path) -> list[Path]:
    names = {f"{number:05d}" for number in range(len(LABELS))}
    for parent, folders, _ in os.walk(base, followlinks=True):
        found = sorted(names & set(folders))
        if len(found) > 1:
            return [Path(parent, name) for name in found]
    hint = "unpack GTSRB_Final_Training_Images.zip there; class folders with names are read by data=folder"
    raise DataError(f"no folders 00000 to 00042 below data.root={base}", hint)


def _training_rows(base: Path, folder: Path) -> list[dict[str, Any]]:
    metadata = _read_csv(folder / f"GT-{folder.name}.csv")
    rows = []
    for name in sorted(name for name in os.listdir(folder) if name.lower().endswith(".ppm")):
        track = FRAME.match(name)
        group = f"{folder.name}/{track.group(1) if track else name}"
        sample_id = (folder / name).relative_to(base).as_posix()
        rows.append(_row(sample_id, int(folder.name), group, "train", metadata.get(name, {})))
    return rows


def _test_rows(base: Path, training: Path, required: bool) -> list[dict[str, Any]]:
    labels = next(iter(sorted(base.rglob("GT-final_test.csv"))), None)
    folder = next((path for path in sorted(base.rglob("Final_Test/Images")) if path != training), None)
    if labels is None or folder is None:
        if required:
            missing = "GT-final_test.csv" if labels is None else "Final_Test/Images"
            hint = "unpack GTSRB_Final_Test_Images.zip and GTSRB_Final_Test_GT.zip there, or set data.test=false"
            raise DataError(f"no {missing} below data.root={base}", hint)
        return []
    rows = []
    for name, metadata in _read_csv(labels).items():
        class_id = metadata.get("ClassId", "")
        if not class_id.isdigit() or int(class_id) >= len(LABELS):
            raise DataError(f"{labels}: {name} has the ClassId {class_id!r}", "it must be 0 to 42")
        sample_id = (folder / name).relative_to(base).as_posix()
        rows.append(_row(sample_id, int(class_id), sample_id, "test", metadata))
    return rows


def _row(sample_id: str, class_id: int, group: str, split: str, metadata: dict[str, str]) -> dict[str, Any]:
    row = {"sample_id": sample_id, "label": LABELS[class_id], "group": group, "split": split, "class_id": class_id}
    values = {name.lower().replace(".", "_"): metadata.get(name) or "" for name in METADATA}
    return row | {name: int(value) for name, value in values.items() if value.isdigit()}


def _read_csv(path: Path) -> dict[str, dict[str, str]]:
    """Returns file name to row; empty if the file does not exist."""
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    if rows and "Filename" not in rows[0]:
        problem = f"{path}: no column Filename; it has {', '.join(map(str, rows[0]))}"
        raise DataError(problem, "its cells must be separated by semicolons, as in the original files")
    return {str(row["Filename"]): row for row in rows}
