"""What ``mlfix review`` is given: an audit or a folder, an order, fixes to begin with; read without loading torch."""

from __future__ import annotations

import getpass
import json
import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from mlfix_train.audit.review.fixes_file import begin
from mlfix_train.audit.review.journal import Journal
from mlfix_train.audit.review.marks import Ledger
from mlfix_train.audit.review.progress import SeenLog
from mlfix_train.audit.review.requests import is_name
from mlfix_train.audit.review.samples import make_samples
from mlfix_train.audit.review.session import Desk
from mlfix_train.audit.review.sprites import Sprites
from mlfix_train.audit.similarity.order_files import read_order
from mlfix_train.audit.files import read_audit
from mlfix_train.commands.progress import count_images
from mlfix_train.config import build as config
from mlfix_train.data.fixes.table import IGNORABLE
from mlfix_train.data.pixels.store import PixelStore, open_store
from mlfix_train.data.runs import RunDirectory
from mlfix_train.data.samples import INVALID, label_list
from mlfix_train.errors import ConfigError, DataError, MlfixError, check_choice, check_range

log = logging.getLogger(__name__)

SIZE = 64
"""Side of stored images where no run says otherwise, pixels."""
SORT = "from mlfix_train.commands.review_inputs import sort_beside; sort_beside()"


@dataclass
class Source:
    """Samples, pixels and what the audit says of them.

    Attributes:
        settings: configuration of the data: the user's, or that of the audited runs.
        table: sample table.
        store: pixels.
        about, ranking: of the audit, ``None`` without one.
        title: in words.
    """

    settings: DictConfig
    table: pd.DataFrame
    store: PixelStore
    about: dict[str, Any] | None
    ranking: pd.DataFrame | None
    title: str


def check(cfg: DictConfig) -> Path:
    """Checks the settings before anything is read or written; returns ``out``.

    Raises:
        ConfigError: the first mistake.
    """
    for key in ("data", "fixes", "pixels"):
        if not isinstance(cfg[key], DictConfig):
            raise ConfigError(f"{key}={cfg[key]} is a value where a section belongs", f"set its keys: {key}.<key>=...")
    if cfg.audit is None and not _has_data(cfg):
        raise ConfigError("mlfix review needs something to show",
                          "give audit=<directory of mlfix audit>, or data.root=<folder of class folders>")  # fmt: skip
    for key, kind in (("audit", "Path | None"), ("order", "str"), ("reviewer", "str | None"), ("port", "int | None"),
                      ("host", "str"), ("open", "bool"), ("pixels.size", "int | None")):  # fmt: skip
        config.check_type(key, OmegaConf.select(cfg, key), kind)
    if cfg.port is not None:
        check_range("port", cfg.port, 0, 65535)
    for name in config.as_list(cfg.fixes.allow):
        check_choice("fixes.allow", name, IGNORABLE)
    out = config.check_place("out", cfg.out)
    for file in ("fixes.csv", "journal.jsonl", "seen.jsonl"):
        if (out / file).is_dir():
            raise ConfigError(f"{out / file} is a folder, and a review writes a file of this name",
                              "rename it, or give another out=<folder>")  # fmt: skip
    if cfg.order not in ("auto", "none") and not Path(str(cfg.order)).expanduser().exists():
        raise DataError(f"order={cfg.order} does not exist", "give the directory that `mlfix sort` wrote, auto or none")
    config.check_place("pixels.cache", cfg.pixels.cache)
    config.check_out(cfg.out, cfg.data)
    name = cfg.reviewer
    if name is not None and not is_name(str(name)):
        raise ConfigError(f"reviewer={str(name)[:90]!r} is no name", "give text of one line, at most 80 characters")
    return out


def _has_data(cfg: DictConfig) -> bool:
    return bool(cfg.data.get("root") or cfg.data.get("file")) or not str(cfg.data._target_).endswith("read_folder")


def open_desk(cfg: DictConfig) -> Desk:
    """Opens a review: reads audit, data and order, plays the journal back, takes over fixes.

    Raises:
        MlfixError: something that can't be used, with the hint; nothing is changed.
    """
    out = check(cfg)
    source = _open_source(cfg)
    order = _order(cfg, source, out)
    calibrated = bool((source.about or {}).get("estimates"))
    samples = make_samples(source.table, source.ranking, order, calibrated)
    notes = _notes(source, samples.audited, order is not None, cfg.order == "none")
    reviewer = str(cfg.reviewer) if cfg.reviewer is not None else _account()
    journal = Journal(out / "journal.jsonl")
    try:
        ledger = Ledger(samples, journal)
        given = None if cfg.fixes.path is None else str(cfg.fixes.path)
        allow = config.as_list(cfg.fixes.allow)
        file, opened = begin(out / "fixes.csv", ledger, source.table, given, allow, reviewer)
        seen = SeenLog(out / "seen.jsonl", samples)
    except BaseException:
        journal.close()
        raise
    store = source.store
    sprites = Sprites(store.__getitem__, store.shape[1], store.fingerprint, store.folder / "sprites")
    return Desk(samples, ledger, seen, file, sprites, source.title, reviewer, [*opened.notes, *notes],
                opened.conflicts, "new_labels" in allow)  # fmt: skip


