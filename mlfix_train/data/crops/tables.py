"""The tables of a cropping: the sample table of the crops, and what gave no crop."""

from __future__ import annotations

import pandas as pd

from mlfix_train.data.annotations.base import EDGES, Annotations
from mlfix_train.data.crops.photo import BoxOutcome
from mlfix_train.data.samples import make_table

DROPPED_COLUMNS = ["photo", "annotation", "label", "problem", "detail"]


def crop_tables(
    annotations: Annotations, boxes: pd.DataFrame, outcomes: list[BoxOutcome]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the sample table of N boxes with ``sample_id`` and their N outcomes, and what gave no crop."""
    facts = pd.DataFrame(outcomes, index=boxes.index, columns=list(BoxOutcome._fields))
    cropped = facts["problem"] == ""
    lost = boxes.assign(problem=facts["problem"], detail=facts["detail"])[~cropped]
    boxes, facts = boxes[cropped], facts[cropped]
    photos = annotations.photos.loc[boxes["photo"]]
    meta = boxes.drop(columns=["sample_id", "photo", "position", "label", "problem", "detail"])
    meta[list(EDGES)] = facts[list(EDGES)]
    meta[["photo_width", "photo_height"]] = facts[["photo_width", "photo_height"]]
    meta["aspect"] = ((facts["x_max"] - facts["x_min"]) / (facts["y_max"] - facts["y_min"])).round(4)
    meta["clipped"] = facts["clipped"]
    panorama = photos["panorama"].to_numpy(bool) | (boxes["wraps"].to_numpy(bool) if "wraps" in boxes else False)
    meta["wraps"] = panorama & (facts["x_max"] > facts["photo_width"]).to_numpy()
    ids = boxes["sample_id"].tolist()
    columns = (boxes["label"].tolist(), boxes["photo"].tolist(), photos["split"].tolist())
    table = make_table(ids, ids, *columns, _one_type_per_column(meta), str(annotations.root))
    return table.sort_index(), _dropped_table(annotations, lost)


def _one_type_per_column(meta: pd.DataFrame) -> pd.DataFrame:
    """Returns attributes with mixed types as text, since Parquet allows only one type per column."""
    for name in meta.select_dtypes(object).columns:
        known = meta[name].dropna()
        if known.map(type).nunique() > 1:
            meta[name] = meta[name].map(str, na_action="ignore")
        meta[name] = meta[name].where(meta[name].notna(), None)
    return meta


def _dropped_table(annotations: Annotations, lost: pd.DataFrame) -> pd.DataFrame:
    """Returns everything that gave no crop: ``lost`` boxes, those that the reader ruled out, and unusable photos."""
    photos, boxes = annotations.photos, annotations.boxes
    bad = photos[photos["problem"] != ""]
    unread = boxes[boxes["problem"] != ""]
    of_bad_photos = boxes[(boxes["problem"] == "") & boxes["photo"].isin(bad.index)]
    reasons = bad.loc[of_bad_photos["photo"], ["problem", "detail"]].set_index(of_bad_photos.index)
    without_boxes = bad[~bad.index.isin(boxes["photo"])]
    parts = [
        lost,
        unread,
        of_bad_photos.assign(problem=reasons["problem"], detail=reasons["detail"]),
        without_boxes.rename_axis("photo").reset_index().assign(annotation="", label=None),
    ]
    dropped = pd.concat([part[DROPPED_COLUMNS].astype(object) for part in parts], ignore_index=True)
    return dropped.sort_values(["photo", "annotation"], ignore_index=True)
