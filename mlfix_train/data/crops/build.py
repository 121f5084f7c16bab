"""Photos to crops and their table: several processes, with progress; interrupted, it goes on where it was."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train.data.annotations.base import Annotations, tally
from mlfix_train.data.crops.geometry import CropSpec
from mlfix_train.data.crops.names import crop_ids
from mlfix_train.data.crops.worker import crop_photos
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.samples import make_table
from mlfix_train.errors import DataError, format_list

log = logging.getLogger(__name__)

CROPS_VERSION = 1
"""Goes up when the same photo and box would give other pixels."""
STATE, JOURNAL = ".mlfix", "photos.jsonl"
AT_A_TIME = 4
"""Photos handed to a process at a time."""
MEND = "mend the photos or boxes (where sizes differ: rescale=true, exif=apply or ignore, max_megapixels=)"
OWN_KEYS = {"mtsd", "coco"}
"""Formats whose boxes have keys of their own."""


@dataclass(frozen=True)
class Crops:
    """What was cropped.

    Args:
        table: a sample table, see :mod:`mlfix_train.data.samples`: ``group`` is the photo; beside the source's own
            columns ``annotation`` (the box's key in the source), ``x_min, y_min, x_max, y_max`` (pixels in the photo;
            in a panorama ``x_max`` may exceed its width), ``photo_width, photo_height``, ``aspect`` (width by height),
            ``clipped`` (share of the box outside of the photo) and ``wraps`` (it crosses the edge of a panorama).
        dropped: a row a box, or a photo, that gave no crop: ``photo, annotation, label, problem, detail``.
        reused: photos whose crops were there already.
        seconds: what the cropping took.
    """

    table: pd.DataFrame
    dropped: pd.DataFrame
    reused: int
    seconds: float


def build_crops(
    found: Annotations,
    spec: CropSpec,
    out: Path,
    workers: int | None = None,
    max_unreadable: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
    begin: Callable[[], None] = lambda: None,
) -> Crops:
    """Crops all boxes to ``out/<label>/<photo>-<n>.jpg`` and returns their table; nothing else is written there.

    A note on disk follows every few photos; crops of photos whose boxes and file are as they were are not made again.
    Crops that earlier calls made and that no box asks for any more are deleted.

    Args:
        found: photos and boxes.
        spec: how.
        out: the folder of the crops.
        workers: processes; by default as many as cores.
        max_unreadable: share of the photos with boxes that may be missing or unreadable, 0 to 1; a single one may
            always be, unless 0.
        progress: called with (photos done, photos in all).
        begin: called once it is sure that there is something to crop, before the first crop is made.

    Raises:
        DataError: too many photos missing or unreadable, nothing to crop, or a process died.
        OSError: a crop can't be written.
    """
    state = out / STATE
    boxes = usable_boxes(found)
    _check_missing(found, boxes, max_unreadable)
    boxes["sample_id"] = crop_ids(boxes, spec.ids, f".{spec.format}", found.format in OWN_KEYS)
    begin()
    state.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    plan = plan_photos(found, boxes, spec, out)
    known = _read_journal(state / JOURNAL)
    done = {name: known[name]["found"] for name, job in plan.items() if _is_done(job, known.get(name), out)}
    todo = {name: job for name, job in plan.items() if name not in done}
    if done and todo:
        log.info("crops      %d of %d photos were cropped before", len(done), len(plan))
    reused = len(done)
    _make_folders(out, boxes["sample_id"])
    counted = progress if todo else None
    done |= _crop(todo, spec, state / JOURNAL, workers, len(plan), counted)
    stale = {sample for entry in known.values() for sample in entry["crops"]} - set(boxes["sample_id"])
    table, dropped = _tables(found, boxes, done, spec)
    _check_unreadable(dropped, len(plan), max_unreadable)
    _tidy(out, plan, done, stale | {*boxes["sample_id"]} - set(table.index))
    return Crops(table, dropped, reused, time.monotonic() - started)


def usable_boxes(found: Annotations) -> pd.DataFrame:
    """Returns the boxes that neither the reader nor their photo rules out.

    Raises:
        DataError: there are none.
    """
    sound = found.photos.index[found.photos["problem"] == ""]
    boxes = found.boxes
    kept = boxes[(boxes["problem"] == "") & boxes["photo"].isin(sound)].copy()
    if not len(kept):
        photos = found.photos[found.photos["problem"] != ""]
        told = [f"{count:,} {name}" for name, count in boxes["problem"].value_counts().items() if name]
        details = [str(detail) for detail in [*photos["detail"], *boxes["detail"][boxes["problem"] != ""]][:5]]
        what = f"{len(boxes):,} boxes ({', '.join(told)})" if len(boxes) else "no boxes"
        if len(photos):
            told_photos = f"{len(photos):,} of {len(found.photos):,} photos can't be used"
            what = f"{what}, and {told_photos} ({tally(photos['problem'])})"
        raise DataError(
            f"nothing to crop in data.root={found.root}: {what}", "is it the right format (data=)?", details
        )
    return kept


def _check_missing(found: Annotations, boxes: pd.DataFrame, limit: float) -> None:
    """Raises a DataError where more photos are missing than ``limit`` allows, before anything is cropped."""
    names = boxes["photo"].unique()
    paths = found.photos.loc[names, "path"]
    missing = [path for path in paths if not os.path.isfile(path)]
    bad = found.photos[found.photos["problem"] != ""]
    count = len(missing) + len(bad)
    if count > (max(limit * (len(names) + len(bad)), 1) if limit > 0 else 0):
        details = [*missing[:5], *bad["detail"].head(5)]
        told = f"{len(missing):,} photos are missing" if missing else ""
        told += (" and " if told and len(bad) else "") + (f"{len(bad):,} have no usable annotation" if len(bad) else "")
        raise DataError(
            f"of {len(names) + len(bad):,} photos {told}, more than max_unreadable={limit:g} allows",
            ("unpack all archives, or give data.images=<folder> (mtsd, coco)" if missing else "mend these files")
            + "; max_unreadable=1 crops what is there",
            details[:6],
        )


def plan_photos(found: Annotations, boxes: pd.DataFrame, spec: CropSpec, out: Path) -> dict[str, dict[str, Any]]:
    """Returns a job a photo with boxes, each with the key of what it depends on."""
    settings = {key: value for key, value in asdict(spec).items() if key not in ("ids", "max_megapixels")}
    head = json.dumps([CROPS_VERSION, settings, found.shares, found.upright])
    columns = [boxes[name].tolist() for name in ("x_min", "y_min", "x_max", "y_max")]
    corners = list(zip(*columns, strict=True))
    wraps = boxes["wraps"].tolist() if "wraps" in boxes else [False] * len(boxes)
    ids = boxes["sample_id"].tolist()
    photos = found.photos.to_dict("index")
    plan: dict[str, dict[str, Any]] = {}
    for name, rows in boxes.groupby("photo", sort=False).indices.items():
        photo = photos[str(name)]
        job: dict[str, Any] = {
            "path": photo["path"], "width": int(photo["width"]), "height": int(photo["height"]),
            "panorama": bool(photo["panorama"]), "shares": found.shares, "upright": found.upright,
            "wraps": [bool(wraps[row]) for row in rows],
            "boxes": [[corners[row], str(out / ids[row])] for row in rows],
        }  # fmt: skip
        relative = [[*job["boxes"][place][0], ids[row]] for place, row in enumerate(rows)]
        told = json.dumps(
            [head, _stamp(job["path"]), job["width"], job["height"], job["panorama"], job["wraps"], relative]
        )
        job["key"] = hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
        job["name"], job["crops"] = str(name), [ids[row] for row in rows]
        plan[str(name)] = job
    return plan


def _stamp(path: str) -> list[int]:
    try:
        stat = os.stat(path)
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def _read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """Returns photo to what was noted of it last; a line that a crash cut short is passed over."""
    known: dict[str, dict[str, Any]] = {}
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
            known[entry["name"]] = {"key": entry["key"], "crops": list(entry["crops"]), "found": list(entry["found"])}
        except (ValueError, TypeError, KeyError):
            continue
    return known


def _is_done(job: dict[str, Any], entry: dict[str, Any] | None, out: Path) -> bool:
    """Whether the crops of a photo are there as they would be made now."""
    if entry is None or entry["key"] != job["key"] or len(entry["found"]) != len(job["crops"]):
        return False
    for sample, answer in zip(job["crops"], entry["found"], strict=True):
        if len(answer) == 2:
            if str(answer[0]).startswith("photo"):
                return False  # it may be readable now
            continue
        try:
            if not os.stat(out / sample).st_size:
                return False
        except OSError:
            return False
    return True


def _make_folders(out: Path, ids: pd.Series) -> None:
    for folder in sorted({os.path.dirname(sample) for sample in ids}):
        (out / folder).mkdir(parents=True, exist_ok=True)


def _crop(
    todo: dict[str, dict[str, Any]],
    spec: CropSpec,
    journal: Path,
    workers: int | None,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, list[list[Any]]]:
    """Crops the photos that are not done yet; returns what was found of each."""
    jobs = list(todo.values())
    bundles: Iterator[list[dict[str, Any]]] = (jobs[at : at + AT_A_TIME] for at in range(0, len(jobs), AT_A_TIME))
    count = workers or os.cpu_count() or 1
    few = len(jobs) <= AT_A_TIME  # starting processes costs more than they save
    done: dict[str, list[list[Any]]] = {}
    with open(journal, "a", encoding="utf-8") as notes:
        for some, answers in crop_photos(bundles, spec, 1 if few else count):
            for job, found in zip(some, answers, strict=True):
                done[job["name"]] = found
                entry = {"name": job["name"], "key": job["key"], "crops": job["crops"], "found": found}
                notes.write(json.dumps(entry) + "\n")
            notes.flush()
            if progress:
                progress(total - len(todo) + len(done), total)
    return done


def _tables(
    found: Annotations, boxes: pd.DataFrame, done: dict[str, list[list[Any]]], spec: CropSpec
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the sample table, and the boxes and photos that gave no crop."""
    answers = [
        answer for name, rows in boxes.groupby("photo", sort=False).indices.items() for answer in done[str(name)]
    ]
    order = [row for rows in boxes.groupby("photo", sort=False).indices.values() for row in rows]
    boxes = boxes.iloc[order]
    good = [len(answer) == 4 for answer in answers]
    kept = boxes[good].reset_index(drop=True)
    if not len(kept):
        details = sorted({f"{answer[0]}: {answer[1]}" for answer in answers if len(answer) == 2})
        raise DataError(f"none of the {len(boxes):,} boxes gave a crop", MEND, details[:5])
    facts = [answer for answer, fine in zip(answers, good, strict=True) if fine]
    meta = kept.drop(columns=["sample_id", "photo", "position", "label", "problem", "detail"])
    meta[["x_min", "y_min", "x_max", "y_max"]] = [answer[0] for answer in facts]
    meta["photo_width"], meta["photo_height"] = [answer[2] for answer in facts], [answer[3] for answer in facts]
    meta["aspect"] = ((meta["x_max"] - meta["x_min"]) / (meta["y_max"] - meta["y_min"])).round(4)
    meta["clipped"] = [float(answer[1]) for answer in facts]
    round_ = found.photos["panorama"].reindex(kept["photo"]).to_numpy(dtype=bool)
    crossing = round_ | (kept["wraps"].to_numpy(dtype=bool) if "wraps" in kept else False)
    meta["wraps"] = crossing & (meta["x_max"] > meta["photo_width"]).to_numpy()
    splits = found.photos["split"].reindex(kept["photo"]).tolist()
    ids = kept["sample_id"].tolist()
    table = make_table(ids, ids, kept["label"].tolist(), kept["photo"].tolist(), splits, _plain(meta), str(found.root))
    lost = boxes[[not fine for fine in good]].copy()
    lost[["problem", "detail"]] = [answer for answer in answers if len(answer) == 2] or None
    return table.sort_index(), _dropped(found, lost)


