"""Runs from Python: no configuration, nothing printed, any callback and logger."""

from __future__ import annotations

import errno
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from mlfix_train.data.loading.datamodule import DataModule
from mlfix_train.data.loading.spec import LoaderSpec
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.data.runs import RunDirectory, run_path
from mlfix_train.errors import ConfigError, RunError
from mlfix_train.models.classifier import Classifier
from mlfix_train.models.recipes import Recipe
from mlfix_train.training.progress import EpochReport
from mlfix_train.training.run import RunOptions, needs_training, train_run
from mlfix_train.training.signals import RunInterrupted
from mlfix_train.training.tasks.classifier import ClassifierTask

RECIPE = Recipe(name="scratch", epochs=2, frozen_epochs=0, lr=0.01)
CPU = {"accelerator": "cpu", "devices": 1}


@pytest.fixture
def task(shapes: Path) -> ClassifierTask:
    table = read_folder(shapes)
    held_out = np.arange(len(table)) % 5 == 0
    loader, cache = LoaderSpec(batch_size=16), shapes.parent / "cache"
    data = DataModule(table, held_out, cache, pixels=PixelSpec(size=16), loader=loader)
    return ClassifierTask(data, lambda labels: Classifier(labels, "mlfix_small", RECIPE, head="linear"))


