"""At what size images are stored for a network."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from mlfix_train.data.pixels.sizes import stored_size


def table(folder: Path, *sizes: tuple[int, int]) -> pd.DataFrame:
    folder.mkdir()
    for number, size in enumerate(sizes):
        Image.new("RGB", size).save(folder / f"{number}.png")
    return pd.DataFrame({"path": [str(folder / f"{number}.png") for number in range(len(sizes))]})


def test_small_images_stay_small_and_large_ones_do_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mlfix_train")
    small = table(tmp_path / "a", (32, 20), (30, 34), (40, 10))
    assert stored_size(small, 160) == 34 and "stored at 34 px" in caplog.text
    assert stored_size(small, 24) == 24
    assert stored_size(table(tmp_path / "b", (640, 480), (20, 20), (300, 200)), 160) == 160
    assert stored_size(table(tmp_path / "c", (3, 2)), 160) == 8


def test_unreadable_images_do_not_count(tmp_path: Path) -> None:
    rows = table(tmp_path / "a", (32, 32), (32, 32))
    (tmp_path / "a/0.png").write_bytes(b"\x89PNG\r\n\x1a\n????")
    rows.loc[2] = str(tmp_path / "missing.png")
    assert stored_size(rows, 160) == 32
    assert stored_size(rows.iloc[[0, 2]], 160) == 160 == stored_size(rows.iloc[:0], 160)


def test_it_looks_at_few_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlfix_train.data.pixels import sizes

    rows, opened = table(tmp_path / "a", (32, 32)), []
    many = pd.DataFrame({"path": list(rows["path"]) * 5000})
    real = sizes.open_image
    monkeypatch.setattr(sizes, "open_image", lambda *given: opened.append(given) or real(*given))
    assert sizes.stored_size(many, 160) == 32 and len(opened) == 256
