"""Fixes of crops written back into the annotations that the boxes came from: copies, in the source's own format.

Nothing but the fixed labels changes: files are patched in single places, and stay as they are written elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train.data.annotations.base import Annotations
from mlfix_train.data.annotations.coco import load_files, read_coco
from mlfix_train.data.annotations.mtsd import object_key, read_mtsd
from mlfix_train.data.annotations.voc import read_voc
from mlfix_train.data.annotations.voc_patch import patch_voc
from mlfix_train.data.annotations.yolo import find_names, read_names, read_yolo
from mlfix_train.data.annotations.yolo_names import with_classes
from mlfix_train.data.files.json_files import JsonPatch
from mlfix_train.errors import DataError, format_list

Changes = Mapping[str, Mapping[str, str | None]]
"""Annotation file to annotation key to its new label, or ``None`` where the box is taken out."""


def changes_of(found: Annotations, fixes: pd.DataFrame) -> dict[str, dict[str, str | None]]:
    """Groups fixes by the file that they change, and checks that the boxes are still there as they were.

    Args:
        found: the annotations as they are now.
        fixes: columns ``photo, annotation, old_label`` and ``new_label`` (``None``: the box is taken out).

    Raises:
        DataError: boxes that are no longer there, or that bear another label now.
    """
    boxes = found.boxes.set_index(["photo", "annotation"])["label"]
    boxes = boxes[~boxes.index.duplicated()]
    wanted = pd.MultiIndex.from_frame(fixes[["photo", "annotation"]].astype(str))
    now = boxes.reindex(wanted)
    gone = [f"{photo} {key}" for photo, key in wanted[~wanted.isin(boxes.index)]]
    stale = [f"{photo} {key}: {old!r} when it was cropped, {label!r} now"
             for (photo, key), old, label in zip(wanted, fixes["old_label"], now, strict=True)
             if (photo, key) in boxes.index and label != old]  # fmt: skip
    if gone or stale:
        raise DataError(
            f"data.root={found.root}: {len(gone):,} fixed boxes are gone, {len(stale):,} bear another label now",
            "crop again and review what changed, or export from the annotations as they were",
            [*gone[:3], *stale[:3]],
        )
    grouped: dict[str, dict[str, str | None]] = {}
    sources = found.photos["source"]
    for photo, key, label in zip(fixes["photo"], fixes["annotation"], fixes["new_label"], strict=True):
        grouped.setdefault(str(sources[photo]), {})[str(key)] = label
    return grouped


def write_annotations(found: Annotations, source: Mapping[str, Any], changes: Changes, out: Path) -> list[Path]:
    """Writes copies of all annotation files below ``out``, laid out as below the data set's root.

    Args:
        found: the annotations as they are.
        source: the settings of their reader (``file``, ...).
        changes: from :func:`changes_of`.
        out: a new folder.

    Returns:
        The files that differ from the source's.
    """
    return WRITERS[found.format](found, source, changes, out)


def _place(found: Annotations, path: Path, out: Path) -> Path:
    """Returns where the copy of a file lies."""
    try:
        target = out / path.relative_to(found.root)
    except ValueError as error:
        raise DataError(f"{path} does not lie below data.root={found.root}", "copies are laid out as below the root: "
                        "crop with a data.root that holds all annotations") from error  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _copy_others(found: Annotations, files: list[Path], out: Path) -> None:
    for file in files:
        shutil.copyfile(file, _place(found, file, out))


def _write_mtsd(found: Annotations, source: Mapping[str, Any], changes: Changes, out: Path) -> list[Path]:
    sources = [Path(path) for path in found.photos["source"] if str(path).endswith(".json")]
    homes = {path.parent.parent for path in sources}
    splits = [path for home in sorted(homes) for path in sorted((home / "splits").glob("*.txt"))]
    _copy_others(found, [*(path for path in sources if str(path) not in changes), *splits], out)
    written = []
    for name, new in changes.items():
        patch = JsonPatch(Path(name))
        spans = patch.listed("objects")
        seen: set[str] = set()
        keys = [object_key(value, place, seen) for place, (_, _, value) in enumerate(spans)]
        for (start, _, _), key in zip(spans, keys, strict=True):
            if new.get(key) is not None:
                patch.put(start, "label", new[key])
        patch.remove(spans, {place for place, key in enumerate(keys) if key in new and new[key] is None})
        written.append(_place(found, Path(name), out))
        patch.write(written[-1])
    return written


def _write_coco(found: Annotations, source: Mapping[str, Any], changes: Changes, out: Path) -> list[Path]:
    files = load_files(found.root, source.get("file"))
    everywhere: dict[str, Any] = {}  # a label that another file knows keeps its number
    taken: set[Any] = set()
    for content in files.values():
        everywhere |= {row["name"]: row["id"] for row in reversed(content["categories"])}
        taken |= {row["id"] for row in content["categories"]}
    written = []
    for path, content in files.items():
        new = changes.get(str(path), {})
        if not new:
            _copy_others(found, [path], out)
            continue
        numbers = {row["name"]: row["id"] for row in reversed(content["categories"])}
        own = set(numbers.values())
        added = []
        for label in sorted({str(label) for label in new.values() if label is not None} - set(numbers)):
            if label not in everywhere or everywhere[label] in own:
                everywhere[label] = 1 + max((number for number in taken if isinstance(number, int)), default=0)
            numbers[label] = everywhere[label]
            taken.add(numbers[label])
            own.add(numbers[label])
            added.append({"id": numbers[label], "name": label})
        patch = JsonPatch(path)
        spans = patch.listed("annotations")
        keys = [str(value.get("id", f"#{place}")) for place, (_, _, value) in enumerate(spans)]
        for (start, _, _), key in zip(spans, keys, strict=True):
            if new.get(key) is not None:
                patch.put(start, "category_id", numbers[str(new[key])])
        patch.remove(spans, {place for place, key in enumerate(keys) if key in new and new[key] is None})
        if added:
            patch.append("categories", added)
        written.append(_place(found, path, out))
        patch.write(written[-1])
    return written


def _write_yolo(found: Annotations, source: Mapping[str, Any], changes: Changes, out: Path) -> list[Path]:
    about = find_names(Path(source["root"]), source.get("file"))
    names, settings = read_names(about)
    numbers = {name: number for number, name in sorted(names.items(), reverse=True)}
    wanted = {label for entries in changes.values() for label in entries.values() if label is not None}
    added = {max(names) + 1 + place: label for place, label in enumerate(sorted(wanted - set(numbers)))}
    numbers |= {label: number for number, label in added.items()}
    written = []
    for name in dict.fromkeys(map(str, found.photos["source"])):
        path = Path(name)
        if not path.is_file():
            continue
        if name not in changes:
            _copy_others(found, [path], out)
            continue
        new = changes[name]
        lines = path.read_bytes().decode().splitlines(keepends=True)
        kept = []
        for number, line in enumerate(lines, 1):
            label = new.get(str(number))
            if str(number) not in new:
                kept.append(line)
            elif label is not None:
                kept.append(re.sub(r"[^\s\ufeff]+", str(numbers[label]), line, count=1))
        written.append(_place(found, path, out))
        written[-1].write_bytes("".join(kept).encode())
    _link_photos(found, out)
    return written + _write_names(found, about, settings, added, out)


def names_copy(found: Annotations, about: Path, out: Path) -> Path:
    """Returns where the copy of the list of classes lies."""
    return _place(found, about, out) if about.is_relative_to(found.root) else out / about.name


def _write_names(
    found: Annotations, about: Path, settings: Mapping[str, Any], added: Mapping[int, str], out: Path
) -> list[Path]:
    """Copies the list of classes, with new ones at its end, and the lists of photos; paths lead to the copies."""
    copies = [(about, names_copy(found, about, out))]
    copies += [(path, names_copy(found, path, out)) for path in sorted({*about.parent.glob("*.txt")} - {about})]
    written = []
    for path, target in copies:
        before = path.read_bytes()
        try:
            text = before.decode()
        except UnicodeDecodeError:  # no list of ours
            target.write_bytes(before)
            continue
        if path == about:
            text = with_classes(text, settings, added, about.suffix.lower() in (".yaml", ".yml"))
            if settings.get("path"):
                text = _with_path(text, os.path.abspath(target.parent))
        else:
            text = text.replace(f"{found.root}{os.sep}", f"{os.path.abspath(out)}{os.sep}")
        target.write_bytes(text.encode())
        if text.encode() != before:
            written.append(target)
    return written


def _with_path(text: str, place: str) -> str:
    """Returns a data.yaml whose ``path``, where it has one, is another; a comment behind it stays."""
    import yaml

    value = r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|(?:[^#\r\n]|(?<=\S)#)*?)(?=[ \t]*(?:[ \t]#|\r?$))"""
    plain = place if yaml.safe_load(f"a: {place}") == {"a": place} else json.dumps(place)
    patched = re.sub(rf"(?m)^(path[ \t]*:[ \t]*){value}", lambda match: match[1] + plain, text)
    if yaml.safe_load(patched).get("path") == place:
        return patched
    return str(yaml.safe_dump({**yaml.safe_load(text), "path": place}, sort_keys=False, allow_unicode=True))