def _plain(meta: pd.DataFrame) -> pd.DataFrame:
    """Returns metadata with one type a column, as Parquet wants it."""
    for name in meta.columns:
        if meta[name].dtype == object:
            known = meta[name].dropna()
            if len({bool if isinstance(value, bool) else type(value) for value in known}) > 1:
                meta[name] = meta[name].map(lambda value: None if pd.isna(value) else str(value))
            else:
                meta[name] = meta[name].where(meta[name].notna(), None)
    return meta


def _dropped(found: Annotations, lost: pd.DataFrame) -> pd.DataFrame:
    """Returns all that gave no crop: boxes by the reader and by the cropping, and photos that can't be used."""
    bad = found.photos[found.photos["problem"] != ""]
    read = found.boxes[found.boxes["problem"] != ""]
    rest = found.boxes[(found.boxes["problem"] == "") & found.boxes["photo"].isin(bad.index)].copy()
    for name in ("problem", "detail"):
        rest[name] = bad[name].reindex(rest["photo"]).to_numpy()
    alone = bad[~bad.index.isin(found.boxes["photo"])]
    photos = pd.DataFrame({"photo": alone.index, "annotation": "", "label": None,
                           "problem": alone["problem"].to_numpy(), "detail": alone["detail"].to_numpy()})  # fmt: skip
    columns = ["photo", "annotation", "label", "problem", "detail"]
    parts = [part[columns] for part in (lost, read, rest, photos) if len(part)]
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True).sort_values(["photo", "annotation"], ignore_index=True)


