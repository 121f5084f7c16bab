"""The picture of the crops that are worth a look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mlfix_train.audit.reporting import crop_overview
from mlfix_train.audit.reporting.crop_overview import draw_crop_overview


def test_conspicuous_crops_come_first_and_each_once(tmp_path: Path, monkeypatch) -> None:
    count = 80
    table = pd.DataFrame({"label": [f"label{n}" for n in range(count)], "x_min": 0.0, "y_min": 0.0, "y_max": 50.0})
    table["x_max"] = np.where(np.arange(count) == 40, 400.0, 50.0)  # one is elongated
    table["clipped"] = np.where(np.arange(count) == 30, 0.5, 0.0)
    table["wraps"] = np.arange(count) == 20
    Image.new("RGB", (16, 16), (9, 99, 9)).save(tmp_path / "crop.png")
    table["path"] = str(tmp_path / "crop.png")
    drawn: list[list] = []
    real = crop_overview.draw_panel

    def record(tiles, *arguments, **keywords):
        drawn.append(list(tiles))
        return real(tiles, *arguments, **keywords)

    monkeypatch.setattr(crop_overview, "draw_panel", record)
    assert draw_crop_overview(table).width > 440
    (tiles,) = drawn
    assert [(tile.given, tile.caption) for tile in tiles[:3]] == [
        ("label20", "across the edge"),
        ("label30", "50% clipped"),
        ("label40", "400 x 50 px"),
    ]
    assert len({tile.given for tile in tiles}) == len(tiles)
