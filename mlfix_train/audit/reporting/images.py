"""Images of samples from an array, files, a dataset or a pixel store, for panels and pages."""

import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch.utils.data import ConcatDataset

from mlfix_train.data.pixels.containers import containing_file
from mlfix_train.data.pixels.decode import GREY, UnreadableImage, decode_image, fit_square, to_rgb
from mlfix_train.data.pixels.depth import white_level
from mlfix_train.errors import DataError, format_list

SIZE = 64
"""Side of images from files and datasets, in pixels."""
MAX_MISSING = 0.01
"""Share of image files that may be missing."""
IMAGE_KEYS = ("image", "images", "img", "pixel_values", "x", "pixels")


class Images(Protocol):
    """N images: ``images[rows]`` is uint8 ``(n, H, W, 3)`` for an int64 array of n rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> np.ndarray: ...


class RowImages:
    """Images that are decoded on access, as squares of :data:`SIZE` pixels.

    Args:
        source: N paths of image files, or a dataset of N items. An item is an image, a tuple that begins with one, or
            a dict with ``image``. An image is a PIL image, or an array or tensor ``(H, W)``, ``(H, W, 3)`` or
            ``(3, H, W)``: uint8, or floats, which are stretched to 0..255 unless they are within 0 to 1.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self._white: int | None = None
        self.shape = (len(source), SIZE, SIZE, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        picked = np.arange(len(self))[rows]
        images = [self._one(self.source[int(row)], int(row)) for row in np.atleast_1d(picked)]
        stacked = np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)
        return stacked if np.ndim(picked) else stacked[0]

    def _white_level(self) -> int:
        """Returns the value of 16-bit files that is white; ``source`` is a list of files where it is asked for."""
        if self._white is None:
            files = self.source if isinstance(self.source, (list, tuple)) else ()
            self._white = white_level(
                [os.fspath(file) for file in files if isinstance(file, (str, os.PathLike))], workers=1
            )
        return self._white

    def _one(self, item: Any, row: int) -> np.ndarray:
        if isinstance(item, (str, os.PathLike)):
            try:
                return decode_image(os.fspath(item), SIZE, "pad", white=self._white_level())
            except UnreadableImage:
                return np.full(self.shape[1:], GREY, np.uint8)
        if isinstance(item, Mapping):
            item = next((item[key] for key in IMAGE_KEYS if key in item), None)
        elif isinstance(item, (tuple, list)) and item:
            item = item[0]
        if not isinstance(item, Image.Image):
            item = Image.fromarray(_to_uint8(item, row))
        return np.asarray(fit_square(item.convert("RGB") if item.mode == "F" else to_rgb(item), SIZE, "pad"))


def open_images(images: Any, count: int) -> Any:
    """Returns ``images`` as :class:`Images`.

    Args:
        images: a pixel store, an array ``(N, H, W, 3)`` or ``(N, H, W)`` (uint8, or floats from 0 to 1), a tensor
            ``(N, 3, H, W)``, N paths, or a dataset of N items, see :class:`RowImages`.
        count: N.

    Raises:
        DataError: It is none of these, or holds another number of images.
    """
    if not hasattr(images, "__getitem__") or not hasattr(images, "__len__") or isinstance(images, (str, Mapping)):
        hint = "pass an array (N, H, W, 3), a list of N image files, or a dataset whose items begin with an image"
        raise DataError(f"images is a {type(images).__name__}", hint)
    if len(images) != count:
        raise DataError(f"there are {len(images):,} images for {count:,} samples", "pass one image per sample")
    if hasattr(images, "unreadable"):
        return images
    if not hasattr(images, "shape") or np.ndim(images) == 1:
        source = images.tolist() if hasattr(images, "tolist") else images
        if isinstance(source, (list, tuple)):
            paths = [os.fspath(path) for path in source if isinstance(path, (str, os.PathLike))]
            missing = [path for path in paths if not os.path.exists(containing_file(path) or ".")]
            if len(missing) > MAX_MISSING * count:
                problem = f"{len(missing):,} of {count:,} image files do not exist: {format_list(missing, 3)}"
                raise DataError(problem, "pass paths from the working directory, or absolute ones")
        return RowImages(source)
    array = np.asarray(images)
    if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[-1] != 3:
        array = np.moveaxis(array, 1, -1)
    if array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 1):
        array = np.repeat(array.reshape(*array.shape[:3], 1), 3, axis=3)
    if array.ndim != 4 or array.shape[-1] != 3:
        raise DataError(f"images has the shape {tuple(np.shape(images))}", "pass (N, H, W, 3) or (N, H, W)")
    if array.dtype != np.uint8:
        if array.size and (array.min() < 0 or array.max() > 1):
            problem = f"images are {array.dtype} from {array.min():g} to {array.max():g}"
            raise DataError(problem, "pass uint8 images, or floats from 0 to 1")
        array = (np.asarray(array, np.float32) * 255).round().astype(np.uint8)
    return array


