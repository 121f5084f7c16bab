"""Where the YAML is, and the one place that builds objects from it."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from mlfix_train.errors import (
    ConfigError,
    check_choice,
    check_range,
    did_you_mean,
    listing,
    nearest,
)
from mlfix_train.keys import config_dir, known_keys
from mlfix_train.overrides import assign, quoted, readable

log = logging.getLogger(__name__)


def compose(verb: str, overrides: list[str], with_hydra: bool = False) -> DictConfig:
    """Composes the configuration of a verb, as the command line does; ``with_hydra`` keeps Hydra's own section.

    Raises:
        ConfigError: a key or value that isn't one, with the nearest right one.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    GlobalHydra.instance().clear()
    for override in overrides:
        if override.startswith("="):
            raise ConfigError(f"{override!r} names no key", "keys are given as key=value")
    try:
        with initialize_config_dir(config_dir(), version_base="1.3"):
            return hydra_compose(verb, overrides=readable(overrides), return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        raise explain(verb, error) from error


def call_verb(verb: str, cfg: DictConfig) -> Any:
    """Runs a verb on its composed configuration and returns what its function in ``mlfix_train.verbs`` returns."""
    import importlib

    check_missing(cfg, verb)
    return importlib.import_module(f"mlfix_train.verbs.{verb}").run(cfg)


def explain(verb: str, error: Exception) -> ConfigError:
    """Turns an error of Hydra's into one that names the key and the nearest right one."""
    text = str(error)
    if isinstance(error, ConfigError):
        return error
    cause = f"{text}\n{error.__cause__ or ''}"
    match = re.search(r"Could not (?:override|append to config) '([^']+)'", text) or re.search(
        r"Key '([^']+)' is not in struct", cause
    )
    if match:
        key = match.group(1)
        path = re.search(r"full_key: (\S+)", cause)
        full = path.group(1) if path else key
        known = list(known_keys(verb))
        guess = nearest(full, known) or nearest(full.split(".")[-1], known)
        if not guess:
            guess = [name for name in known if name.split(".")[-1] == full.split(".")[-1]][:1]
        hint = f"did you mean {guess[0]}?" if guess else f"`mlfix {verb} --cfg job` shows all keys"
        return ConfigError(f"{full} is no key of `mlfix {verb}`", hint)
    match = re.search(r"Could not find '([^']+)'", text) or re.search(r"Cannot find primary config '([^']+)'", text)
    if match:
        group, _, value = match.group(1).rpartition("/")
        options = sorted(path.stem for path in Path(config_dir(), group).glob("*.yaml"))
        key = group or match.group(1)
        return ConfigError(f"{key}={value} does not exist", did_you_mean(value, options) if options else "")
    if "Config group override must be" in text:
        return ConfigError(
            "a group (data, model, recipe, trainer, logger, experiment or sweep) is set to null or to no name",
            "name one of its presets, such as data=folder or logger=none",
        )
    sweep = re.search(r"Sweep parameters '([^']*)'|Ambiguous value for argument '([^']*)'", text)
    if sweep:
        given = sweep.group(1) or sweep.group(2)
        return ConfigError(f"{given} is a sweep over several values", f"add -m: mlfix {verb} -m {given}")
    first = " ".join(line.strip() for line in text.splitlines() if line.strip())[:300] or type(error).__name__
    return ConfigError(f"the settings can't be read: {first}", "keys are given as key=value; quote values with spaces")


def check_missing(cfg: DictConfig, verb: str) -> None:
    """Raises a ConfigError that names the keys which the user has to give."""
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        example = " ".join(f"{key}=..." for key in missing)
        raise ConfigError(f"mlfix {verb} needs {listing(missing)}", f"give it: mlfix {verb} {example}")


def plain(cfg: Any) -> Any:
    """Returns a configuration as dicts, lists and plain values, everything resolved."""
    if not OmegaConf.is_config(cfg):
        return cfg
    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    except Exception as error:  # OmegaConf's own errors name the key
        raise ConfigError(
            f"the settings can't be resolved: {str(error).splitlines()[0]}", "check the ${...}"
        ) from error


def checked(target: Callable[..., Any], values: Mapping[str, Any], key: str, **more: Any) -> Any:
    """Calls ``target`` with the values of one section of the configuration.

    Raises:
        ConfigError: a key that ``target`` doesn't take, or a value of another type than it takes.
    """
    parameters = inspect.signature(target).parameters
    for name, value in values.items():
        if name not in parameters:
            raise ConfigError(
                f"{key}.{name} is no key here", did_you_mean(name, [p for p in parameters if p not in more])
            )
        check_type(f"{key}.{name}", value, str(parameters[name].annotation))
    return target(**values, **more)


def check_type(key: str, value: Any, annotation: str) -> None:
    """Compares a plain value with a simple annotation, given as text."""
    if value is None:
        if "None" in annotation or annotation.startswith("Any"):
            return
        raise ConfigError(f"{key}=null is not allowed", f"give a value ({annotation})")
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    kinds = [kind for kind in annotation.replace(" ", "").split("|") if kind != "None"]
    if not kinds or any(kind not in names and kind != "Path" for kind in kinds):
        return
    fits = {
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, (int, float)) and not isinstance(value, bool),
        "bool": isinstance(value, bool),
        "str": isinstance(value, (str, int, float)) and not isinstance(value, bool),
        "Path": isinstance(value, str),
    }
    if not any(fits[kind] for kind in kinds):
        wanted = " or ".join(dict.fromkeys(names.get(kind, "a path") for kind in kinds))
        raise ConfigError(f"{key}={value} is not {wanted}", f"give {wanted}")


