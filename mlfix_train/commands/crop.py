"""``mlfix crop``: turns photos with boxes into crops and a sample table."""

from pathlib import Path

import pandas as pd

from mlfix_train.audit.reporting.crop_overview import draw_crop_overview
from mlfix_train.audit.reporting.panels import save_panel
from mlfix_train.commands.inputs import open_boxes, source_name
from mlfix_train.commands.progress import ProgressBar, format_duration
from mlfix_train.config.crop import CropConfig
from mlfix_train.data.annotations.base import Annotations, summarize_counts
from mlfix_train.data.crops.build import STATE_FOLDER
from mlfix_train.data.crops.folder import DROPPED, TABLE, CropFolder, crop_dataset
from mlfix_train.data.plausibility import check_boxes
from mlfix_train.data.samples import INVALID


def run(cfg: CropConfig) -> pd.DataFrame:
    """Crops the boxes of photos.

    Returns:
        The sample table; it, the crops, and what gave no crop are also written below ``out``.
    """
    source = open_boxes(cfg.data)
    print(f"reading    {source_name(cfg.data)}", flush=True)
    with ProgressBar("cropping photos") as progress:
        folder = crop_dataset(
            source,
            cfg.out,
            cfg.spec,
            cfg.labels,
            cfg.splits,
            workers=cfg.workers,
            max_unreadable=cfg.max_unreadable,
            overwrite=cfg.overwrite,
            on_read=_print_read,
            progress=progress,
        )
    overview = save_panel(draw_crop_overview(folder.table), folder.path / STATE_FOLDER / "overview.png")
    _print_summary(folder, overview)
    return folder.table


def _print_read(annotations: Annotations) -> None:
    labels = annotations.boxes["label"].nunique()
    panoramas = int(annotations.photos["panorama"].sum())
    more = f", {panoramas:,} of them panoramas" if panoramas else ""
    boxes = f"{len(annotations.boxes):,} boxes of {labels:,} labels"
    print(f"read       {boxes} in {len(annotations.photos):,} photos{more} ({annotations.format})")
    for note in (*annotations.notes, *check_boxes(annotations.boxes, len(annotations.photos))):
        print(f"           {note}")
    if INVALID in set(annotations.boxes["label"]):
        print(f"           a label is called {INVALID!r}, which excludes a sample in fixes: rename it before training")
    print(end="", flush=True)


def _print_summary(folder: CropFolder, overview: Path) -> None:
    crops, info = folder.crops, folder.info
    rate = "" if crops.reused else f", {info['photos'] / max(crops.seconds, 1e-9):,.0f} photos/s"
    print(f"cropped    {info['crops']:,} of {info['boxes']:,} boxes ({format_duration(crops.seconds)}{rate})")
    if crops.reused:
        print(f"           {crops.reused:,} of {info['photos']:,} photos were cropped before")
    if info["left_out"]:
        print(f"           {info['left_out']:,} boxes have other labels or splits than requested")
    boxes, photos = (crops.dropped[(crops.dropped["annotation"] == "") == whole] for whole in (False, True))
    if len(boxes):
        print(f"dropped    {len(boxes):,} boxes: {summarize_counts(boxes['problem'])}")
    if len(photos):
        print(f"           {len(photos):,} photos without readable boxes: {summarize_counts(photos['problem'])}")
    for row in crops.dropped.drop_duplicates("problem").head(4).to_dict("records"):
        print(f"           {row['problem']}: {row['photo']} {row['annotation']}: {row['detail']}")
    if len(crops.dropped):
        print(f"           {folder.path / DROPPED}")
    if info["clipped"] or info["wraps"]:
        clipped = f"{info['clipped']:,} boxes extend beyond their photo and were clipped"
        print(f"edges      {clipped}, {info['wraps']:,} cross the edge of a panorama and were joined")
    print(f"table      {folder.path / TABLE}")
    print(f"look at    {overview}")
    print(f"train      mlfix train data=crops data.root={folder.path}", flush=True)
