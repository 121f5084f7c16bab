"""The audit as one self-contained HTML page: overview, worst samples, slices, confusions, labels, near-duplicates.

The page holds its data as JSON and its pictures as sprite sheets, opens from disk, and draws only what is looked at.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, features

from mlfix_train.audit.reporting.panels import fit
from mlfix_train.audit.reporting.pictures import ImageSource, headline
from mlfix_train.audit.scores.slices import Slice
from mlfix_train.data.files.atomic import atomic_path

ASSETS = Path(__file__).parent / "assets"
PICTURES = 9_000
"""Tiles with a picture, at most."""
BYTES = 15_000_000
"""Bytes of sprite sheets in the page, at most; what comes after them has no picture."""
COLUMNS = 10
"""Tiles in a row and in a column of a sprite sheet."""
SIDE = (32, 64)
"""Smallest and largest side of a tile, px."""
WORST, PER_PAIR, PER_LABEL, TYPICAL, PER_SLICE, PER_GROUP = 600, 24, 18, 9, 60, 12
PAIRS, GROUPS, MATRIX = 400, 150, 40
SCORES = ("loss", "self_confidence", "aum", "neighbour_disagreement", "twin_disagreement", "outlierness",
          "disagreement", "evidence")  # fmt: skip
METHOD = (
    "Held-out predictions: every sample is judged only by models that did not train on it; its scores are averaged "
    "over these runs. loss is in nats, self-confidence the probability of the given label.",
    "Training dynamics (aum): the area under the margin, the mean margin of the given label over a training. It is "
    "the one in-sample score: models that trained on the sample speak of it. Low means that the label went against "
    "what the model learnt.",
    "Neighbours: the share of images that look alike, of other groups (tracks, photos), that bear another label. "
    "Twins: the same with images of the sample's own group. Outlierness: distance to the nearest images; 1 is usual.",
    "Suspicion: where there are several kinds of evidence, the rank by held-out predictions (averaged over a "
    "group's samples of one label) is multiplied with the ranks by the others, all on a logarithmic scale, and a "
    "mixture of right and wrong labels is fitted to the product. The suspicion is the estimated probability that the "
    "label is wrong; summed, it estimates how many are. With held-out predictions alone it is 1 - the normalised "
    "margin, and no count is estimated.",
    "Intervals resample groups of samples and the place above which the mixture is fitted. They take it that wrong "
    "labels stand out in the evidence at all: labels that are wrong the same way throughout (all pictures of a track) "
    "stand out less.",
)


class _Tiles:
    """Rows of the ranking that the page shows, numbered as they are first wanted."""

    def __init__(self, most: int) -> None:
        self.most, self.number = most, dict[int, int]()

    def take(self, rows: Sequence[int] | np.ndarray) -> list[int]:
        """Returns the numbers of rows, leaving out what no longer has room."""
        found = []
        for row in map(int, rows):
            if row not in self.number and len(self.number) < self.most:
                self.number[row] = len(self.number)
            if row in self.number:
                found.append(self.number[row])
        return found


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
    """Writes the page, whole or not at all; returns its path.

    Args:
        path: of the HTML file.
        title: what was audited.
        about: what ``audit.json`` holds.
        ranking: N rows, most suspicious first.
        slices: from :func:`mlfix_train.audit.scores.slices.rank_slices`.
        images: pixels by sample id; ``None`` for a page without pictures.
        notes: what a reader must know beforehand, such as samples that no run held out.
        by_sorting: whether near-duplicates of `mlfix sort` were at hand.
    """
    tiles = _Tiles(PICTURES)
    content = _content(ranking, slices, tiles)
    intervals = (about.get("estimates") or {}).get("labels", {})
    for row in content["table"]:
        row[3] = intervals.get(row[0], {}).get("interval")
    rows = ranking.iloc[list(tiles.number)]
    nothing: tuple[list[bytes], list[int], str] = ([], [], "image/png")
    sheets, light, kind = nothing if images is None else draw_sheets(rows["sample_id"].tolist(), images)
    labels = sorted({*rows["given_label"], *rows["suggested_label"], *content.pop("names")})
    code = {name: number for number, name in enumerate(labels)}
    scores = [name for name in SCORES if ranking[name].notna().any()]
    data = {
        **_coded(content, code), "about": _shared(about), "labels": labels,
        "tiles": _rows(rows, code, scores), "scores": scores, "pictures": len(light), "light": light,
        "columns": COLUMNS, "type": kind, "sheets": [0] * len(sheets), "notes": list(notes), "method": list(METHOD),
        "sorted": by_sorting,
    }  # fmt: skip
    with atomic_path(path) as temporary:
        temporary.write_text(_page(title, data, sheets), encoding="utf-8")
    return Path(path)


def _shared(about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the page tells of an audit: no paths of this machine."""
    kept = {name: value for name, value in about.items() if name not in ("run_paths", "label_names", "images", "order")}
    return {**kept, "estimates": about.get("estimates") or {}}


