"""``mlfix export``: writes fixed copies of data, fixes of crops back to their annotations, or an audit for a tool."""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.files import read_audit
from mlfix_train.audit.predictions.runs import AuditedRuns, load_runs, mean_probabilities
from mlfix_train.audit.reporting import exporters
from mlfix_train.commands.inputs import open_boxes, read_matching_fixes, read_samples, source_name
from mlfix_train.config.export import COPIES, TOOLS, ExportConfig
from mlfix_train.data.annotations.write_back import box_fixes, write_fixed_annotations
from mlfix_train.data.crops.folder import read_info
from mlfix_train.data.crops.locate import locate_boxes
from mlfix_train.data.crops.spec import CropSpec
from mlfix_train.data.fixes.exporters import (
    CHANGES,
    extract_images,
    write_fixed_folder,
    write_fixed_hf,
    write_fixed_table,
)
from mlfix_train.data.readers.crops import read_crops
from mlfix_train.data.readers.files import find_given
from mlfix_train.data.readers.hf import open_hf
from mlfix_train.errors import ConfigError, DataError

log = logging.getLogger(__name__)

USAGE = {
    "fiftyone": "fiftyone.Dataset.from_dir(dataset_type=fiftyone.types.FiftyOneImageClassificationDataset, "
    "labels_path='labels.json', data_path=None)",
    "label_studio": "label_config.xml is the labeling interface, tasks.json what to import",
    "cleanlab": "cleanlab.filter.find_label_issues(numpy.load('labels.npy'), numpy.load('pred_probs.npy'))",
}


def run(cfg: ExportConfig) -> list[Path]:
    """Exports an audit, fixes of crops, or a fixed copy of data.

    Returns:
        The files; of annotations, those that differ from the originals; of a copy, what to read next.
    """
    if cfg.to in TOOLS:
        return _export_audit(cfg)
    return _export_copy(cfg) if cfg.crops is None else _export_fixes(cfg)


def _export_copy(cfg: ExportConfig) -> list[Path]:
    """Writes a copy of data with fixes applied."""
    target = str(cfg.data.get("_target_", ""))
    source = next((kind for kind in COPIES if target.endswith(f"readers.{kind}.read_{kind}")), None)
    to = source if cfg.to == "source" else cfg.to
    if to is None or to not in ("folder", source):
        hint = "use to=folder, which writes class folders" + (f", or to={source}" if source in ("table", "hf") else "")
        reason = "has no format of its own to copy" if cfg.to == "source" else f"is not read by data={cfg.to}"
        raise ConfigError(f"to={cfg.to}: {source_name(cfg.data)} {reason}", hint)
    if cfg.links != "copy" and to != "folder":
        raise ConfigError(f"links={cfg.links}: to={to} links no images", "leave links out")
    out = Path(cfg.out).expanduser()
    _check_new(out)
    table = read_samples(cfg.data)
    _check_outside(out, cfg.data)
    ignore = [*cfg.fixes.ignore, "empty_labels"]  # a label may well vanish
    fixes = read_matching_fixes(replace(cfg.fixes, ignore=ignore), table)
    assert fixes is not None
    if to == "folder":
        copy, load = write_fixed_folder(table, fixes, out, cfg.links), f"data.root={out}"
    elif to == "table":
        columns = cfg.data.get("columns") or {}
        folders = [Path(), *([Path(str(cfg.data["root"])).expanduser()] if cfg.data.get("root") else [])]
        file = find_given(str(cfg.data["file"]), "data.file", *folders)
        copy = write_fixed_table(file, table, fixes, str(columns.get("label") or "label"), out)
        root = cfg.data.get("root") or file.parent
        load = f"data=table data.file={copy.path} data.root={Path(str(root)).expanduser().absolute()}"
    else:
        options = {key: cfg.data.get(key) for key in ("root", "repo", "config", "splits", "columns", "cache")}
        copy, load = write_fixed_hf(open_hf(**options), table, fixes, out), f"data=hf data.root={out}"
    counts = f"{copy.relabeled:,} with a new label, {copy.excluded:,} left out as invalid"
    print(f"exported   {copy.samples:,} samples, {counts}" + (f", {copy.renamed:,} renamed" if copy.renamed else ""))
    print(f"changes    {out / CHANGES}")
    print(f"read it    mlfix train {load}", flush=True)
    return [copy.path]


