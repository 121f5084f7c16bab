"""Crops all boxes of a data set: in parallel, with progress, resumed where an earlier call stopped."""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train.data.annotations.base import EDGES, Annotations, summarize_counts
from mlfix_train.data.crops.names import crop_ids
from mlfix_train.data.crops.photo import PHOTO_PROBLEMS, BoxOutcome, PhotoJob, crop_photos
from mlfix_train.data.crops.spec import CropSpec
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.files.process_pool import map_unordered
from mlfix_train.data.files.system import cpu_count
from mlfix_train.data.pixels.decode import FULL_RANGE
from mlfix_train.data.pixels.depth import describe_mixed, describe_white, white_level
from mlfix_train.data.samples import make_table
from mlfix_train.errors import DataError, format_list

log = logging.getLogger(__name__)

STATE_FOLDER, JOURNAL = ".mlfix", "photos.jsonl"
CROPS_VERSION = 3
"""Increased when the same photo and box would give other pixels."""
BATCH_SIZE = 4
"""Photos handed to a worker process at a time."""
NEARLY_ALL = 0.9
"""Fraction of the boxes that can't be used from which on the annotations as a whole are taken to be wrong."""
DROPPED_COLUMNS = ["photo", "annotation", "label", "problem", "detail"]
REPAIR = "repair the photos or boxes, or set rescale=true, exif=apply or ignore (if sizes differ), or max_megapixels="


@dataclass(frozen=True)
class Crops:
    """What :func:`build_crops` made.

    Args:
        table: a sample table, see :mod:`mlfix_train.data.samples`, with paths relative to the folder of the crops.
            ``group`` is the photo; ``annotation`` the box's key in the source; ``x_min, y_min, x_max, y_max`` pixels in
            the photo (in a panorama ``x_max`` may exceed its width), ``photo_width, photo_height`` its size,
            ``aspect`` width / height of the box, ``clipped`` the fraction of the box that lies outside the photo,
            ``wraps`` whether it crosses the edge of a panorama; then the source's own columns.
        dropped: one row per box or photo that gave no crop: ``photo, annotation, label, problem, detail``.
        reused: photos whose crops existed already.
        seconds: time that cropping took.
    """

    table: pd.DataFrame
    dropped: pd.DataFrame
    reused: int
    seconds: float


def build_crops(
    annotations: Annotations,
    spec: CropSpec,
    out: Path,
    workers: int | None = None,
    max_unreadable: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
    on_start: Callable[[], None] = lambda: None,
) -> Crops:
    """Crops all boxes to ``out/<label>/<photo>-<n>.jpg`` and returns their table; no other files are written there.

    Finished photos are recorded in a journal; if neither photo, boxes nor settings changed, their crops are not made
    again. Crops of earlier calls that no box asks for any more are deleted. ``on_start`` is called once there is
    something to crop, before the first crop is made; the other arguments are those of
    :func:`mlfix_train.data.crops.folder.crop_dataset`.

    Raises:
        DataError: too many photos are missing or unreadable, there is nothing to crop, or a worker died.
        OSError: a crop can't be written.
    """
    boxes, jobs = plan_crops(annotations, spec)
    _check_missing(annotations, jobs, max_unreadable)
    _check_boxes(annotations, max_unreadable)
    on_start()
    started = time.monotonic()
    paths = [job.path for job in jobs]
    white = white_level(paths, spec.max_megapixels, workers)
    if note := describe_white(white) or describe_mixed(paths, spec.max_megapixels):
        log.info("crops      %s", note)
    journal = Journal(out / STATE_FOLDER / JOURNAL, spec, white)
    outcomes: dict[str, list[BoxOutcome]] = {}
    for place, job in enumerate(jobs):
        for variant in (job, replace(job, exif_applied=not job.exif_applied)):  # as other photos' sizes may have told
            if job.name not in outcomes and (known := journal.outcomes(variant, out)) is not None:
                outcomes[job.name], jobs[place] = known, variant
    remaining, reused = [job for job in jobs if job.name not in outcomes], len(outcomes)
    if reused and remaining:
        log.info("crops      %d of %d photos were cropped before", reused, len(jobs))
    for folder in sorted({os.path.dirname(crop) for job in remaining for crop in job.crops}):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for batch, results in crop_in_parallel(remaining, spec, out, workers, white):
        outcomes |= {job.name: result for job, result in zip(batch, results, strict=True)}
        journal.append(zip(batch, results, strict=True))
        if progress:
            progress(len(outcomes), len(jobs))
    jobs, again = settle_exif(annotations, jobs, outcomes)
    for batch, results in crop_in_parallel(again, spec, out, workers, white) if again else ():
        outcomes |= {job.name: result for job, result in zip(batch, results, strict=True)}
        journal.append(zip(batch, results, strict=True))
    found = [outcome for job in jobs for outcome in outcomes[job.name]]
    if all(outcome.problem for outcome in found):
        details = sorted({f"{outcome.problem}: {outcome.detail}" for outcome in found})
        raise DataError(f"none of the {len(found):,} boxes produced a crop", REPAIR, details[:5])
    table, dropped = crop_tables(annotations, boxes, found)
    bad = dropped[dropped["problem"].isin(PHOTO_PROBLEMS)].drop_duplicates("photo")
    problem = f"{len(bad):,} of {len(jobs):,} photos can't be cropped ({summarize_counts(bad['problem'])})"
    hint = f"{REPAIR}, or raise max_unreadable; finished crops are kept"
    _check_limit(len(bad), len(jobs), max_unreadable, problem, hint, bad["detail"].head(5).tolist())
    journal.rewrite((job, outcomes[job.name]) for job in jobs)
    _delete_stale(out, (journal.crops | set(boxes["sample_id"])) - set(table.index))
    return Crops(table, dropped, reused, time.monotonic() - started)


