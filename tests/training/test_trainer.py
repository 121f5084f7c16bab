"""Any argument of ``lightning.Trainer``, typed as a Lightning user types it."""

from __future__ import annotations

import pickle
from pathlib import Path

import lightning as L
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from shapes import FAST, SORTING, draw_shapes, start

from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import ConfigError
from mlfix_train.training import trainer as trainers
from mlfix_train.training.checkpoints import AtomicCheckpointIO
from mlfix_train.training.trainer import best_precision, build_trainer, check_options, count_processes

CPU = {"accelerator": "cpu", "devices": 1}


def build(tmp_path: Path, options: dict | None = None, **more: object) -> L.Trainer:
    return build_trainer(RunDirectory(tmp_path), 7, {**CPU, **(options or {})}, **more)  # type: ignore[arg-type]


def test_the_defaults_of_a_run(tmp_path: Path) -> None:
    trainer = build(tmp_path)
    assert trainer.max_epochs == 7 and trainer.num_sanity_val_steps == 0 and not trainer.loggers
    assert trainer.default_root_dir == str(tmp_path)
    (checkpoint,) = trainer.checkpoint_callbacks
    assert str(checkpoint.dirpath) == str(tmp_path / "checkpoints")
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    assert not any(isinstance(callback, TQDMProgressBar) for callback in trainer.callbacks)
    assert any(isinstance(one, TQDMProgressBar) for one in build(tmp_path, progress_bar=True).callbacks)


def test_what_is_given_wins(tmp_path: Path) -> None:
    stored = AsyncCheckpointIO()
    mine = ModelCheckpoint(monitor="val/error", dirpath=tmp_path)
    options = {
        "max_epochs": 2,
        "max_steps": 9,
        "num_sanity_val_steps": 1,
        "limit_val_batches": 3,
        "plugins": [stored],
        "callbacks": [mine],
        "default_root_dir": str(tmp_path / "x"),
        "enable_progress_bar": True,
        "precision": "auto",
        "logger": False,
        "profiler": None,
    }
    trainer = build(tmp_path, options)
    assert (trainer.max_epochs, trainer.max_steps, trainer.num_sanity_val_steps) == (2, 9, 1)
    assert trainer.limit_val_batches == 3 and trainer.default_root_dir.endswith("x")
    assert trainer.strategy.checkpoint_io is stored and mine in trainer.callbacks
    assert trainer.precision == ("bf16-mixed" if best_precision("cpu") == "bf16-mixed" else "32-true")
    assert any(isinstance(callback, TQDMProgressBar) for callback in trainer.callbacks)
    assert not build(tmp_path, {"enable_checkpointing": False}).checkpoint_callbacks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"presicion": 16}, "did you mean 'precision'"),
        ({"accelerator": "tpu9"}, "trainer: "),
        ({"use_distributed_sampler": True}, "already divided"),
        ({"max_epochs": -1}, "no end"),
    ],
)
def test_what_the_trainer_cannot_do_is_named(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(tmp_path, options)
    assert message in str(error.value)


def test_no_end_is_fine_where_steps_set_it() -> None:
    assert check_options({"max_epochs": -1, "max_steps": 5, "profiler": None}) == {"max_epochs": -1, "max_steps": 5}


def test_processes_are_counted_as_lightning_counts_them() -> None:
    assert count_processes(CPU) == 1
    assert count_processes({"accelerator": "cpu", "devices": 3, "num_nodes": 2, "strategy": "ddp"}) == 6


def test_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for features, wanted in (
        ({}, "32-true"),
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True}, "bf16-mixed"),
    ):
        monkeypatch.setattr(trainers.torch.cpu, "get_capabilities", lambda features=features: features)
        assert best_precision("cpu") == wanted


# In a training


def rows(tmp_path: Path, name: str) -> pd.DataFrame:
    (run,) = (tmp_path / name).glob("*/seed=0")
    return pd.read_csv(run / "metrics.csv").drop(columns=["seconds", "samples_per_second"])


def test_max_epochs_wins_over_the_recipe(shapes: Path, tmp_path: Path, mlfix) -> None:
    """The one-cycle schedule is that of a recipe with as many epochs, the frozen ones included."""
    keys = ("train", f"data.root={shapes}", f"outputs={tmp_path}", *FAST, "recipe.name=finetune")
    assert mlfix(*keys, "recipe.frozen_epochs=1", "trainer.max_epochs=3", "name=typed").code == 0
    assert mlfix(*keys, "recipe.frozen_epochs=1", "recipe.epochs=2", "name=recipe").code == 0
    pd.testing.assert_frame_equal(rows(tmp_path, "typed"), rows(tmp_path, "recipe"))
    assert mlfix(*keys, "recipe.frozen_epochs=5", "trainer.max_epochs=1", "name=one").code == 0
    assert len(rows(tmp_path, "one")) == 1


@pytest.mark.parametrize(
    ("key", "epochs"),
    [
        ("trainer.max_steps=4", 2),
        ("trainer.limit_train_batches=1", 2),
        ("trainer.limit_val_batches=1", 2),
        ("trainer.fast_dev_run=true", 1),
        ("trainer.enable_checkpointing=false", 2),
        ("trainer.gradient_clip_val=0.5", 2),
        ("trainer.callbacks=[{_target_:lightning.pytorch.callbacks.Timer,duration:'00:01:00:00'}]", 2),
        ("trainer.plugins={_target_:lightning.pytorch.plugins.io.AsyncCheckpointIO}", 2),
        ("trainer.profiler=simple", 2),
    ],
)
def test_arguments_a_lightning_user_types(shapes: Path, tmp_path: Path, mlfix, key: str, epochs: int) -> None:
    answer = mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}", *FAST, key)
    assert answer.code == 0, answer.err
    assert len(rows(tmp_path, "default")) == epochs
    assert RunDirectory(tmp_path / "default/original/seed=0").status == "finished"


