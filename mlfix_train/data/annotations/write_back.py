"""Fixes of crops written back into copies of the annotations that the boxes came from, in the source's own format.

Files are patched in place: apart from the fixed labels every byte stays as written. The copies are read back and
compared before the export reports success.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mlfix_train.data.annotations.base import EDGES, AnnotationFormat, Annotations, LabelChanges
from mlfix_train.data.samples import INVALID
from mlfix_train.errors import ConfigError, DataError, did_you_mean, format_list


@dataclass(frozen=True)
class WrittenBack:
    """What :func:`write_fixed_annotations` wrote: the copies that differ from their source, and counts of boxes."""

    files: list[Path]
    relabeled: int
    removed: int
    unchanged: int


def box_fixes(
    crops: pd.DataFrame, fixes: pd.DataFrame, classes: Iterable[str], invalid: str = "remove"
) -> pd.DataFrame:
    """Turns fixes of crops into fixes of the boxes they were cut from.

    Args:
        crops: sample table of the crops, with ``group`` (the photo), ``annotation`` and ``label``.
        fixes: indexed by ``sample_id``, with ``new_label``.
        classes: labels in the annotations.
        invalid: what becomes of boxes marked invalid: ``remove``, ``keep`` (as they were), or a label they get.

    Returns:
        One row per box that changes: ``photo, annotation, old_label, new_label`` (``None``: the box is removed).

    Raises:
        ConfigError: ``invalid`` is none of these.
    """
    known = sorted(set(classes))
    if invalid not in ("remove", "keep", *known):
        raise ConfigError(f"invalid={invalid} is not remove, keep or a label", did_you_mean(invalid, known))
    rows = crops.loc[fixes.index]
    columns = (rows["group"], rows["annotation"].astype(str), rows["label"], fixes["new_label"])
    fixed = []
    for photo, annotation, old, given in zip(*columns, strict=True):
        new = {"remove": None, "keep": old}.get(invalid, invalid) if given == INVALID else given
        if new != old:
            fixed.append((photo, annotation, old, new))
    return pd.DataFrame(fixed, columns=["photo", "annotation", "old_label", "new_label"], dtype=object)


def write_fixed_annotations(
    source: AnnotationFormat, annotations: Annotations, fixes: pd.DataFrame, out: Path
) -> WrittenBack:
    """Writes copies of annotations with fixed labels, reads them back, and checks that nothing else changed.

    ``annotations`` were read from ``source``, ``fixes`` are from :func:`box_fixes`. ``out`` is an empty or new folder;
    it is deleted again on any error.

    Raises:
        DataError: a fixed box is gone or has another label now, or the copies are not as they should be.
    """
    changes = group_changes(annotations, fixes)
    try:
        files = source.write_back(annotations, changes, out)
        check_copies(annotations, source.open_copies(annotations, out).read(), fixes)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    removed = int(fixes["new_label"].isna().sum())
    return WrittenBack(files, len(fixes) - removed, removed, len(annotations.boxes) - len(fixes))


def group_changes(annotations: Annotations, fixes: pd.DataFrame) -> LabelChanges:
    """Groups fixes by annotation file; boxes that are gone, or have another label now, raise a DataError."""
    boxes = annotations.boxes.set_index(["photo", "annotation"])["label"]
    boxes = boxes[~boxes.index.duplicated()]
    keys = pd.MultiIndex.from_frame(fixes[["photo", "annotation"]])
    current = boxes.reindex(keys)
    gone = [f"{photo} {key}" for photo, key in keys[~keys.isin(boxes.index)]]
    changed = [
        f"{photo} {key}: {old!r} when it was cropped, {label!r} now"
        for (photo, key), old, label in zip(keys, fixes["old_label"], current, strict=True)
        if (photo, key) in boxes.index and label != old
    ]
    if gone or changed:
        counts = [f"{len(gone):,} of the fixed boxes are gone"] if gone else []
        counts += [f"{len(changed):,} of the fixed boxes have another label now"] if changed else []
        hint = "crop again and review what changed, or export from the annotations as they were"
        raise DataError(f"data.root={annotations.root}: {' and '.join(counts)}", hint, [*gone[:3], *changed[:3]])
    grouped: dict[str, dict[str, str | None]] = {}
    sources = annotations.photos["source"]
    for (photo, key), label in zip(keys, fixes["new_label"], strict=True):
        grouped.setdefault(str(sources[photo]), {})[str(key)] = label
    return grouped


def check_copies(before: Annotations, after: Annotations, fixes: pd.DataFrame) -> None:
    """Raises a DataError if annotations read back (``after``) differ from ``before`` by more than the fixed labels."""
    columns = ["photo", "label", *EDGES]
    new = dict(zip(zip(fixes["photo"], fixes["annotation"], strict=True), fixes["new_label"], strict=True))
    keys = list(zip(before.boxes["photo"].astype(str), before.boxes["annotation"].astype(str), strict=True))
    labels = [new.get(key, label) for key, label in zip(keys, before.boxes["label"], strict=True)]
    expected = before.boxes.assign(label=labels)[[new.get(key, "") is not None for key in keys]]

    def rows(boxes: pd.DataFrame, photos: pd.DataFrame) -> list[tuple[str, ...]]:
        unreadable = photos.index[photos["problem"] == "annotation unreadable"]
        known = sorted(tuple(map(str, row)) for row in boxes[columns].itertuples(index=False))
        return known + [(str(name), "annotation unreadable") for name in sorted(unreadable)]

    wanted, found = rows(expected, before.photos), rows(after.boxes, after.photos)
    if wanted != found:
        differing = sorted(set(found) ^ set(wanted)) or found
        problem = "the copies, read back, are not the original annotations with the fixes applied"
        hint = "nothing was written; please report this, with the rows below"
        raise DataError(problem, hint, [format_list(row, 6) for row in differing[:3]])


def copy_path(annotations: Annotations, path: Path, out: Path) -> Path:
    """Returns the path of a file's copy below ``out``, with the layout below the root; its folder is created."""
    if not path.is_relative_to(annotations.root):
        hint = "copies keep the layout below the root: crop with a data.root that contains all annotations"
        raise DataError(f"{path} is not below data.root={annotations.root}", hint)
    target = out / path.relative_to(annotations.root)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def write_copies(
    annotations: Annotations,
    changes: LabelChanges,
    out: Path,
    patch: Callable[[Path, Mapping[str, str | None], Path], None],
    others: Iterable[Path] = (),
) -> list[Path]:
    """Copies all annotation files and ``others``, such as lists of splits, and returns those that were patched.

    ``patch`` is called with each file that has changes, the new labels of its boxes, and where the patched file goes.
    """
    written = []
    for source in dict.fromkeys([*map(Path, annotations.photos["source"]), *others]):
        labels = changes.get(str(source))
        if labels:
            written.append(copy_path(annotations, source, out))
            patch(source, labels, written[-1])
        elif source.is_file():
            shutil.copyfile(source, copy_path(annotations, source, out))
    return written
