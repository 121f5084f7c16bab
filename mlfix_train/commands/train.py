"""``mlfix train``: one run of a classifier or of the sorting network; :mod:`.train_sweep` trains many."""

from __future__ import annotations

import importlib.machinery
import inspect
import logging
import math
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import lightning as L
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_object
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from mlfix_train.commands.inputs import (
    draw_configured_split,
    read_matching_fixes,
    read_samples,
    source_name,
    with_absolute_paths,
)
from mlfix_train.commands.progress import ProgressBar, format_duration
from mlfix_train.commands.train_choices import choose_by_data
from mlfix_train.config.instantiate import instantiate, instantiate_later
from mlfix_train.config.overrides import assign, quoted
from mlfix_train.config.paths import config_dir
from mlfix_train.config.train import TrainConfig
from mlfix_train.data.arms import Arm, warn_if_only_relabelled
from mlfix_train.data.loading.datamodule import DataModule
from mlfix_train.data.loading.views import ViewDataModule
from mlfix_train.data.runs import FINISHED, RunDirectory, run_path
from mlfix_train.data.samples import require_labels
from mlfix_train.errors import ConfigError
from mlfix_train.models.backbones.fit import check_forward
from mlfix_train.models.recipe_module import STEP_ARGUMENTS, RecipeModule
from mlfix_train.models.recipes import Recipe
from mlfix_train.models.ssl.sorting_network import SortingNetwork
from mlfix_train.training.identity import run_identity
from mlfix_train.training.progress import EpochReport
from mlfix_train.training.run import RunOptions, train_run
from mlfix_train.training.signals import RunInterrupted
from mlfix_train.training.tasks.base import TrainingTask
from mlfix_train.training.tasks.classifier import ClassifierTask
from mlfix_train.training.tasks.sorting_network import SortingNetworkTask
from mlfix_train.training.trainer import check_options, count_processes, silence_lightning

log = logging.getLogger(__name__)

LATER = {"optimizer": ("params",), "scheduler": ("optimizer", *STEP_ARGUMENTS)}
"""Parts of a model that are built once there are parameters, and the arguments that they get then."""
NEEDED_OF_DATA = ("table", "labels", "held_out", "arm", "train_dataloader", "val_dataloader")
"""What a DataModule has to offer for a run."""


def run(cfg: TrainConfig) -> RunDirectory:
    """Trains a run, unless it is already finished, and prints what came out.

    Returns:
        The run directory.
    """
    silence_lightning()
    fold = cfg.split.fold if cfg.split.folds is not None else None
    directory = RunDirectory(run_path(cfg.outputs, cfg.name, cfg.arm, cfg.seed, fold))
    table = read_samples(cfg.data, uses_labels=not _is_sorting(cfg))
    cfg = choose_by_data(cfg, directory, table)
    task = build_task(cfg, table)
    in_sweep = _by_our_hydra() and HydraConfig.get().mode == RunMode.MULTIRUN
    with _without_our_hydra():
        try:
            trained = train_run(directory, task, build_options(cfg, directory, task))
        except RunInterrupted as interrupt:
            problem = f"{directory.path}: interrupted by {interrupt.name}; {_how_to_resume(directory, cfg.overwrite)}"
            raise RunInterrupted(interrupt.signum, problem) from None
        except KeyboardInterrupt:
            problem = f"{directory.path}: interrupted; {_how_to_resume(directory, cfg.overwrite)}"
            raise KeyboardInterrupt(problem) from None
    if not _is_first_process():
        return directory
    if not trained:
        print(f"{directory.path}: already finished, skipped (overwrite=true trains it again)", flush=True)
    else:
        print_run(directory, in_one_line=cfg.report == "line" or (cfg.report == "auto" and in_sweep))
    return directory


