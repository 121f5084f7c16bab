"""Mosaics: layout, frames, and thinning out."""

from __future__ import annotations

import numpy as np

from mlfix_train.audit.reporting.sort_pictures import draw_mosaic, thin_out


def test_a_mosaic_shows_images_in_rows_with_frames() -> None:
    images = np.stack([np.full((8, 8, 3), 10 * i, np.uint8) for i in range(14)])
    sheet = draw_mosaic(images, "t", "n", np.arange(14) == 13)
    pixels = np.asarray(sheet)
    head = pixels.shape[0] - 20 - 2 * 42
    assert all((pixels[head + 20, 20 + 42 * i + 20] == 10 * i).all() for i in range(12))
    assert (pixels[head + 62, 20 + 42 + 20] == 130).all()
    assert (pixels[head + 62, 20 + 42 - 2] == (0xD5, 0x5E, 0)).all() and sheet.info["Title"] == "t"
    assert draw_mosaic(images[:0], "none").size[1] > 0


def test_large_orders_are_thinned_out_evenly() -> None:
    assert thin_out(5, 10).tolist() == [0, 1, 2, 3, 4]
    shown = thin_out(1000, 10)
    assert shown[0] == 0 and shown[-1] == 999 and len(shown) == 10 and np.ptp(np.diff(shown)) <= 1
