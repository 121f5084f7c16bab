"""The pictures of an audit: panels of the worst samples and slices, the loss histogram, the error of each label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.audit import charts
from mlfix_train.audit.panels import Tile, draw_panel, save_panel
from mlfix_train.audit.slices import slug, worst_confusions

ImageSource = Callable[[list[str]], np.ndarray]
"""Maps n sample ids to their pixels, uint8 ``n,H,W,3``."""

MAX_TILES = 108


@dataclass(frozen=True)
class Picture:
    """A PNG on disk: ``key`` names it in a logger, ``caption`` tells what it shows."""

    key: str
    path: Path
    caption: str


def tiles_of(ranking: pd.DataFrame, images: ImageSource, marks: Mapping[str, str] | None = None) -> list[Tile]:
    """Returns a tile for each row of a ranking (the first :data:`MAX_TILES` with their image)."""
    ids = ranking["sample_id"].tolist()
    pixels = images(ids)
    columns = ("sample_id", "given_label", "predicted_label", "suspicion", "loss")
    rows = zip(pixels, *(ranking[name].tolist() for name in columns), strict=True)
    return [
        Tile(
            image,
            str(given),
            str(predicted),
            min(max(suspicion, 0.0), 1.0),
            f"loss {loss:.2f}",
            (marks or {}).get(name),
        )
        for image, name, given, predicted, suspicion, loss in rows
    ]


def draw_audit(
    ranking: pd.DataFrame,
    images: ImageSource,
    folder: Path,
    title: str,
    panels: int = 6,
    marks: Mapping[str, str] | None = None,
    order: pd.Series | None = None,
) -> list[Picture]:
    """Draws the pictures of a ranking into ``folder``; panels of an earlier audit there are removed.

    Args:
        ranking: N rows, most suspicious first.
        images: pixels by sample id.
        folder: where the PNGs go.
        title: what was audited, for the headlines.
        panels: number of (given, predicted) slices that get a panel.
        marks: fixes to show, sample id to new label.
        order: places by sample id, from `mlfix sort`; slices are then shown in visual order, their highest losses.

    Returns:
        The pictures, in the order in which one would look at them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("[0-9][0-9]-*.png"), *folder.glob("[0-9][0-9][0-9]-*.png")]:
        old.unlink()
    worst = _panel(ranking, images, folder / "worst.png", "Least believable labels", title, marks)
    pictures = [Picture("audit/worst", worst, f"the {min(MAX_TILES, len(ranking))} highest losses")]
    for number, piece in enumerate(worst_confusions(ranking, panels), start=1):
        rows = ranking.iloc[piece.rows]
        path = folder / f"{number:02d}-{slug(piece.name)}.png"
        _panel(rows, images, path, f"Given {piece.name.replace(' → ', ', predicted ')}", title, marks, order)
        pictures.append(Picture(f"audit/slice_{number:02d}", path, f"{piece.name} ({len(rows)})"))
    losses, wrong = ranking["loss"].to_numpy(), ranking["is_label_issue"].to_numpy(dtype=bool)
    histogram = charts.loss_histogram(losses, wrong, folder / "loss.png", f"Loss of every held-out sample, {title}")
    by_label = ranking.groupby("given_label")["disagreement"].agg(["mean", "size"])
    errors = charts.error_per_label(
        list(by_label.index), 100 * by_label["mean"].to_numpy(), by_label["size"].to_numpy(), folder / "errors.png",
        f"Held-out error by given label, {title}",
    )  # fmt: skip
    pictures.append(Picture("audit/loss_histogram", histogram, "loss of every held-out sample"))
    pictures.append(Picture("audit/error_per_label", errors, "held-out error by given label"))
    return pictures


def _panel(
    rows: pd.DataFrame,
    images: ImageSource,
    path: Path,
    headline: str,
    title: str,
    marks: Mapping[str, str] | None,
    order: pd.Series | None = None,
) -> Path:
    """Draws the first tiles of some rows; the panel's note still counts all of them."""
    shown, count = rows.head(MAX_TILES), len(rows)
    words = "highest loss first"
    if order is not None:
        places = order.reindex(shown["sample_id"]).to_numpy(dtype=float)  # what was not sorted comes last
        shown = shown.iloc[np.argsort(np.where(np.isnan(places), np.inf, places), kind="stable")]
        words = "alike beside alike" if count <= MAX_TILES else "the highest losses, alike beside alike"
    head = tiles_of(shown, images, marks)
    rest = [head[-1]] * (count - len(head)) if head else []
    return save_panel(draw_panel([*head, *rest], headline, f"{title}, {words}", max_tiles=MAX_TILES), path)