def _how_to_resume(directory: RunDirectory, overwrite: bool) -> str:
    state = directory.read()
    if state.get("status") == FINISHED:
        return "it is finished"
    if not directory.checkpoint.exists() or state.get("overwriting"):
        return "no epoch was complete, so that the same command starts from the beginning"
    return f"the same command{' without overwrite=true' * overwrite} resumes after the last complete epoch"


def build_task(cfg: TrainConfig, table: pd.DataFrame | None = None) -> TrainingTask:
    """Builds what is trained: the data, and how to build the model for it; ``table`` holds the samples, if it is read.

    Raises:
        ConfigError: A setting that the model cannot use.
    """
    is_sorting = _is_sorting(cfg)
    table = read_samples(cfg.data, uses_labels=not is_sorting) if table is None else table
    return _sorting_task(cfg, table) if is_sorting else _classifier_task(cfg, table)


def _is_sorting(cfg: TrainConfig) -> bool:
    target = _target(cfg.model)
    return inspect.isclass(target) and issubclass(target, SortingNetwork)


def _classifier_task(cfg: TrainConfig, table: pd.DataFrame) -> TrainingTask:
    require_labels(table, source_name(cfg.data))
    held_out = draw_configured_split(cfg.split, table, cfg.data)
    arm = Arm(cfg.arm, read_matching_fixes(cfg.fixes, table))
    if arm.name == "control" and arm.fixes is not None:
        warn_if_only_relabelled(arm.fixes)
    arguments = {"table": table, "held_out": held_out, "cache": cfg.pixels.cache, "arm": arm, **_loading(cfg)}
    data = _build_datamodule(cfg, {**arguments, "augmentation": cfg.augment})
    return ClassifierTask(data, lambda labels: build_module(cfg, labels=labels), asdict(cfg.audit))


def _build_datamodule(cfg: TrainConfig, arguments: dict[str, Any]) -> DataModule:
    """Builds the user's DataModule, or ours.

    Raises:
        ConfigError: The user's lacks something that a run needs; it is named.
    """
    if not cfg.datamodule:
        return DataModule(**arguments)
    target = _target(cfg.datamodule)
    parameters = {} if target is None else inspect.signature(target).parameters
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    taken = arguments if takes_all else _accepted(cfg.datamodule, arguments)
    data = instantiate(cfg.datamodule, "datamodule", **taken)
    missing = [name for name in NEEDED_OF_DATA if not hasattr(data, name)]
    if missing or not isinstance(data, L.LightningDataModule):
        lacks = f"lacks {', '.join(missing)}" if missing else "is not a LightningDataModule"
        problem = f"datamodule._target_={cfg.datamodule['_target_']} {lacks}"
        raise ConfigError(
            problem, "inherit from mlfix_train.data.loading.datamodule.DataModule, or set them in __init__"
        )
    return data  # type: ignore[return-value]


def _sorting_task(cfg: TrainConfig, table: pd.DataFrame) -> TrainingTask:
    for key, value in (("arm", cfg.arm), ("fixes.path", cfg.fixes.path), ("split.folds", cfg.split.folds)):
        if value != ("original" if key == "arm" else None):
            why = "model=sorting_network, which uses no labels and holds nothing out"
            raise ConfigError(f"{key}={value} has no effect on {why}", "leave it out")
    data = ViewDataModule(table, cfg.pixels.cache, cfg.views, **_loading(cfg))
    return SortingNetworkTask(data, lambda: build_module(cfg))


def _loading(cfg: TrainConfig) -> dict[str, Any]:
    """Returns the arguments that both DataModules take."""
    decoding = {"max_unreadable": cfg.pixels.max_unreadable, "progress": _decoding_progress()}
    return {"pixels": cfg.pixels.spec(), "loader": cfg.loader, "seed": cfg.seed, **decoding}


