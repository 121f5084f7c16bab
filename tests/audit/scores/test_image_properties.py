"""Properties of images against loops over their pixels, on pictures made for it, and read through a pixel store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from image_helpers import texture
from PIL import Image
from scipy import ndimage

from mlfix_train.audit.scores import image_properties
from mlfix_train.audit.scores.image_properties import (
    PROPERTIES,
    blur,
    emptiness,
    exposure,
    luma,
    measure_images,
    measure_samples,
)
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.data.pixels.store import open_store
from mlfix_train.data.samples import make_table
from mlfix_train.errors import DataError


def test_luma_is_that_of_bt_601() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 9, 7, 3), dtype=np.uint8)
    wanted = images @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luma(images).astype(float) - wanted).max() <= 1.0
    assert luma(np.full((1, 2, 2, 3), 255, np.uint8)).max() == 255
    assert np.asarray(Image.fromarray(images[0]).convert("L")).astype(int) == pytest.approx(luma(images)[0], abs=1)


def test_exposure_against_a_loop() -> None:
    grey = np.random.default_rng(0).integers(30, 220, (6, 16, 16), dtype=np.uint8)
    dark, bright = exposure(grey)
    for image, darkness, brightness in zip(grey, dark, bright, strict=True):
        values = np.sort(image.ravel())
        high = next(v for v in range(256) if (values > v).mean() <= 0.01)
        low = next(v for v in range(255, -1, -1) if (values < v).mean() <= 0.01)
        assert darkness == pytest.approx(1 - high / 255)
        assert brightness == pytest.approx(low / 255)


def test_emptiness_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    images = np.clip(rng.normal(128, [[[[5]]], [[[20]]], [[[60]]]], (3, 16, 16, 3)), 0, 255).astype(np.uint8)
    for image, found in zip(images, emptiness(images), strict=True):
        shares = [
            max(((c >= low) & (c < low + 16)).mean() for low in range(241))
            for c in np.moveaxis(image.reshape(-1, 3), 1, 0)
        ]
        assert found == pytest.approx(min(shares))
    isoluminant = np.zeros((1, 16, 16, 3), np.uint8)
    isoluminant[0, :, :8] = (150, 0, 0)
    isoluminant[0, :, 8:] = (0, 76, 0)
    assert emptiness(isoluminant)[0] == 0.5, "colors of one luma are not empty"


def test_blur_does_not_depend_on_contrast_or_brightness() -> None:
    grey = luma(texture())
    wanted = blur(grey)
    faint = (grey / 4 + 100).round().astype(np.uint8)
    assert np.abs(blur(faint) - wanted).max() < 0.06
    assert blur(np.full((1, 32, 32), 77, np.uint8)) == pytest.approx([np.nan], nan_ok=True)


@pytest.mark.parametrize("noise", [0.0, 4.0, 8.0])
def test_blur_rises_with_blurring_even_under_noise(noise: float) -> None:
    rng = np.random.default_rng(1)
    grey = luma(texture(40)).astype(float)
    scores = []
    for sigma in (0.0, 0.8, 1.6, 3.2):
        blurred = np.stack([ndimage.gaussian_filter(image, sigma) for image in grey])
        blurred += rng.normal(scale=noise, size=blurred.shape) if noise else 0
        scores.append(blur(blurred.round().clip(0, 255).astype(np.uint8)))
    medians = np.median(scores, axis=1)
    assert (np.diff(medians[:3]) > 0).all()
    for blurred in scores[1:]:
        assert np.quantile(scores[0], 0.9) < np.quantile(blurred, 0.1)


def test_bad_images_reach_the_ends_of_the_scales() -> None:
    images = texture(4)
    images[0] = images[0] // 16
    images[1] = 240 + images[1] // 17
    images[2] = (10, 200, 90)
    found = measure_images(images)
    assert list(found.columns) == list(PROPERTIES)
    assert found["darkness"].idxmax() == 0
    assert found["brightness"].idxmax() == 1
    assert found["emptiness"].iloc[2] == 1
    assert found.loc[3, ["darkness", "brightness", "emptiness"]].lt(0.5).all()
    assert (measure_images(texture(2)[:, :8])["elongation"] == 4).all()


def test_pixels_of_another_kind_are_told() -> None:
    with pytest.raises(DataError, match=r"images are float64 of the shape \(2, 4, 4, 3\)"):
        measure_images(np.zeros((2, 4, 4, 3)))


def write_images(folder: Path, images: list[np.ndarray]) -> pd.DataFrame:
    folder.mkdir()
    names = [f"{number}.png" for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    return make_table(names, [str(folder / name) for name in names], ["a"] * len(names))


def test_a_store_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_properties, "BLOCK_PIXELS", 4096)
    images = list(texture(10))
    images[3] = images[3][:8]
    table = write_images(tmp_path / "data", images)
    (tmp_path / "data" / "7.png").write_bytes(b"no image")
    store = open_store(table, PixelSpec(32), tmp_path / "cache", max_unreadable=0.5)
    seen: list[tuple[int, int]] = []
    found = measure_samples(store, table, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (9, 9)
    assert len(seen) == 3, "in blocks of four"
    assert found.index.equals(table.index)
    assert found.loc["7.png"].isna().all()
    assert found["elongation"].drop("7.png").tolist() == [
        4.0 if name == "3.png" else 1.0 for name in found.index.drop("7.png")
    ]
    one = measure_images(store[np.array([5])]).iloc[0]
    assert found.loc["5.png"].tolist() == one.tolist()
    monkeypatch.setattr(image_properties, "measure_images", lambda images: 1 / 0)
    pd.testing.assert_frame_equal(measure_samples(store, table), found)


def test_margins_do_not_count(tmp_path: Path) -> None:
    images = [image[:16] for image in texture(3)] + [texture(1)[0]]
    table = write_images(tmp_path / "data", images)
    store = open_store(table, PixelSpec(32, "pad"), tmp_path / "cache")
    found = measure_samples(store, table)
    for row, image in enumerate(images):
        wanted = measure_images(image[None]).iloc[0]
        assert found.iloc[row].tolist() == pytest.approx(wanted.tolist(), abs=1e-6)


def test_the_shape_of_crops_is_that_of_their_boxes() -> None:
    images = texture(3)
    metadata = pd.DataFrame({"x_min": [0, 0, 0], "photo_width": [9, 9, 9], "aspect": [0.25, 2.0, np.nan]})
    table = make_table(list("abc"), list("abc"), ["x"] * 3, metadata=metadata)
    assert measure_samples(images, table)["elongation"].tolist() == [4.0, 2.0, 1.0]