def _open_source(cfg: DictConfig) -> Source:
    about, ranking, settings, title = None, None, cfg, ""
    if cfg.audit is not None:
        about, ranking = read_audit(str(cfg.audit))
        title = Path(str(cfg.audit)).expanduser().resolve().name
        if not _has_data(cfg):
            settings = _run_settings(cfg, about)
    table = config.build_table(settings)
    if ranking is not None:
        gone = ranking["sample_id"][~ranking["sample_id"].isin(table.index)]
        if len(gone) == len(ranking):
            raise DataError(f"{config.source_name(settings)} holds none of the audited samples, such as {gone.iloc[0]}",
                            "give the data that the audit is of")  # fmt: skip
        if len(gone):
            log.warning(
                "%d audited samples are no longer in the data and left out, such as %s", len(gone), gone.iloc[0]
            )
    if INVALID in label_list(table):
        raise DataError(f"{config.source_name(settings)}: a label is called {INVALID!r}, which means 'take it out' in "
                        "a fixes file", "rename the label")  # fmt: skip
    size = cfg.pixels.size if cfg.pixels.size is not None else SIZE if settings is cfg else settings.pixels.size
    pixels, options = config.pixel_settings(settings, size=int(size))
    store = open_store(table, pixels, **options, progress=count_images)
    return Source(settings, table, store, about, ranking, title or _title(settings))


def _run_settings(cfg: DictConfig, about: dict[str, Any]) -> DictConfig:
    """Returns the configuration of the first of the audited runs that is still there."""
    for path in about["run_paths"]:
        try:
            state = RunDirectory(Path(path)).require()
        except (MlfixError, OSError):
            continue
        settings = OmegaConf.create(state["config"])
        assert isinstance(settings, DictConfig)
        return settings
    why = "was made from files, which name no images" if not about["run_paths"] else "is of runs that are gone"
    raise DataError(f"audit={cfg.audit} {why}", "give the images too: data.root=<folder>")


def _title(settings: DictConfig) -> str:
    place = settings.data.get("file") or settings.data.get("root") or "samples"
    return Path(str(place)).expanduser().resolve().name


def _account() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "reviewer"
    return name if is_name(name) else "reviewer"


def _notes(source: Source, audited: bool, ordered: bool, refused: bool) -> list[str]:
    notes = []
    if source.about is not None and source.ranking is not None:
        known = set(source.ranking["sample_id"])
        lost = sum(name not in known for name in source.table.index)
        if lost:
            notes.append(
                f"{lost:,} of {len(source.table):,} samples were held out by no run: nothing is known of them."
            )
        if audited and not source.about["estimates"]:
            notes.append("The audit estimates no number of wrong labels, so none is told here.")
    if source.store.unreadable:
        notes.append(f"{len(source.store.unreadable):,} images can't be read and are shown grey.")
    if not label_list(source.table):
        notes.append("The images have no labels: mark what should be taken out.")
    if not ordered and not refused:
        notes.append("There is no visual order: images stand as they lie in the data.")
    return notes


def _order(cfg: DictConfig, source: Source, out: Path) -> pd.DataFrame | None:
    """Finds or makes the visual order."""
    ids = pd.Index(source.table.index)
    wanted = str(cfg.order)
    if wanted == "none":
        return None
    if wanted != "auto":
        return read_order(wanted, ids, partial=True)
    for place in ((source.about or {}).get("order"), out / "order"):
        try:
            if place and (Path(place) / "order.parquet").exists():
                return read_order(place, ids, partial=True)
        except MlfixError as error:
            log.warning("%s; it is made anew", error.problem)
    return _sort(source, out / "order", ids)


def _sort(source: Source, place: Path, ids: pd.Index) -> pd.DataFrame | None:
    """Sorts by the pixels, in a process of its own that gives its memory back."""
    readable = len(ids) - len(source.store.unreadable)
    if readable < 3:
        return None
    log.info("sorting %s images by their pixels, once (order=<directory of mlfix sort> for a better order, "
             "order=none for none)", f"{readable:,}")  # fmt: skip
    wanted = {"data": config.plain(source.settings.data), "out": str(place),
              "pixels": {**config.plain(source.settings.pixels), "size": int(source.store.shape[1])}}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", SORT], input=json.dumps(wanted), text=True, stdout=subprocess.DEVNULL,
                          check=False)  # fmt: skip
    if done.returncode:
        log.warning("the images could not be sorted: the page shows them without a visual order")
        return None
    return read_order(place, ids, partial=True)


def sort_beside() -> None:
    """Sorts the images that standard input describes: what the process of :func:`_sort` runs."""
    from mlfix_train.commands import sort

    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger("mlfix_train").setLevel(logging.INFO)
    logging.getLogger("mlfix_train").addHandler(handler)
    wanted = json.load(sys.stdin)
    cfg = config.compose("sort", ["data.root=here", "panels=0", "split.fraction=0.2"])
    OmegaConf.set_struct(cfg, False)
    cfg.data, cfg.out = wanted["data"], wanted["out"]
    cfg.pixels = {**config.plain(cfg.pixels), **wanted["pixels"]}
    try:
        sort.run(cfg)
    except (MlfixError, KeyboardInterrupt) as error:
        sys.exit(f"{error}")
