"""The look over decoded images: nearly all black, white or alike is said, whatever is usual is not."""

from __future__ import annotations

import numpy as np
import pytest

from mlfix_train.data.pixels.blank import describe_blank, rows_to_look_at

RNG = np.random.default_rng(0)


def photos(count: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8) // 2 + RNG.integers(
        0, 128, (count, 24, 24, 3), dtype=np.uint8
    )


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (RNG.integers(0, 16, (40, 24, 24, 3), dtype=np.uint8), "40 of 40 images that were looked at are black"),
        (RNG.integers(240, 256, (40, 24, 24, 3), dtype=np.uint8), "40 of 40 images that were looked at are white"),
        (np.concatenate([photos(3), np.repeat(photos(1), 37, 0)]), "37 of 40 images that were looked at are alike"),
    ],
)
def test_blank_images(images: np.ndarray, said: str) -> None:
    assert describe_blank(images).startswith(said)


def test_black_images_with_margins() -> None:
    images = np.full((20, 24, 24, 3), 128, np.uint8)
    images[:, 6:18] = 3
    assert "20 of 20" in describe_blank(images) and "black" in describe_blank(images)


def test_usual_images() -> None:
    assert describe_blank(photos(40)) == ""
    digits = np.zeros((40, 24, 24, 3), np.uint8)
    for image, (y, x) in zip(digits, RNG.integers(6, 16, (40, 2)), strict=True):
        image[y : y + 3, x : x + 3] = 255
    assert describe_blank(digits) == "", "white on black"
    half = np.concatenate([photos(20), np.zeros((20, 24, 24, 3), np.uint8)])
    assert describe_blank(half) == ""
    assert describe_blank(np.zeros((4, 24, 24, 3), np.uint8)) == "", "too few to tell"


def test_rows_to_look_at() -> None:
    assert rows_to_look_at(5, 100).tolist() == [0, 1, 2, 3, 4]
    rows = rows_to_look_at(100_000, 4_800)
    assert len(rows) == 2_000 and rows[0] == 0 and rows[-1] == 99_999
    assert len(rows_to_look_at(100_000, 3 * 1024**2)) == 21
    assert len(rows_to_look_at(0, 10)) == 0