def _check_new(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        hint = "set a new folder: out=<folder>; originals are never overwritten"
        raise ConfigError(f"out={out} is not empty", hint)


def _check_outside(out: Path, data: Mapping[str, Any]) -> None:
    """Raises a ConfigError if ``out`` is inside the folder of the data."""
    root = Path(str(data.get("root") or "")).expanduser()
    if data.get("root") and root.is_dir() and out.resolve().is_relative_to(root.resolve()):
        problem = f"out={out} is inside data.root={data['root']}, and would be read as part of it next time"
        raise ConfigError(problem, "set a folder outside it: out=<folder>")


def _export_fixes(cfg: ExportConfig) -> list[Path]:
    """Writes copies of the annotations that crops came from, with fixed labels."""
    crops, out = Path(str(cfg.crops)).expanduser(), Path(cfg.out).expanduser()
    info = read_info(crops)
    if cfg.to not in ("source", info["format"]):
        hint = f"use to={info['format']}; fixes go back into the source's own format"
        raise ConfigError(f"to={cfg.to}: crops={cfg.crops} came from {info['format']}", hint)
    source = open_boxes(info["data"])
    _check_new(out)
    if Path(os.path.abspath(out)).is_relative_to(source.folder):
        problem = f"out={out} is inside the annotated data, {source.root}, and would be read as part of it next time"
        raise ConfigError(problem, "set a folder outside it: out=<folder>")
    table = read_crops(crops)
    ignore = [*cfg.fixes.ignore, "empty_labels"]  # a label may well vanish from annotations
    fixes = read_matching_fixes(replace(cfg.fixes, ignore=ignore), table)
    assert fixes is not None
    annotations = source.read()
    classes = {*annotations.classes, *annotations.boxes["label"].dropna().unique()}
    located = locate_boxes(annotations, table.loc[fixes.index], CropSpec(**info["spec"]))
    wanted = box_fixes(located, fixes, classes, cfg.invalid)
    written = write_fixed_annotations(source, annotations, wanted, out)
    counts = f"{written.relabeled:,} boxes with a new label, {written.removed:,} removed, {written.unchanged:,}"
    print(f"exported   {counts} unchanged ({annotations.format})")
    print(f"           {len(written.files):,} files differ from the originals; read back, nothing else changed")
    print(f"copies     {out}", flush=True)
    return written.files


def _export_audit(cfg: ExportConfig) -> list[Path]:
    """Writes the ranking of an audit for another tool."""
    info, ranking = read_audit(str(cfg.audit))
    runs = load_runs(info["run_paths"]) if info["run_paths"] else None
    data = runs.states[0]["config"]["data"] if runs else info.get("config", {}).get("data")
    table = read_samples(data, uses_labels=False) if data else None
    if table is not None:
        missing = ranking["sample_id"][~ranking["sample_id"].isin(table.index)]
        if len(missing):
            problem = f"{len(missing):,} audited samples are no longer in the data, such as {missing.iloc[0]}"
            raise DataError(problem, "audit the current data")
    if cfg.fixes.path is not None:
        if table is None:
            raise ConfigError(
                "fixes.path needs the data, but this audit was made from prediction files",
                "audit them with images (mlfix audit data.root=<folder>), or remove fixes.path",
            )
        fixes = read_matching_fixes(cfg.fixes, table)
        assert fixes is not None
        fixed = exporters.apply_fixes(ranking, fixes)
        applied = int(ranking["sample_id"].isin(fixes.index).sum())
        print(f"fixes      {applied:,} applied, {len(ranking) - len(fixed):,} of them exclude the sample")
        ranking = fixed
    labels = sorted({*ranking["given_label"], *info["label_names"]})
    ranking, out = ranking.head(cfg.top or len(ranking)), Path(cfg.out).expanduser()
    if cfg.to == "cleanlab":
        files = exporters.write_cleanlab(ranking, labels, out, _pred_probs(runs, ranking, labels) if runs else None)
    elif table is None:
        problem = f"audit={cfg.audit} was made from prediction files, which do not list images"
        raise DataError(problem, "audit them with images (mlfix audit data.root=<folder>), or export to=cleanlab")
    else:
        paths = extract_images(
            {str(name): str(table.at[name, "path"]) for name in ranking["sample_id"]}, out / "images"
        )
        if cfg.to == "fiftyone":
            files = exporters.write_fiftyone(ranking, paths, out)
        else:
            files = exporters.write_label_studio(ranking, paths, labels, out, cfg.url)
    print(f"exported   {len(ranking):,} samples for {cfg.to}: " + ", ".join(map(str, files)))
    if cfg.to != "cleanlab" or files[-1].name == "pred_probs.npy":
        print(f"load it    {USAGE[cfg.to]}", flush=True)
    return files


def _pred_probs(runs: AuditedRuns, ranking: pd.DataFrame, labels: list[str]) -> np.ndarray | None:
    """Returns the mean probabilities of the exported samples, if the runs kept them and were trained on all labels."""
    held_out = runs.held_out()
    probabilities = mean_probabilities(runs, held_out)
    if probabilities is None:
        log.warning("the runs were trained without audit.probabilities=true: pred_probs.npy is not written")
        return None
    if labels != held_out.class_names:
        log.warning("the fixes add labels that the runs were not trained on: pred_probs.npy is not written")
        return None
    rows = held_out.rows_of(ranking["sample_id"])
    if (rows < 0).any():
        problem = f"audit: the runs no longer hold out {int((rows < 0).sum()):,} of its samples"
        raise DataError(problem, "run the audit again")
    return np.asarray(probabilities[rows])
