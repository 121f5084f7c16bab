"""A picture of the crops that deserve a look: across an edge, cut, of strange shapes, tiny, and some at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mlfix_train.audit.reporting.panels import Tile, draw_panel, save_panel

EACH = 12


def draw_look(table: pd.DataFrame, out: Path, path: Path) -> Path:
    """Draws crops that show whether cropping went well.

    Args:
        table: from :func:`mlfix_train.data.crops.build.build_crops`.
        out: the folder of the crops.
        path: PNG to write.

    Returns:
        The file.
    """
    sides = table[["x_max", "y_max"]].to_numpy() - table[["x_min", "y_min"]].to_numpy()
    stretch = np.abs(np.log(sides[:, 0] / sides[:, 1]))
    kinds: list[tuple[np.ndarray, str]] = [
        (np.flatnonzero(table["wraps"])[:EACH], "across the edge"),
        (_highest(table["clipped"].to_numpy(), table["clipped"].to_numpy() > 0), "{clipped:.0%} cut off"),
        (_highest(stretch, stretch > np.log(1.5)), "{width:.0f} x {height:.0f} px"),
        (_highest(-sides.min(1), np.ones(len(table), bool)), "{width:.0f} x {height:.0f} px"),
        (np.random.default_rng(0).permutation(len(table))[: 3 * EACH], "{width:.0f} x {height:.0f} px"),
    ]
    tiles: list[Tile] = []
    taken: set[int] = set()
    for rows, words in kinds:
        for row in (int(row) for row in rows if int(row) not in taken):
            taken.add(row)
            facts = {"clipped": table["clipped"].iloc[row], "width": sides[row, 0], "height": sides[row, 1]}
            pixels = np.asarray(Image.open(out / str(table.index[row])).convert("RGB"))
            tiles.append(Tile(pixels, str(table["label"].iloc[row]), caption=words.format(**facts)))
    told = (
        "across an edge, cut by one, of strange shapes, the smallest, and some at random; sizes are those of the boxes"
    )
    panel = draw_panel(tiles, f"{len(tiles):,} of {len(table):,} crops", told, columns=EACH)
    return save_panel(panel, path)


def _highest(score: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    order = np.argsort(-score, kind="stable")
    return order[eligible[order]][:EACH]