def plan_crops(annotations: Annotations, spec: CropSpec) -> tuple[pd.DataFrame, list[PhotoJob]]:
    """Returns the usable boxes, with ``sample_id``, and a job per photo, in one order; a DataError without any."""
    photos, boxes = annotations.photos, annotations.boxes
    usable = photos.index[photos["problem"] == ""]
    boxes = boxes[(boxes["problem"] == "") & boxes["photo"].isin(usable)]
    if boxes.empty:
        raise _nothing_to_crop(annotations)
    boxes = boxes.iloc[[row for rows in boxes.groupby("photo", sort=False).indices.values() for row in rows]]
    boxes = boxes.assign(sample_id=crop_ids(boxes, spec.ids, f".{spec.format}", annotations.stable_keys))
    wraps = boxes["wraps"].astype(bool) if "wraps" in boxes else pd.Series(False, boxes.index)
    corners = zip(*(boxes[edge].tolist() for edge in EDGES), strict=True)
    facts = photos.to_dict("index")
    jobs: list[PhotoJob] = []
    for name, box, wrap, crop in zip(boxes["photo"], corners, wraps.tolist(), boxes["sample_id"], strict=True):
        if not jobs or jobs[-1].name != name:
            photo = facts[name]
            size = int(photo["width"]), int(photo["height"])
            flags = bool(photo["panorama"]), annotations.normalized, annotations.exif_applied
            jobs.append(PhotoJob(name, photo["path"], *size, *flags, [], [], []))
        jobs[-1].boxes.append(box)
        jobs[-1].wraps.append(wrap)
        jobs[-1].crops.append(crop)
    return boxes, jobs


def settle_exif(
    annotations: Annotations, jobs: list[PhotoJob], outcomes: Mapping[str, list[BoxOutcome]]
) -> tuple[list[PhotoJob], list[PhotoJob]]:
    """Decides whether boxes refer to photos as EXIF turns them, where a photo's own size can't tell.

    What the sizes of all other turned photos tell alike holds for these, too; otherwise what the format's tools do.

    Returns:
        All jobs, and those among them that have to be cropped (again) the other way.
    """
    told = Counter(next((outcome.exif for outcome in outcomes[job.name]), "") for job in jobs)
    if not told["open"]:
        return jobs, []
    apply, reason = annotations.exif_applied, f"as tools of the format {annotations.format} do"
    if bool(told["apply"]) != bool(told["ignore"]):
        apply, reason = bool(told["apply"]), f"as the sizes of {told['apply'] or told['ignore']:,} others prove"
    elif told["apply"]:
        reason += f"; the sizes of others prove both ({told['apply']:,} turned, {told['ignore']:,} as stored)"
    settled, again = list[PhotoJob](), list[PhotoJob]()
    for job in jobs:
        is_open = any(outcome.exif == "open" for outcome in outcomes[job.name])
        settled.append(replace(job, exif_applied=apply) if is_open else job)
        if is_open and job.exif_applied != apply:
            again.append(settled[-1])
    meant = "the photo as EXIF turns it" if apply else "the photo as stored"
    text = "exif       %d photos have an EXIF turn that their size doesn't tell: their boxes refer to %s, %s "
    log.info(text + "(exif=apply or ignore decides otherwise)", told["open"], meant, reason)
    return settled, again


