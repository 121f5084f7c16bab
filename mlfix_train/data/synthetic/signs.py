"""A data set of rendered traffic signs: written on first use, and read as a sample table.

Every image looks like a crop of a street photo. It depends only on its seed, class and index, not on the order of
calls, the number of images per class or the process. Nothing is read from disk but a font.
"""

import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.files.documents import read_json
from mlfix_train.data.files.json_files import write_json
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.data.synthetic.sign_scenes import DIFFICULTY, photograph_sign
from mlfix_train.data.synthetic.sign_shapes import SIGN_CLASSES
from mlfix_train.errors import DataError, check_range, did_you_mean, format_list

VERSION = 1
"""Increment when a change alters the pixels, so that folders written by an older version are recognized."""
MANIFEST = "signs.json"


def render_sign(name: str, index: int, seed: int = 0, size: int = 32, difficulty: float = DIFFICULTY) -> np.ndarray:
    """Renders one image of a traffic sign: uint8 ``(size, size, 3)``, the same bytes for the same arguments.

    ``name`` is one of :data:`SIGN_CLASSES`, ``index`` the image's number within its class, ``seed`` the data set's,
    both from 0; ``size`` is the side in pixels, from 8. ``difficulty`` (0 to 2) scales blur, noise, haze, darkness and
    how often a part is hidden.

    Raises:
        DataError: There is no such class, or a number is out of range.
    """
    _check_classes([name])
    _check_numbers(index=(index, 0), seed=(seed, 0), size=(size, 8))
    rng = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(name.encode()), index]))
    return photograph_sign(rng, name, size, difficulty)


def read_signs(
    root: str | Path,
    per_class: int = 150,
    seed: int = 0,
    size: int = 32,
    classes: Sequence[str] | None = None,
    difficulty: float = DIFFICULTY,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Renders the data set as ``root/<class>/<index>.png`` if it is not there yet, and reads it as a sample table.

    An interrupted call is completed by the next one: the manifest ``signs.json`` is written last.

    Args:
        root: Folder of the data set, created if missing.
        per_class: Number of images of each class.
        seed: Number of the data set, from 0.
        size: Side of the images in pixels.
        classes: The classes to write, all of :data:`SIGN_CLASSES` by default.
        difficulty: 0 to 2, see :func:`render_sign`.
        progress: Called after each image with (images done, images in total).

    Raises:
        DataError: The folder holds signs of other settings, or an argument is out of range.
    """
    names = sorted(set(SIGN_CLASSES if classes is None else classes))
    _check_classes(names)
    check_range("data.difficulty", difficulty, 0, 2)
    _check_numbers(per_class=(per_class, 1), seed=(seed, 0), size=(size, 8))
    settings: dict[str, object] = {"version": VERSION, "difficulty": difficulty}
    settings |= {"per_class": per_class, "seed": seed, "size": size, "classes": names}
    folder = Path(root)
    if _is_complete(folder, settings):
        return read_folder(folder)
    manifest, partial = folder / MANIFEST, folder / f"{MANIFEST}.partial"
    write_json(partial, settings)
    done, total = 0, len(names) * per_class
    for name in names:
        (folder / name).mkdir(exist_ok=True)
        for index in range(per_class):
            path = folder / name / f"{index:04d}.png"
            if not (path.is_file() and path.stat().st_size):
                with atomic_path(path) as temporary:
                    image = Image.fromarray(render_sign(name, index, seed, size, difficulty))
                    image.save(temporary, format="PNG", compress_level=1)
            done += 1
            if progress:
                progress(done, total)
    os.replace(partial, manifest)
    return read_folder(folder)


def _is_complete(folder: Path, wanted: dict[str, object]) -> bool:
    """Returns whether ``folder`` holds all signs of these settings; raises a DataError if it holds others."""
    for name in (MANIFEST, f"{MANIFEST}.partial"):
        path = folder / name
        if not path.is_file():
            continue
        hint = "set another data.root, or delete the folder"
        found, problem = read_json(path, allow_nan=True)
        if problem or not isinstance(found, dict):
            raise DataError(f"{path} is not a manifest of rendered signs ({problem or 'it is not an object'})", hint)
        if found != wanted:
            keys = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
            pairs = [(key, _short_repr(found.get(key)), _short_repr(wanted.get(key))) for key in keys]
            details = [f"{key}: {old} in the folder, {new} requested" for key, old, new in pairs]
            raise DataError(f"{folder} contains rendered signs with other settings", hint, details)
        return name == MANIFEST
    return False


def _short_repr(value: object) -> str:
    return f"{len(value)} ({format_list(value)})" if isinstance(value, list) else str(value)


def _check_classes(names: Sequence[str]) -> None:
    for name in names:
        if name not in SIGN_CLASSES:
            raise DataError(f"there is no sign class {name!r}", did_you_mean(name, SIGN_CLASSES))


def _check_numbers(**numbers: tuple[int, int]) -> None:
    for key, (value, low) in numbers.items():
        if value < low:
            raise DataError(f"rendered signs can't have {key}={value}", f"use a whole number of at least {low}")