def _check_unreadable(dropped: pd.DataFrame, photos: int, limit: float) -> None:
    bad = dropped[dropped["problem"].isin(["photo missing", "photo unreadable", "photo too large", "other size"])]
    count = bad["photo"].nunique()
    if count > (max(limit * photos, 1) if limit > 0 else 0):
        shown = bad.drop_duplicates("photo")["detail"].head(5).tolist()
        told = tally(bad.drop_duplicates("photo")["problem"])
        raise DataError(
            f"{count:,} of {photos:,} photos can't be cropped ({told}), more than max_unreadable={limit:g} allows",
            f"{MEND}, or raise max_unreadable; what was cropped is kept",
            shown,
        )


def _tidy(out: Path, plan: dict[str, dict[str, Any]], done: dict[str, list[list[Any]]], stale: set[str]) -> None:
    """Writes the journal anew without what is past, and deletes crops that no box asks for any more."""
    with atomic_path(out / STATE / JOURNAL) as temporary, open(temporary, "w", encoding="utf-8") as notes:
        for name, job in plan.items():
            entry = {"name": name, "key": job["key"], "crops": job["crops"], "found": done[name]}
            notes.write(json.dumps(entry) + "\n")
    gone = [sample for sample in sorted(stale) if (out / sample).is_file()]
    for sample in gone:
        (out / sample).unlink()
    if gone:
        log.info(
            "crops      %d of an earlier cropping are no longer asked for and were deleted: %s",
            len(gone),
            format_list(gone, 3),
        )
