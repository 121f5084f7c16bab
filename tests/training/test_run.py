"""Runs from Python: no configuration, nothing printed, any callback and logger."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.loggers import CSVLogger

from mlfix_train.data.loading.datamodule import DataModule
from mlfix_train.data.loading.spec import LoaderSpec
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import ConfigError, RunError
from mlfix_train.models.classifier import Classifier
from mlfix_train.models.recipes import Recipe
from mlfix_train.training.progress import EpochReport
from mlfix_train.training.run import RunOptions, needs_training, run_path, train_run
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
