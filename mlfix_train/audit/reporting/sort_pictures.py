"""Pictures of a visual order: all images, labels and slices in order, outliers, and near-duplicates.

Images in order are drawn as mosaics: hundreds on one sheet, without text, to scan at a glance.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mlfix_train.audit.reporting import panels
from mlfix_train.audit.reporting.panels import MARGIN, Tile, draw_panel, save_panel
from mlfix_train.audit.reporting.text import font, printable, shorten
from mlfix_train.audit.scores.slices import select_labels, slug

MAX_IMAGES, SIDE = 2_000, 40  # images on a mosaic, and their side, px
FRAMED_FRACTION = 0.02  # fraction of a label's images that get a frame: those with the highest outlier score
N_OUTLIERS = 108  # images on the panel of outliers
N_GROUPS, GROUP_SIZE = 12, 8  # groups on the panel of near-duplicates, and images of each
Images = Callable[[np.ndarray], np.ndarray]


def draw_sort(
    order: pd.DataFrame,
    duplicates: pd.DataFrame,
    images: Images,
    folder: Path,
    *,
    embedding: str,
    slices: Mapping[str, str] | None = None,
    n_panels: int = 12,
) -> list[Path]:
    """Draws the pictures of an order; those of an earlier order in the folder are removed.

    Args:
        order: N rows with the columns of ``order.parquet``.
        duplicates: From :func:`mlfix_train.audit.similarity.near_duplicates.find_near_duplicates`.
        images: Maps row numbers ``(n,)`` to pixels, uint8 ``(n, H, W, 3)``.
        folder: Where the PNG files go.
        embedding: Name of the embedding, for the headlines.
        slices: Regular expressions on labels, by the name of the slice.
        n_panels: Labels that get a picture, those with the strongest outliers first.

    Returns:
        The files, the most interesting first.

    Raises:
        ConfigError: As in :func:`slice_rows`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("label-*.png", "slice-*.png", "outliers.png", "duplicates.png"):
        for old in folder.glob(pattern):
            old.unlink()
    position = order["position"].to_numpy()
    title = "All images in visual order"
    written = [_draw_order(np.argsort(position), title, embedding, images, folder / "all.png")]
    if len(order) >= 3:
        written.append(_draw_outliers(order, images, folder / "outliers.png", embedding))
    written += _draw_labels(order, images, folder, embedding, n_panels)
    for name, rows in slice_rows(order["label"], slices or {}).items():
        title = f"{name}: labels that match {(slices or {})[name]}"
        path = folder / f"slice-{slug(name)}.png"
        written.append(_draw_order(rows[np.argsort(position[rows])], title, embedding, images, path))
    if len(duplicates):
        written.append(_draw_duplicates(duplicates, order["sample_id"], images, folder / "duplicates.png"))
    return written


