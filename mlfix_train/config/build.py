"""Where the YAML is, and the one place that builds objects from it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from mlfix_train.config.compose import compose
from mlfix_train.config.explain import explain
from mlfix_train.config.overrides import assign, normalize_overrides, quoted
from mlfix_train.config.paths import config_dir
from mlfix_train.config.settings import as_list, check_place, check_type, checked, plain
from mlfix_train.data.cache import cached
from mlfix_train.errors import (
    ConfigError,
    check_choice,
    check_range,
    format_list,
)

log = logging.getLogger(__name__)


def check_missing(cfg: DictConfig, verb: str) -> None:
    """Raises a ConfigError that names the keys which the user has to give."""
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        example = " ".join(f"{key}=..." for key in missing)
        raise ConfigError(f"mlfix {verb} needs {format_list(missing)}", f"give it: mlfix {verb} {example}")


def check_train(cfg: DictConfig) -> None:
    """Checks what can be checked of a training's settings before any data are read or anything is written.

    Raises:
        ConfigError: the first mistake.
    """
    from mlfix_train.data.loading.spec import SAMPLINGS
    from mlfix_train.models.recipes import Recipe

    sections = "data model recipe trainer logger fixes split pixels augment views loader audit"
    for key in sections.split():
        if not isinstance(cfg[key], DictConfig):
            raise ConfigError(f"{key}={cfg[key]} is a value where a section belongs", f"set its keys: {key}.<key>=...")
    check_type("seed", cfg.seed, "int")
    check_range("seed", cfg.seed, 0, 2**31)
    check_type("overwrite", cfg.overwrite, "bool")
    check_choice("arm", cfg.arm, ("original", "fixed", "control"))
    check_choice("report", cfg.report, ("auto", "full", "line"))
    check_type("retries", cfg.retries, "int")
    check_range("retries", cfg.retries, 0, 100)
    check_choice("checkpoint.keep", cfg.checkpoint.keep, ("weights", "none"))
    check_place("outputs", cfg.outputs)
    name = check_place("name", cfg.name)
    if name.is_absolute() or ".." in name.parts:
        raise ConfigError(
            f"name={cfg.name} leads out of the folder of runs", "give a name; outputs= says where runs lie"
        )
    check_place("pixels.cache", cfg.pixels.cache)
    for key in ("table_rows", "n_panels"):
        check_type(f"audit.{key}", cfg.audit[key], "int")
    check_range("audit.table_rows", cfg.audit.table_rows, 0, 108)
    check_range("audit.n_panels", cfg.audit.n_panels, 0, 1000)
    check_type("audit.probabilities", cfg.audit.probabilities, "bool")
    check_type("audit.every_n_epochs", cfg.audit.every_n_epochs, "int | None")
    every = cfg.trainer.get("check_val_every_n_epoch", 1)
    check_type("trainer.check_val_every_n_epoch", every, "int")
    check_range("trainer.check_val_every_n_epoch", every, 1, 1_000_000)
    checked(Recipe, plain(cfg.recipe), "recipe")
    loader_settings(cfg)
    check_choice("loader.sampling", cfg.loader.sampling, SAMPLINGS)
    if is_sorting(cfg):
        check_sorting(cfg)


def check_sorting(cfg: DictConfig) -> None:
    """Checks what only a sorting network's training knows.

    Raises:
        ConfigError: the first mistake.
    """

    view_settings(cfg)
    if cfg.arm != "original" or cfg.fixes.path is not None:
        given = f"arm={cfg.arm}" if cfg.arm != "original" else f"fixes.path={cfg.fixes.path}"
        raise ConfigError(f"{given} means nothing to model=sorting_network, which sees no labels", "leave it out")
    if cfg.split.folds is not None:
        raise ConfigError("split.folds means nothing to model=sorting_network, which holds nothing out", "leave it out")


def check_out(out: Any, data: Mapping[str, Any] | DictConfig) -> None:
    """Refuses to write pictures where the next run would read them as data.

    Raises:
        ConfigError: ``out`` is a file, or lies in the folder of the images.
    """
    place = Path(str(out)).expanduser()
    if place.is_file():
        raise ConfigError(f"out={out} is a file", "give a folder: out=<folder>")
    if not str(data.get("_target_", "")).endswith("read_folder") or not data.get("root"):
        return
    if place.resolve().is_relative_to(Path(str(data["root"])).expanduser().resolve()):
        raise ConfigError(
            f"out={out} lies in data.root={data['root']}, and its panels would be read as data the next time",
            "give a folder beside it: out=<folder>",
        )


def build(section: DictConfig | Mapping[str, Any], key: str, **more: Any) -> Any:
    """Builds what a section's ``_target_`` names from its other keys (and ``more``).

    Raises:
        ConfigError: no such target, or keys that it doesn't take.
    """
    import importlib

    values = dict(plain(section) if isinstance(section, DictConfig) else section)
    path = str(values.pop("_target_", ""))
    module, _, name = path.rpartition(".")
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{key}._target_={path} can't be imported: {error}", "check its spelling") from error
    return checked(target, values, key, **more)


def build_table(cfg: DictConfig) -> pd.DataFrame:
    """Reads the sample table that ``data`` describes."""
    key = ("table", json.dumps(plain(cfg.data), sort_keys=True, default=str))
    table = cached(key, lambda: build(cfg.data, "data"))
    if not isinstance(table, pd.DataFrame):
        raise ConfigError(
            f"{source_name(cfg)} holds photos with boxes, not samples",
            "crop them first: mlfix crop data.root=<folder>; then data=crops data.root=crops",
        )
    return cast(pd.DataFrame, table)


def build_fixes(cfg: DictConfig, table: pd.DataFrame) -> pd.DataFrame | None:
    """Reads and checks the fixes that ``fixes`` names; ``None`` where it names none."""
    from mlfix_train.data.fixes.table import IGNORABLE, match_fixes, read_fixes

    allow = as_list(cfg.fixes.allow)
    for name in allow:
        check_choice("fixes.allow", name, IGNORABLE)
    if cfg.fixes.path is None:
        return None
    fixes = match_fixes(read_fixes(cfg.fixes.path), table, allow)
    if not len(fixes):
        log.warning("fixes.path=%s holds no fixes", cfg.fixes.path)
    return fixes


def build_split(cfg: DictConfig, table: pd.DataFrame) -> np.ndarray:
    """Draws the split that ``split`` describes."""
    from mlfix_train.data.splits import SplitSpec, draw_split

    settings = {**plain(cfg.split), **{key: as_list(cfg.split[key]) for key in ("held_out", "train_only")}}
    if not settings["column"] and (table["split"] != "").any():
        cached(("split hint", source_name(cfg)), lambda: log.warning(
            "the data brings a split of its own (train/ and val/ folders, or a column): split.column=split uses it"
        ))  # fmt: skip
    settings["held_out_values"] = settings.pop("held_out")
    return draw_split(table, checked(SplitSpec, settings, "split"))


def build_datamodule(cfg: DictConfig, progress: Callable[[int, int], None] | None = None) -> Any:
    """Builds the DataModule of a run: samples, fixes, split, pixels, loaders."""
    from mlfix_train.data.arms import Arm
    from mlfix_train.data.loading.datamodule import DataModule
    from mlfix_train.data.loading.spec import AugmentSpec
    from mlfix_train.data.samples import require_labels

    table = build_table(cfg)
    require_labels(table, source_name(cfg))
    fixes = build_fixes(cfg, table)
    pixels, store = pixel_settings(cfg)
    augment = plain(cfg.augment)
    enabled = augment.pop("enabled")
    check_type("augment.enabled", enabled, "bool")
    return DataModule(
        table,
        build_split(cfg, table),
        store["cache"],
        Arm(cfg.arm, fixes),
        pixels,
        loader_settings(cfg),
        checked(AugmentSpec, augment, "augment") if enabled else None,
        cfg.seed,
        store["max_unreadable"],
        progress,
    )


def is_sorting(cfg: DictConfig) -> bool:
    """Whether a training is that of a sorting network."""
    return str(cfg.model.get("_target_", "")).endswith(".SortingNetwork")


def build_view_data(cfg: DictConfig, progress: Callable[[int, int], None] | None = None) -> Any:
    """Builds the DataModule of a sorting network: samples, pixels, views."""
    from mlfix_train.data.loading.view_datamodule import ViewDataModule

    pixels, store = pixel_settings(cfg)
    return ViewDataModule(
        build_table(cfg),
        store["cache"],
        pixels,
        loader_settings(cfg),
        view_settings(cfg),
        cfg.seed,
        store["max_unreadable"],
        progress,
    )


def loader_settings(cfg: DictConfig) -> Any:
    """Returns section ``loader``; its YAML still says ``resident``."""
    from mlfix_train.data.loading.spec import LoaderSpec

    values = plain(cfg.loader)
    values["cache_on_device"] = values.pop("resident")
    return checked(LoaderSpec, values, "loader")


def view_settings(cfg: DictConfig) -> Any:
    """Returns section ``views``; its YAML still says ``stretch`` and ``partner``."""
    from mlfix_train.data.loading.spec import ViewSpec

    values = plain(cfg.views)
    values["aspect_ratio"], values["positive_pair"] = values.pop("stretch"), values.pop("partner")
    return checked(ViewSpec, values, "views")


def pixel_settings(cfg: DictConfig, **more: Any) -> tuple[Any, dict[str, Any]]:
    """Returns how images are stored (``more`` goes before ``cfg.pixels``), and the store's cache and limit."""
    from mlfix_train.data.pixels.spec import PixelSpec

    pixels = {**plain(cfg.pixels), **more}
    store = {key: pixels.pop(key) for key in ("cache", "max_unreadable")}
    check_type("pixels.max_unreadable", store["max_unreadable"], "float")
    check_range("pixels.max_unreadable", store["max_unreadable"], 0, 1)
    return checked(PixelSpec, pixels, "pixels"), store


def build_model(cfg: DictConfig, labels: list[str]) -> Any:
    """Builds the LightningModule that ``model`` and ``recipe`` describe."""
    from mlfix_train.models.recipes import Recipe

    recipe = checked(Recipe, plain(cfg.recipe), "recipe")
    more = {} if is_sorting(cfg) else {"labels": labels}
    return build(cfg.model, "model", recipe=recipe, seed=int(cfg.seed), **more)


def source_name(cfg: DictConfig) -> str:
    """Returns what errors call the data."""
    data = plain(cfg.data)
    key = next((key for key in ("file", "root") if data.get(key)), "data")
    return f"data.{key}={data.get(key, '')}"


__all__ = [
    "as_list",
    "assign",
    "build",
    "build_datamodule",
    "build_fixes",
    "build_model",
    "build_split",
    "build_table",
    "build_view_data",
    "check_missing",
    "check_out",
    "check_place",
    "check_train",
    "check_type",
    "checked",
    "compose",
    "config_dir",
    "explain",
    "is_sorting",
    "normalize_overrides",
    "pixel_settings",
    "plain",
    "quoted",
    "source_name",
]  # fmt: skip
