"""Reads WebDataset shards: tar files whose members ``<key>.jpg``, ``<key>.cls``, ``<key>.json`` make a sample.

Source: the format as https://github.com/webdataset/webdataset describes it. The standard library reads tar files; the
``webdataset`` library would stream them, but gives no random access, which the review page needs.
"""

import glob
import logging
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from mlfix_train.data.files.documents import parse_json
from mlfix_train.data.files.walk import is_of_system, list_files
from mlfix_train.data.pixels.containers import tar_member
from mlfix_train.data.pixels.formats import image_suffixes
from mlfix_train.data.readers.files import SPLIT_NAMES, find_given, group_names
from mlfix_train.data.readers.labels import label_texts
from mlfix_train.data.readers.table import COLUMNS
from mlfix_train.data.samples import make_table
from mlfix_train.errors import DataError, did_you_mean, format_list, names_arguments

log = logging.getLogger(__name__)

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
NAME_FILES = ("classnames.txt", "classes.txt")
"""Files beside the shards with the label of each class number, a line each."""
NEARLY_ALL = 0.9
"""Share of the samples that have an image if their names were divided rightly."""
LABEL_KEYS = ("label", "class", "cls", "category", "target")
"""Keys of a ``.json`` that may be the label."""


class _Member(NamedTuple):
    """A file in a shard: its name, its first byte and size there, and its content if it is small and no image."""

    name: str
    offset: int
    size: int
    text: bytes | None


@dataclass
class _Sample:
    key: str
    shard: Path
    members: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    """Extension in lower case to name, first byte and size."""
    texts: dict[str, bytes] = field(default_factory=dict)


@names_arguments("data")
def read_webdataset(
    root: str | Path | None = None,
    image: str | None = None,
    label: str | None = None,
    names: str | Path | None = None,
    group: str | None = None,
) -> pd.DataFrame:
    """Reads tar shards; members whose names are equal up to the first dot of the file's name are one sample.

    Where that leaves samples without an image, as in ``v2.0 a.jpg`` and ``v2.1 b.jpg``, their last dot counts.

    The ``sample_id`` is that name, the key; where a key occurs in several shards, its split is put before it, or, if
    that is not enough, the shard. Other keys of the ``.json`` are kept as metadata. Shards in folders called ``train``,
    ``val`` or ``test``, or with such a word in their names, give the ``split``.

    Args:
        root: A folder with shards, a shard, or a pattern: ``shards/train-{000000..000099}.tar``, ``shards/*.tar``.
        image: Extension of the images, such as ``jpg``; by default the one that is an image.
        label: Extension of the labels, such as ``cls`` or ``txt``, or a key of the ``.json``; by default ``cls``, or
            the key that is called like a label.
        names: File with the label of each class number, a line each; by default ``classnames.txt`` or ``classes.txt``
            beside the shards.
        group: Regular expression on the ``sample_id``, as in ``read_folder``.

    Raises:
        DataError: A shard is missing, compressed or damaged; samples without an image or with several; labels that
            are lists, or are not in ``names``.
    """
    base, shards = _find_shards(root)
    source = f"data.root={root}"
    members = {shard: _read_shard(shard) for shard in shards}
    samples = _group(members, at_last_dot=False)
    is_odd = image is None and bool(samples) and _coverage(samples) < NEARLY_ALL
    if is_odd and _coverage(by_last := _group(members, at_last_dot=True)) >= NEARLY_ALL:
        log.info("%s: names have dots, such as %s: their last one begins the extension", source, by_last[0].key)
        samples = by_last
    if not samples:
        raise DataError(f"{source}: the {len(shards):,} shard(s) contain no samples", "set data.root=<other shards>")
    extension = _image_extension(samples, image, source)
    with_image = [sample for sample in samples if extension in sample.members]
    if len(with_image) < len(samples):
        without = [sample for sample in samples if extension not in sample.members]
        shown = format_list((f"{sample.key} in {sample.shard.name}" for sample in without), 3)
        log.warning("%s: %d samples have no .%s and are left out: %s", source, len(without), extension, shown)
    splits = _splits(with_image, base)
    ids = _sample_ids(with_image, splits, source)
    fields = [_json_fields(sample) for sample in with_image]
    chosen = _label_place(with_image, fields, label, source)
    values = [_label_value(sample, row, chosen) for sample, row in zip(with_image, fields, strict=True)]
    labels: list[str | None] = [None] * len(ids)
    classes = _read_names(base, names) if chosen else None
    if chosen:
        labels = _named(label_texts(values, f"{source}, {chosen}", "data.label"), classes, source)
    paths = [tar_member(sample.shard, *sample.members[extension]) for sample in with_image]
    metadata = pd.DataFrame(
        [{key: value for key, value in row.items() if not isinstance(value, (list, dict))} for row in fields]
    )
    metadata = metadata.drop(columns=[chosen] if chosen else [], errors="ignore")
    metadata = metadata.rename(columns={name: f"{name}_in_file" for name in metadata.columns if name in COLUMNS})
    groups = group_names(ids, group)
    return make_table(ids, paths, labels, groups, splits, metadata, source=source, classes=classes or ())


