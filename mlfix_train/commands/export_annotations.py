"""``mlfix export to=mtsd``, ``coco``, ``yolo``, ``voc``: fixes of crops back into the source's annotations."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from mlfix_train.config import build as config
from mlfix_train.data.annotations.write_back import changes_of, check_copies, read_back, write_annotations
from mlfix_train.data.fixes.table import INVALID
from mlfix_train.data.readers.crops import read_crops
from mlfix_train.errors import ConfigError, DataError, did_you_mean

FORMATS = ("mtsd", "coco", "yolo", "voc")


def run(cfg: DictConfig, to: str) -> list[Path]:
    """Writes the annotations that crops came from anew, with fixed labels.

    Args:
        cfg: the composed configuration of ``mlfix export``.
        to: one of :data:`FORMATS`, or ``source`` for whichever it is.

    Returns:
        The files that differ from the source's.

    Raises:
        MlfixError: no crops or fixes, another format than the source's, or annotations that changed since.
    """
    for key in ("crops", "fixes.path"):
        if OmegaConf.select(cfg, key) is None:
            raise ConfigError(f"to={to} needs {key}", "give the folder that `mlfix crop` wrote, and the fixes: "
                              f"mlfix export to={to} crops=<folder> fixes.path=<fixes.csv> out=<folder>")  # fmt: skip
    crops = Path(str(cfg.crops)).expanduser()
    about = read_about(crops)
    if to not in ("source", about["format"]):
        raise ConfigError(f"to={to}: crops={cfg.crops} came from {about['format']}",
                          f"to={about['format']}; fixes go back into the source's own format")  # fmt: skip
    out = Path(str(cfg.out)).expanduser()
    _check_out(out, Path(str(about["data"]["root"])))
    table = read_crops(crops)
    allow = [*config.as_list(cfg.fixes.allow), "empty_labels"]  # a label may well vanish from annotations
    fixes = config.build_fixes(OmegaConf.merge(cfg, {"fixes": {"allow": allow}}), table)  # type: ignore[arg-type]
    assert fixes is not None
    source = OmegaConf.create({"data": about["data"]})
    before = config.build_boxes(source)
    wanted = _wanted(cfg, table, fixes, {*before.classes, *before.boxes["label"].dropna().unique()})
    changes = changes_of(before, wanted)
    try:
        files = write_annotations(before, about["data"], changes, out)
        changed, taken, left = check_copies(before, read_back(before, about["data"], out), wanted)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)  # it was empty or not there
        raise
    print(
        f"exported   {changed:,} boxes with a new label, {taken:,} taken out, {left:,} as they were ({before.format})"
    )
    print(f"           {len(files):,} files differ from the source's; read back, nothing else changed")
    print(f"copies     {out}", flush=True)
    return files


def read_about(crops: Path) -> dict[str, Any]:
    """Reads ``crop.json``.

    Raises:
        DataError: no crops there, or a cropping that is not finished.
    """
    try:
        about = dict(json.loads((crops / "crop.json").read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise DataError(f"crops={crops} holds no crops (crop.json is missing)",
                        "give the folder that `mlfix crop` wrote: crops=<folder>") from error  # fmt: skip
    except (OSError, ValueError) as error:
        raise DataError(f"{crops / 'crop.json'} can't be read: {error}", "crop again") from error
    if about.get("status") != "finished":
        raise DataError(f"crops={crops} is not finished", "give the command of `mlfix crop` again")
    return about


def _check_out(out: Path, root: Path) -> None:
    config.check_place("out", out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ConfigError(f"out={out} is not empty", "give a new folder: out=<folder>; originals are never overwritten")
    if Path(os.path.abspath(out)).is_relative_to(root):
        raise ConfigError(f"out={out} lies in data.root={root}, and would be read as a part of it the next time",
                          "give a folder beside it: out=<folder>")  # fmt: skip


def _wanted(cfg: DictConfig, table: pd.DataFrame, fixes: pd.DataFrame, known: set[str]) -> pd.DataFrame:
    """Returns a row a fixed box: ``photo, annotation, old_label, new_label``; ``None`` is taken out."""
    rows = table.loc[fixes.index]
    new = fixes["new_label"].astype(object)
    instead = str(cfg.invalid)
    if instead not in ("remove", "keep"):
        if instead not in known:
            raise ConfigError(
                f"invalid={instead} is neither remove nor keep nor a label", did_you_mean(instead, sorted(known))
            )
        new = new.where(new != INVALID, instead)
    frame = pd.DataFrame({
        "photo": rows["group"].to_numpy(), "annotation": rows["annotation"].astype(str).to_numpy(),
        "old_label": rows["label"].to_numpy(), "new_label": new.to_numpy(dtype=object),
    })  # fmt: skip
    if instead == "keep":
        frame = frame[frame["new_label"] != INVALID]
    frame["new_label"] = [None if label == INVALID else label for label in frame["new_label"]]
    frame["new_label"] = frame["new_label"].astype(object).where(frame["new_label"].notna(), None)
    return frame[frame["new_label"].isna() | (frame["new_label"] != frame["old_label"])].reset_index(drop=True)
