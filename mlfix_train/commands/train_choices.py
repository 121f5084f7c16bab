"""What ``auto`` means for a run of ``mlfix train``: chosen by the data, once for all runs of a name."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mlfix_train.config.paths import config_dir
from mlfix_train.config.train import TrainConfig
from mlfix_train.data.cache import cached
from mlfix_train.data.loading.spec import AugmentSpec, mirrored_labels
from mlfix_train.data.pixels.sizes import MIN_SIZE, typical_size
from mlfix_train.data.runs import FINISHED, RunDirectory
from mlfix_train.data.samples import label_list
from mlfix_train.errors import RunError
from mlfix_train.models.backbones.fit import has_fixed_size, native_size, next_size

log = logging.getLogger(__name__)

LARGEST = 224
"""Side, px, above which images are not stored by themselves: that of most pretrained networks."""


def choose_by_data(cfg: TrainConfig, directory: RunDirectory, table: pd.DataFrame) -> TrainConfig:
    """Returns the configuration with ``pixels.size``, ``loader.sampling`` and ``augment`` settled, and logs them.

    They are those of an earlier run of the same name, if there is one and it is not trained again (``overwrite``): runs
    of one study are alike, also where a default has changed. Else they follow from the images, labels and backbone.
    ``table`` is the sample table.
    """
    size, sampling, augment = cfg.pixels.size is None, cfg.loader.sampling == "auto", cfg.augment.auto
    if not (size or sampling or augment):
        return cfg
    earlier = {} if cfg.overwrite else _earlier_settings(Path(cfg.outputs).expanduser() / cfg.name, directory)
    labels = table["label"].dropna().astype(str)
    notes = []
    if size:
        chosen, why = earlier.get("pixels", {}).get("size"), "as in the earlier runs of this name"
        if not isinstance(chosen, int):
            key = ("size", id(table), json.dumps(cfg.model, default=str))
            chosen, why = cached(key, lambda: _size(cfg.model, table))
        cfg = replace(cfg, pixels=replace(cfg.pixels, size=chosen))
        notes.append(f"pixels.size={chosen} ({why})")
    if sampling:
        chosen = earlier.get("loader", {}).get("sampling")
        loader = replace(cfg.loader, sampling=chosen) if chosen else cfg.loader.for_labels(labels.tolist())
        counts = labels.value_counts()
        why = f"{counts.min():,} to {counts.max():,} samples a label" if len(counts) else "no labels"
        cfg = replace(cfg, loader=loader)
        notes.append(f"loader.sampling={loader.sampling} ({why})")
    if augment:
        spec, why = _augmentation(cfg.augment, earlier.get("augment"), label_list(table))
        cfg = replace(cfg, augment=spec)
        notes.append(why)
    cached(("auto", *notes), lambda: log.info("auto       %s", ", ".join(notes)))
    return cfg


def _earlier_settings(study: Path, directory: RunDirectory) -> Mapping[str, Any]:
    """Returns the configuration of the run in ``directory``, or else of any run of the study that has learned.

    Empty if none has finished, or at least an epoch.
    """
    for run in (directory, *(RunDirectory(path.parent) for path in sorted(study.glob("*/*/run.json")))):
        try:
            state = run.read()
        except RunError:  # of another run: one that can't be read says nothing about this one
            if run is directory:
                raise
            continue
        if state.get("config") and (state.get("status") == FINISHED or run.checkpoint.exists()):
            return dict(state["config"])
    return {}


def _size(model: Mapping[str, Any], table: pd.DataFrame) -> tuple[int, str]:
    """Returns the side at which images are stored for a model, px, and why."""
    own, scaled_to = typical_size(table), model.get("input_size")
    images = f"the images have {own} px" if own else "no image is readable"
    if not isinstance(model.get("backbone"), str):
        return max(MIN_SIZE, min(LARGEST, own or LARGEST)), f"{images}, at most {LARGEST}"
    backbone = model["backbone"]
    native = int(scaled_to or native_size(backbone))
    limit = min(LARGEST, native)
    # Weights of a network that is made for one size know the positions at that size.
    keeps_native = has_fixed_size(backbone) and (model.get("pretrained") or model.get("weights")) and not scaled_to
    size = limit if keeps_native else max(MIN_SIZE, min(limit, own or limit))
    fits = size if scaled_to else next_size(backbone, size, model.get("backbone_args") or {})
    return fits or size, f"{images}, the backbone is for {native}, at most {LARGEST}"


def _augmentation(spec: AugmentSpec, earlier: Mapping[str, Any] | None, labels: list[str]) -> tuple[AugmentSpec, str]:
    """Returns how images are augmented, and why; what the user has changed in the preset stays."""
    if not earlier:
        why = mirrored_labels(labels)
        flips = f"no flips, since {why}; augment=photo has them" if why and spec.flip else f"flip {spec.flip:g}"
        return spec.for_labels(labels), f"augment=photo ({flips})"
    preset = AugmentSpec(**yaml.safe_load((Path(config_dir()) / "augment/photo.yaml").read_text(encoding="utf-8")))
    changed = {key: value for key, value in asdict(spec).items() if value != getattr(preset, key)}
    known = {key: value for key, value in earlier.items() if key in asdict(preset)}
    return replace(AugmentSpec(**known), **{**changed, "auto": False}), "augment as in the earlier runs of this name"