def _nothing_to_crop(annotations: Annotations) -> DataError:
    photos, boxes = annotations.photos, annotations.boxes
    bad_photos, bad_boxes = photos[photos["problem"] != ""], boxes[boxes["problem"] != ""]
    reasons = f"{len(boxes):,} boxes" if len(boxes) else "no boxes"
    reasons += f" ({summarize_counts(bad_boxes['problem'])})" if len(bad_boxes) else ""
    if len(bad_photos):
        counts = summarize_counts(bad_photos["problem"])
        reasons += f", and {len(bad_photos):,} of {len(photos):,} photos can't be used ({counts})"
    details = [str(detail) for detail in [*bad_photos["detail"], *bad_boxes["detail"]][:5]]
    problem = f"nothing to crop in data.root={annotations.root}: {reasons}"
    hint = "check the format (data=)"
    if len(boxes) and not len(bad_boxes):  # the photos are what is wrong
        hint = "put the photos where the annotations say, or correct the names in the annotations"
    return DataError(problem, hint, details)


def crop_in_parallel(
    jobs: list[PhotoJob], spec: CropSpec, out: Path, workers: int | None, white: int = FULL_RANGE
) -> Iterable[tuple[list[PhotoJob], list[list[BoxOutcome]]]]:
    """Crops photos in worker processes and yields them in batches, in order of completion; see :func:`build_crops`."""
    batches = [jobs[at : at + BATCH_SIZE] for at in range(0, len(jobs), BATCH_SIZE)]
    workers = 1 if len(batches) == 1 else workers or cpu_count()  # one batch is done before a process has started
    crop = partial(crop_photos, spec=spec, out=out, white=white)
    return map_unordered(crop, batches, workers, lambda batch: f"{batch[0].path} to {batch[-1].path}")


def _check_missing(annotations: Annotations, jobs: list[PhotoJob], max_unreadable: float) -> None:
    """Raises a DataError if too many photos are missing or have no usable annotation."""
    bad = annotations.photos[annotations.photos["problem"] != ""]
    unfound, unusable = bad[bad["problem"] == "photo missing"], bad[bad["problem"] != "photo missing"]
    missing = [job.path for job in jobs if not os.path.isfile(job.path)] + unfound["detail"].tolist()
    total = len(jobs) + len(bad)
    reasons = [f"{len(missing):,} photos are missing"] if missing else []
    reasons += [f"{len(unusable):,} have no usable annotation"] if len(unusable) else []
    settings = ", or set data.images=<folder>" if annotations.format in ("mtsd", "coco") else ""
    hint = f"unpack all archives, or put the photos below data.root{settings}" if missing else "repair these files"
    hint += "; max_unreadable=1 crops what is there"
    details, problem = [*missing[:5], *unusable["detail"].head(5)][:6], f"of {total:,} photos {' and '.join(reasons)}"
    _check_limit(len(missing) + len(unusable), total, max_unreadable, problem, hint, details)


def _check_boxes(annotations: Annotations, max_unreadable: float) -> None:
    """Raises a DataError if nearly all boxes can't be used: then it is not single rows that are wrong."""
    boxes = annotations.boxes[annotations.boxes["problem"] != "crowd"]
    bad = boxes[boxes["problem"] != ""]
    if len(bad) > max(NEARLY_ALL, max_unreadable) * len(boxes):
        problem = f"{len(bad):,} of {len(boxes):,} boxes can't be used ({summarize_counts(bad['problem'])})"
        hint = "correct the annotations, or check the format (data=); max_unreadable=1 crops the other boxes"
        raise DataError(problem, hint, bad["detail"].head(5).tolist())


def _check_limit(count: int, total: int, limit: float, problem: str, hint: str, details: list[str]) -> None:
    if count > (max(limit * total, 1) if limit > 0 else 0):
        raise DataError(f"{problem}, more than max_unreadable={limit:g} allows", hint, details)


def _delete_stale(out: Path, crops: set[str]) -> None:
    stale = [crop for crop in sorted(crops) if (out / crop).is_file()]
    for crop in stale:
        (out / crop).unlink()
    if stale:
        names = format_list(stale, 3)
        log.info("crops      %d crops of an earlier call are no longer needed and were deleted: %s", len(stale), names)