def _content(ranking: pd.DataFrame, slices: Sequence[Slice], tiles: _Tiles) -> dict[str, Any]:
    """Chooses what is shown, in the order of its worth, while there is room for pictures."""
    by_kind = {kind: [one for one in slices if one.kind == kind] for kind in ("pair", "label", "slice", "duplicates")}
    worst = tiles.take(range(min(WORST, len(ranking))))
    shown: list[dict[str, Any]] = []
    place: dict[str, int] = {}
    limits = {"slice": (len(by_kind["slice"]), PER_SLICE), "duplicates": (GROUPS, PER_GROUP), "pair": (PAIRS, PER_PAIR)}
    for kind, (most, each) in limits.items():
        for one in by_kind[kind][:most]:
            if kind == "pair":
                place[one.name] = len(shown)
            shown.append(_slice(one, tiles.take(one.rows[:each])))
    otherwise = (ranking["predicted_label"] != ranking["given_label"]).to_numpy()
    issues = ranking["is_label_issue"].to_numpy(dtype=bool)
    table = []
    for one in by_kind["label"]:
        typical = tiles.take(one.rows[-TYPICAL:][::-1]) if len(one.rows) >= 2 * TYPICAL else []
        head = tiles.take(one.rows[:PER_LABEL])
        shown.append(_slice(one, head))
        table.append([one.name, len(one.rows), round(one.expected, 2), None, int(issues[one.rows].sum()),
                      round(float(otherwise[one.rows].mean()), 4), head, typical])  # fmt: skip
    rank = {id(one): number for number, one in enumerate(slices)}
    order = sorted(range(len(shown)), key=lambda i: rank[shown[i].pop("of")])
    new = {old: number for number, old in enumerate(order)}
    pairs = by_kind["pair"]
    matrix, names = _matrix(ranking, pairs, {name: new[old] for name, old in place.items()})
    return {
        "worst": worst, "slices": [shown[i] for i in order], "table": table, "matrix": matrix,
        "names": {*names, *(row[0] for row in table)}, "used": len(by_kind["label"]),
    }  # fmt: skip


def _slice(one: Slice, shown: list[int]) -> dict[str, Any]:
    name = headline(one) if one.kind != "label" else one.name
    return {"kind": one.kind, "name": name, "samples": len(one.rows), "expected": round(one.expected, 3),
            "tiles": shown, "of": id(one)}  # fmt: skip


def _matrix(
    ranking: pd.DataFrame, pairs: Sequence[Slice], place: Mapping[str, int]
) -> tuple[dict[str, Any], list[str]]:
    """Returns the cells of the labels that hold the most suspicion, and these labels."""
    given, other = ranking["given_label"].to_numpy(), ranking["suggested_label"].to_numpy()
    ends = [(given[one.rows[0]], other[one.rows[0]], one.expected, place.get(one.name, -1)) for one in pairs]
    held: dict[str, float] = {}
    for first, second, expected, _ in ends:
        held[first] = held.get(first, 0) + expected
        held[second] = held.get(second, 0) + expected
    names = sorted(sorted(held, key=lambda name: (-held[name], name))[:MATRIX])
    number = {name: i for i, name in enumerate(names)}
    cells = [
        [number[a], number[b], round(expected, 3), where]
        for a, b, expected, where in ends
        if a in number and b in number
    ]
    return {"labels": names, "cells": cells}, names