def slice_rows(labels: pd.Series, slices: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Returns the rows of each slice, given as a regular expression on labels.

    Raises:
        ConfigError: A slice is not a regular expression, or matches no label.
    """
    known = labels.fillna("").tolist()
    return {name: np.flatnonzero(select_labels(known, name, pattern)) for name, pattern in slices.items()}


def thin_out(count: int, limit: int = MAX_IMAGES) -> np.ndarray:
    """Returns the positions of ``count`` ordered images that a mosaic shows: all, or ``limit`` evenly spaced ones."""
    if count <= limit:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, limit).round().astype(np.int64))


def draw_mosaic(images: np.ndarray, title: str, note: str = "", framed: np.ndarray | None = None) -> Image.Image:
    """Draws images, uint8 ``(n, H, W, 3)``, row by row on a sheet of about 4 by 3; n may be 0.

    ``note`` is a grey line below the title; ``framed``, bool ``(n,)``, marks the images that get a frame.
    """
    n = len(images)
    columns = max(12, math.ceil(math.sqrt(n * 4 / 3)))
    rows, cell, head = math.ceil(n / columns), SIDE + 2, MARGIN + 62
    sheet = Image.new("RGB", (max(440, columns * cell) + 2 * MARGIN, head + rows * cell + MARGIN), panels.GROUND)
    panels.draw_head(sheet, title, "", shorten(note, sheet.width - 2 * MARGIN, font(13)))
    sheet.info["Description"] = printable(note)
    for number, pixels in enumerate(images):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * cell, head + row * cell
        if framed is not None and framed[number]:
            sheet.paste(panels.VERMILLION, (x - 2, y - 2, x + SIDE + 2, y + SIDE + 2))
        tile = panels.fit_image(pixels, SIDE)
        sheet.paste(tile, (x + (SIDE - tile.width) // 2, y + (SIDE - tile.height) // 2))
    return sheet


def _draw_order(
    rows: np.ndarray, title: str, embedding: str, images: Images, path: Path, framed: np.ndarray | None = None
) -> Path:
    """Draws rows in order; if a sheet cannot hold all of them, every n-th."""
    shown = thin_out(len(rows))
    count = f"{len(rows):,} images" if len(shown) == len(rows) else f"{len(shown):,} of {len(rows):,} images"
    legend = " · framed: strongest outliers" if framed is not None and framed.any() else ""
    frames = None if framed is None else framed[shown]
    return save_panel(draw_mosaic(images(rows[shown]), title, f"{count}{legend} · by {embedding}", frames), path)


def _draw_labels(order: pd.DataFrame, images: Images, folder: Path, embedding: str, n_panels: int) -> list[Path]:
    labels, scores = order["label"], order["label_outlier_score"]
    if labels.isna().all():
        return []
    strongest = scores.groupby(labels).agg(lambda own: float(np.sort(own.to_numpy())[-max(1, len(own) // 50) :].mean()))
    written = []
    for number, label in enumerate(strongest.sort_values(ascending=False, kind="stable").index[:n_panels], 1):
        rows = np.flatnonzero((labels == label).to_numpy())
        rows = rows[np.argsort(order["label_position"].to_numpy()[rows])]
        own = scores.to_numpy()[rows]
        framed = own >= np.quantile(own, 1 - FRAMED_FRACTION) if len(rows) >= 10 else np.zeros(len(rows), bool)
        path = folder / f"label-{number:02d}-{slug(str(label))}.png"
        written.append(_draw_order(rows, str(label), embedding, images, path, framed))
    return written


def _draw_outliers(order: pd.DataFrame, images: Images, path: Path, embedding: str) -> Path:
    labelled = order["label"].notna().any()
    scores = order["label_outlier_score" if labelled else "outlier_score"].fillna(0).to_numpy()
    rows = np.argsort(-scores, kind="stable")[:N_OUTLIERS]
    labels = order["label"].fillna("").to_numpy()
    tiles = [
        Tile(image, str(label), caption=f"{score:.1f}× as far")
        for image, label, score in zip(images(rows), labels[rows], scores[rows], strict=True)
    ]
    title = "Outliers of their label" if labelled else "Outliers"
    note = f"farthest from their nearest {'images of the label' if labelled else 'images'} first, by {embedding}"
    return save_panel(draw_panel(tiles, title, note), path)


def _draw_duplicates(duplicates: pd.DataFrame, ids: pd.Series, images: Images, path: Path) -> Path:
    """Draws some groups of near-duplicates, one per row of the panel, those with different labels first."""
    rows = pd.Series(np.arange(len(ids)), index=ids)
    tiles: list[Tile] = []
    for number in duplicates["duplicate_group"].drop_duplicates().head(N_GROUPS):
        group = duplicates[duplicates["duplicate_group"] == number]
        shown = group.groupby("label", dropna=False, sort=False).head(GROUP_SIZE // 2).head(GROUP_SIZE)
        for image, row in zip(images(rows.loc[shown["sample_id"]].to_numpy()), shown.itertuples(), strict=True):
            side = "" if row.held_out is None else ", held out" if row.held_out else ", training"
            tiles.append(Tile(image, "" if pd.isna(row.label) else str(row.label), caption=f"group {number}{side}"))
        blank = np.full((8, 8, 3), 253, np.uint8)
        tiles += [Tile(blank, "")] * (GROUP_SIZE - len(shown))
    count = duplicates["duplicate_group"].nunique()
    note = f"{min(count, N_GROUPS)} of {count:,} groups, different labels first; up to {GROUP_SIZE} images of each"
    return save_panel(draw_panel(tiles, "Near-duplicates", note, columns=GROUP_SIZE, max_tiles=len(tiles)), path)
