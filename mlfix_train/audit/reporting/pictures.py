"""The pictures of an audit: panels of the worst samples and slices, the loss histogram, the error of each label."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.audit.reporting import charts
from mlfix_train.audit.reporting.panels import Tile, draw_panel, save_panel
from mlfix_train.audit.reporting.text import cut_middle
from mlfix_train.audit.scores.slices import Slice, first_slices, rank_slices, slug
from mlfix_train.data.files.system import cpu_count

ImageSource = Callable[[list[str]], np.ndarray]
"""Maps n sample ids to their pixels, uint8 ``(n, H, W, 3)``."""

SECTIONS = {
    "pair": "suspicious pairs",
    "label": "suspicious labels",
    "slice": "your slices",
    "duplicates": "near-duplicates",
    "fault": "other faults",
}
"""Section of a tracker for the panels of each kind of slice."""
MAX_TILES = 108
"""Number of samples on a panel."""
KEY_LABEL = 40
"""Characters of a label in the name of a picture; trackers cut long names at their ends, where labels differ."""


@dataclass(frozen=True)
class Picture:
    """A PNG file: ``key`` is its name in a tracker, ``caption`` describes it."""

    key: str
    path: Path
    caption: str


def tiles_of(
    ranking: pd.DataFrame,
    images: ImageSource,
    marks: Mapping[str, str] | None = None,
    captions: Sequence[str] | None = None,
) -> list[Tile]:
    """Returns a tile for each row of a ranking: given and suggested label, suspicion, loss (or a caption), and fix."""
    columns = ("sample_id", "given_label", "suggested_label", "suspicion")
    rows = zip(images(ranking["sample_id"].tolist()), *(ranking[name].tolist() for name in columns), strict=True)
    fixes = marks or {}
    lines = [f"loss {loss:.2f}" for loss in ranking["loss"]] if captions is None else captions
    return [
        Tile(image, str(given), str(suggested), min(max(suspicion, 0.0), 1.0), caption, fixes.get(sample))
        for caption, (image, sample, given, suggested, suspicion) in zip(lines, rows, strict=True)
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
    worst = folder / "worst.png"
    pictures = [Picture("audit/most suspicious", worst, f"the {min(MAX_TILES, len(ranking))} most suspicious labels")]
    chosen = first_slices(rank_slices(ranking) if slices is None else slices, n_panels)
    for number, one in enumerate(chosen, start=1):
        mean = one.expected / max(len(one.rows), 1)
        what = one.description if one.kind == "fault" else f"suspicion {mean:.2f} on average"
        separator = ". " if one.kind == "fault" else ", "
        caption = f"{slice_title(one, KEY_LABEL)}: {len(one.rows):,} samples{separator}{what}"
        key = _picture_key(one)
        key = key if all(key != picture.key for picture in pictures) else f"{key} ({number})"
        pictures.append(Picture(key, folder / f"{number:02d}-{slug(one.name)}.png", caption))

    def draw(panel: tuple[list[Tile], str, str, Path]) -> None:
        tiles, headline, subtitle, path = panel
        save_panel(draw_panel(tiles, headline, subtitle, max_tiles=MAX_TILES), path)

    panels = (
        (*_panel(one, ranking, images, title, marks, order), picture.path)
        for one, picture in zip([None, *chosen], pictures, strict=True)
    )  # read here, for users' datasets may not be thread-safe
    workers = cpu_count()
    with ThreadPoolExecutor(workers) as pool:
        while some := list(islice(panels, workers)):
            list(pool.map(draw, some))
    losses = ranking["loss"].to_numpy(dtype=np.float64)
    predicted = ranking["predicted_label"]
    wrong = ((predicted != ranking["given_label"]) & (predicted != "")).to_numpy()
    histogram = charts.loss_histogram(losses, wrong, folder / "loss.png", f"Loss of every held-out sample, {title}")
    pictures.append(Picture("audit/loss of every sample", histogram, "loss of every held-out sample"))
    if ranking["disagreement"].isna().any():  # predictions are unknown
        (folder / "errors.png").unlink(missing_ok=True)
        return pictures
    by_label = ranking.groupby("given_label")["disagreement"].agg(["mean", "size"])
    percent, counts = 100 * by_label["mean"].to_numpy(), by_label["size"].to_numpy()
    headline = f"Held-out error by given label, {title}"
    errors = charts.error_per_label(list(by_label.index), percent, counts, folder / "errors.png", headline)
    pictures.append(Picture("audit/error by label", errors, "held-out error by given label"))
    return pictures


def slice_title(one: Slice, limit: int = 10_000) -> str:
    """Returns the headline of a slice, its labels cut in the middle to ``limit`` characters."""
    if one.kind == "pair":
        given, suggested = (cut_middle(label, limit) for label in one.name.split(" → ", 1))
        return f"Given {given}, suggested {suggested}"
    name = cut_middle(one.name, limit)
    if one.kind == "fault":
        name = name if one.score == "overlap" else f"{name[:1].upper()}{name[1:]}"
        return f"{name}: {one.score} from {one.threshold:.2f}"
    return {"label": f"Given {name}", "duplicates": f"Near-duplicates, {name}"}.get(one.kind, name)


def _picture_key(one: Slice) -> str:
    """Returns the name of a slice in a tracker: a section for its kind, then the labels that it shows."""
    name = re.sub(r"[^-+ ,()→…\w]+", "-", slice_title(one, KEY_LABEL))
    return f"{SECTIONS[one.kind]}/{name}"


def _panel(
    one: Slice | None,
    ranking: pd.DataFrame,
    images: ImageSource,
    title: str,
    marks: Mapping[str, str] | None,
    order: pd.Series | None,
) -> tuple[list[Tile], str, str]:
    """Returns tiles, headline and subtitle of the panel of a slice; of the whole ranking for ``None``.

    Only the first :data:`MAX_TILES` rows have tiles of their own; the last is repeated, so that the note of the panel
    counts all of them.
    """
    rows = ranking if one is None else ranking.iloc[one.rows]
    shown, note, captions = rows.head(MAX_TILES), "most suspicious first", None
    if one is not None and one.kind == "fault":
        note = "worst first"
        values = [] if one.values is None else one.values[: len(shown)].tolist()
        captions = [f"{one.score.replace('_', ' ')} {value:.3g}" for value in values]
    elif one is not None and order is not None:
        positions = order.reindex(shown["sample_id"]).to_numpy(dtype=float)  # samples that were not sorted come last
        shown = shown.iloc[np.argsort(np.where(np.isnan(positions), np.inf, positions), kind="stable")]
        note = "in visual order" if len(rows) <= MAX_TILES else "the most suspicious, in visual order"
    tiles = tiles_of(shown, images, marks, captions)
    tiles += [tiles[-1]] * (len(rows) - len(tiles)) if tiles else []
    headline = "Most suspicious labels" if one is None else slice_title(one)
    return tiles, headline, f"{title}, {note}"