def _find_shards(root: str | Path | None) -> tuple[Path, list[Path]]:
    """Returns the folder of the shards, and the shards, sorted."""
    hint = "set data.root to a folder with .tar files, or to a pattern such as 'shards/train-{000000..000099}.tar'"
    if root is None or not str(root).strip():
        raise DataError("data.root is not set", hint)
    given = os.path.abspath(os.path.expanduser(str(root)))
    if os.path.isdir(given):
        base = Path(given)
        every = [base / name for name in list_files(base).others]
        found = [path for path in every if path.suffix.lower() == ".tar"]
        others = [path for path in every if path.name.lower().endswith(COMPRESSED)]
        if not found and not others:
            raise DataError(f"no shards (.tar) below data.root={root}", hint)
    else:
        patterns = list(_expand(given))
        missing = [pattern for pattern in patterns if not os.path.exists(pattern) and not glob.glob(pattern)]
        if missing:
            counts = (
                f"{len(missing):,} of {len(patterns):,} shards are missing" if len(patterns) > 1 else "no such file"
            )
            problem = f"data.root={root}: {counts}: {format_list(missing, 3)}"
            raise DataError(problem, "download them again, or set data.root to those that are there")
        expanded = [[pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern)) for pattern in patterns]
        found = [Path(path) for paths in expanded for path in paths]
        base = Path(os.path.commonpath([path.parent for path in found]))
        others = [path for path in found if path.name.lower().endswith(COMPRESSED)]
    if others:
        problem = f"data.root={root}: {len(others):,} shard(s) are compressed: {format_list(others, 3)}"
        raise DataError(problem, "unpack them to .tar (gunzip, bunzip2, unxz, unzstd): images in them can't be reached")
    _warn_of_gaps(found)
    return base, found


