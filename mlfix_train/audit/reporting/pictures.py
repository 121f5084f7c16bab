"""The pictures of an audit: panels of the worst samples and slices, the loss histogram, the error of each label."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.audit.reporting import charts
from mlfix_train.audit.reporting.panels import Tile, draw_panel, save_panel
from mlfix_train.audit.scores.slices import Slice, first_slices, rank_slices, slug

ImageSource = Callable[[list[str]], np.ndarray]
"""Maps n sample ids to their pixels, uint8 ``(n, H, W, 3)``."""

SECTIONS = {
    "pair": "suspicious pairs",
    "label": "suspicious labels",
    "slice": "your slices",
    "duplicates": "near-duplicates",
}
"""Section of a tracker for the panels of each kind of slice."""
MAX_TILES = 108
"""Number of samples on a panel."""


@dataclass(frozen=True)
class Picture:
    """A PNG file: ``key`` is its name in a tracker, ``caption`` describes it."""

    key: str
    path: Path
    caption: str


def tiles_of(ranking: pd.DataFrame, images: ImageSource, marks: Mapping[str, str] | None = None) -> list[Tile]:
    """Returns a tile for each row of a ranking: given and suggested label, suspicion, loss, and fix."""
    columns = ("sample_id", "given_label", "suggested_label", "suspicion", "loss")
    rows = zip(images(ranking["sample_id"].tolist()), *(ranking[name].tolist() for name in columns), strict=True)
    fixes = marks or {}
    return [
        Tile(image, str(given), str(suggested), min(max(suspicion, 0.0), 1.0), f"loss {loss:.2f}", fixes.get(sample))
        for image, sample, given, suggested, suspicion, loss in rows
    ]


def draw_audit(
    ranking: pd.DataFrame,
    images: ImageSource,
    folder: Path,
    title: str,
    n_panels: int = 6,
    marks: Mapping[str, str] | None = None,
    order: pd.Series | None = None,
    slices: Sequence[Slice] | None = None,
) -> list[Picture]:
    """Draws the pictures of a ranking into ``folder``; panels of an earlier audit there are removed.

    Args:
        ranking: N rows, most suspicious first.
        images: pixels by sample id.
        folder: where the PNG files go.
        title: what was audited, for the headlines.
        n_panels: number of slices of each kind that get a panel.
        marks: fixes to show, sample id to new label.
        order: positions by sample id, from ``mlfix sort``; panels of slices then show their most suspicious samples in
            visual order.
        slices: from :func:`mlfix_train.audit.scores.slices.rank_slices`; by default pairs and labels.

    Returns:
        The pictures, most important first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("[0-9][0-9]-*.png"), *folder.glob("[0-9][0-9][0-9]-*.png")]:
        old.unlink()
    worst = _draw_panel(ranking, images, folder / "worst.png", "Most suspicious labels", title, marks)
    pictures = [Picture("audit/most suspicious", worst, f"the {min(MAX_TILES, len(ranking))} most suspicious labels")]
    chosen = first_slices(rank_slices(ranking) if slices is None else slices, n_panels)
    for number, one in enumerate(chosen, start=1):
        rows = ranking.iloc[one.rows]
        path = folder / f"{number:02d}-{slug(one.name)}.png"
        _draw_panel(rows, images, path, slice_title(one), title, marks, order)
        mean = one.expected / max(len(rows), 1)
        caption = f"{slice_title(one)}: {len(rows):,} samples, suspicion {mean:.2f} on average"
        pictures.append(Picture(_picture_key(one), path, caption))
    losses = ranking["loss"].to_numpy(dtype=np.float64)
    wrong = (ranking["predicted_label"] != ranking["given_label"]).to_numpy()
    histogram = charts.loss_histogram(losses, wrong, folder / "loss.png", f"Loss of every held-out sample, {title}")
    by_label = ranking.groupby("given_label")["disagreement"].agg(["mean", "size"])
    percent, counts = 100 * by_label["mean"].to_numpy(), by_label["size"].to_numpy()
    headline = f"Held-out error by given label, {title}"
    errors = charts.error_per_label(list(by_label.index), percent, counts, folder / "errors.png", headline)
    pictures.append(Picture("audit/loss of every sample", histogram, "loss of every held-out sample"))
    pictures.append(Picture("audit/error by label", errors, "held-out error by given label"))
    return pictures


def slice_title(one: Slice) -> str:
    """Returns the headline of a slice."""
    if one.kind == "pair":
        given, _, suggested = one.name.partition(" → ")
        return f"Given {given}, suggested {suggested}"
    return {"label": f"Given {one.name}", "duplicates": f"Near-duplicates, {one.name}"}.get(one.kind, one.name)


def _picture_key(one: Slice) -> str:
    """Returns the name of a slice in a tracker: a section for its kind, then the labels that it shows."""
    name = re.sub(r"[^-+ ,()→\w]+", "-", slice_title(one))
    return f"{SECTIONS[one.kind]}/{name}"


def _draw_panel(
    rows: pd.DataFrame,
    images: ImageSource,
    path: Path,
    headline: str,
    title: str,
    marks: Mapping[str, str] | None,
    order: pd.Series | None = None,
) -> Path:
    """Draws the first :data:`MAX_TILES` rows; the note of the panel still counts all of them."""
    shown, count = rows.head(MAX_TILES), len(rows)
    note = "most suspicious first"
    if order is not None:
        positions = order.reindex(shown["sample_id"]).to_numpy(dtype=float)  # samples that were not sorted come last
        shown = shown.iloc[np.argsort(np.where(np.isnan(positions), np.inf, positions), kind="stable")]
        note = "in visual order" if count <= MAX_TILES else "the most suspicious, in visual order"
    tiles = tiles_of(shown, images, marks)
    tiles += [tiles[-1]] * (count - len(tiles)) if tiles else []
    return save_panel(draw_panel(tiles, headline, f"{title}, {note}", max_tiles=MAX_TILES), path)
