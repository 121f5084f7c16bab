"""Images of samples from arrays, files and datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset
from torchvision.datasets import ImageFolder

from mlfix_train.audit.reporting.images import RowImages, dataset_roots, dataset_samples, open_images
from mlfix_train.errors import DataError

RED = np.zeros((3, 8, 8, 3), np.uint8)
RED[..., 0] = 255


@pytest.mark.parametrize(
    "images",
    [RED, RED / 255.0, torch.from_numpy(RED).permute(0, 3, 1, 2), torch.from_numpy(RED).permute(0, 3, 1, 2) / 255],
    ids=["uint8", "floats", "tensor", "float tensor"],
)
def test_arrays_become_uint8_with_channels_last(images: Any) -> None:
    opened = open_images(images, 3)
    assert opened.dtype == np.uint8
    np.testing.assert_array_equal(opened, RED)


def test_grey_arrays_become_rgb() -> None:
    np.testing.assert_array_equal(open_images(np.full((2, 4, 4), 7, np.uint8), 2), np.full((2, 4, 4, 3), 7))


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (RED[:2], "2 images for 3 samples"),
        (np.zeros((3, 8, 8, 4), np.uint8), "shape"),
        (np.full((3, 8, 8, 3), 300.0), "float64 from 300 to 300"),
        ("photos", "a str"),
        (5, "an? int"),
    ],
)
def test_what_is_no_images_is_an_error(images: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        open_images(images, 3)


def test_items_of_datasets(tmp_path: Path) -> None:
    """A photo twice as wide as high is padded, whatever the item is."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[..., 1] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    normalized = torch.from_numpy(pixels).permute(2, 0, 1).float() / 100 - 1
    items = [
        Image.fromarray(pixels),
        (pixels, 3),
        {"image": torch.from_numpy(pixels).permute(2, 0, 1), "label": 1},
        [torch.from_numpy(pixels).permute(2, 0, 1) / 255],
        str(tmp_path / "a.png"),
        tmp_path / "broken.png",
        (normalized, 1),
    ]
    images = open_images(items, 7)
    assert isinstance(images, RowImages)
    assert images[np.arange(7)].shape == (7, 64, 64, 3)
    middle, corner = images[np.arange(7)][:, 32, 32], images[np.arange(7)][:, 2, 2]
    assert middle[:5].tolist() == [[0, 200, 0]] * 5
    assert corner[:5].tolist() == [[128, 128, 128]] * 5
    assert middle[5].tolist() == [128, 128, 128], "a file that can't be read is grey"
    assert middle[6].tolist() == [0, 255, 0], "floats outside 0 to 1 are stretched"
    assert images[1].shape == (64, 64, 3)


def test_sixteen_bits_in_files_and_items(tmp_path: Path) -> None:
    """Files share one white, that of the bits they hold; an image of its own is scaled by all 16."""
    for i, level in enumerate((1000, 4095)):
        Image.fromarray(np.full((8, 8), level, np.uint16)).save(tmp_path / f"{i}.png")
    files = open_images([str(tmp_path / "0.png"), str(tmp_path / "1.png")], 2)
    assert files[np.arange(2)][:, 32, 32, 0].tolist() == [62, 255]
    item = open_images([(Image.fromarray(np.full((8, 8), 32896, np.uint16)), 0)], 1)
    assert item[0][32, 32].tolist() == [128] * 3
    clear = open_images([(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), 0)], 1)
    assert clear[0][32, 32].tolist() == [255] * 3, "transparent is white"


def test_an_item_that_is_no_image_is_named() -> None:
    with pytest.raises(DataError, match=r"images\[1\] is a int"):
        open_images([RED[0], 5], 2)[np.arange(2)]


def test_image_folders_name_their_files(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/b.png", "dog/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    folder = ImageFolder(str(tmp_path))
    ids = ["cat/a.png", "dog/b.png", "dog/c.png"]
    paths = [str(tmp_path / name) for name in ids]
    assert dataset_samples(folder) == (ids, paths, ["cat", "dog"])
    part = Subset(folder, [2, 0])
    assert dataset_samples(part) == ([ids[2], ids[0]], [paths[2], paths[0]], ["cat", "dog"])
    assert dataset_samples(Subset(part, [1])) == ([ids[0]], [paths[0]], ["cat", "dog"])
    assert dataset_roots(Subset(part, [1])) == [tmp_path]
    assert dataset_samples(TensorDataset(torch.zeros(3))) is None


def test_files_that_do_not_exist_are_named() -> None:
    with pytest.raises(DataError, match=r"2 of 2 image files do not exist: nope/a\.png, nope/b\.png"):
        open_images(["nope/a.png", "nope/b.png"], 2)