def as_list(value: Any) -> list[Any]:
    """Returns a list as it is, and a single value as a list of one."""
    value = plain(value)
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def check_train(cfg: DictConfig) -> None:
    """Checks what can be checked of a training's settings before any data are read or anything is written.

    Raises:
        ConfigError: the first mistake.
    """
    from mlfix_train.data.datamodule import LoaderSpec
    from mlfix_train.data.sampling import SAMPLINGS
    from mlfix_train.models.finetune import Recipe

    for key in (
        "data",
        "model",
        "recipe",
        "trainer",
        "logger",
        "fixes",
        "split",
        "pixels",
        "augment",
        "loader",
        "audit",
    ):
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
    for key in ("top", "panels"):
        check_type(f"audit.{key}", cfg.audit[key], "int")
    check_range("audit.top", cfg.audit.top, 0, 108)
    check_range("audit.panels", cfg.audit.panels, 0, 1000)
    check_type("audit.probabilities", cfg.audit.probabilities, "bool")
    every = cfg.trainer.get("check_val_every_n_epoch", 1)
    check_type("trainer.check_val_every_n_epoch", every, "int")
    check_range("trainer.check_val_every_n_epoch", every, 1, 1_000_000)
    checked(Recipe, plain(cfg.recipe), "recipe")
    checked(LoaderSpec, plain(cfg.loader), "loader")
    check_choice("loader.sampling", cfg.loader.sampling, SAMPLINGS)


def check_place(key: str, value: Any) -> Path:
    """Returns the path that a key gives.

    Raises:
        ConfigError: it is empty or null.
    """
    if value is None or not str(value).strip(" ."):
        raise ConfigError(f"{key}={'null' if value is None else value} names no place", f"give a name: {key}=<folder>")
    return Path(str(value)).expanduser()


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
    table: pd.DataFrame = build(cfg.data, "data")
    return table


def build_fixes(cfg: DictConfig, table: pd.DataFrame) -> pd.DataFrame | None:
    """Reads and checks the fixes that ``fixes`` names; ``None`` where it names none."""
    from mlfix_train.data.fixes import ALLOWANCES, match_fixes, read_fixes

    allow = as_list(cfg.fixes.allow)
    for name in allow:
        check_choice("fixes.allow", name, ALLOWANCES)
    if cfg.fixes.path is None:
        return None
    fixes = match_fixes(read_fixes(cfg.fixes.path), table, allow)
    if not len(fixes):
        log.warning("fixes.path=%s holds no fixes", cfg.fixes.path)
    return fixes


def build_split(cfg: DictConfig, table: pd.DataFrame) -> np.ndarray:
    """Draws the split that ``split`` describes."""
    from mlfix_train.data.splits import draw_split

    settings = {**plain(cfg.split), **{key: as_list(cfg.split[key]) for key in ("held_out", "train_only")}}
    if not settings["column"] and (table["split"] != "").any():
        log.warning(
            "the data brings a split of its own (train/ and val/ folders, or a column): split.column=split uses it"
        )
    held_out: np.ndarray = checked(draw_split, settings, "split", table=table)
    return held_out


def build_datamodule(cfg: DictConfig, progress: Callable[[int, int], None] | None = None) -> Any:
    """Builds the DataModule of a run: samples, fixes, split, pixels, loaders."""
    from mlfix_train.data.augment import AugmentSpec
    from mlfix_train.data.datamodule import Arm, DataModule, LoaderSpec
    from mlfix_train.data.pixels import PixelSpec
    from mlfix_train.data.samples import require_labels

    table = build_table(cfg)
    require_labels(table, source_name(cfg))
    fixes = build_fixes(cfg, table)
    pixels, augment = plain(cfg.pixels), plain(cfg.augment)
    cache, max_unreadable = pixels.pop("cache"), pixels.pop("max_unreadable")
    enabled = augment.pop("enabled")
    check_type("augment.enabled", enabled, "bool")
    check_type("pixels.max_unreadable", max_unreadable, "float")
    check_range("pixels.max_unreadable", max_unreadable, 0, 1)
    return DataModule(
        table,
        build_split(cfg, table),
        cache,
        Arm(cfg.arm, fixes),
        checked(PixelSpec, pixels, "pixels"),
        checked(LoaderSpec, plain(cfg.loader), "loader"),
        checked(AugmentSpec, augment, "augment") if enabled else None,
        cfg.seed,
        max_unreadable,
        progress,
    )


def build_model(cfg: DictConfig, labels: list[str]) -> Any:
    """Builds the LightningModule that ``model`` and ``recipe`` describe."""
    from mlfix_train.models.finetune import Recipe

    recipe = checked(Recipe, plain(cfg.recipe), "recipe")
    return build(cfg.model, "model", labels=labels, recipe=recipe)


def source_name(cfg: DictConfig) -> str:
    """Returns what errors call the data."""
    data = plain(cfg.data)
    key = next((key for key in ("file", "root") if data.get(key)), "data")
    return f"data.{key}={data.get(key, '')}"


__all__ = [
    "as_list", "assign", "build", "build_datamodule", "build_fixes", "build_model", "build_split", "build_table",
    "call_verb", "check_missing", "check_place", "check_train", "check_type", "checked", "compose", "config_dir",
    "explain", "plain", "quoted", "readable", "source_name",
]  # fmt: skip
