"""The pictures of an audit: panels of the worst samples and slices, the loss histogram, the error of each label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.audit.reporting import charts
from mlfix_train.audit.reporting.panels import Tile, draw_panel, save_panel
from mlfix_train.audit.scores.slices import Slice, first_slices, rank_slices, slug

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
    """Returns a tile for each row of a ranking: given label, suggested label, suspicion, loss, and mark."""
    ids = ranking["sample_id"].tolist()
    pixels = images(ids)
    columns = ("sample_id", "given_label", "suggested_label", "suspicion", "loss")
    rows = zip(pixels, *(ranking[name].tolist() for name in columns), strict=True)
    return [
        Tile(
            image,
            str(given),
            str(suggested),
            min(max(suspicion, 0.0), 1.0),
            f"loss {loss:.2f}",
            (marks or {}).get(name),
        )
        for image, name, given, suggested, suspicion, loss in rows
    ]


def draw_audit(
    ranking: pd.DataFrame,
    images: ImageSource,
    folder: Path,
    title: str,
    panels: int = 6,
    marks: Mapping[str, str] | None = None,
    order: pd.Series | None = None,
    slices: Sequence[Slice] | None = None,
) -> list[Picture]:
    """Draws the pictures of a ranking into ``folder``; panels of an earlier audit there are removed.

    Args:
        ranking: N rows, most suspicious first.
        images: pixels by sample id.
        folder: where the PNGs go.
        title: what was audited, for the headlines.
        panels: number of slices of each kind that get a panel.
        marks: fixes to show, sample id to new label.
        order: places by sample id, from `mlfix sort`; slices are then shown in visual order, their most suspicious.
        slices: from :func:`mlfix_train.audit.scores.slices.rank_slices`; by default pairs and labels.

    Returns:
        The pictures, in the order in which one would look at them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("[0-9][0-9]-*.png"), *folder.glob("[0-9][0-9][0-9]-*.png")]:
        old.unlink()
    worst = _panel(ranking, images, folder / "worst.png", "Least believable labels", title, marks)
    pictures = [Picture("audit/worst", worst, f"the {min(MAX_TILES, len(ranking))} most suspicious")]
    chosen = first_slices(rank_slices(ranking) if slices is None else slices, panels)
    for number, piece in enumerate(chosen, start=1):
        rows = ranking.iloc[piece.rows]
        path = folder / f"{number:02d}-{slug(piece.name)}.png"
        _panel(rows, images, path, headline(piece), title, marks, order)
        caption = f"{piece.kind} {piece.name} ({len(rows)}, suspicion {piece.expected:.1f} in all)"
        pictures.append(Picture(f"audit/slice_{number:02d}", path, caption))
    losses, wrong = ranking["loss"].to_numpy(), (ranking["predicted_label"] != ranking["given_label"]).to_numpy()
    histogram = charts.loss_histogram(losses, wrong, folder / "loss.png", f"Loss of every held-out sample, {title}")
    by_label = ranking.groupby("given_label")["disagreement"].agg(["mean", "size"])
    errors = charts.error_per_label(
        list(by_label.index), 100 * by_label["mean"].to_numpy(), by_label["size"].to_numpy(), folder / "errors.png",
        f"Held-out error by given label, {title}",
    )  # fmt: skip
    pictures.append(Picture("audit/loss_histogram", histogram, "loss of every held-out sample"))
    pictures.append(Picture("audit/error_per_label", errors, "held-out error by given label"))
    return pictures


def headline(piece: Slice) -> str:
    """Returns what a panel of a slice is called."""
    if piece.kind == "pair":
        given, _, suggested = piece.name.partition(" → ")
        return f"Given {given}, rather {suggested}"
    return {"label": f"Given {piece.name}", "duplicates": f"Near-duplicates, {piece.name}"}.get(piece.kind, piece.name)


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
    words = "most suspicious first"
    if order is not None:
        places = order.reindex(shown["sample_id"]).to_numpy(dtype=float)  # what was not sorted comes last
        shown = shown.iloc[np.argsort(np.where(np.isnan(places), np.inf, places), kind="stable")]
        words = "alike beside alike" if count <= MAX_TILES else "the most suspicious, alike beside alike"
    head = tiles_of(shown, images, marks)
    rest = [head[-1]] * (count - len(head)) if head else []
    return save_panel(draw_panel([*head, *rest], headline, f"{title}, {words}", max_tiles=MAX_TILES), path)