def build_module(cfg: TrainConfig, **extra: Any) -> Any:
    """Builds the LightningModule with the recipe, the seed, the size of the images and ``extra``, if it accepts them.

    Raises:
        ConfigError: It can't be built, or does not take the images.
    """
    accepted = _accepted(cfg.model, {**extra, "recipe": recipe_of(cfg), "seed": cfg.seed})
    section, size = dict(cfg.model), cfg.pixels.spec().size
    if section.get("image_size") is None:
        accepted |= _accepted(section, {"image_size": size})
    for key, later in LATER.items():
        if not isinstance(section.get(key), Mapping) or not section[key].get("_target_"):
            continue
        if _accepted(section, {key: None}):
            accepted[key] = instantiate_later(section.pop(key), f"model.{key}", later)
        else:  # an unknown key, as instantiate says
            section[key] = {"_partial_": True, **section[key]}
    module = instantiate(section, "model", **accepted)
    if not isinstance(module, L.LightningModule):
        problem = f"model._target_={cfg.model['_target_']} makes a {type(module).__name__}, not a LightningModule"
        raise ConfigError(problem, "use a class that inherits from lightning.LightningModule")
    if not isinstance(module, RecipeModule) and not cfg.datamodule:
        check_forward(module, size, str(cfg.model["_target_"]))
    return module


def recipe_of(cfg: TrainConfig) -> Recipe:
    """Returns the recipe; ``trainer.max_epochs`` wins over its epochs, of which the frozen ones come first."""
    total = cfg.trainer.get("max_epochs")
    if not isinstance(total, int) or total < 1:
        return cfg.recipe
    frozen = min(cfg.recipe.frozen_epochs, total - 1)
    return replace(cfg.recipe, frozen_epochs=frozen, epochs=total - frozen)


def build_options(cfg: TrainConfig, directory: RunDirectory, task: TrainingTask) -> RunOptions:
    """Builds the options of a run from the configuration.

    Raises:
        ConfigError: An argument that the Trainer, a callback or a logger does not take.
    """
    settings = asdict(cfg)
    processes = count_processes(check_options(cfg.trainer))
    terminal, label = sys.stderr.isatty(), f"{cfg.name}/{cfg.arm}/{directory.path.name}"
    return RunOptions(
        epochs=recipe_of(cfg).total_epochs,
        seed=cfg.seed,
        title=f"{cfg.name}, {cfg.arm}, {directory.path.name}",
        trainer=_build_nested(cfg.trainer, "trainer", {"dirpath": directory.path / "profile"}),
        callbacks=_build_each(cfg.callbacks, "callbacks", {"dirpath": directory.path / "checkpoints"}, L.Callback),
        build_loggers=lambda state: build_loggers(cfg, directory, state),
        identity=run_identity(settings, processes, task.identity(settings)),
        config=with_absolute_paths(settings),
        overwrite=cfg.overwrite,
        keep=cfg.checkpoint.keep,
        on_epoch=None if terminal else partial(print_epoch, label),
        progress_bar=terminal,
    )


def print_epoch(label: str, report: EpochReport) -> None:
    """Prints the line of an epoch; a function of the module, since spawned processes get it pickled."""
    print(describe_epoch(label, report), file=sys.stderr, flush=True)


def build_loggers(cfg: TrainConfig, directory: RunDirectory, state: Mapping[str, Any]) -> list[Logger]:
    """Builds the loggers of section ``logger``; ``state`` is the content of ``run.json``.

    A logger that takes ``save_dir``, ``name``, ``job_type``, ``id`` or ``config`` gets those of the run, unless the
    section sets them; its ``tags`` begin with the arm.
    """
    place = directory.path.name.replace("=", "").replace(",", "-")
    facts = {
        "save_dir": directory.path,
        "name": f"{cfg.name}-{cfg.arm}-{place}",
        "job_type": f"train-{cfg.arm}" if cfg.split.folds is None else "out-of-fold",
        "id": state.get("wandb_id"),
        "config": {**state.get("config", {}), "data_fingerprint": state.get("data", {}).get("fingerprint")},
    }
    section = {
        name: {**one, "tags": [cfg.arm, *one["tags"]]} if one and "tags" in one else one
        for name, one in cfg.logger.items()
    }
    return [logger for logger in _build_each(section, "logger", facts, Logger) if logger is not None]


