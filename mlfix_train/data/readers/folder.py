"""Reads a folder of images."""

import logging
import os
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from mlfix_train.data.files.documents import decode_text
from mlfix_train.data.files.walk import FileList, find_images
from mlfix_train.data.pixels.formats import format_hint, image_suffixes, sniff_format
from mlfix_train.data.readers.files import ARCHIVES, SPLIT_NAMES, check_root, group_names
from mlfix_train.data.samples import make_table
from mlfix_train.errors import DataError, format_list, names_arguments

log = logging.getLogger(__name__)

SPLIT_FOLDER = re.compile(rf"({'|'.join(SPLIT_NAMES)}|dev|eval)([-_ ]?(set|data|images|split|\d{{4}}))?", re.IGNORECASE)
"""Names of folders that may be splits: ``train``, ``test_set``, ``val2017``."""
FOLD_FOLDER = re.compile(r"(fold|cv|split|part)[-_ ]?\d+", re.IGNORECASE)
"""Names of folders that may be folds of a cross-validation."""
IMAGE_FOLDERS = ("images", "image", "imgs", "img")
CIFAR_FILES = {"data_batch_1": "CIFAR10", "train": "CIFAR100"}
PLAIN_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{0,6}", re.IGNORECASE)
"""What files that are no images usually end in, such as ``.txt`` or ``.json``."""
MAX_SNIFFED = 200
"""Files that are looked into for images, at most about."""


@names_arguments("data")
def read_folder(root: str | Path, group: str | None = None) -> pd.DataFrame:
    r"""Reads a folder of class folders, of ``train/`` and ``val/`` folders of class folders, or of unsorted images.

    The first folder below ``root`` is the label (deeper folders only make the ``sample_id`` longer). If the first
    folders are splits (``train``, ``val``, ``test``, ``train2017``, ``test_set``, ...) and hold class folders, they are
    the ``split``, and the second folder is the label; other folders beside two splits are left out, with a warning.
    Images in ``val/images/`` have the labels of ``val/val_annotations.txt``, as in Tiny ImageNet.
    Images in ``root`` itself have no label; beside class folders they are left out, with a warning. Files that systems
    keep (hidden ones, thumbnails, recycle bins) are passed over; links are followed, but each real folder is read once.
    The table is sorted by ``sample_id``.

    Args:
        root: The folder.
        group: Regular expression on the ``sample_id``; its first parenthesis (or, without one, the whole match) is the
            name of the photo or track. ``(.+)_\d+`` groups ``stop/00003_00012.jpg`` as ``stop/00003``.

    Raises:
        DataError: The folder doesn't exist, has no images, may as well be a class as a split, or ``group`` matches
            no sample.
    """
    base = check_root(root, "set data.root to the folder that has one folder per label")
    files = find_images(base)
    if not files.images:
        raise _no_images(base, root, files)
    parts = {name: tuple(name.split("/")) for name in files.images}
    splits = find_splits(root, list(parts.values()))
    if not splits:
        _check_folds(root, list(parts.values()))
    level = 1 if splits else 0
    in_splits = [path for path in parts.values() if path[0] in splits and len(path) > 2]
    if in_splits and all(path[1].lower() in IMAGE_FOLDERS and len(path) > 3 for path in in_splits):
        log.info("%s: the labels are the folders below %s/%s", base, *in_splits[0][:2])
        level = 2
    ids = [name for name in files.images if not splits or len(parts[name]) == 1 or parts[name][0] in splits]
    if len(ids) < len(files.images):
        counts = Counter(
            parts[name][0] for name in files.images if len(parts[name]) > 1 and parts[name][0] not in splits
        )
        strays = format_list((f"{folder} ({count:,} images)" for folder, count in sorted(counts.items())), 5)
        names = format_list(sorted(splits), 5)
        log.warning("%s: %s are splits; the folders beside them are left out: %s", base, names, strays)
    empty: list[str] = []
    flat = _flat_splits(splits, parts.values()) if level == 1 else set()
    listed = {name: label for split in sorted(flat) for name, label in _listed_labels(base, split, files).items()}
    unsorted = [name for name in ids if len(parts[name]) < level + 2 or (parts[name][0] in flat and name not in listed)]
    if len(unsorted) == len(ids):
        labels: list[str | None] = [None] * len(ids)
    else:
        if unsorted:
            message = "%s: %d image(s) are outside of the class folders and are left out: %s"
            log.warning(message, base, len(unsorted), format_list(unsorted, 3))
            left_out = set(unsorted)
            ids = [name for name in ids if name not in left_out]
        labels = [listed.get(name) or parts[name][level] for name in ids]
        empty = _empty_classes(base, files, splits, level + 1)
        _warn_of_one_label(base, labels, [parts[name] for name in ids], level)
        _note_splits_in_classes(base, [parts[name] for name in ids], level)
    _warn_of_odd_names(base, files)
    split_of = [split_of_folder(parts[name][0]) if splits else "" for name in ids]
    prefix = os.path.join(base, "")
    paths = [prefix + name.replace("/", os.sep) for name in ids]
    groups = group_names(ids, group)
    return make_table(ids, paths, labels, groups, split_of, source=f"data.root={root}", classes=empty)


