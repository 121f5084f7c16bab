"""The pictures of ``mlfix sort``: everything in order, labels and slices in order, the strangest, near-duplicates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from mlfix_train.audit.reporting.mosaic import draw_mosaic, thin_out
from mlfix_train.audit.reporting.panels import Tile, draw_panel, save_panel
from mlfix_train.audit.scores.slices import select_labels, slug
from mlfix_train.config import build as config
from mlfix_train.errors import ConfigError

STRANGE = 0.02
"""Share of a label's images that get a frame: the most unlike their neighbours."""
GROUPS = 12
"""Groups of near-duplicates on their panel."""
Images = Callable[[np.ndarray], np.ndarray]


def draw(
    cfg: DictConfig,
    order: pd.DataFrame,
    duplicates: pd.DataFrame,
    table: pd.DataFrame,
    images: Images,
    folder: Path,
    used: str,
) -> list[Path]:
    """Draws the pictures into ``folder``; those of an earlier sort there are removed.

    Args:
        cfg: ``panels`` and ``slices``.
        order: N rows, with ``position``, ``label_position`` and the scores.
        duplicates: rows of near-duplicates.
        table: sample table of the N images.
        images: maps row numbers to pixels, uint8 ``n,H,W,3``.
        folder: where the PNGs go.
        used: what told the images apart, for the headlines.

    Returns:
        The files, in the order in which one would look at them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("label-*.png"), *folder.glob("slice-*.png")]:
        old.unlink()
    for name in ("strangest.png", "duplicates.png"):
        (folder / name).unlink(missing_ok=True)
    path = np.argsort(order["position"].to_numpy())
    written = [_mosaic(path, "All images, alike beside alike", used, images, folder / "all.png")]
    if len(order) >= 3:
        written.append(_strangest(order, images, folder / "strangest.png", used))
    written += _labels(cfg, order, images, folder, used)
    written += _slices(cfg, order, images, folder, used)
    if len(duplicates):
        written.append(_duplicates(duplicates, table, images, folder / "duplicates.png"))
    return written


def _mosaic(
    rows: np.ndarray, title: str, used: str, images: Images, path: Path, strange: np.ndarray | None = None
) -> Path:
    """Draws rows in their order; of more than a sheet holds, evenly spread ones."""
    shown = thin_out(len(rows))
    words = f"{len(rows):,} images" if len(shown) == len(rows) else f"{len(shown):,} of {len(rows):,} images"
    framed = " · framed: the strangest" if strange is not None and strange.any() else ""
    picked = rows[shown]
    frames = None if strange is None else strange[shown]
    return save_panel(draw_mosaic(images(picked), title, f"{words}{framed} · by {used}", frames), path)


def _labels(cfg: DictConfig, order: pd.DataFrame, images: Images, folder: Path, used: str) -> list[Path]:
    """Draws a mosaic of each of some labels, those whose strangest images are strangest first."""
    labels = order["label"]
    if labels.isna().all():
        return []
    scores = order["label_outlier_score"]
    worst = scores.groupby(labels).agg(lambda s: float(np.sort(s.to_numpy())[-max(1, len(s) // 50) :].mean()))
    written = []
    for number, label in enumerate(worst.sort_values(ascending=False, kind="stable").index[: int(cfg.panels)], 1):
        rows = np.flatnonzero((labels == label).to_numpy())
        rows = rows[np.argsort(order["label_position"].to_numpy()[rows])]
        own = scores.to_numpy()[rows]
        strange = own >= np.quantile(own, 1 - STRANGE) if len(rows) >= 10 else np.zeros(len(rows), bool)
        written.append(
            _mosaic(rows, str(label), used, images, folder / f"label-{number:02d}-{slug(str(label))}.png", strange)
        )
    return written


def slice_rows(cfg: DictConfig, labels: pd.Series) -> dict[str, np.ndarray]:
    """Returns the rows of each slice that ``slices`` names.

    Raises:
        ConfigError: a pattern that is no regular expression, or matches no label.
    """
    found = {}
    for name, pattern in (config.plain(cfg.slices) or {}).items():
        if not isinstance(pattern, str):
            raise ConfigError(f"slices.{name}={pattern} is no regular expression", "give text: slices.speed=speed")
        found[str(name)] = np.flatnonzero(select_labels(labels.fillna("").tolist(), name, pattern))
    return found


def _slices(cfg: DictConfig, order: pd.DataFrame, images: Images, folder: Path, used: str) -> list[Path]:
    """Draws a mosaic of each slice that ``slices`` names, in the order of the whole."""
    written = []
    for name, rows in slice_rows(cfg, order["label"]).items():
        rows = rows[np.argsort(order["position"].to_numpy()[rows])]
        file = folder / f"slice-{slug(name)}.png"
        written.append(_mosaic(rows, f"{name}: labels with {cfg.slices[name]}", used, images, file))
    return written


def _strangest(order: pd.DataFrame, images: Images, path: Path, used: str) -> Path:
    """Draws the images most unlike their neighbours, those of their label where there are labels."""
    labelled = order["label"].notna().any()
    scores = order["label_outlier_score" if labelled else "outlier_score"].fillna(0).to_numpy()
    rows = np.argsort(-scores, kind="stable")[:108]
    names = order["label"].fillna("").to_numpy()
    tiles = [
        Tile(image, str(name), caption=f"{score:.1f} times as far")
        for image, name, score in zip(images(rows), names[rows], scores[rows], strict=True)
    ]
    whose = "their label's nearest images" if labelled else "their nearest images"
    return save_panel(draw_panel(tiles, f"Most unlike {whose}", f"strangest first, by {used}"), path)


def _duplicates(duplicates: pd.DataFrame, table: pd.DataFrame, images: Images, path: Path) -> Path:
    """Draws some groups of near-duplicates, a row each; those with different labels first."""
    rows = pd.Series(np.arange(len(table)), index=table.index)
    tiles: list[Tile] = []
    columns = 8
    for number in duplicates["duplicate_group"].drop_duplicates().head(GROUPS):
        group = duplicates[duplicates["duplicate_group"] == number]
        varied = group.groupby("label", dropna=False, sort=False).head(columns // 2).head(columns)
        for image, row in zip(images(rows.loc[varied["sample_id"]].to_numpy()), varied.itertuples(), strict=True):
            side = "" if row.held_out is None else ", held out" if row.held_out else ", training"
            tiles.append(Tile(image, "" if pd.isna(row.label) else str(row.label), caption=f"group {number}{side}"))
        blank = np.full((8, 8, 3), 253, np.uint8)
        tiles += [Tile(blank, "")] * (columns - len(varied))
    count = duplicates["duplicate_group"].nunique()
    note = f"{min(count, GROUPS)} of {count:,} groups, different labels first; up to {columns} of each"
    return save_panel(draw_panel(tiles, "Near-duplicates", note, columns=columns, max_tiles=len(tiles)), path)