def _expand(pattern: str) -> Iterator[str]:
    """Yields a pattern with ``{000..012}`` and ``{a,b}`` expanded, as a shell does."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", pattern)
    if found is None:
        yield pattern
        return
    if found[3] is not None:
        values = found[3].split(",")
    else:
        width = len(found[1]) if len(found[1]) == len(found[2]) or found[1].startswith("0") else 1
        values = [str(number).zfill(width) for number in range(int(found[1]), int(found[2]) + 1)]
    for value in values:
        yield from _expand(pattern[: found.start()] + value + pattern[found.end() :])


def _warn_of_gaps(shards: list[Path]) -> None:
    """Warns of shards that are missing between others by their numbers."""
    numbers: dict[tuple[Path, str, str], set[int]] = {}
    for shard in shards:
        if found := re.fullmatch(r"(.*?)(\d+)(\D*)", shard.name):
            numbers.setdefault((shard.parent, found[1], found[3]), set()).add(int(found[2]))
    for (folder, start, end), known in numbers.items():
        gaps = sorted(set(range(min(known), max(known))) - known)
        if gaps and len(gaps) < len(known):
            shown = format_list((f"{start}*{number}{end}" for number in gaps), 3)
            log.warning("%s: %d shard(s) seem to be missing between the others: %s", folder, len(gaps), shown)


def _read_shard(shard: Path) -> list[_Member]:
    """Returns the members of a shard, with the contents of small ones (labels, JSON)."""
    members: list[_Member] = []
    last = "its beginning"
    size = shard.stat().st_size
    try:
        with open(shard, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                last = member.name
                name = member.name.rpartition("/")[2]
                if not member.isfile() or name.startswith(".") or not name.partition(".")[2]:
                    continue
                if is_of_system(member.name.split("/")):
                    continue
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError("unexpected end of data")
                is_small = os.path.splitext(name)[1].lower() not in image_suffixes() and member.size < 1 << 20
                text = os.pread(file.fileno(), member.size, member.offset_data) if is_small else None
                members.append(_Member(member.name, member.offset_data, member.size, text))
            if size - tar.offset < tarfile.BLOCKSIZE:
                log.warning("%s ends without the mark of a tar file's end after %s: it may be truncated", shard, last)
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{shard} is damaged after {last}: {reason}", "download or write the shard again") from error
    return members


def _group(shards: Mapping[Path, list[_Member]], at_last_dot: bool) -> list[_Sample]:
    """Returns the samples of shards: members whose names are equal up to the first or last dot of the file's name."""
    found: list[_Sample] = []
    for shard, members in shards.items():
        samples: dict[str, _Sample] = {}
        for member in members:
            folder, _, name = member.name.rpartition("/")
            stem, _, extension = name.rpartition(".") if at_last_dot else name.partition(".")
            key = f"{folder}/{stem}".removeprefix("./").lstrip("/") if folder else stem
            sample = samples.setdefault(key, _Sample(key, shard))
            extension = extension.lower()
            if extension in sample.members:
                problem = f"{shard}: {key}.{extension} is in the shard twice"
                raise DataError(problem, "keys must be unique within a shard: write it again")
            sample.members[extension] = (member.name, member.offset, member.size)
            if member.text is not None:
                sample.texts[extension] = member.text
        found += samples.values()
    return found


def _is_image(extension: str) -> bool:
    return f".{extension.rpartition('.')[2]}" in image_suffixes()


def _coverage(samples: list[_Sample]) -> float:
    """Returns the share of the samples that have an image with the most frequent extension of images."""
    counts = Counter(extension for sample in samples for extension in sample.members if _is_image(extension))
    return max(counts.values(), default=0) / len(samples)


def _image_extension(samples: list[_Sample], image: str | None, source: str) -> str:
    counts = Counter(extension for sample in samples for extension in sample.members)
    images = [name for name in counts if _is_image(name)]
    if image:
        wanted = image.lower().lstrip(".")
        if wanted not in counts:
            raise DataError(f"{source}: no member ends in .{wanted} (data.image)", did_you_mean(wanted, counts))
        return wanted
    if not images:
        hint = "set data.image=<extension> if images have another one than usual"
        raise DataError(f"{source}: no member is an image; they end in {format_list(counts, 8)}", hint)
    if len(images) > 1 and not any(sum(name in sample.members for name in images) > 1 for sample in samples):
        for sample in samples:  # one image each, in several formats
            for name in images:
                if name in sample.members:
                    sample.members["<image>"] = sample.members[name]
        return "<image>"
    if len(images) > 1:
        problem = f"{source}: samples have several images: {format_list(f'.{name}' for name in images)}"
        raise DataError(problem, f"set data.image=<one of them>, such as data.image={images[0]}")
    return images[0]


def _splits(samples: list[_Sample], base: Path) -> list[str]:
    """Returns the split of each sample by the names of its shard and its folders; all empty if a shard has none."""
    found: dict[Path, str] = {}
    for shard in {sample.shard for sample in samples}:
        words = re.split(r"[^a-z]+", shard.relative_to(base).as_posix().lower())
        found[shard] = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")
    if len(set(found.values())) < 2 or not all(found.values()):
        return [""] * len(samples)
    return [found[sample.shard] for sample in samples]