def test_an_unknown_argument_leaves_nothing(shapes: Path, tmp_path: Path, mlfix) -> None:
    answer = mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "trainer.max_epocs=1")
    assert answer.code == 2 and "did you mean" in answer.err and "max_epochs" in answer.err
    assert not (tmp_path / "o/default/original/seed=0/run.json").exists()


def test_callbacks_of_lightning_and_of_ones_own(shapes: Path, tmp_path: Path, mlfix, monkeypatch) -> None:
    (tmp_path / "own_callback.py").write_text(
        "import lightning as L\n"
        "class Count(L.Callback):\n"
        "    def __init__(self, path):\n        self.path = path\n"
        "    def on_train_epoch_end(self, trainer, pl_module):\n"
        "        open(self.path, 'a').write('x')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    keys = ("train", f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "recipe.epochs=9")
    mine = ("callbacks.mine._target_=own_callback.Count", f"callbacks.mine.path={tmp_path}/count")
    presets = (
        "callbacks=[early_stopping,checkpoint]",
        "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=100",
    )
    answer = mlfix(*keys, *presets, *mine)
    assert answer.code == 0, answer.err
    epochs = len(rows(tmp_path / "o", "default"))
    assert epochs == 2, "no epoch improves by 100 percent points, so the second one is the last"
    assert (tmp_path / "count").read_text() == "xx"
    assert (tmp_path / "o/default/original/seed=0/checkpoints/best.ckpt").exists()
    answer = mlfix(*keys, "callbacks.mine._target_=own_callback.Cuont", "name=wrong")
    assert answer.code == 2 and "callbacks.mine" in answer.err
    answer = mlfix(*keys, "callbacks=lr_monitor", "name=nowhere")
    assert answer.code == 2 and "LearningRateMonitor" in answer.err


@pytest.mark.parametrize("settings", [FAST, pytest.param(SORTING, marks=pytest.mark.slow)])
def test_a_profile_is_written_and_changes_nothing(
    shapes: Path, tmp_path: Path, mlfix, settings: tuple[str, ...]
) -> None:
    keys = ("train", f"data.root={shapes}", f"outputs={tmp_path}", *settings, "recipe.epochs=1")
    answer = mlfix(*keys, "trainer=profile", "name=profiled")
    assert answer.code == 0, answer.err
    assert mlfix(*keys, "name=plain").code == 0
    (folder,) = tmp_path.glob("profiled/*/seed=0/profile")
    assert "convolution" in (folder / "fit-profile.txt").read_text()
    assert list(folder.glob("*.json")), "the trace"
    pd.testing.assert_frame_equal(rows(tmp_path, "profiled"), rows(tmp_path, "plain"))


def test_what_spawned_processes_get_can_be_pickled(
    shapes: Path, tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PickledError(Exception):
        pass

    def start_processes(function: object, args: list[object], nprocs: int, **_: object) -> None:
        trainer, fit, arguments, options, *_ = args
        raise PickledError(nprocs, len(pickle.dumps((function, trainer, fit, arguments, options))))

    monkeypatch.setattr(torch.multiprocessing, "start_processes", start_processes)
    monkeypatch.setenv("MASTER_PORT", "29400")  # Lightning sets it for good
    keys = (f"data.root={shapes}", f"outputs={tmp_path}", *FAST, "trainer.devices=2", "trainer.strategy=ddp_spawn")
    with pytest.raises(PickledError) as caught:
        mlfix("train", *keys)
    assert caught.value.args[0] == 2


@pytest.mark.slow
def test_processes_may_be_spawned(tmp_path: Path) -> None:
    draw_shapes(tmp_path / "shapes", per_label=12)
    keys = [f"data.root={tmp_path}/shapes", *FAST, "recipe.epochs=1", "loader.batch_size=8"]
    process = start(
        "train", *keys, "trainer.devices=2", "trainer.strategy=ddp_spawn", cwd=tmp_path, OMP_NUM_THREADS="1"
    )
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert len(pd.read_parquet(tmp_path / "outputs/default/original/seed=0/predictions.parquet")) == 6


def test_ddp_is_a_preset_of_trainer_keys() -> None:
    from mlfix_train.config.compose import load

    cfg = load("train", ["data.root=x", "trainer=ddp", "trainer.num_nodes=2"])
    assert (cfg.trainer["strategy"], cfg.trainer["num_nodes"], cfg.trainer["devices"]) == ("ddp", 2, "auto")
    assert cfg.trainer["precision"] == "auto" and torch.__version__


def test_wrong_values_are_named(shapes: Path, tmp_path: Path, mlfix) -> None:
    settings = [entry for entry in FAST if not entry.startswith("trainer.acc")]
    keys = {
        "model.compile=maybe": "model.compile=maybe",
        "model.compile=1": "model.compile=1",
        "runs_per_device=0": "runs_per_device=0",
        "trainer.accelerator=gpu" if not torch.cuda.is_available() else "trainer.accelerator=tpu": "trainer",
    }
    for key, message in keys.items():
        answer = mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}", *settings, key)
        assert answer.code == 2 and message in answer.err and "->" in answer.err, (key, answer.err)