def _coded(content: dict[str, Any], code: Mapping[str, int]) -> dict[str, Any]:
    """Replaces labels by their numbers."""
    matrix = {**content["matrix"], "labels": [code[name] for name in content["matrix"]["labels"]]}
    return {**content, "matrix": matrix, "table": [[code[row[0]], *row[1:]] for row in content["table"]]}


def _rows(rows: pd.DataFrame, code: Mapping[str, int], scores: Sequence[str]) -> list[list[Any]]:
    """Returns id, given label, suggested label, suspicion, rank and scores of each tile."""
    first = ("sample_id", "given_label", "suggested_label", "suspicion", "rank")
    columns = [rows[name].tolist() for name in (*first, *scores)]
    return [
        [name, code[given], code[suggested], round(suspicion, 4), rank, *(_short(value) for value in values)]
        for name, given, suggested, suspicion, rank, *values in zip(*columns, strict=True)
    ]


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def draw_sheets(ids: Sequence[str], images: ImageSource, most: int = BYTES) -> tuple[list[bytes], list[int], str]:
    """Draws sprite sheets of square tiles, row by row.

    Args:
        ids: n samples, in order.
        images: pixels by sample id.
        most: bytes of all sheets; the rest of the samples get no picture.

    Returns:
        The sheets, the mean brightness (0 to 255) of each sample drawn, and the sheets' media type.
    """
    webp = features.check("webp")
    kind, options = ("image/webp", {"format": "WEBP", "quality": 90, "method": 4}) if webp else (
        "image/jpeg", {"format": "JPEG", "quality": 85})  # fmt: skip
    sheets: list[bytes] = []
    light: list[int] = []
    total, block, side = 0, COLUMNS * COLUMNS, 0
    for start in range(0, len(ids), block):
        pixels = images(list(ids[start : start + block]))
        side = side or min(max(max(pixels.shape[1:3]), SIDE[0]), SIDE[1])
        sheet = Image.new("RGB", (COLUMNS * side, COLUMNS * side), "#e8eaeb")
        for i, image in enumerate(pixels):
            y, x = divmod(i, COLUMNS)
            tile = Image.fromarray(image) if max(image.shape[:2]) == side else fit(image, side)
            sheet.paste(tile, (x * side + (side - tile.width) // 2, y * side + (side - tile.height) // 2))
        file = io.BytesIO()
        sheet.save(file, **options)  # type: ignore[arg-type]
        total += len(file.getvalue())
        if total > most and sheets:
            return sheets, light, kind
        sheets.append(file.getvalue())
        light += [int(image.mean()) for image in pixels]
    return sheets, light, kind


def _page(title: str, data: Mapping[str, Any], sheets: Sequence[bytes]) -> str:
    script = (ASSETS / "report.js").read_text(encoding="utf-8")
    style = (ASSETS / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src blob:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str)
    for sign in "<>&\u2028\u2029":
        body = body.replace(sign, f"\\u{ord(sign):04x}")
    kept = "\n".join(
        f'<script type="text/plain" id="sheet{i}">{base64.b64encode(sheet).decode()}</script>'
        for i, sheet in enumerate(sheets)
    )
    words, bare = html.escape(f"Audit: {title}"), "" if data["pictures"] else " class=bare"
    bright = '<label><input type="checkbox" id="bright" checked> brighten dark pictures</label>'
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{words}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{style}</style></head>\n'
        f'<body{bare}><header><h1>{words}</h1><nav role="tablist">{bright}</nav></header>'
        '<main id="view"></main><dialog id="large"></dialog>\n'
        f'<script type="application/json" id="data">{body}</script>\n{kept}\n<script>{script}</script></body></html>\n'
    )