def _build_each(
    section: Mapping[str, Any], key: str, facts: Mapping[str, Any], kind: type[Any] | None = None
) -> list[Any]:
    """Builds the objects of a section of ``name: {_target_: ...}`` entries; an entry set to null is left out.

    Raises:
        ConfigError: An entry can't be built, or is not a ``kind``.
    """
    built = []
    if "_target_" in section:
        raise ConfigError(f"{key}._target_ is of no named entry", f"give it a name: {key}.<name>._target_=...")
    for name, one in section.items():
        if one is None:
            continue
        if not isinstance(one, Mapping):
            raise ConfigError(f"{key}.{name}={one} is a value, not a section", f"set a class: {key}.{name}._target_=")
        missing = {fact: value for fact, value in facts.items() if one.get(fact) is None}
        given = {argument: value for argument, value in one.items() if argument not in missing}
        made = instantiate(given, f"{key}.{name}", **_accepted(one, missing))
        if kind is not None and made is not None and not isinstance(made, kind):
            problem = f"{key}.{name}._target_={one['_target_']} makes a {type(made).__name__}, not a {kind.__name__}"
            raise ConfigError(problem, f"name a class that inherits from Lightning's {kind.__name__}")
        built.append(made)
    return built


def _build_nested(value: Any, key: str, facts: Mapping[str, Any]) -> Any:
    """Returns a section with every ``_target_`` in it built."""
    if isinstance(value, Mapping) and value.get("_target_"):
        return _build_each({"": value}, key, facts)[0]
    if isinstance(value, Mapping):
        return {name: _build_nested(one, f"{key}.{name}", facts) for name, one in value.items()}
    if isinstance(value, list):
        return [_build_nested(one, key, facts) for one in value]
    return value


def _target(section: Mapping[str, Any]) -> Any:
    """Returns the class or function of ``_target_``; ``None`` if it cannot be imported, as :func:`instantiate` says."""
    try:
        return get_object(str(section.get("_target_")))
    except Exception:
        return None