def test_a_run_from_python(task: ClassifierTask, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = RunDirectory(run_path(tmp_path, "study", "fixed", seed=3, fold=1))
    assert directory.path == tmp_path / "study/fixed/seed=3,fold=1"
    reports: list[EpochReport] = []
    states: list[dict] = []

    def loggers(state: dict) -> list[CSVLogger]:
        states.append(state)
        return [CSVLogger(directory.path, "log", "")]

    options = RunOptions(epochs=2, trainer=CPU, identity={"lr": 1}, build_loggers=loggers, on_epoch=reports.append)
    assert train_run(directory, task, options)
    assert capfd.readouterr().out == ""
    state = directory.read()
    assert state["status"] == "finished" and state["identity"] == {"lr": 1} and 0 <= state["held_out_error"] <= 100
    assert len(pd.read_parquet(directory.predictions)) == 15
    assert [report.row["epoch"] for report in reports] == [0, 1] and reports[-1].seconds_left == 0
    assert (directory.path / "log/metrics.csv").exists() and states[0]["wandb_id"] == state["wandb_id"]
    assert not train_run(directory, task, options), "it is finished"
    assert len(states) == 1, "no logger is built for a run that is skipped"


def test_another_identity_is_refused_once_something_was_learned(task: ClassifierTask, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    old, new = RunOptions(epochs=1, identity={"lr": 1}), RunOptions(epochs=1, identity={"lr": 2})
    assert needs_training(directory, task, new)
    directory.path.mkdir()
    directory.update(status="failed", identity=old.identity)
    assert needs_training(directory, task, new), "nothing was learned yet"
    directory.checkpoint.parent.mkdir()
    directory.checkpoint.touch()
    with pytest.raises(RunError, match=r"contains a run with other settings \(failed\)") as error:
        needs_training(directory, task, new)
    assert error.value.details == ("lr: 1 -> 2",)
    assert needs_training(directory, task, old)
    assert needs_training(directory, task, RunOptions(epochs=1, identity={"lr": 2}, overwrite=True))


def test_what_is_kept_is_checked() -> None:
    with pytest.raises(ConfigError, match="keep=everything"):
        RunOptions(epochs=1, keep="everything")


# Signals


class SendSignal(L.Callback):
    """Sends this process signals, once, at the second batch of an epoch."""

    def __init__(self, epoch: int, *signums: int) -> None:
        self.epoch, self.signums = epoch, list(signums)

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        while self.signums and trainer.current_epoch == self.epoch and batch_idx == 1:
            signal.raise_signal(self.signums.pop())


@pytest.fixture
def slurm(scontrol: Path, pythons_handlers: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of a SLURM job; returns the file with the arguments of calls of ``scontrol``."""
    job = {"NTASKS": "1", "JOB_NAME": "train", "JOB_ID": "42", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in (job | {"NODELIST": "localhost"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return scontrol


def test_a_run_preempted_again_and_again_ends_as_if_nothing_had_happened(
    task: ClassifierTask, tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the first epoch, within a later one, while a checkpoint is saved, and killed while it is renamed."""
    whole, cut = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "cut")
    options = RunOptions(epochs=3, trainer=CPU, build_loggers=lambda state: [CSVLogger(cut.path, "log", "")])
    assert train_run(whole, task, RunOptions(epochs=3, trainer=CPU))
    cut.path.mkdir()
    for folder in (cut.path, cut.path / "checkpoints"):
        folder.mkdir(exist_ok=True)
        (folder / ".mlfix-0123.tmp").write_bytes(b"half of a checkpoint, from a run that was killed")
    (cut.path / "hpc_ckpt_1.ckpt").write_bytes(b"Lightning's, of the middle of an epoch")

    def end(signum: int, epochs: int, requeued: int, callback: SendSignal | None = None) -> None:
        with pytest.raises(RunInterrupted) as error:
            train_run(cut, task, replace(options, callbacks=[callback] if callback else []))
        state = cut.read()
        assert (error.value.signum, state["status"], state["job"]) == (signum, "interrupted", "42")
        assert cut.checkpoint.exists() == (epochs > 0)
        assert (slurm.read_text() if slurm.exists() else "") == "requeue 42\n" * requeued
        assert not list(cut.path.rglob("hpc_ckpt*")) and not list(cut.path.rglob(".*.tmp"))

    end(signal.SIGUSR1, 0, 1, SendSignal(0, signal.SIGUSR1))
    end(signal.SIGTERM, 1, 1, SendSignal(1, signal.SIGTERM, signal.SIGTERM))
    with monkeypatch.context() as patch:
        patch.setattr("mlfix_train.training.checkpoints.os.fsync", lambda _: signal.raise_signal(signal.SIGUSR2))
        end(signal.SIGUSR2, 2, 2)
    assert torch.load(cut.checkpoint, weights_only=True)["epoch"] == 1
    end(signal.SIGINT, 2, 2, SendSignal(2, signal.SIGINT, signal.SIGINT))
    assert train_run(cut, task, options) and cut.status == "finished" and not cut.checkpoint.exists()
    pd.testing.assert_frame_equal(pd.read_parquet(cut.predictions), pd.read_parquet(whole.predictions))
    rows = pd.read_csv(cut.path / "log/metrics.csv")
    assert rows.dropna(subset="val/error")["epoch"].tolist() == [0, 1, 2], "lost or doubled"
    assert rows.dropna(subset="train/loss")["epoch"].tolist() == [0, 1, 2], "lost or doubled"


def test_overwriting_starts_at_the_first_epoch_whatever_lies_there(
    task: ClassifierTask, tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under SLURM, with a checkpoint of Lightning's, of another run, in the Trainer's root folder."""
    run, elsewhere = RunDirectory(tmp_path / "run"), tmp_path / "elsewhere"
    epochs: list[int] = []
    options = RunOptions(epochs=2, trainer=CPU, on_epoch=lambda report: epochs.append(report.row["epoch"]))
    elsewhere.mkdir()
    with pytest.raises(RunInterrupted):
        train_run(run, task, replace(options, callbacks=[SendSignal(1, signal.SIGUSR1)]))
    shutil.copy(run.checkpoint, elsewhere / "hpc_ckpt_1.ckpt")
    anew = replace(options, overwrite=True, trainer={**CPU, "default_root_dir": elsewhere})
    with pytest.raises(RunInterrupted):
        train_run(run, task, replace(anew, callbacks=[SendSignal(1, signal.SIGUSR1)]))
    assert epochs == [0, 0] and (elsewhere / "hpc_ckpt_1.ckpt").exists()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert train_run(run, task, anew), "the requeued job goes on with the run that it has overwritten"
    assert epochs == [0, 0, 1]
    assert not train_run(run, task, anew), "and leaves it alone once it is finished"
    monkeypatch.setenv("SLURM_JOB_ID", "43")
    with monkeypatch.context() as patch:
        patch.setattr("mlfix_train.training.run._remove_outputs", lambda _: signal.raise_signal(signal.SIGTERM))
        patch.setattr("mlfix_train.training.run.keep_weights", lambda *_: None)
        with pytest.raises(RunInterrupted):
            train_run(run, task, anew)
    shutil.copy(elsewhere / "hpc_ckpt_1.ckpt", run.checkpoint)
    assert train_run(run, task, options), "what was to be overwritten is not resumed"
    assert epochs == [0, 0, 1, 0, 1]


def test_a_disk_that_stays_full_hides_nothing(task: ClassifierTask, tmp_path: Path, caplog, monkeypatch) -> None:
    """``run.json`` can't be written either; what is said is what went wrong first."""
    run = RunDirectory(tmp_path / "run")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    class FillDisk(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            if trainer.current_epoch == 1:
                monkeypatch.setattr("mlfix_train.training.checkpoints.os.fsync", full)
                monkeypatch.setattr("mlfix_train.data.runs.write_json", full)

    with monkeypatch.context(), pytest.raises(RunError, match=r"last.ckpt can't be saved: No space .* one is kept"):
        train_run(run, task, RunOptions(epochs=3, trainer=CPU, callbacks=[FillDisk()]))
    assert "run.json can't be updated: [Errno 28] No space left" in caplog.text
    assert torch.load(run.checkpoint, weights_only=True)["epoch"] == 0
