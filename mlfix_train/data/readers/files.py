"""What readers share: the folder of the data, the images below it, and groups by a regular expression."""

import logging
import os
import re
from pathlib import Path

from mlfix_train.errors import ConfigError, DataError, format_list

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_NAMES |= dict.fromkeys(("val", "valid", "validation"), "val")
"""Folders and words that name a split."""


def check_root(root: str | Path, hint: str) -> Path:
    """Returns the folder of the data, absolute; a DataError with ``hint`` if it is empty, missing, or a file."""
    if not str(root).strip():
        raise DataError("data.root is empty", hint)
    base = Path(root).expanduser()
    if not base.is_dir():
        raise DataError(f"data.root={base} {'is a file' if base.exists() else 'does not exist'}", hint)
    return Path(os.path.abspath(base))


def find_images(base: Path) -> tuple[list[str], list[str]]:
    """Finds the files below a folder, except hidden ones; links are followed, except in cycles.

    Returns:
        The images, sorted, and the other files, as POSIX paths relative to ``base``.

    Raises:
        DataError: A folder can't be read, or the name of an image is not UTF-8.
    """
    images, others = list[str](), list[str]()
    stack = [("", frozenset({_identity(os.stat(base))}))]
    while stack:
        folder, ancestors = stack.pop()
        try:
            entries = list(os.scandir(base / folder))
        except OSError as error:
            raise DataError(f"{base / folder} can't be read: {error.strerror}", "check its permissions") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            try:
                identity = _identity(entry.stat()) if entry.is_dir() else None
                special = identity is None and not entry.is_file() and os.path.exists(entry.path)  # a pipe, a device
            except OSError:
                special, identity = True, None
            if identity is not None and identity in ancestors:
                log.warning("%s links back to a folder above it and is not followed", base / name)
            elif identity is not None:
                stack.append((name, ancestors | {identity}))
            elif not special and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                images.append(name)
            else:
                others.append(name)
    for name in images:
        if not name.isascii() and name != name.encode("utf-8", "replace").decode():
            raise DataError(f"{str(base / name)!r}: the file's name is not UTF-8", "rename it (see `convmv`)")
    return sorted(images), others


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def group_names(sample_ids: list[str], pattern: str | None, key: str = "data.group") -> list[str] | None:
    """Returns the group of each sample by a regular expression, or ``None`` without a pattern.

    The pattern, which errors call ``key``, is searched in each id; its first parenthesis, or without one the whole
    match, is the name of the group. An id that does not match is a group of its own.

    Raises:
        ConfigError: The pattern is not a regular expression.
        DataError: It matches no sample.
    """
    if not pattern:
        return None
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{key}={pattern} is not a regular expression: {error}", "see Python's `re`") from error
    matches = [regex.search(name) for name in sample_ids]
    unmatched = [name for name, match in zip(sample_ids, matches, strict=True) if match is None]
    if len(unmatched) == len(sample_ids):
        hint = r"it is a regular expression on the sample_id: '(.+)_\d+' groups a/7_01.jpg and a/7_02.jpg as a/7"
        problem = f"{key}={pattern} matches none of the {len(sample_ids):,} samples, such as {sample_ids[0]!r}"
        raise DataError(problem, hint)
    if unmatched:
        shown = format_list(unmatched, 3)
        log.warning("%s does not match %d samples; each is a group of its own: %s", key, len(unmatched), shown)
    part = 1 if regex.groups else 0
    return [match.group(part) or name if match else name for name, match in zip(sample_ids, matches, strict=True)]
