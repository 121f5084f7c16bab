"""``mlfix crop``: photos with boxes to crops and a sample table."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from mlfix_train import __version__
from mlfix_train.commands.crop_picture import draw_look
from mlfix_train.commands.progress import Countdown, duration
from mlfix_train.config import build as config
from mlfix_train.data.annotations.base import Annotations, tally
from mlfix_train.data.crops.build import STATE, Crops, build_crops
from mlfix_train.data.crops.geometry import FORMATS, CropSpec
from mlfix_train.data.files.atomic import FolderLock, atomic_path
from mlfix_train.data.samples import table_fingerprint
from mlfix_train.errors import ConfigError, DataError, check_range, did_you_mean, format_list

log = logging.getLogger(__name__)

SPEC = ("size", "aspect", "margin", "min_side", "format", "quality", "ids", "exif", "rescale", "max_megapixels")
ABOUT, TABLE, DROPPED = "crop.json", "samples.parquet", "dropped.csv"


def run(cfg: DictConfig) -> pd.DataFrame:
    """Crops the boxes of photos.

    Args:
        cfg: the composed configuration of ``mlfix crop``.

    Returns:
        The sample table; it, the crops, and what gave no crop are also written below ``out``.

    Raises:
        MlfixError: annotations, photos or settings that can't be used, with the hint.
    """
    spec = config.checked(CropSpec, {key: cfg[key] for key in SPEC}, "crop")
    _check(cfg)
    out = Path(str(cfg.out)).expanduser()
    source = config.plain(cfg.data)
    settings = {"data": _absolute(source), "spec": asdict(spec), "labels": cfg.labels,
                "splits": config.as_list(cfg.splits) or None}  # fmt: skip
    _check_place(out, settings, bool(cfg.overwrite))
    (out / STATE).mkdir(parents=True, exist_ok=True)
    try:
        with FolderLock(out / STATE):
            _check_place(out, settings, bool(cfg.overwrite))  # once more: another process may have been at it
            return _crop(cfg, spec, settings, out)
    finally:
        if not (out / ABOUT).exists():  # nothing was begun: leave nothing behind
            shutil.rmtree(out / STATE, ignore_errors=True)
            with contextlib.suppress(OSError):
                out.rmdir()


def _crop(cfg: DictConfig, spec: CropSpec, settings: dict[str, Any], out: Path) -> pd.DataFrame:
    """Reads, crops, and writes what belongs to it."""
    print(f"reading    {config.source_name(cfg)}", flush=True)
    found = config.build_boxes(cfg)
    _check_photos(found, out)
    _say_read(found)
    chosen, left_out = _choose(found, cfg)
    about: dict[str, Any] = {"status": "running", "version": __version__, "format": found.format, **settings}
    photos = chosen.boxes["photo"].nunique()
    countdown = Countdown("cropping photos", photos)
    made = build_crops(
        chosen, spec, out, cfg.workers, float(cfg.max_unreadable), countdown, lambda: _write(out / ABOUT, about)
    )
    table = made.table.assign(path=made.table.index)
    with atomic_path(out / TABLE) as temporary:
        table.reset_index().to_parquet(temporary, index=False)
    with atomic_path(out / DROPPED) as temporary:
        made.dropped.to_csv(temporary, index=False)
    about |= {
        "status": "finished", "photos": photos, "boxes": len(found.boxes), "left_out": left_out, "crops": len(table),
        "dropped": made.dropped["problem"].value_counts().to_dict(), "clipped": int((table["clipped"] > 0).sum()),
        "wraps": int(table["wraps"].sum()), "samples": table_fingerprint(table), "notes": list(found.notes),
        "seconds": round(made.seconds, 2), "classes": list(found.classes),
    }  # fmt: skip
    look = draw_look(table, out, out / STATE / "look.png")
    _write(out / ABOUT, about)
    _report(made, about, out, look)
    root = os.path.abspath(out)
    return table.assign(path=[os.path.join(root, sample) for sample in table.index])


def _check(cfg: DictConfig) -> None:
    config.check_place("out", cfg.out)
    if not isinstance(cfg.data, DictConfig):
        raise ConfigError(f"data={cfg.data} is a value where a section belongs", "set its keys: data.root=<folder>")
    config.check_type("labels", cfg.labels, "str | None")
    config.check_type("max_unreadable", cfg.max_unreadable, "float")
    check_range("max_unreadable", cfg.max_unreadable, 0, 1)
    config.check_type("overwrite", cfg.overwrite, "bool")
    config.check_type("workers", cfg.workers, "int | None")
    if cfg.workers is not None:
        check_range("workers", cfg.workers, 1, 1000)
    if cfg.labels is not None:
        try:
            re.compile(str(cfg.labels))
        except re.error as error:
            raise ConfigError(f"labels={cfg.labels} is no regular expression: {error}", "see Python's `re`") from error


def _absolute(source: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a reader with a root that holds wherever one stands."""
    return {**source, "root": os.path.abspath(os.path.expanduser(str(source.get("root", ""))))}


