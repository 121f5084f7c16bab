"""The audit as one self-contained HTML page: overview, worst samples, slices, confusions, labels, other faults.

The page holds its data as JSON and its images as sprite sheets, opens from disk, and draws only what is in view. Its
looks and its script are in ``templates/report.*``.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, features

from mlfix_train.audit.reporting.panels import fit_image
from mlfix_train.audit.reporting.pictures import ImageSource, slice_title
from mlfix_train.audit.reporting.templates import FOLDER, render
from mlfix_train.audit.reporting.text import next_step
from mlfix_train.audit.scores.registry import SCORES
from mlfix_train.audit.scores.slices import Slice
from mlfix_train.data.files.atomic import atomic_path

MAX_TILES = 9_000
"""Number of samples that the page shows at most."""
MAX_SHEET_BYTES = 15_000_000
"""Size of all sprite sheets; samples that do not fit are shown without an image."""
SHEET_COLUMNS = 10
"""Tiles in a row, and rows, of a sprite sheet."""
MIN_SIDE, MAX_SIDE = 32, 64
"""Side of a tile on a sprite sheet, px."""
WORST, PER_LABEL, TYPICAL = 600, 18, 9
"""Number of samples shown of the whole ranking, and of each label: the most suspicious and the most typical."""
SLICE_LIMITS = {"fault": (60, 36), "slice": (None, 60), "duplicates": (150, 12), "pair": (400, 24)}
"""Kind of slice to the number of slices shown (``None``: all), and of samples of each; in order of precedence."""
MATRIX_LABELS = 40
"""Number of labels in the confusion matrix."""
PRIVATE = ("run_paths", "label_names", "images", "order")
"""Entries of ``audit.json`` that the page does not show: paths of this machine."""


def write_report(
    path: str | Path,
    title: str,
    about: Mapping[str, Any],
    ranking: pd.DataFrame,
    slices: Sequence[Slice],
    images: ImageSource | None = None,
    notes: Sequence[str] = (),
    by_sorting: bool = False,
) -> Path:
    """Writes the page atomically; returns its path.

    Args:
        path: the HTML file.
        title: what was audited.
        about: what ``audit.json`` holds.
        ranking: N rows, most suspicious first.
        slices: from :func:`mlfix_train.audit.scores.slices.rank_slices`.
        images: pixels by sample id; ``None`` for a page without images.
        notes: what a reader must know first, such as samples that no run held out.
        by_sorting: whether the near-duplicates found by ``mlfix sort`` were available.
    """
    page = _PageData(ranking, slices, about.get("estimates") or {})
    rows = ranking.iloc[list(page.tiles)]
    sheets, brightness, media_type = (
        ([], [], "image/png") if images is None else draw_sheets(rows["sample_id"].tolist(), images)
    )
    data = {
        **page.encode(rows),
        "about": {key: value for key, value in about.items() if key not in PRIVATE},
        "estimates": about.get("estimates") or {},
        "pictures": len(brightness),
        "brightness": brightness,
        "columns": SHEET_COLUMNS,
        "type": media_type,
        "sheets": len(sheets),
        "notes": list(notes),
        "next": next_step(about),
        "sorted": by_sorting,
    }
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    text = render(
        "report.html.j2",
        title=title,
        data=_json_for_html(data),
        n_pictures=len(brightness),
        sheets=[base64.b64encode(sheet).decode() for sheet in sheets],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=(FOLDER / "report.css").read_text(encoding="utf-8"),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def _json_for_html(data: Mapping[str, Any]) -> str:
    """Returns JSON that can stand in a script element: nothing in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


