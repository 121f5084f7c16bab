"""A built-in data set of rendered traffic signs, for the demo and the tests.

Every picture looks like a crop from a street photograph and depends on its seed, class and index alone: not on the
order of the calls, the number of images per class or the process. Nothing is read from disk but a font.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mlfix_train.data.readers.folder import read_folder
from mlfix_train.data.synthetic.sign_scenes import DIFFICULTY, photograph_sign
from mlfix_train.data.synthetic.sign_shapes import SIGN_CLASSES
from mlfix_train.errors import DataError, check_range, did_you_mean, format_list

__all__ = ["DIFFICULTY", "SIGN_CLASSES", "read_signs", "render_sign", "write_signs"]

# Raise it when a change alters the pixels, so that folders written by an older version are told apart.
VERSION = 1
MANIFEST = "signs.json"


def render_sign(name: str, index: int, seed: int = 0, size: int = 32, difficulty: float = DIFFICULTY) -> np.ndarray:
    """Renders one picture of a traffic sign.

    Args:
        name: one of :data:`SIGN_CLASSES`.
        index: number of the picture within its class, from 0.
        seed: number of the data set, from 0.
        size: side in pixels, from 8.
        difficulty: 0 to 2; scales blur, noise, haze, darkness and how often a part is hidden.

    Returns:
        uint8 array of shape (size, size, 3), the same bytes for the same arguments.

    Raises:
        DataError: if there is no such class or a number is out of range.
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
    """Renders the data set into ``root`` where it is not there yet, and reads it.

    Args and errors as :func:`write_signs`.

    Returns:
        A sample table.
    """
    return read_folder(write_signs(root, per_class, seed, size, classes, difficulty, progress))


def write_signs(
    root: str | Path,
    per_class: int = 150,
    seed: int = 0,
    size: int = 32,
    classes: Sequence[str] | None = None,
    difficulty: float = DIFFICULTY,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes the data set as ``root/<class>/<index>.png``, or completes it if an earlier call was interrupted.

    The manifest ``signs.json`` is written last; where it already holds the same settings, nothing is done.

    Args:
        root: folder of the data set, made if missing.
        per_class: number of images of each class.
        seed: number of the data set, from 0.
        size: side of the images in pixels.
        classes: the classes to write, all of :data:`SIGN_CLASSES` by default.
        difficulty: 0 to 2, see :func:`render_sign`.
        progress: called after each image with how many are done and how many there are.

    Returns:
        The folder of the data set.

    Raises:
        DataError: if the folder holds signs of other settings, or an argument is out of range.
    """
    names = sorted(set(SIGN_CLASSES if classes is None else classes))
    _check_classes(names)
    check_range("data.difficulty", difficulty, 0, 2)
    _check_numbers(per_class=(per_class, 1), seed=(seed, 0), size=(size, 8))
    wanted: dict[str, object] = {"version": VERSION, "difficulty": difficulty}
    wanted |= {"per_class": per_class, "seed": seed, "size": size, "classes": names}
    folder = Path(root)
    if _is_complete(folder, wanted):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{MANIFEST}.partial", json.dumps(wanted, indent=1).encode())
    done, total = 0, len(names) * per_class
    for name in names:
        (folder / name).mkdir(exist_ok=True)
        for index in range(per_class):
            path = folder / name / f"{index:04d}.png"
            if not (path.is_file() and path.stat().st_size):
                _write(path, render_sign(name, index, seed, size, difficulty))
            done += 1
            if progress:
                progress(done, total)
    _write(folder / MANIFEST, json.dumps(wanted, indent=1).encode())
    (folder / f"{MANIFEST}.partial").unlink(missing_ok=True)
    return folder


def _write(path: Path, content: np.ndarray | bytes) -> None:
    """Writes an image or bytes under another name first, so that ``path`` is never there in part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if isinstance(content, bytes):
            draft.write_bytes(content)
        else:
            Image.fromarray(content).save(draft, format="PNG", compress_level=1)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _is_complete(folder: Path, wanted: dict[str, object]) -> bool:
    """Returns whether ``folder`` holds all signs of the settings ``wanted``; raises DataError if it holds others."""
    for name in (MANIFEST, f"{MANIFEST}.partial"):
        path = folder / name
        if not path.is_file():
            continue
        hint = "give another data.root, or delete the folder"
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path} is not a manifest of rendered signs ({error})", hint) from error
        if found != wanted:
            keys = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
            details = [f"{key}: {_brief(found.get(key))} there, {_brief(wanted.get(key))} asked for" for key in keys]
            raise DataError(f"{folder} holds rendered signs of other settings", hint, details)
        return name == MANIFEST
    return False


def _brief(value: object) -> str:
    return f"{len(value)} ({format_list(value)})" if isinstance(value, list) else str(value)


def _check_classes(names: Sequence[str]) -> None:
    for name in names:
        if name not in SIGN_CLASSES:
            raise DataError(f"there is no sign class {name!r}", did_you_mean(name, SIGN_CLASSES))


def _check_numbers(**numbers: tuple[int, int]) -> None:
    for key, (value, low) in numbers.items():
        if value < low:
            raise DataError(f"rendered signs can't have {key}={value}", f"give a whole number from {low} up")