def crop_tables(
    annotations: Annotations, boxes: pd.DataFrame, outcomes: list[BoxOutcome]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the sample table of N boxes with ``sample_id`` and their N outcomes, and what was dropped."""
    facts = pd.DataFrame(outcomes, index=boxes.index, columns=list(BoxOutcome._fields))
    cropped = facts["problem"] == ""
    lost = boxes.assign(problem=facts["problem"], detail=facts["detail"])[~cropped]
    boxes, facts = boxes[cropped], facts[cropped]
    photos = annotations.photos.loc[boxes["photo"]]
    meta = boxes.drop(columns=["sample_id", "photo", "position", "label", "problem", "detail"])
    for name in (*EDGES, "photo_width", "photo_height"):
        meta[name] = facts[name]
    meta["aspect"] = ((facts["x_max"] - facts["x_min"]) / (facts["y_max"] - facts["y_min"])).round(4)
    meta["clipped"] = facts["clipped"]
    panorama = photos["panorama"].to_numpy(bool) | (boxes["wraps"].to_numpy(bool) if "wraps" in boxes else False)
    meta["wraps"] = panorama & (facts["x_max"] > facts["photo_width"]).to_numpy()
    for name in meta.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in meta.dtypes]]:  # one type each
        if meta[name].dropna().map(type).nunique() > 1:
            meta[name] = meta[name].map(str, na_action="ignore")
        meta[name] = meta[name].where(meta[name].notna(), None)
    ids = boxes["sample_id"].tolist()
    columns = (boxes["label"].tolist(), boxes["photo"].tolist(), photos["split"].tolist())
    return make_table(ids, ids, *columns, meta, str(annotations.root)).sort_index(), _dropped_table(annotations, lost)


def _dropped_table(annotations: Annotations, lost: pd.DataFrame) -> pd.DataFrame:
    """Returns everything that was dropped: ``lost`` boxes, those that the reader ruled out, and unusable photos."""
    photos, boxes = annotations.photos, annotations.boxes
    bad = photos[photos["problem"] != ""]
    unread = boxes[boxes["problem"] != ""]
    of_bad_photos = boxes[(boxes["problem"] == "") & boxes["photo"].isin(bad.index)]
    reasons = bad.loc[of_bad_photos["photo"]].set_index(of_bad_photos.index)
    of_bad_photos = of_bad_photos.assign(problem=reasons["problem"], detail=reasons["detail"])
    without_boxes = bad[~bad.index.isin(boxes["photo"])].rename_axis("photo").reset_index()
    parts = [lost, unread, of_bad_photos, without_boxes.assign(annotation="", label=None)]
    dropped = pd.concat([part[DROPPED_COLUMNS].astype(object) for part in parts], ignore_index=True)
    return dropped.sort_values(["photo", "annotation"], ignore_index=True)


class Journal:
    """Outcomes of finished photos on disk, one JSON line each; ``crops`` are all that earlier calls made.

    An entry's key covers all that its crops depend on: the photo's size and time, its boxes and the settings.
    """

    def __init__(self, path: Path, spec: CropSpec, white: int = FULL_RANGE) -> None:
        self.path, self.entries = path, dict[str, dict[str, Any]]()
        settings = {key: value for key, value in asdict(spec).items() if key not in ("ids", "max_megapixels")}
        self._settings = json.dumps([CROPS_VERSION, settings, white])
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in path.read_bytes().splitlines() if path.exists() else []:
            with contextlib.suppress(ValueError, TypeError, KeyError):  # a line truncated by a crash
                entry = json.loads(line)
                outcomes = [BoxOutcome(*values) for values in entry["outcomes"]]
                self.entries[entry["name"]] = {**entry, "crops": list(entry["crops"]), "outcomes": outcomes}
        self.crops = {crop for entry in self.entries.values() for crop in entry["crops"]}

    def outcomes(self, job: PhotoJob, out: Path) -> list[BoxOutcome] | None:
        """Returns the outcomes of a photo, if its crops exist as they would be made now."""
        entry = self.entries.get(job.name)
        if entry is None or entry.get("key") != self._key(job) or len(entry["outcomes"]) != len(job.crops):
            return None
        for crop, outcome in zip(job.crops, entry["outcomes"], strict=True):
            if outcome.problem in PHOTO_PROBLEMS:
                return None  # it may be readable now
            if not outcome.problem and not any(_file_stamp(out / crop)[:1]):
                return None  # missing or empty
        return list(entry["outcomes"])

    def append(self, results: Iterable[tuple[PhotoJob, list[BoxOutcome]]], path: Path | None = None) -> None:
        """Adds photos at the end."""
        with open(path or self.path, "a", encoding="utf-8") as file:
            for job, outcomes in results:
                entry = {"name": job.name, "key": self._key(job), "crops": job.crops, "outcomes": outcomes}
                file.write(json.dumps(entry) + "\n")

    def rewrite(self, results: Iterable[tuple[PhotoJob, list[BoxOutcome]]]) -> None:
        """Replaces all entries."""
        with atomic_path(self.path) as temporary:
            self.append(results, temporary)

    def _key(self, job: PhotoJob) -> str:
        values = {key: value for key, value in vars(job).items() if key != "path"}
        text = json.dumps([self._settings, _file_stamp(job.path), values])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _file_stamp(path: str | Path) -> list[int]:
    """Returns size and time of change of a file; empty if it doesn't exist."""
    try:
        stat = os.stat(path)
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]
