"""A data set cropped into a folder: the crops, ``samples.parquet``, ``dropped.csv`` and ``crop.json``."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train import __version__
from mlfix_train.data.annotations.base import AnnotationFormat, Annotations
from mlfix_train.data.crops.build import STATE_FOLDER, Crops, build_crops
from mlfix_train.data.crops.spec import FORMATS, CropSpec
from mlfix_train.data.files.atomic import atomic_path, folder_lock
from mlfix_train.data.files.documents import read_json
from mlfix_train.data.files.json_files import write_json
from mlfix_train.data.samples import table_fingerprint
from mlfix_train.errors import ConfigError, DataError, did_you_mean, format_list

INFO, TABLE, DROPPED = "crop.json", "samples.parquet", "dropped.csv"


@dataclass(frozen=True)
class CropFolder:
    """A folder of crops; ``info`` is what ``crop.json`` holds: settings, and counts of photos, boxes and crops."""

    path: Path
    crops: Crops
    info: dict[str, Any]

    @property
    def table(self) -> pd.DataFrame:
        """The sample table, with absolute paths."""
        root = os.path.abspath(self.path)
        return self.crops.table.assign(path=[os.path.join(root, crop) for crop in self.crops.table.index])


def crop_dataset(
    source: AnnotationFormat,
    out: str | Path,
    spec: CropSpec | None = None,
    labels: str | None = None,
    splits: Sequence[str] = (),
    workers: int | None = None,
    max_unreadable: float = 0.01,
    overwrite: bool = False,
    on_read: Callable[[Annotations], None] = lambda annotations: None,
    progress: Callable[[int, int], None] | None = None,
) -> CropFolder:
    """Crops the boxes of a data set into a folder; an interrupted call is resumed by the same call.

    Args:
        source: the data set, such as :func:`mlfix_train.data.annotations.formats.open_annotations` returns.
        out: the folder: new, empty, or from an earlier call.
        spec: how to crop.
        labels: regular expression; only boxes with these labels.
        splits: only photos of these splits; by default all.
        workers: processes; by default one per core.
        max_unreadable: fraction of the photos that may be missing or unreadable, 0 to 1; a single one is always
            allowed, except with 0.
        overwrite: crop again into a folder with crops of other settings.
        on_read: called with the annotations once they are read.
        progress: called with (finished photos, all photos).

    Raises:
        ConfigError: ``out`` holds other files or the photos, or no box has such a label or split.
        DataError: ``out`` holds crops of other settings, or the data can't be used.
        OSError: a file can't be written.
    """
    spec, path = spec or CropSpec(), Path(out).expanduser()
    settings = {"data": source.settings(), "spec": asdict(spec), "labels": labels, "splits": [*splits] or None}
    settings = json.loads(json.dumps(settings, default=str))
    _check_settings(path, settings, overwrite)
    state = path / STATE_FOLDER
    state.mkdir(parents=True, exist_ok=True)
    try:
        with folder_lock(state):
            _check_settings(path, settings, overwrite)  # again: another process may have held the lock
            annotations = source.read()
            _check_separate(annotations, path)
            on_read(annotations)
            selected = select_boxes(annotations, labels, splits)
            info = {"version": __version__, "format": annotations.format, **settings}
            started = partial(write_json, path / INFO, {"status": "running", **info})
            crops = build_crops(selected, spec, path, workers, max_unreadable, progress, started)
            with atomic_path(path / TABLE) as temporary:
                crops.table.reset_index().to_parquet(temporary, index=False)
            with atomic_path(path / DROPPED) as temporary:
                crops.dropped.to_csv(temporary, index=False)
            counts = _counts(annotations, selected, crops)
            write_json(path / INFO, {"status": "finished", **info, **counts})
    finally:
        if not (path / INFO).exists():  # nothing was started: leave nothing behind
            shutil.rmtree(state, ignore_errors=True)
            with contextlib.suppress(OSError):
                path.rmdir()
    return CropFolder(path, crops, {**info, **counts})


def read_info(folder: Path, key: str = "crops") -> dict[str, Any]:
    """Reads ``crop.json`` of a finished cropping; if there is none, a DataError that calls the folder ``key``."""
    if not (folder / INFO).exists():
        hint = f"set {key}=<output folder of mlfix crop>"
        raise DataError(f"{key}={folder} contains no crops ({INFO} is missing)", hint)
    info, problem = read_json(folder / INFO, allow_nan=True)
    if problem or not isinstance(info, dict):
        raise DataError(f"{folder / INFO} can't be read: {problem or 'it is not an object'}", "crop again")
    if info.get("status") != "finished":
        raise DataError(f"{key}={folder} contains unfinished crops", "run the same `mlfix crop` command again")
    return info


def select_boxes(annotations: Annotations, labels: str | None = None, splits: Sequence[str] = ()) -> Annotations:
    """Returns the boxes of labels that match, in photos of some splits; a ConfigError if there are none."""
    photos, boxes = annotations.photos, annotations.boxes
    known = sorted({str(name) for name in photos["split"]} - {""})
    for name in splits:
        if name not in known:
            hint = did_you_mean(name, known) if known else "the data have no splits: leave splits out"
            raise ConfigError(f"splits: there is no split {name!r}", hint)
    if splits:
        photos = photos[photos["split"].isin(splits)]
        boxes = boxes[boxes["photo"].isin(photos.index)]
    if labels is not None:
        pattern = re.compile(labels)
        matches = boxes["label"].map(lambda label: isinstance(label, str) and bool(pattern.search(label))).astype(bool)
        if not matches.any():
            names = sorted(boxes["label"].dropna().unique())
            problem = f"labels={labels} matches none of the {len(names):,} labels"
            raise ConfigError(problem, f"they are {format_list(names, 6)}")
        boxes = boxes[matches]
    return replace(annotations, photos=photos, boxes=boxes.reset_index(drop=True))


def _check_settings(out: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Rejects a folder that holds something else, or crops of other settings."""
    if out.is_file():
        raise ConfigError(f"out={out} is a file", "set a folder: out=<folder>")
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        before = json.loads((out / INFO).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (out / STATE_FOLDER).is_dir():
            return
        names = format_list(sorted(path.name for path in out.iterdir()), 3)
        raise ConfigError(f"out={out} contains other files ({names})", "set a new folder: out=<folder>") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{out / INFO} can't be read: {error}", "delete the folder, or set another out=") from error
    old, new = _flatten(before), _flatten(settings)
    differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    changed = [f"{key}: {old.get(key)} there, {new.get(key)} requested" for key in differing]
    has_crops = before.get("status") == "finished" or any(next(out.glob(f"*/**/*.{kind}"), None) for kind in FORMATS)
    if changed and has_crops and not overwrite:
        hint = "set another out=, or overwrite=true to replace them"
        raise DataError(f"out={out} contains crops made with other settings", hint, changed[:6])


def _flatten(info: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a cropping under the keys of the command line."""
    data = {f"data.{key}": value for key, value in (info.get("data") or {}).items()}
    return {**data, **(info.get("spec") or {}), "labels": info.get("labels"), "splits": info.get("splits")}


def _check_separate(annotations: Annotations, out: Path) -> None:
    """Rejects a folder in which crops would overwrite photos, or be read as photos the next time."""
    place = Path(os.path.abspath(out))
    inside = next((path for path in annotations.photos["path"] if Path(path).is_relative_to(place)), None)
    below = place.relative_to(annotations.root).parts if place.is_relative_to(annotations.root) else ()
    read_again = annotations.format == "yolo" or {"images", "annotations"} & {part.lower() for part in below}
    if inside or (below and read_again):
        reason = f"the photos are there ({inside})" if inside else "the crops would be read as photos next time"
        raise ConfigError(f"out={out}: {reason}", "set a folder outside the data: out=<folder>")


def _counts(annotations: Annotations, selected: Annotations, crops: Crops) -> dict[str, Any]:
    return {
        "photos": int(selected.boxes["photo"].nunique()),
        "boxes": len(annotations.boxes),
        "left_out": len(annotations.boxes) - len(selected.boxes),
        "crops": len(crops.table),
        "dropped": crops.dropped["problem"].value_counts().to_dict(),
        "clipped": int((crops.table["clipped"] > 0).sum()),
        "wraps": int(crops.table["wraps"].sum()),
        "samples": table_fingerprint(crops.table),
        "notes": list(annotations.notes),
        "seconds": round(crops.seconds, 2),
        "classes": list(annotations.classes),
    }