class _PageData:
    """Chooses what the page shows, most important first, while there is room for tiles.

    Attributes:
        tiles: row of the ranking to the number of its tile.
    """

    def __init__(self, ranking: pd.DataFrame, slices: Sequence[Slice], estimates: Mapping[str, Any]) -> None:
        self.ranking, self.tiles = ranking, dict[int, int]()
        self.by_kind = {kind: [s for s in slices if s.kind == kind] for kind in ("label", *SLICE_LIMITS)}
        self.worst = self._take(np.arange(min(WORST, len(ranking))))
        shown = {
            id(one): self._take(one.rows[:n_samples])
            for kind, (n_slices, n_samples) in SLICE_LIMITS.items()
            for one in self.by_kind[kind][:n_slices]
        }
        predicted = ranking["predicted_label"]
        differs = ((predicted != ranking["given_label"]) & (predicted != "")).to_numpy()
        issues = ranking["is_label_issue"].to_numpy(dtype=bool)
        self.labels = []
        for one in self.by_kind["label"]:
            typical = self._take(one.rows[-TYPICAL:][::-1]) if len(one.rows) >= 2 * TYPICAL else []
            shown[id(one)] = head = self._take(one.rows[:PER_LABEL])
            interval = estimates.get("labels", {}).get(one.name, {}).get("interval")
            counts = [int(issues[one.rows].sum()), round(float(differs[one.rows].mean()), 4)]
            self.labels.append([one.name, len(one.rows), round(one.expected, 2), interval, *counts, head, typical])
        self.slices = [
            {
                "kind": one.kind,
                "name": one.name if one.kind == "label" else slice_title(one),
                "samples": len(one.rows),
                "expected": round(one.expected, 3),
                "tiles": shown[id(one)],
                **({} if one.values is None else {"fault": one.name, "values": _values(one, len(shown[id(one)]))}),
            }
            for one in slices
            if id(one) in shown
        ]
        self.position = {id(one): i for i, one in enumerate(one for one in slices if id(one) in shown)}

    def _take(self, rows: np.ndarray) -> list[int]:
        """Returns the tile numbers of rows, leaving out those that no longer fit."""
        for row in map(int, rows):
            if row not in self.tiles and len(self.tiles) < MAX_TILES:
                self.tiles[row] = len(self.tiles)
        return [self.tiles[row] for row in map(int, rows) if row in self.tiles]

    def encode(self, rows: pd.DataFrame) -> dict[str, Any]:
        """Returns the data with labels as numbers; ``rows`` of the ranking belong to the tiles."""
        matrix_labels, cells = self._matrix()
        known = {*rows["given_label"], *rows["suggested_label"], *matrix_labels, *(row[0] for row in self.labels)}
        names = sorted(known)
        code = {name: number for number, name in enumerate(names)}
        candidates = [*(score.name for score in SCORES), "evidence"]
        scores = [name for name in candidates if name in rows and self.ranking[name].notna().any()]
        columns = (rows[name] for name in ("sample_id", "given_label", "suggested_label", "suspicion", "rank", *scores))
        tiles = [
            [sample, code[given], code[suggested], round(suspicion, 4), rank, *map(_four_digits, values)]
            for sample, given, suggested, suspicion, rank, *values in zip(*columns, strict=True)
        ]
        return {
            "worst": self.worst,
            "slices": self.slices,
            "table": [[code[row[0]], *row[1:]] for row in self.labels],
            "matrix": {"labels": [code[name] for name in matrix_labels], "cells": cells},
            "labels": names,
            "tiles": tiles,
            "scores": scores,
        }

    def _matrix(self) -> tuple[list[str], list[list[Any]]]:
        """Returns the labels with the most suspicion, and cells (given, suggested, expected, number of the slice)."""
        given, suggested = (self.ranking[name].to_numpy() for name in ("given_label", "suggested_label"))
        pairs = [(given[one.rows[0]], suggested[one.rows[0]], one) for one in self.by_kind["pair"]]
        total: dict[str, float] = {}
        for first, second, one in pairs:
            total[first] = total.get(first, 0) + one.expected
            total[second] = total.get(second, 0) + one.expected
        names = sorted(sorted(total, key=lambda name: (-total[name], name))[:MATRIX_LABELS])
        number = {name: i for i, name in enumerate(names)}
        cells = [
            [number[first], number[second], round(one.expected, 3), self.position.get(id(one), -1)]
            for first, second, one in pairs
            if first in number and second in number
        ]
        return names, cells


def _values(one: Slice, count: int) -> list[float | None]:
    """Returns the scores of the first samples of a fault; tiles are only ever left out at the end."""
    return [] if one.values is None else [_four_digits(value) for value in one.values[:count].tolist()]


def _four_digits(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def draw_sheets(
    ids: Sequence[str], images: ImageSource, max_bytes: int = MAX_SHEET_BYTES
) -> tuple[list[bytes], list[int], str]:
    """Draws sprite sheets of square tiles, row by row.

    Args:
        ids: n samples, in order.
        images: pixels by sample id.
        max_bytes: size of all sheets; the remaining samples are not drawn.

    Returns:
        The sheets, the mean brightness (0 to 255) of each sample drawn, and the sheets' media type.
    """
    options: dict[str, Any] = {"format": "JPEG", "quality": 85}
    if features.check("webp"):
        options = {"format": "WEBP", "quality": 90, "method": 4}
    media_type = f"image/{options['format'].lower()}"
    sheets: list[bytes] = []
    brightness: list[int] = []
    total, per_sheet, side = 0, SHEET_COLUMNS * SHEET_COLUMNS, 0
    for start in range(0, len(ids), per_sheet):
        pixels = images(list(ids[start : start + per_sheet]))
        side = side or min(max(*pixels.shape[1:3], MIN_SIDE), MAX_SIDE)
        sheet = Image.new("RGB", (SHEET_COLUMNS * side, SHEET_COLUMNS * side), "#e8eaeb")
        for i, image in enumerate(pixels):
            row, column = divmod(i, SHEET_COLUMNS)
            tile = Image.fromarray(image) if max(image.shape[:2]) == side else fit_image(image, side)
            left, top = (side - tile.width) // 2, (side - tile.height) // 2
            sheet.paste(tile, (column * side + left, row * side + top))
        buffer = io.BytesIO()
        sheet.save(buffer, **options)
        total += len(buffer.getvalue())
        if total > max_bytes and sheets:
            break
        sheets.append(buffer.getvalue())
        brightness += [int(image.mean()) for image in pixels]
    return sheets, brightness, media_type
