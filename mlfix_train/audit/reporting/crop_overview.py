"""A picture of unusual and random crops, to check that cropping went well."""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from mlfix_train.audit.reporting.panels import Tile, draw_panel

PER_KIND = 12


def draw_crop_overview(table: pd.DataFrame) -> Image.Image:
    """Draws crops across the edge of a panorama, clipped, elongated, the smallest, and some at random.

    Args:
        table: sample table of crops with absolute paths, see :class:`mlfix_train.data.crops.build.Crops`.
    """
    width, height = (table["x_max"] - table["x_min"]).to_numpy(), (table["y_max"] - table["y_min"]).to_numpy()
    elongation, clipped = np.abs(np.log(width / height)), table["clipped"].to_numpy()
    sizes = [f"{w:.0f} x {h:.0f} px" for w, h in zip(width, height, strict=True)]
    kinds = (
        (np.flatnonzero(table["wraps"])[:PER_KIND], ["across the edge"] * len(table)),
        (_highest(clipped, clipped > 0), [f"{fraction:.0%} clipped" for fraction in clipped]),
        (_highest(elongation, elongation > np.log(1.5)), sizes),
        (_highest(-np.minimum(width, height), np.ones(len(table), bool)), sizes),
        (np.random.default_rng(0).permutation(len(table))[: 3 * PER_KIND], sizes),
    )
    tiles: dict[int, Tile] = {}
    for rows, captions in kinds:
        for row in (int(row) for row in rows if int(row) not in tiles):
            pixels = np.asarray(Image.open(table["path"].iloc[row]).convert("RGB"))
            tiles[row] = Tile(pixels, str(table["label"].iloc[row]), caption=captions[row])
    subtitle = "across an edge, clipped at one, elongated, the smallest, and some at random; sizes of the boxes"
    return draw_panel([*tiles.values()], f"{len(tiles):,} of {len(table):,} crops", subtitle, columns=PER_KIND)


def _highest(score: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    order = np.argsort(-score, kind="stable")
    return np.asarray(order[eligible[order]][:PER_KIND])