def find_splits(root: str | Path, parts: list[tuple[str, ...]]) -> set[str]:
    """Returns the first folders if they are splits, or those of them that are; empty if they are classes.

    They are splits if all are called so and hold class folders, or if two or more are, whatever lies beside them.

    Raises:
        DataError: One folder is called like a split and holds folders, others don't: it may be either.
    """
    below: dict[str, set[str]] = {}  # first folder to the folders in it that have images; "" for images of its own
    for path in parts:
        if len(path) > 1:
            below.setdefault(path[0], set()).add(path[1] if len(path) > 2 else "")
    named = {folder for folder in below if SPLIT_FOLDER.fullmatch(folder)}
    with_classes = {folder for folder in named if below[folder] - {""}}
    strays = sorted(set(below) - named)
    if not with_classes:
        return set()
    similar = [folder for folder in strays if below[folder] & below[min(with_classes)] - {""}]
    if not strays or (len(named) > 1 and not similar):
        return named
    folder = min(with_classes)
    if len(named) == 1 and (not similar and any(below[stray] - {""} for stray in strays)):
        return set()  # classes with folders of their own, one of which happens to be called like a split
    if len(named) == 1 and "" in below[folder]:
        return set()
    beside = format_list(similar or strays, 5)
    problem = f"data.root={root}: {folder} may be a split or a label, since it lies beside {beside}"
    hint = f"move {beside} elsewhere if {format_list(sorted(named))} is a split"
    if similar:
        problem = f"data.root={root}: {beside} has the same folders as the split {folder}, and no split's name"
        hint = f"move {beside} elsewhere, or into {folder}"
    raise DataError(problem, f"{hint}; rename {folder} if it is a label")


def _flat_splits(splits: set[str], parts: Collection[tuple[str, ...]]) -> set[str]:
    """Returns the splits whose images all lie in ``<split>/images/``, if other splits have class folders."""
    sorted_in = {path[0] for path in parts if len(path) != 3 or path[1].lower() not in IMAGE_FOLDERS}
    return splits - sorted_in if splits & sorted_in else set()


def _listed_labels(base: Path, split: str, files: FileList) -> dict[str, str]:
    """Returns the labels of ``<split>/images/`` by ``<split>/<split>_annotations.txt``, as Tiny ImageNet has it.

    Its lines are the name of an image, its label and more, separated by tabs.
    """
    file = f"{split}/{split}_annotations.txt"
    if file not in files.others:
        return {}
    try:
        text = decode_text((base / file).read_bytes())[0]
    except UnicodeDecodeError as error:
        hint = "save it as UTF-8"
        raise DataError(f"{base / file} is not UTF-8: byte {error.start:,} ({error.reason})", hint) from error
    rows = [line.split("\t") for line in text.splitlines()]
    labels = {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}
    images = (name for name in files.images if name.startswith(f"{split}/"))
    found = {name: label for name in images if (label := labels.get(name.rpartition("/")[2]))}
    log.info("%s: the labels of %d images in %s are from %s", base, len(found), split, file)
    return found


def split_of_folder(folder: str) -> str:
    """Returns the split that a folder is called like, without a year or the like (``train2017``); empty if none."""
    match = SPLIT_FOLDER.fullmatch(folder)
    return "val" if match and match[1].lower() in ("dev", "eval") else match[1].lower() if match else ""


def _warn_of_one_label(base: Path, labels: list[str | None], parts: list[tuple[str, ...]], level: int) -> None:
    """Warns if all images are in one class folder that holds several folders, as after unpacking an archive."""
    below = {path[level + 1] for path in parts if len(path) > level + 2}
    if len(set(labels)) == 1 and len(below) > 1:
        message = "%s: all images have the label %s; if their labels are %s, set data.root=%s"
        log.warning(message, base, labels[0], format_list(sorted(below), 3), os.path.join(base, *parts[0][: level + 1]))


def _note_splits_in_classes(base: Path, parts: list[tuple[str, ...]], level: int) -> None:
    """Says that folders called like splits within class folders are none."""
    below = {path[level + 1] if len(path) > level + 2 else "" for path in parts}
    if len(below) > 1 and all(name.lower() in SPLIT_NAMES for name in below):
        text = "%s: %s lie within the class folders and are not read as splits; for that, put them above: %s"
        log.warning(text, base, format_list(sorted(below)), f"{min(below)}/{parts[0][level]}")


