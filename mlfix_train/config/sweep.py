"""Expands the overrides of ``mlfix train -m`` into the runs of a sweep."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from mlfix_train.config.compose import compose
from mlfix_train.config.explain import known_keys, unknown_key
from mlfix_train.errors import ConfigError
from mlfix_train.training.run import run_path
from mlfix_train.training.sweep import SweepRun

PATH_KEYS = ("outputs", "name", "arm", "seed", "split.folds", "split.fold")
"""The keys that a run directory depends on."""


def plan_sweep(overrides: Sequence[str]) -> list[SweepRun]:
    """Returns the runs of ``mlfix train -m <overrides>``, in the order in which they are started.

    Every combination of the swept values is a run; the values of ``hydra.sweeper.params`` (``sweep=before_after``)
    are swept too, unless an override sets the same key. Overrides are as Hydra reads them, without flags.

    Raises:
        ConfigError: An unknown key, an invalid value, or an interval, which has no list of values.
    """
    parser = OverridesParser.create()
    given = parser.parse_overrides(list(overrides))
    fixed = [str(override.input_line) for override in given if not override.is_sweep_override()]
    settings = compose("train", fixed, with_hydra=True)
    swept_keys = [one.key_or_group for one in given if one.is_sweep_override() and not one.is_add()]
    known = set(known_keys("train")) if swept_keys else set()
    for key in swept_keys:
        if key not in known:
            raise unknown_key("train", key)
    params = [f"{key}={value}" for key, value in dict(settings.hydra.sweeper.params or {}).items()]
    # The configuration of a single run needs of Hydra's own settings only the search path.
    own = [one for one in given if not one.key_or_group.startswith("hydra") or one.key_or_group == "hydra.searchpath"]
    defaults = {key: OmegaConf.select(settings, key) for key in PATH_KEYS}
    values = _values([*parser.parse_overrides(params), *own])
    return [_sweep_run(list(run), defaults, parser) for run in itertools.product(*values)]


def _values(overrides: Sequence[Override]) -> list[list[str]]:
    """Returns for each key the overrides that give it one value each; the last override of a key wins."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [f"{key}={override.get_value_element_as_str()}" if not override.is_delete() else key]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            hint = f"write {key}=a,b,c or {key}=range(0,10)"
            raise ConfigError(f"{override.input_line} has no list of values to sweep over", hint)
    return list(values.values())


def _sweep_run(overrides: list[str], defaults: Mapping[str, Any], parser: OverridesParser) -> SweepRun:
    given = {override.key_or_group: override.value() for override in parser.parse_overrides(overrides)}
    values = {key: given.get(key, default) for key, default in defaults.items()}
    fold = values["split.fold"] if values["split.folds"] is not None else None
    path = run_path(str(values["outputs"]), str(values["name"]), str(values["arm"]), values["seed"], fold)
    return SweepRun(path, tuple(overrides))
