"""Fixes of crops written back into the annotations that the boxes came from: copies, in the source's own format.

Nothing but the fixed labels changes: JSON keeps its layout, text files all their other characters.
"""

from __future__ import annotations

import os
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train.data.boxes import Annotations
from mlfix_train.data.coco import load_files, read_coco
from mlfix_train.data.json_files import read_json, write_json_like
from mlfix_train.data.mtsd import object_key, read_mtsd
from mlfix_train.data.voc import read_voc
from mlfix_train.data.yolo import find_names, read_names, read_yolo
from mlfix_train.errors import DataError, listing

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
    folders = {path.parent for path in sources}
    splits = [path for folder in folders for path in sorted((folder.parent / "splits").glob("*.txt"))]
    _copy_others(found, [*(path for path in sources if str(path) not in changes), *splits], out)
    written = []
    for name, new in changes.items():
        before = read_json(name)[0]
        content = dict(before)
        kept = []
        seen: set[str] = set()
        for place, entry in enumerate(content["objects"]):
            key = object_key(entry, place, seen)
            if key not in new:
                kept.append(entry)
            elif (label := new[key]) is not None:
                kept.append({**entry, "label": label})
        target = _place(found, Path(name), out)
        write_json_like(Path(name), {**content, "objects": kept}, before, target)
        written.append(target)
    return written


def _write_coco(found: Annotations, source: Mapping[str, Any], changes: Changes, out: Path) -> list[Path]:
    written = []
    for path, content in load_files(found.root, source.get("file")).items():
        new = changes.get(str(path), {})
        if not new:
            _copy_others(found, [path], out)
            continue
        categories = list(content["categories"])
        numbers = {row["name"]: row["id"] for row in reversed(categories)}
        for added in sorted({str(label) for label in new.values() if label is not None} - set(numbers)):
            numbers[added] = 1 + max((row["id"] for row in categories if isinstance(row["id"], int)), default=0)
            categories.append({"id": numbers[added], "name": added})
        kept = []
        for place, row in enumerate(content["annotations"]):
            key = str(row.get("id", f"#{place}"))
            if key not in new:
                kept.append(row)
            elif (label := new[key]) is not None:
                kept.append({**row, "category_id": numbers[label]})
        target = _place(found, path, out)
        write_json_like(path, {**content, "annotations": kept, "categories": categories}, content, target)
        written.append(target)
    return written


def _write_yolo(found: Annotations, source: Mapping[str, Any], changes: Changes, out: Path) -> list[Path]:
    about = find_names(found.root, source.get("file"))
    names, settings = read_names(about)
    numbers = {name: number for number, name in sorted(names.items(), reverse=True)}
    wanted = {label for entries in changes.values() for label in entries.values() if label is not None}
    added = sorted(wanted - set(numbers))
    numbers |= {label: max(names) + 1 + place for place, label in enumerate(added)}
    written = []
    for name in dict.fromkeys(map(str, found.photos["source"])):
        path = Path(name)
        if not path.is_file():
            continue
        if name not in changes:
            _copy_others(found, [path], out)
            continue
        new = changes[name]
        lines = path.read_bytes().decode("utf-8-sig").splitlines(keepends=True)
        kept = []
        for number, line in enumerate(lines, 1):
            if str(number) not in new:
                kept.append(line)
            elif (label := new[str(number)]) is not None:
                kept.append(re.sub(r"\S+", str(numbers[label]), line, count=1))
        written.append(_place(found, path, out))
        written[-1].write_bytes("".join(kept).encode())
    written += _write_names(found, about, settings, {numbers[label]: label for label in added}, out)
    _link_photos(found, out)
    return written


def _write_names(
    found: Annotations, about: Path, settings: Mapping[str, Any], added: Mapping[int, str], out: Path
) -> list[Path]:
    """Copies the list of classes, with new ones at its end; a ``path`` in it leads to the copies."""
    text = about.read_text(encoding="utf-8-sig")
    target = _place(found, about, out)
    changed = text
    if about.suffix.lower() not in (".yaml", ".yml"):
        changed += "".join(f"{'' if changed.endswith(chr(10)) else chr(10)}{label}\n" for label in added.values())
    elif added:
        import yaml

        names = settings["names"]
        full = {**names, **added} if isinstance(names, Mapping) else [*names, *added.values()]
        settings = {**settings, "names": full, **({"nc": len(full)} if "nc" in settings else {})}
        changed = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    if settings.get("path"):
        changed = re.sub(r"(?m)^path\s*:.*$", lambda _: f"path: {os.path.abspath(target.parent)}", changed)
    target.write_text(changed, encoding="utf-8")
    for listed in sorted({*about.parent.glob("*.txt")} - {about}):
        _copy_others(found, [listed], out)
    return [target] if added else []


def _link_photos(found: Annotations, out: Path) -> None:
    """Links the photos beside the copied labels, where YOLO's tools look for them."""
    for path in map(Path, found.photos["path"]):
        if not path.is_relative_to(found.root):
            continue
        target = _place(found, path, out)
        if not target.exists():
            target.symlink_to(path)


def _write_voc(found: Annotations, source: Mapping[str, Any], changes: Changes, out: Path) -> list[Path]:
    sources = [Path(path) for path in found.photos["source"]]
    home = {path.parent.parent / "ImageSets" / "Main" for path in sources}
    lists = [path for folder in home for path in sorted(folder.glob("*.txt"))]
    _copy_others(found, [*(path for path in sources if str(path) not in changes), *lists], out)
    written = []
    for name, fixes in changes.items():
        tree = ET.parse(name)
        root = tree.getroot()
        for place, entry in enumerate(root.findall("object")):
            if str(place) not in fixes:
                continue
            label = fixes[str(place)]
            if label is None:
                root.remove(entry)
            elif (named := entry.find("name")) is not None:
                named.text = label
        target = _place(found, Path(name), out)
        tree.write(target, encoding="utf-8")
        written.append(target)
    return written


def read_back(found: Annotations, source: Mapping[str, Any], out: Path) -> Annotations:
    """Reads the copies that :func:`write_annotations` wrote; arguments as there."""
    if found.format == "mtsd":
        return read_mtsd(out, os.path.commonpath([os.path.dirname(path) for path in found.photos["path"]]))
    if found.format == "coco":
        copies = [str(_place(found, path, out)) for path in load_files(found.root, source.get("file"))]
        return read_coco(found.root, [os.path.abspath(copy) for copy in copies], source.get("images"))
    if found.format == "yolo":
        copy = _place(found, find_names(found.root, source.get("file")), out)
        return read_yolo(out, os.path.abspath(copy))
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
    if expected != got:
        strange = sorted(set(got) ^ set(expected)) or got
        raise DataError(
            "the copies, read back, are not the source's annotations with the fixes",
            "please report this, with the rows concerned",
            [listing(row, 6) for row in strange[:3]],
        )
    return len(new) - sum(out), sum(out), len(keys) - len(new)
