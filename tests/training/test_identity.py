"""The identity of a run, from both sides: what must change it, and what must not."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from shapes import FAST, SORTING

from mlfix_train.config.compose import load
from mlfix_train.data.runs import RunDirectory
from mlfix_train.training.identity import OBSERVERS, UNLEARNED, effective_batch_size, learning_callbacks, run_identity


def identity(shapes: Path, *keys: str, settings: tuple[str, ...] = FAST) -> dict[str, Any]:
    from mlfix_train.commands.train import build_options, build_task

    cfg = load("train", [f"data.root={shapes}", f"outputs={shapes.parent}/o", *settings, *keys])
    return dict(build_options(cfg, RunDirectory(shapes.parent / "run"), build_task(cfg)).identity)


@pytest.mark.parametrize(
    "keys",
    [
        ("seed=1",),
        ("recipe.lr=0.5",),
        ("recipe.epochs=7",),
        ("model.head=concat_pool",),
        ("loader.batch_size=8",),
        ("loader.sampling=shuffled",),
        ("augment.blur=0.5",),
        ("augment.enabled=false",),
        ("split.fraction=0.3",),
        ("pixels.size=24",),
        ("pixels.aspect=pad",),
        ("trainer.precision=bf16-mixed",),
        ("trainer.max_epochs=1",),
        ("trainer.limit_train_batches=2",),
        ("trainer.limit_val_batches=1",),
        ("trainer.gradient_clip_val=1.0",),
        ("trainer.accumulate_grad_batches=2",),
        ("trainer.devices=2",),
        ("trainer.devices=2", "trainer.strategy=ddp"),
        ("trainer.num_nodes=2", "trainer.strategy=ddp"),
        ("callbacks=early_stopping",),
        ("callbacks.mine._target_=lightning.pytorch.callbacks.StochasticWeightAveraging", "callbacks.mine.swa_lrs=0.1"),
    ],
    ids=str,
)
def test_what_changes_the_learning_changes_the_identity(shapes: Path, keys: tuple[str, ...]) -> None:
    assert identity(shapes, *keys) != identity(shapes)


@pytest.mark.parametrize(
    "keys",
    [
        ("model.compile=true",),
        ("model.channels_last=false",),
        ("trainer.benchmark=true",),
        ("trainer.deterministic=true",),
        ("trainer.log_every_n_steps=1",),
        ("trainer.check_val_every_n_epoch=2",),
        ("trainer.enable_progress_bar=true",),
        ("trainer=profile",),
        ("trainer.strategy=ddp",),
        ("trainer.devices=2", "trainer.strategy=ddp", "loader.batch_size=8"),
        ("trainer.accumulate_grad_batches=2", "loader.batch_size=8"),
        ("trainer.precision=32-true",),
        ("loader.workers=1",),
        ("loader.eval_batch_size=4",),
        ("pixels.max_unreadable=0.3",),
        ("audit.n_panels=1",),
        ("logger=csv",),
        ("callbacks=[lr_monitor,checkpoint]",),
        ("views.crop=0.5",),
        ("jobs=2", "runs_per_device=2", "retries=3", "report=line"),
    ],
    ids=str,
)
def test_what_changes_only_speed_or_logs_leaves_the_identity(shapes: Path, keys: tuple[str, ...]) -> None:
    assert identity(shapes, *keys) == identity(shapes)


def test_a_sorting_networks_views_count_and_its_split_does_not(shapes: Path) -> None:
    before = identity(shapes, settings=SORTING)
    assert identity(shapes, "views.crop=0.5", settings=SORTING) != before
    assert identity(shapes, "split.fraction=0.5", "augment.blur=1.0", settings=SORTING) == before


def test_one_process_and_two_are_not_the_same_run(shapes: Path, tmp_path: Path, mlfix) -> None:
    """``loader.batch_size`` is per process: two processes learn from batches of twice the size."""
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "recipe.epochs=1")
    assert mlfix("train", *keys).code == 0
    answer = mlfix("train", *keys, "trainer.devices=2", "trainer.strategy=ddp")
    assert answer.code == 1 and "effective_batch_size: 16 -> 32" in answer.err
    answer = mlfix("train", *keys, "model.compile=true", "model.channels_last=false", "trainer.benchmark=true")
    assert answer.code == 0 and "already finished, skipped" in answer.out


def test_the_effective_batch_is_that_of_an_optimizer_step() -> None:
    assert effective_batch_size(16, processes=4, accumulate_grad_batches=3) == 192


def test_the_tables_name_real_arguments_and_callbacks() -> None:
    from lightning.pytorch import callbacks

    assert UNLEARNED["trainer"] <= set(inspect.signature(L.Trainer.__init__).parameters)
    assert all(hasattr(callbacks, name) for name in OBSERVERS)


def test_callbacks_count_unless_they_only_watch() -> None:
    stopping, monitor = {"_target_": "a.b.EarlyStopping"}, {"_target_": "x.LearningRateMonitor"}
    assert learning_callbacks({"one": monitor, "two": stopping, "three": None}) == [stopping]
    assert learning_callbacks(monitor) == [] and learning_callbacks(None) == []
    settings = {
        "seed": 0,
        "model": {},
        "recipe": {},
        "pixels": {"size": 8, "aspect": "pad"},
        "callbacks": {},
        "loader": {"batch_size": 4},
        "trainer": {"callbacks": [stopping, monitor]},
    }
    assert run_identity(settings, 2, {})["callbacks"] == [stopping]
    assert run_identity(settings, 2, {})["effective_batch_size"] == 8


def test_settings_that_did_not_exist_leave_old_runs_as_they_were(shapes: Path) -> None:
    augment = identity(shapes, "augment=signs")["augment"]
    assert sorted(augment) == ["blur", "enabled", "lighting", "p_affine", "p_lighting", "rotate", "warp", "zoom"]
    assert identity(shapes, "augment=photo")["augment"]["flip"] == 0.5