def _to_uint8(image: Any, row: int) -> np.ndarray:
    """Returns an image as uint8 ``(H, W, 3)``."""
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[-1] not in (1, 3):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3) or array.dtype.kind not in "uif":
        problem = f"images[{row}] is a {type(image).__name__} of the shape {np.shape(image)}"
        raise DataError(
            problem, "items of a dataset are images, tuples that begin with an image, or dicts with 'image'"
        )
    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        if low < 0 or high > 1:  # normalized by a mean and a deviation that are not known here
            array = (array - low) / max(high - low, 1e-12)
        array = (255 * array).round().astype(np.uint8)
    return np.repeat(array, 3, axis=2) if array.shape[-1] == 1 else array


def is_made_of_others(dataset: Any) -> bool:
    """Returns whether a dataset consists of rows of others, like ``Subset`` and ``ConcatDataset``."""
    return _is_subset(dataset) or isinstance(dataset, ConcatDataset)


def dataset_samples(dataset: Any) -> tuple[list[str], list[str], list[str]] | None:
    """Returns ids, image files and class names of a dataset like ``torchvision.datasets.ImageFolder``, or ``None``.

    Ids are paths relative to the dataset's ``root``. A ``Subset`` or ``ConcatDataset`` of such will do, to any depth;
    with several roots, ids are relative to the folder that contains them all. Class names are empty if parts differ.
    """
    paths, roots = _image_files(dataset), [str(root) for root in dataset_roots(dataset)]
    if paths is None:
        return None
    if len(roots) > 1:
        root = Path(os.path.commonpath([os.path.abspath(one) for one in roots]))
        ids = [Path(os.path.abspath(path)).relative_to(root).as_posix() for path in paths]
    else:
        root = Path(*roots)
        ids = [Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else path for path in paths]
    return ids, paths, dataset_classes(dataset)


def dataset_roots(dataset: Any) -> list[Path]:
    """Returns the folders of the images of an ``ImageFolder``, or of those that a dataset is made of."""
    if is_made_of_others(dataset):
        return list(dict.fromkeys(root for part in _parts(dataset) for root in dataset_roots(part)))
    return [Path(str(dataset.root))] if _image_files(dataset) is not None and hasattr(dataset, "root") else []


def dataset_classes(dataset: Any) -> list[str]:
    """Returns the ``classes`` of a dataset, or of its parts; empty if they are unknown, or differ between parts."""
    if is_made_of_others(dataset):
        found = [dataset_classes(part) for part in _parts(dataset)]
        return found[0] if found and all(one == found[0] for one in found) else []
    classes = getattr(dataset, "classes", None)
    return [str(name) for name in classes] if isinstance(classes, (list, tuple)) else []


def _is_subset(dataset: Any) -> bool:
    return hasattr(dataset, "dataset") and getattr(dataset, "indices", None) is not None


def _parts(dataset: Any) -> list[Any]:
    return [dataset.dataset] if _is_subset(dataset) else list(dataset.datasets)


def _image_files(dataset: Any) -> list[str] | None:
    """Returns the image file of each row, if they are known."""
    if is_made_of_others(dataset):
        files = [_image_files(part) for part in _parts(dataset)]
        known = [paths for paths in files if paths is not None]
        if len(known) < len(files):
            return None
        return [known[0][int(row)] for row in dataset.indices] if _is_subset(dataset) else [*chain(*known)]
    samples = getattr(dataset, "samples", None)
    if not isinstance(samples, list) or not samples or not dataset_classes(dataset):
        return None
    if not isinstance(samples[0], tuple) or len(samples[0]) != 2 or not isinstance(samples[0][0], (str, os.PathLike)):
        return None
    return [str(path) for path, _ in samples]