def _link_photos(found: Annotations, out: Path) -> None:
    """Links the photos beside the copied labels, where YOLO's tools look for them."""
    for path in map(Path, found.photos["path"]):
        target = _place(found, path, out)
        if not target.exists():
            target.symlink_to(path)


def _write_voc(found: Annotations, source: Mapping[str, Any], changes: Changes, out: Path) -> list[Path]:
    sources = [Path(path) for path in found.photos["source"] if str(path).endswith(".xml")]
    homes = sorted({path.parent.parent / "ImageSets" / "Main" for path in sources})
    lists = [path for folder in homes for path in sorted(folder.glob("*.txt"))]
    _copy_others(found, [*(path for path in sources if str(path) not in changes), *lists], out)
    written = []
    for name, new in changes.items():
        written.append(_place(found, Path(name), out))
        written[-1].write_bytes(patch_voc(Path(name).read_bytes(), {int(key): label for key, label in new.items()}))
    return written


def read_back(found: Annotations, source: Mapping[str, Any], out: Path) -> Annotations:
    """Reads the copies that :func:`write_annotations` wrote; arguments as there."""
    if found.format == "mtsd":
        return read_mtsd(out, os.path.commonpath([os.path.dirname(path) for path in found.photos["path"]]))
    if found.format == "coco":
        copies = [str(_place(found, path, out)) for path in load_files(found.root, source.get("file"))]
        return read_coco(found.root, [os.path.abspath(copy) for copy in copies], source.get("images"))
    if found.format == "yolo":
        about = names_copy(found, find_names(Path(source["root"]), source.get("file")), out)
        return read_yolo(out, os.path.abspath(about))
    return read_voc(out)