def _check_place(out: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Refuses a folder that holds something else, or crops of other settings."""
    if out.is_file():
        raise ConfigError(f"out={out} is a file", "give a folder: out=<folder>")
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        before = json.loads((out / ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        before = None
    except (OSError, ValueError) as error:
        raise DataError(f"{out / ABOUT} can't be read: {error}", "delete the folder, or give another out=") from error
    if before is None:
        if (out / STATE).is_dir():
            return
        names = sorted(path.name for path in out.iterdir())
        raise ConfigError(f"out={out} holds other things ({format_list(names, 3)})", "give a new folder: out=<folder>")
    wanted = json.loads(json.dumps(settings))
    changed = [f"{name}: {old} there, {new} asked for" for name, old, new in _differences(before, wanted)]
    made = before.get("status") == "finished" or any(next(out.glob(f"*/**/*.{kind}"), None) for kind in FORMATS)
    if changed and made and not overwrite:
        raise DataError(
            f"out={out} holds crops of other settings", "give another out=, or overwrite=true to crop anew", changed[:6]
        )


def _differences(before: dict[str, Any], wanted: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    flat_before, flat_wanted = ({
        **{f"data.{key}": value for key, value in (about.get("data") or {}).items()}, **(about.get("spec") or {}),
        "labels": about.get("labels"), "splits": about.get("splits"),
    } for about in (before, wanted))  # fmt: skip
    keys = [key for key in {**flat_before, **flat_wanted} if flat_before.get(key) != flat_wanted.get(key)]
    return [(key, flat_before.get(key), flat_wanted.get(key)) for key in keys]


def _check_photos(found: Annotations, out: Path) -> None:
    """Refuses to write crops where the next reading would take them for photos, or over the photos."""
    place = Path(os.path.abspath(out))
    inside = next((path for path in found.photos["path"] if Path(path).is_relative_to(place)), None)
    below = place.relative_to(found.root).parts if place.is_relative_to(found.root) else ()
    if inside or (below and (found.format == "yolo" or {"images", "annotations"} & {part.lower() for part in below})):
        what = f"the photos lie there ({inside})" if inside else "the next reading would take the crops for photos"
        raise ConfigError(f"out={out}: {what}", "give a folder beside the data: out=<folder>")


def _say_read(found: Annotations) -> None:
    labels = found.boxes["label"].nunique()
    panoramas = int(found.photos["panorama"].sum())
    more = f", {panoramas:,} of them panoramas" if panoramas else ""
    print(f"read       {len(found.boxes):,} boxes of {labels:,} labels in {len(found.photos):,} photos{more} "
          f"({found.format})")  # fmt: skip
    for note in found.notes:
        print(f"           {note}")
    if "invalid" in set(found.boxes["label"]):
        print("           a label is called 'invalid', which means 'take it out' in fixes: rename it before training")
    print(end="", flush=True)


def _choose(found: Annotations, cfg: DictConfig) -> tuple[Annotations, int]:
    """Returns what ``labels`` and ``splits`` ask for, and how many boxes they leave out."""
    photos, boxes = found.photos, found.boxes
    splits = [str(name) for name in config.as_list(cfg.splits)]
    known = sorted({str(name) for name in photos["split"]} - {""})
    for name in splits:
        if name not in known:
            hint = did_you_mean(name, known) if known else "the data have no splits: leave splits out"
            raise ConfigError(f"splits: there is no split {name!r}", hint)
    if splits:
        photos = photos[photos["split"].isin(splits)]
        boxes = boxes[boxes["photo"].isin(photos.index)]
    if cfg.labels is not None:
        regex = re.compile(str(cfg.labels))
        wanted = boxes["label"].map(lambda label: isinstance(label, str) and bool(regex.search(label))).astype(bool)
        if not wanted.any():
            names = sorted(boxes["label"].dropna().unique())
            raise ConfigError(f"labels={cfg.labels} matches none of the {len(names):,} labels",
                              f"they are {format_list(names, 6)}")  # fmt: skip
        boxes = boxes[wanted]
    left_out = len(found.boxes) - len(boxes)
    return replace(found, photos=photos, boxes=boxes.reset_index(drop=True)), left_out


def _write(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _report(made: Crops, about: dict[str, Any], out: Path, look: Path) -> None:
    rate = f", {(about['photos'] - made.reused) / max(made.seconds, 1e-9):,.0f} photos/s" if not made.reused else ""
    print(f"cropped    {about['crops']:,} of {about['boxes']:,} boxes ({duration(made.seconds)}{rate})")
    if made.reused:
        print(f"           {made.reused:,} of {about['photos']:,} photos were cropped before")
    if about["left_out"]:
        print(f"           {about['left_out']:,} boxes are of other labels or splits than asked for")
    lost = made.dropped[made.dropped["annotation"] != ""]
    whole = made.dropped[made.dropped["annotation"] == ""]
    if len(lost):
        print(f"dropped    {len(lost):,} boxes: {tally(lost['problem'])}")
    if len(whole):
        print(f"           {len(whole):,} photos without boxes that could be read: {tally(whole['problem'])}")
    for row in made.dropped.drop_duplicates("problem").head(4).to_dict("records"):
        print(f"           {row['problem']}: {row['photo']} {row['annotation']}: {row['detail']}")
    if len(made.dropped):
        print(f"           {out / DROPPED}")
    if about["clipped"] or about["wraps"]:
        print(f"edges      {about['clipped']:,} boxes reach out of their photo and were cut there, {about['wraps']:,} "
              "cross the edge of a panorama and were put together")  # fmt: skip
    print(f"table      {out / TABLE}")
    print(f"look at    {look}")
    print(f"train      mlfix train data=crops data.root={out}", flush=True)