def _accepted(section: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entries of ``extra`` that the section's ``_target_`` accepts."""
    try:
        parameters = inspect.signature(_target(section)).parameters
    except (TypeError, ValueError):
        return {}
    return {name: value for name, value in extra.items() if name in parameters}


def _decoding_progress() -> Callable[[int, int], None] | None:
    return ProgressBar("decoding images") if _is_first_process() else None


def _is_first_process() -> bool:
    return not getattr(rank_zero_only, "rank", 0)


# What is printed


def describe_epoch(label: str, report: EpochReport) -> str:
    """Returns the line that is printed about an epoch, with the time left; ``label`` begins it."""
    row = report.row
    parts = [f"epoch {int(row['epoch']) + 1}/{report.epochs}", f"train loss {row.get('train_loss', math.nan):.3f}"]
    if "val_error" in row:
        parts.append(f"held-out error {row['val_error']:.2f}%")
    if "val_agreement" in row:
        parts.append(f"nearest neighbours of the same label {row['val_agreement']:.1f}%")
    parts += [f"{row['samples_per_second']:,.0f} samples/s", f"{format_duration(report.seconds_left)} left"]
    return f"{label}: {', '.join(parts)}"


def print_run(directory: RunDirectory, in_one_line: bool = False) -> None:
    """Prints the result of a finished run."""
    state = directory.read()
    took = format_duration(state["timings"]["total_seconds"])
    describe = _describe_sorting if state["kind"] == "sorting_network" else _describe_classifier
    summary, lines = describe(directory, state)
    if in_one_line:
        print(f"           {directory.path}: {summary} ({took})", flush=True)
    else:
        print("\n".join([f"run        {directory.path} ({took})", *lines]), flush=True)


def _describe_classifier(directory: RunDirectory, state: Mapping[str, Any]) -> tuple[str, list[str]]:
    names = dict.fromkeys(("sample_id", "given_label", "predicted_label"), str)
    columns = [*names, "loss"]
    ranking = pd.read_csv(directory.path / "ranking.csv", keep_default_na=False, dtype=names, usecols=columns)
    wrong = ranking["predicted_label"] != ranking["given_label"]
    error, loss, guessing = 100 * wrong.mean(), ranking["loss"].mean(), math.log(state["data"]["labels"])
    if loss > max(10.0, 3 * guessing):
        text = "%s: the held-out loss is %.3g (guessing: %.2f): the training diverged; lower recipe.lr"
        log.warning(text, directory.path, loss, guessing)
    data = state["data"]
    suspects = "the most suspicious labels:"
    if not wrong.any():
        suspects = "none: the model agrees with every held-out label; the highest losses:"
    others = len(list((directory.path / "panels").glob("*.png"))) - 1
    rows = [
        f"           {row.sample_id}: given {row.given_label}, predicted {row.predicted_label}, loss {row.loss:.2f}"
        for row in ranking.head(5).itertuples()
    ]
    return f"held-out error {error:.2f}%", [
        f"held out   {len(ranking):,} of {data['samples']:,} samples, {data['labels']} labels: error {error:.2f}%",
        f"suspicious {suspects}",
        *rows,
        f"all        {directory.path / 'ranking.csv'}",
        f"images     {directory.path / 'panels' / 'worst.png'} and {others} more next to it",
    ]


def _describe_sorting(directory: RunDirectory, state: Mapping[str, Any]) -> tuple[str, list[str]]:
    agreement = state.get("agreement")
    text = "trained" if agreement is None else f"nearest neighbours of the same label {agreement:.1f}%"
    return text, [
        f"learned    from {state['data']['samples']:,} images, without labels",
        *([] if agreement is None else [f"neighbours {text.removeprefix('nearest neighbours ')}, own group left out"]),
        f"images     {directory.path / 'panels' / 'neighbours.png'}",
        f"sort by it mlfix sort {assign('network', directory.path)} ...",
    ]


# The command line that Lightning starts further processes with


def _by_our_hydra() -> bool:
    """Returns whether ``mlfix train`` itself runs Hydra, and not a program that calls this package."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    return any(source.path == config_dir() for source in sources)


@contextmanager
def command_line(overrides: Sequence[str]) -> Iterator[None]:
    """Makes ``mlfix train <overrides>`` the command line of this process.

    For a distributed training Lightning starts the command line again, once per process. In a sweep, that would be
    the whole sweep, or what started this worker.
    """
    argv, main = sys.argv, sys.modules["__main__"]
    stand_in = types.ModuleType("__main__")
    stand_in.__spec__ = importlib.machinery.ModuleSpec("mlfix_train.cli.main", None)
    try:
        sys.argv, sys.modules["__main__"] = [argv[0], "train", *overrides], stand_in
        yield
    finally:
        sys.argv, sys.modules["__main__"] = argv, main


def _arguments(hydra: Any) -> list[str]:
    """Returns the command line of the run that Hydra has composed, with the folders of the user's own presets."""
    folders = [one for one in hydra.runtime.config_sources if "command-line" in str(one.provider)]
    places = ",".join(quoted(f"{one.schema}://{one.path}") for one in folders)
    search = [f"hydra.searchpath=[{places}]"] if folders else []
    task: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return ["--config-name", hydra.job.config_name, *search, *task]


@contextmanager
def _without_our_hydra() -> Iterator[None]:
    """Hides our own Hydra from Lightning, which would otherwise start Hydra's rewritten command line."""
    instance = HydraConfig.instance()
    hydra: Any = instance.cfg
    with command_line(_arguments(hydra.hydra)) if _by_our_hydra() else nullcontext():
        try:
            instance.cfg = None if _by_our_hydra() else hydra
            yield
        finally:
            instance.cfg = hydra