WRITERS: dict[str, Callable[[Annotations, Mapping[str, Any], Changes, Path], list[Path]]] = {
    "mtsd": _write_mtsd,
    "coco": _write_coco,
    "yolo": _write_yolo,
    "voc": _write_voc,
}


def check_copies(before: Annotations, after: Annotations, fixes: pd.DataFrame) -> tuple[int, int, int]:
    """Compares annotations read back with those they were made from.

    Args:
        before: the source's.
        after: the copies'.
        fixes: as of :func:`changes_of`.

    Returns:
        Boxes that have a new label, boxes that were taken out, and boxes that are as they were.

    Raises:
        DataError: anything else changed.
    """
    columns = ["photo", "label", "x_min", "y_min", "x_max", "y_max"]
    wanted = before.boxes[["annotation", *columns]].copy()
    new = {(str(row["photo"]), str(row["annotation"])): row["new_label"] for row in fixes.to_dict("records")}
    keys = list(zip(wanted["photo"].astype(str), wanted["annotation"].astype(str), strict=True))
    wanted["label"] = [new.get(key, label) for key, label in zip(keys, wanted["label"], strict=True)]
    out = [key in new and new[key] is None for key in keys]
    wanted = wanted[[not gone for gone in out]]

    def rows(table: pd.DataFrame) -> list[tuple[str, ...]]:
        return sorted(tuple(map(str, row)) for row in table[columns].itertuples(index=False))

    expected, got = rows(wanted), rows(after.boxes)
    for told, photos in ((expected, before.photos), (got, after.photos)):
        bad = photos[photos["problem"] == "annotation unreadable"]
        told += [(str(name), "annotation unreadable") for name in sorted(bad.index)]
    if expected != got:
        strange = sorted(set(got) ^ set(expected)) or got
        raise DataError(
            "the copies, read back, are not the source's annotations with the fixes",
            "nothing was written; please report this, with the rows concerned",
            [format_list(row, 6) for row in strange[:3]],
        )
    return len(new) - sum(out), sum(out), len(keys) - len(new)