def _sample_ids(samples: list[_Sample], splits: list[str], source: str) -> list[str]:
    """Returns the keys, with the split or the shard before those that occur more than once."""
    keys = [sample.key for sample in samples]
    counts = Counter(keys)
    if len(counts) == len(keys):
        return keys
    by_split = [f"{split}/{key}" if split and counts[key] > 1 else key for key, split in zip(keys, splits, strict=True)]
    if len(set(by_split)) == len(keys):
        log.info("%s: keys occur in several splits, whose names are put before them", source)
        return by_split
    folder = Path(os.path.commonpath([sample.shard.parent for sample in samples]))
    shards = [sample.shard.relative_to(folder).with_suffix("").as_posix() for sample in samples]
    repeated = sum(count > 1 for count in counts.values())
    log.info("%s: %d key(s) occur in several shards, whose names are put before them", source, repeated)
    return [f"{shard}/{key}" if counts[key] > 1 else key for key, shard in zip(keys, shards, strict=True)]


def _json_fields(sample: _Sample) -> dict[str, Any]:
    if "json" not in sample.texts:
        return {}
    content, problem = parse_json(sample.texts["json"], allow_nan=True)
    if problem:
        name = sample.members["json"][0]
        raise DataError(f"{sample.shard}: {name}: {problem}", "write the shard again, with valid JSON")
    return content if isinstance(content, dict) else {}


def _label_place(samples: list[_Sample], fields: list[dict[str, Any]], label: str | None, source: str) -> str | None:
    """Returns the extension or the key of the ``.json`` that holds the label; ``None`` if there is no label."""
    extensions = dict.fromkeys(name for sample in samples for name in sample.texts if name != "json")
    keys = dict.fromkeys(key for row in fields for key in row)
    if label:
        wanted = label.removeprefix(".").removeprefix("json.")
        if wanted not in {*extensions, *keys}:
            hint = (
                did_you_mean(wanted, [*extensions, *keys]) if extensions or keys else "set data.label=null: it has none"
            )
            raise DataError(f"{source}: samples have no .{wanted} and no key {wanted!r} (data.label)", hint)
        return wanted
    found = ["cls"] if "cls" in extensions else [key for key in keys if key.lower() in LABEL_KEYS]
    if len(found) > 1:
        problem = f"{source}: the .json has several keys that may be the label: {format_list(found)}"
        raise DataError(problem, f"set data.label=<one of them>, such as data.label={found[0]}")
    if not found:
        others = format_list([*(f".{name}" for name in extensions), *keys], 8)
        hint = f"; data.label=<name> takes it from one of these: {others}" if others else ""
        log.warning("%s: there is no .cls and no label in a .json: samples have no label%s", source, hint)
        return None
    place = ".cls" if found[0] in extensions else f"the key {found[0]!r} of .json"
    log.info("%s: labels are from %s", source, place)
    return found[0]


def _label_value(sample: _Sample, fields: dict[str, Any], chosen: str | None) -> Any:
    if chosen is None or chosen not in sample.texts:
        return fields.get(chosen or "")
    try:
        return sample.texts[chosen].decode("utf-8-sig").strip() or None
    except UnicodeDecodeError as error:
        name = sample.members[chosen][0]
        raise DataError(f"{sample.shard}: {name} is not UTF-8 text", "write the shard again") from error


def _read_names(base: Path, names: str | Path | None) -> list[str] | None:
    """Returns the labels of the class numbers, from a file."""
    if names is None:
        folders = (base, base.parent) if base.name.lower() in SPLIT_NAMES else (base,)
        found = [folder / name for folder in folders for name in NAME_FILES if (folder / name).is_file()]
        if not found:
            return None
        file = found[0]
        log.info("names of the labels are from %s", file)
    else:
        file = find_given(names, "data.names", Path(), base)
        if not file.is_file():
            raise DataError(f"data.names={names} does not exist", "set a text file with one label a line")
    return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def _named(labels: list[str | None], names: list[str] | None, source: str) -> list[str | None]:
    """Replaces class numbers by their names; labels that are no numbers stay."""
    if names is None or not all(label is None or label.isdecimal() for label in labels):
        return labels
    too_large = next((label for label in labels if label is not None and int(label) >= len(names)), None)
    if too_large is not None:
        hint = "set data.names=<the file with a name for each number, from 0>"
        raise DataError(f"{source}: class {too_large} has no name; there are {len(names):,}", hint)
    return [None if label is None else names[int(label)] for label in labels]
