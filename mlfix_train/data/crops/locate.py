"""The boxes that crops were cut from, found again in annotations that may have changed since."""

from collections import defaultdict

import numpy as np
import pandas as pd

from mlfix_train.data.annotations.base import EDGES, Annotations
from mlfix_train.data.crops.geometry import Box, NotCropped, place_box
from mlfix_train.data.crops.spec import CropSpec
from mlfix_train.errors import DataError

TOLERANCE = 0.05
"""Pixels by which an edge of the same box may differ, as text has few digits."""


def locate_boxes(annotations: Annotations, crops: pd.DataFrame, spec: CropSpec) -> pd.DataFrame:
    """Returns crops with the key that their box has in the annotations as they are now.

    A key may be a position, so a box is told by its corners; of several with the same corners, it is the one with the
    crop's label, or with its key.

    Args:
        annotations: as they are now.
        crops: rows of the sample table of the crops.
        spec: how they were cropped.

    Raises:
        DataError: a box is no longer where it was.
    """
    photos, boxes = annotations.photos, annotations.boxes[annotations.boxes["photo"].isin(set(crops["group"]))]
    wraps = boxes["wraps"].tolist() if "wraps" in boxes else [False] * len(boxes)
    found: dict[str, list[tuple[str, str | None, Box, bool]]] = defaultdict(list)
    corners = boxes[list(EDGES)].astype(float).itertuples(index=False, name=None)
    for photo, key, label, box, wrap in zip(
        boxes["photo"], boxes["annotation"].astype(str), boxes["label"], corners, wraps, strict=True
    ):
        found[photo].append((key, label, box, bool(wrap)))
    used: set[tuple[str, str]] = set()
    keys, gone = list[str](), list[str]()
    for name, crop in crops.iterrows():
        photo, width, height = str(crop["group"]), int(crop["photo_width"]), int(crop["photo_height"])
        stated = photos.loc[photo] if photo in photos.index else {"width": 0, "height": 0, "panorama": False}
        sx, sy = (float(width), float(height)) if annotations.normalized else (1.0, 1.0)
        if spec.rescale and not annotations.normalized and stated["width"] and stated["height"]:
            sx, sy = width / stated["width"], height / stated["height"]
        wanted = tuple(crop[list(EDGES)].astype(float))
        same = []
        for key, label, (x0, y0, x1, y1), wrap in found[photo]:
            try:
                panorama = bool(stated["panorama"]) or wrap
                placed = place_box((x0 * sx, y0 * sy, x1 * sx, y1 * sy), width, height, panorama, spec).box
            except NotCropped:
                continue
            if (photo, key) not in used and np.allclose(placed, wanted, rtol=0, atol=TOLERANCE):
                same.append((label != crop["label"], key != str(crop["annotation"]), key))
        keys.append(min(same, default=(False, False, ""))[2])
        used.add((photo, keys[-1]))
        if not same:
            file = stated.get("source", "no annotation file has this photo")
            x0, y0, x1, y1 = wanted
            gone.append(f"{file}: {photo}: {crop['label']!r} at x {x0:g} to {x1:g}, y {y0:g} to {y1:g} ({name})")
    if gone:
        problem = f"data.root={annotations.root}: {len(gone):,} of the fixed boxes are gone or were moved"
        hint = "crop again and review what changed, or export from the annotations as they were"
        raise DataError(problem, hint, gone[:5])
    return crops.assign(annotation=keys)
