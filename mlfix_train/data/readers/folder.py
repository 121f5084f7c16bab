"""Reads a folder of images."""

import logging
import os
from pathlib import Path, PurePosixPath

import pandas as pd

from mlfix_train.data.readers.files import IMAGE_SUFFIXES, SPLIT_NAMES, check_root, find_images, group_names
from mlfix_train.data.samples import make_table
from mlfix_train.errors import DataError, format_list

log = logging.getLogger(__name__)


def read_folder(root: str | Path, group: str | None = None) -> pd.DataFrame:
    r"""Reads a folder of class folders, of ``train/`` and ``val/`` folders of class folders, or of unsorted images.

    The first folder below ``root`` is the label (deeper folders only make the ``sample_id`` longer). If all first
    folders are named like splits (``train``, ``val``, ``test``, ...), they are the ``split``, and the second folder is
    the label. Images in ``root`` itself have no label; beside class folders they are left out, with a warning. Hidden
    files are ignored; links are followed, but not in circles. The table is sorted by ``sample_id``.

    Args:
        root: The folder.
        group: Regular expression on the ``sample_id``; its first parenthesis (or, without one, the whole match) is the
            name of the photo or track. ``(.+)_\d+`` groups ``stop/00003_00012.jpg`` as ``stop/00003``.

    Raises:
        DataError: The folder doesn't exist, has no images, or ``group`` matches none of them.
    """
    base = check_root(root, "set data.root to the folder that has one folder per label")
    ids, others = find_images(base)
    if not ids:
        content = f"only {len(others):,} other file(s), such as {format_list(others, 3)}" if others else "it is empty"
        hint = f"images are files that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        raise DataError(f"no images below data.root={root}: {content}", hint)
    parts = {name: PurePosixPath(name).parts for name in ids}
    first_folders = {path[0].lower() for path in parts.values() if len(path) > 1}
    has_splits = bool(first_folders) and first_folders <= set(SPLIT_NAMES) and any(len(p) > 2 for p in parts.values())
    level = 1 if has_splits else 0
    unsorted = [name for name in ids if len(parts[name]) < level + 2]
    if len(unsorted) == len(ids):
        labels: list[str | None] = [None] * len(ids)
    else:
        if unsorted:
            message = "%s: %d image(s) are outside of the class folders and are left out: %s"
            log.warning(message, base, len(unsorted), format_list(unsorted, 3))
            ids = [name for name in ids if len(parts[name]) >= level + 2]
        labels = [parts[name][level] for name in ids]
    splits = [parts[name][0].lower() if has_splits else "" for name in ids]
    paths = [os.path.join(base, *parts[name]) for name in ids]
    return make_table(ids, paths, labels, group_names(ids, group), splits, source=f"data.root={root}")