def _check_folds(root: str | Path, parts: list[tuple[str, ...]]) -> None:
    """Raises a DataError if all first folders are called like folds and have folders in common: which is the label?"""
    below: dict[str, set[str]] = {}
    for path in parts:
        below.setdefault(path[0] if len(path) > 1 else "", set()).update(path[1:2] if len(path) > 2 else ())
    below.pop("", None)
    if len(below) < 2 or not all(map(FOLD_FOLDER.fullmatch, below)):
        return
    shared = {name for name, count in Counter(name for names in below.values() for name in names).items() if count > 1}
    if shared:
        labels, first = format_list(sorted(shared), 3), min(below)
        problem = f"data.root={root}: {format_list(sorted(below), 4)} may be folds or labels; each has folders such as"
        hint = f"if {labels} are the labels, put them above the folds ({min(shared)}/{first}/...), or list "
        hint += "path, label and fold in a table (data=table)"
        raise DataError(f"{problem} {labels}", f"{hint}; if {first} is a label, rename it")


def _empty_classes(base: Path, files: FileList, splits: set[str], depth: int) -> list[str]:
    """Warns of class folders without a readable image; returns those that may be labels: empty, or with pictures."""
    with_images = {tuple(name.split("/")[:depth]) for name in files.images}
    folders = [tuple(name.split("/")) for name in files.folders]
    folders = [path for path in folders if len(path) == depth and (not splits or path[0] in splits)]
    unread = {name: f"{kind} file(s)" for kind, names in files.unread.items() for name in names}
    contents: dict[tuple[str, ...], Counter[str]] = {path: Counter() for path in folders if path not in with_images}
    passed_over = dict.fromkeys(files.hidden, "hidden") | dict.fromkeys(files.system, "of the system")
    passed_over |= dict.fromkeys(files.not_utf8, "with a name that is not UTF-8")
    for name in (*files.others, *passed_over) if contents else ():
        path = tuple(name.split("/")[:depth])
        if path in contents:
            contents[path][unread.get(name) or passed_over.get(name, "other file(s)")] += 1
    lines = []
    for path, counts in contents.items():
        holds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items())) or "empty"
        lines.append(f"{'/'.join(path)} ({holds})")
    if lines:
        log.warning("%s: no label comes from %d folder(s) without images: %s", base, len(lines), format_list(lines, 5))
    unread_kinds = {f"{kind} file(s)" for kind in files.unread}
    return [path[-1] for path, counts in contents.items() if set(counts) <= unread_kinds]


def _warn_of_odd_names(base: Path, files: FileList) -> None:
    """Warns of images whose names do not end like one, such as ``0001``, ``photo.jpg?w=200`` or ``photo.jpg.1``."""
    odd = [name for name in files.others if not PLAIN_SUFFIX.fullmatch(os.path.splitext(name)[1])]
    looked_at = odd[:: max(1, len(odd) // MAX_SNIFFED)]
    images = [name for name in looked_at if _is_image(base / name)]
    if images:
        message = "%s: of %d file(s) without a suffix of images %d are images and left out; rename them: %s"
        log.warning(message, base, len(odd), len(images) * len(odd) // len(looked_at), format_list(images, 3))


def _no_images(base: Path, root: str | Path, files: FileList) -> DataError:
    """Returns the error of a folder without images, with what it holds instead."""
    content = files.describe()
    hint = f"images are files that end in {', '.join(sorted(image_suffixes()))}"
    batches = [base / name for name in files.others if name.rpartition("/")[2] in CIFAR_FILES]
    batches = [path for path in batches if path.name != "train" or path.with_name("meta").exists()]
    if batches:
        kind, home = CIFAR_FILES[batches[0].name], batches[0].parent.parent
        hint = f"if these are the files of {kind}, use data=torchvision data.name={kind} data.root={home}"
    elif files.unread:
        hint = "; ".join(f"{name}: {format_hint(name)}" for name in files.unread)
    elif name := next((name for name in files.others[:MAX_SNIFFED] if _is_image(base / name)), ""):
        hint = f"{name} is an image without a suffix that says so: rename these files, such as to .jpg or .png"
    elif any(name.lower().endswith(ARCHIVES) for name in files.others):
        hint = f"unpack the archives; {hint}"
    return DataError(f"no images below data.root={root}: {f'only {content}' if content else 'it is empty'}", hint)


def _is_image(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return False
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")):
        return True
    return (head[:4], head[8:12]) == (b"RIFF", b"WEBP") or sniff_format(head) in ("HEIC", "AVIF")
