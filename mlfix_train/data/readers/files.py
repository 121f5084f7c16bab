"""What readers share: the folder of the data, and groups by a regular expression."""

import filecmp
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

from mlfix_train.data.files.walk import is_of_system, printable
from mlfix_train.data.pixels.containers import is_contained
from mlfix_train.errors import ConfigError, DataError, format_list

log = logging.getLogger(__name__)

SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_NAMES |= dict.fromkeys(("val", "valid", "validation"), "val")
"""Folders and words that name a split."""

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


def find_given(given: str | Path, key: str, *folders: Path) -> Path:
    """Returns the file or folder that a setting names; relative paths start at the first folder, else at the others.

    Raises:
        DataError: It is in two of the folders, and they differ.
    """
    path = Path(given).expanduser()
    places = [folder / path for folder in folders]
    found = [place for place in places if place.exists()]
    for other in found[1:]:
        if not os.path.samefile(found[0], other) and not (
            other.is_file() and filecmp.cmp(found[0], other, shallow=False)
        ):
            problem = f"{key}={given} may be {found[0].absolute()} or {other.absolute()}, which differ"
            raise DataError(problem, f"set the whole path of one: {key}={found[0].absolute()}")
    if found and found[0] != places[0]:
        log.info("%s was found in %s", f"{key}={given}", (folders[places.index(found[0])]).absolute())
    return found[0] if found else places[0]


def check_root(root: str | Path, hint: str) -> Path:
    """Returns the folder of the data, absolute; a DataError with ``hint`` if it is empty, missing, or a file."""
    if not str(root).strip():
        raise DataError("data.root is empty", hint)
    if (shown := printable(str(root))) != str(root):
        raise DataError(f"data.root={shown} is not UTF-8", "rename the folder (see `convmv`)")
    base = Path(root).expanduser()
    if base.is_file() and base.name.lower().endswith(ARCHIVES):
        raise DataError(f"data.root={base} is an archive", f"unpack it, and {hint}")
    if not base.is_dir():
        raise DataError(f"data.root={base} {'is a file' if base.exists() else 'does not exist'}", hint)
    return Path(os.path.abspath(base))


def warn_of_system_files(paths: Iterable[str], source: str) -> None:
    """Warns of thumbnails and the like, which other libraries take for images."""
    found = [path for path in paths if not is_contained(path) and is_of_system(path.split(os.sep))]
    if found:
        text = "%s: %d image(s) are files of systems, such as thumbnails, and count as samples; remove them: %s"
        log.warning(text, source, len(found), format_list(found, 3))


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
