"""What commands read: samples, boxes, fixes and splits, built from their sections of the configuration."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.config.instantiate import instantiate
from mlfix_train.config.sections import FixesConfig
from mlfix_train.data.annotations.base import FOLDERS_OF_A_KIND, AnnotationFormat, split_of
from mlfix_train.data.annotations.formats import FORMATS, detect_formats
from mlfix_train.data.cache import cached
from mlfix_train.data.plausibility import check_samples
from mlfix_train.data.samples import validate_table
from mlfix_train.data.splits import SplitSpec, draw_split
from mlfix_train.errors import ConfigError, name_keys

log = logging.getLogger(__name__)

PATHS = (("data", "root"), ("data", "file"), ("pixels", "cache"), ("fixes", "path"))
"""Settings that ``run.json`` records as absolute paths, so that other commands find the files from any folder."""


def source_name(data: Mapping[str, Any]) -> str:
    """Returns what errors call the data, such as ``data.root=photos``."""
    key = next((key for key in ("file", "root", "repo", "name") if data.get(key)), "_target_")
    return f"data.{key}={data.get(key, '')}"


def source_title(data: Mapping[str, Any]) -> str:
    """Returns the name of the data's folder or file, for headlines."""
    name = next((data[key] for key in ("file", "root", "repo", "name") if data.get(key)), "audit")
    return Path(str(name)).expanduser().resolve().stem


@name_keys()
def read_samples(data: Mapping[str, Any], uses_labels: bool = True) -> pd.DataFrame:
    """Reads the sample table that section ``data`` describes, and logs what is unlikely about its labels.

    ``uses_labels`` says whether the labels are learnt or judged: then some of it is an error.

    Raises:
        ConfigError: The reader cannot be built, or it reads photos with boxes.
        DataError: The data cannot be read.
    """
    key = ("table", json.dumps(data, sort_keys=True, default=str))
    own = not str(data.get("_target_")).startswith("mlfix_train.")
    if own and data.get("root") is None:  # a default, which a reader of the user's need not take
        data = {name: value for name, value in data.items() if name != "root"}
    table = cached(key, lambda: instantiate(data, "data"))
    if own and not isinstance(table, (pd.DataFrame, AnnotationFormat)):
        problem = f"data._target_={data['_target_']} returned a {type(table).__name__}, not a sample table"
        raise ConfigError(problem, "return mlfix_train.data.samples.make_table(sample_ids, paths, labels)")
    if own and isinstance(table, pd.DataFrame):
        validate_table(table, source_name(data))
    if not isinstance(table, pd.DataFrame):
        raise ConfigError(
            f"{source_name(data)} contains photos with boxes, not samples",
            "crop them first: mlfix crop data.root=<folder>; then data=crops data.root=crops",
        )
    if uses_labels and str(data.get("_target_", "")).endswith("read_folder"):
        _check_no_boxes(table, data)
    cached(("plausibility", key, uses_labels), lambda: _look_over(table, source_name(data), uses_labels))
    return table


def _check_no_boxes(table: pd.DataFrame, data: Mapping[str, Any]) -> None:
    """Raises a ConfigError if the class folders are those of photos with boxes."""
    labels = {str(label).lower() for label in table["label"].dropna().unique()}
    if not all(label in FOLDERS_OF_A_KIND or split_of(label) for label in labels):
        return
    root = Path(str(data["root"])).expanduser()
    formats = [name for name in detect_formats(root) if name == "voc" or FORMATS[name].detect(root) > 1]
    if formats:
        problem = f"{source_name(data)} contains photos with boxes ({' or '.join(formats)}), not class folders"
        hint = f"crop them first: mlfix crop data.root={data['root']}; then data=crops data.root=crops"
        raise ConfigError(problem, hint)


def _look_over(table: pd.DataFrame, source: str, uses_labels: bool) -> None:
    for note in check_samples(table, source, uses_labels):
        log.warning("%s", note)


def open_boxes(data: Mapping[str, Any]) -> AnnotationFormat:
    """Opens the photos with boxes that section ``data`` describes; nothing is read yet.

    Raises:
        ConfigError: It cannot be built, or it is a reader of samples.
        DataError: The folder does not exist, or its format cannot be detected.
    """
    source = instantiate(data, "data")
    if not isinstance(source, AnnotationFormat):
        reason = f"{data.get('_target_')} is not an AnnotationFormat"
        problem = f"{source_name(data)} contains samples, not photos with boxes ({reason})"
        raise ConfigError(problem, "use data=boxes, mtsd, coco, yolo, voc or cvat; samples need no cropping")
    return source


def read_matching_fixes(fixes: FixesConfig, table: pd.DataFrame) -> pd.DataFrame | None:
    """Reads the fixes file and matches it to the samples; ``None`` if none is set.

    Raises:
        FixesError: The file cannot be read, or does not match the samples.
    """
    from mlfix_train.data.fixes.table import match_fixes, read_fixes

    if fixes.path is None:
        return None
    matched = match_fixes(read_fixes(fixes.path), table, fixes.ignore)
    if not len(matched):
        log.warning("fixes.path=%s contains no fixes", fixes.path)
    return matched


@name_keys()
def draw_configured_split(split: SplitSpec, table: pd.DataFrame, data: Mapping[str, Any]) -> np.ndarray:
    """Draws the split that section ``split`` describes: booleans (N,), true where a sample is held out."""
    if not split.column and (table["split"] != "").any():
        text = "the data has its own split (train/ and val/ folders, or a column); split.column=split uses it"
        cached(("split hint", source_name(data)), lambda: log.warning(text))
    return draw_split(table, split)


def check_out(out: str, data: Mapping[str, Any]) -> Path:
    """Checks the output folder and returns it.

    Raises:
        ConfigError: It lies in the folder of the images, where its pictures would become samples.
    """
    place = Path(out).expanduser()
    parent = next((path for path in (place, *place.absolute().parents) if path.exists()), place)
    if not os.access(parent, os.W_OK):
        raise ConfigError(f"out={out}: {parent} is not writable", "choose a folder you can write to: out=<folder>")
    if str(data.get("_target_", "")).endswith(("read_folder", "read_hf")) and data.get("root"):
        root = Path(str(data["root"])).expanduser().resolve()
        if place.resolve().is_relative_to(root):
            raise ConfigError(
                f"out={out} is inside data.root={data['root']}, so its pictures would become samples next time",
                "set a folder outside it: out=<folder>",
            )
    return place


def with_absolute_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns settings with absolute paths, so that other commands find the files from any folder."""
    for section, key in PATHS:
        if settings.get(section, {}).get(key):
            path = Path(str(settings[section][key])).expanduser()
            if section != "data" or path.exists():  # a reader of one's own may take a file relative to its root
                settings[section][key] = str(path.absolute())
    return settings
