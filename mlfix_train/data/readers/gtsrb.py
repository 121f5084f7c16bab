"""The German Traffic Sign Recognition Benchmark as downloaded.

Source: Stallkamp et al., "Man vs. computer: Benchmarking machine learning algorithms for traffic sign recognition",
Neural Networks 32 (2012), and the README files of the archives.
"""

import logging
import os
import posixpath
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train.data.annotations.ids import id_text
from mlfix_train.data.files.tables import open_table
from mlfix_train.data.files.walk import FileList, find_images
from mlfix_train.data.readers.files import check_root
from mlfix_train.data.samples import make_table
from mlfix_train.errors import DataError, check_choice, format_list, names_arguments

log = logging.getLogger(__name__)

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


@names_arguments("data")
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
    files = find_images(base)
    parent = _class_parent(base, files.folders)
    rows = _training_rows(base, parent, files.images)
    if not rows:
        raise DataError(f"the class folders below data.root={root} contain no .ppm files", "unpack the archive again")
    if test is not False:
        rows += _test_rows(base, parent, files, required=test is True)
    table = pd.DataFrame(rows)
    ids, labels, groups, splits = (table.pop(key).tolist() for key in ("sample_id", "label", "group", "split"))
    paths = [os.path.join(base, name) for name in ids]
    return make_table(ids, paths, labels, groups, splits, table, source=f"data.root={root}", classes=LABELS)


def _class_parent(base: Path, folders: list[str]) -> str:
    """Returns the first folder, of those nearest to ``base``, that holds folders called 00000, 00001, ..."""
    names = {f"{number:05d}" for number in range(len(LABELS))}
    counts = Counter(posixpath.dirname(folder) for folder in folders if posixpath.basename(folder) in names)
    parents = [parent for parent, count in counts.items() if count > 1]
    if not parents:
        hint = "unpack GTSRB_Final_Training_Images.zip there; class folders with names are read by data=folder"
        raise DataError(f"no folders 00000 to 00042 below data.root={base}", hint)
    return min(parents, key=lambda parent: (parent.count("/") if parent else -1, parent))


def _training_rows(base: Path, parent: str, images: list[str]) -> list[dict[str, Any]]:
    names = {f"{number:05d}" for number in range(len(LABELS))}
    metadata: dict[str, dict[str, dict[str, str]]] = {}
    rows = []
    for image in images:
        folder, name = posixpath.split(image)
        number = posixpath.basename(folder)
        if posixpath.dirname(folder) != parent or number not in names or not name.lower().endswith(".ppm"):
            continue
        if number not in metadata:
            metadata[number] = _read_csv(base / folder / f"GT-{number}.csv")
        track = FRAME.match(name)
        group = f"{number}/{track.group(1) if track else name}"
        rows.append(_row(image, int(number), group, "train", metadata[number].get(name, {})))
    return rows


def _test_rows(base: Path, training: str, files: FileList, required: bool) -> list[dict[str, Any]]:
    labels = next((base / name for name in files.others if posixpath.basename(name) == "GT-final_test.csv"), None)
    found = (name for name in files.folders if f"/{name}".endswith("/Final_Test/Images") and name != training)
    folder = next((base / name for name in found), None)
    if labels is None or folder is None:
        if required:
            missing = "GT-final_test.csv" if labels is None else "Final_Test/Images"
            hint = "unpack GTSRB_Final_Test_Images.zip and GTSRB_Final_Test_GT.zip there, or set data.test=false"
            raise DataError(f"no {missing} below data.root={base}", hint)
        return []
    rows, bad = [], []
    for name, metadata in _read_csv(labels).items():
        class_id = id_text(metadata.get("ClassId", ""))
        if class_id.isdigit() and int(class_id) < len(LABELS):
            sample_id = (folder / name).relative_to(base).as_posix()
            rows.append(_row(sample_id, int(class_id), sample_id, "test", metadata))
        else:
            bad.append(f"{name} has the ClassId {metadata.get('ClassId')!r}")
    if len(bad) > 0.9 * (len(rows) + len(bad)):
        raise DataError(f"{labels}: {format_list(bad, 3)}", "it must be 0 to 42")
    if bad:
        log.warning("%s: %d image(s) without a class 0 to 42 are left out: %s", labels, len(bad), format_list(bad, 3))
    return rows


def _row(sample_id: str, class_id: int, group: str, split: str, metadata: dict[str, str]) -> dict[str, Any]:
    row = {"sample_id": sample_id, "label": LABELS[class_id], "group": group, "split": split, "class_id": class_id}
    values = {name.lower().replace(".", "_"): id_text(metadata.get(name) or "") for name in METADATA}
    return row | {name: int(value) for name, value in values.items() if value.isdigit()}


def _read_csv(path: Path) -> dict[str, dict[str, str]]:
    """Returns file name to row; empty if the file does not exist."""
    if not path.is_file():
        return {}
    table = open_table(path, "GTSRB's table", DataError, ("Filename", *METADATA, "ClassId"))
    if "Filename" not in table.frame.columns:
        raise DataError(f"{path} {table.lacks(['Filename'])}", "use the original file")
    rows = ({str(name): str(value) for name, value in row.items()} for row in table.frame.to_dict("records"))
    return {row["Filename"]: row for row in rows}
