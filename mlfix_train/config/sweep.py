"""The runs of a sweep, planned before anything is trained: each is composed, checked, and given a place of its own."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mlfix_train.config.overrides import assign
from mlfix_train.config.schemas import to_object
from mlfix_train.config.train import TrainConfig
from mlfix_train.data.runs import run_path
from mlfix_train.errors import ConfigError
from mlfix_train.training.sweep import SweepRun

PLACE_KEYS = ("outputs", "name", "arm", "seed", "split.fold")
"""Keys that a run directory is made of."""
LONGEST = 40
"""Letters of a value in the name of a directory."""
STUDY = "${outputs}/${name}"
"""The preset of ``hydra.sweep.dir``, where sweepers and launchers put files of their own."""


@dataclass
class PlannedRun:
    """One run of a sweep.

    Args:
        path: Its run directory.
        overrides: The overrides ``key=value`` that make it.
        cfg: Its whole configuration, with Hydra's own section.
        settings: Its configuration without Hydra's, checked.
    """

    path: Path
    overrides: list[str]
    cfg: DictConfig
    settings: TrainConfig

    def as_sweep_run(self) -> SweepRun:
        """Returns what launchers take: the directory, and this as the job."""
        return SweepRun(self.path, self)


def plan_runs(
    batch: Sequence[Sequence[str]],
    compose: Callable[[Sequence[str], int], DictConfig],
    fixed: Collection[str],
    complete: bool = True,
) -> list[PlannedRun]:
    """Plans the runs that a sweeper asks for.

    A swept key that is part of no run directory becomes part of the name: ``recipe.lr=0.001,0.003`` makes
    ``<name>,recipe.lr=0.001`` and ``<name>,recipe.lr=0.003``.

    Args:
        batch: The overrides of each run.
        compose: Returns the configuration that overrides make, with Hydra's section; the number is that of the run.
        fixed: The keys that have the same value in all runs of the sweep.
        complete: Whether these are all runs of the sweep. A key then enters the name only where two runs would share
            a directory; else always, since other values may follow.

    Returns:
        The runs, in the order of ``batch``; two whose overrides are the same share an object.

    Raises:
        ConfigError: An unknown key, an invalid value, or two different runs that would share a directory.
    """
    parser = OverridesParser.create()
    planned: dict[tuple[str, ...], PlannedRun] = {}
    for number, overrides in enumerate(batch):
        if tuple(overrides) not in planned:
            planned[tuple(overrides)] = _plan(overrides, compose(overrides, number))
    runs = list(planned.values())
    swept = [
        {one.key_or_group: _text(one) for one in parser.parse_overrides(run.overrides) if one.key_or_group not in fixed}
        for run in runs
    ]
    shared = {key for group in _sharing(runs) for key in _differing([swept[number] for number in group])}
    for run, values in zip(runs, swept, strict=True):
        named = _keys_of_place(run)
        kept = {key: value for key, value in values.items() if key not in named and "hydra" not in named}
        if complete:
            kept = {key: value for key, value in kept.items() if key in shared}
        if kept:
            _rename(run, ",".join([run.settings.name, *(f"{key}={value}" for key, value in kept.items())]))
    for group in _sharing(runs):
        one, other = (" ".join(_differences(runs, group, number)) for number in group[:2])
        problem = f"two runs of the sweep would share the directory {runs[group[0]].path}: {one} and {other}"
        raise ConfigError(problem, "put what tells them apart into the name, such as name='lr-${recipe.lr}'")
    return [planned[tuple(overrides)] for overrides in batch]


def _plan(overrides: Sequence[str], cfg: DictConfig) -> PlannedRun:
    """Checks the configuration of a run; interpolations of ``hydra:`` in it are resolved."""
    hydra: Any = HydraConfig.instance()
    before, hydra.cfg = hydra.cfg, cfg
    try:
        task = cfg.copy()
        with read_write(task), open_dict(task):
            del task["hydra"]
        settings: TrainConfig = to_object("train", task)
    finally:
        hydra.cfg = before
    fold = settings.split.fold if settings.split.folds is not None else None
    path = run_path(settings.outputs, settings.name, settings.arm, settings.seed, fold)
    return PlannedRun(path, list(overrides), cfg, settings)


def _rename(run: PlannedRun, name: str) -> None:
    run.overrides = [*(one for one in run.overrides if not one.startswith("name=")), assign("name", name)]
    run.path = run.path.parents[1].with_name(Path(name).name) / run.path.parent.name / run.path.name
    run.settings.name = run.cfg.name = name
    with read_write(run.cfg.hydra.overrides):
        run.cfg.hydra.overrides.task = run.overrides


def _sharing(runs: Sequence[PlannedRun]) -> list[list[int]]:
    """Returns the numbers of the runs that share a directory, by directory."""
    by_path = defaultdict(list)
    for number, run in enumerate(runs):
        by_path[run.path].append(number)
    return [group for group in by_path.values() if len(group) > 1]


def _differing(values: Sequence[dict[str, str]]) -> set[str]:
    return {key for one in values for key in one if len({other.get(key) for other in values}) > 1}


def _differences(runs: Sequence[PlannedRun], group: Sequence[int], number: int) -> list[str]:
    common = set.intersection(*(set(runs[one].overrides) for one in group))
    return [override for override in runs[number].overrides if override not in common]


def _text(override: Override) -> str:
    """Returns a value as a part of a file name; a hash tells apart what letters cannot."""
    value = override.value()
    plain = {True: "true", False: "false", None: "null"}
    exact = plain[value] if value is None or isinstance(value, bool) else str(value)
    text = re.sub(r"[^\w.+-]+", "_", exact)[:LONGEST]
    return text if text == exact else f"{text}-{hashlib.sha256(exact.encode()).hexdigest()[:6]}"


def _keys_of_place(run: PlannedRun) -> set[str]:
    """Returns the keys that a run directory depends on, by interpolations too; ``hydra`` if it is numbered by Hydra."""
    keys = set(PLACE_KEYS) if run.settings.split.folds is not None else set(PLACE_KEYS) - {"split.fold"}
    raw: Any = OmegaConf.create(OmegaConf.to_container(run.cfg, resolve=False))
    waiting = ["outputs", "name"]
    while waiting:
        for name in _interpolated(raw, waiting.pop()):
            if name not in keys:
                keys.add(name)
                waiting.append(name)
    return keys


def _interpolated(raw: DictConfig, key: str) -> Iterator[str]:
    """Yields the keys that the value of a key names as ``${key}``."""
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(raw, parent) if parent else raw
    if not OmegaConf.is_dict(node) or not OmegaConf.is_interpolation(node, last):
        return
    values: Any = OmegaConf.to_container(node, resolve=False)
    for text in re.findall(r"\$\{([^{}]*)\}", str(values[last])):
        yield from re.findall(r"[A-Za-z_][\w.]*", text)


def sweep_folder(cfg: DictConfig) -> str:
    """Returns ``hydra.sweep.dir``: of the preset's, the folder of all studies if the runs differ in ``name``."""
    settings: Any = OmegaConf.to_container(cfg.hydra.sweep, resolve=False)
    overrides = OverridesParser.create().parse_overrides(overrides_of(cfg))
    swept = any(one.key_or_group == "name" and one.is_sweep_override() for one in overrides)
    several = swept or OmegaConf.is_interpolation(cfg, "name") or "name" in (cfg.hydra.sweeper.get("params") or {})
    return "${outputs}" if several and settings["dir"] == STUDY else str(settings["dir"])


def fixed_keys(overrides: Sequence[str]) -> set[str]:
    """Returns the keys of overrides that have one value."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return {one.key_or_group for one in parsed if not one.is_sweep_override()}


def overrides_of(cfg: DictConfig) -> list[str]:
    """Returns the overrides that a configuration was composed with, as they were typed, but for those of Hydra."""
    return OmegaConf.to_container(cfg.hydra.overrides.task, resolve=False)  # type: ignore[return-value]
