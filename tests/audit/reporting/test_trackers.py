"""What an audit logs to W&B, TensorBoard and MLflow, read back by their own readers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image

from mlfix_train.audit.reporting import trackers as module
from mlfix_train.audit.reporting.pictures import Picture
from mlfix_train.audit.reporting.trackers import MlflowTracker, TensorBoardTracker, find_trackers, register_tracker
from mlfix_train.audit.reporting.wandb import WandbTracker


class WandbLogger:
    def __init__(self, experiment: Any) -> None:
        self.experiment = experiment


class Strict:
    @property
    def experiment(self) -> Any:
        pytest.fail("a logger without a tracker may not be touched")


@pytest.fixture
def picture(tmp_path: Path) -> Picture:
    path = tmp_path / "panel.png"
    Image.new("RGB", (20, 10), (255, 0, 0)).save(path)
    return Picture("audit/most suspicious", path, "the 3 most suspicious")


def log_everything(tracker: Any, picture: Picture, folder: Path) -> None:
    page, table = folder / "report.html", folder / "ranking.csv"
    page.write_text("<p>page</p>")
    table.write_text("rank\n1\n")
    tracker.log_pictures([picture])
    thumbnail = np.zeros((4, 4, 3), np.uint8)
    tracker.log_table(
        "audit/ranking", ["image", "given", "loss"], [[thumbnail, "a|b", 0.123456], [thumbnail, "c", 2.0]]
    )
    tracker.log_page("audit/page", page)
    tracker.log_summary({"audit/wrong": 12.5, "headline": "shown"})
    tracker.log_artifact("audit-x", "audit", [table], {"ranked": 3})


def test_loggers_without_a_tracker_are_left_alone(tmp_path: Path) -> None:
    run = SimpleNamespace(log_artifact=print)
    assert find_trackers([]) == []
    assert find_trackers([Strict(), CSVLogger(tmp_path)]) == []
    found = find_trackers([Strict(), WandbLogger(run), CSVLogger(tmp_path), TensorBoardLogger(tmp_path)])
    assert [type(one) for one in found] == [WandbTracker, TensorBoardTracker]
    assert found[0].run is run  # type: ignore[attr-defined]
    assert find_trackers([WandbLogger(SimpleNamespace())]) == [], "other ranks have a dummy, not a run"


def test_a_tracker_of_ones_own_is_found_by_its_loggers_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_trackers", dict(module._trackers))

    class MyLogger:
        pass

    class MyLoggerWithExtras(MyLogger):
        pass

    register_tracker("MyLogger", lambda logger: ("tracker of", logger))  # type: ignore[arg-type,return-value]
    logger = MyLoggerWithExtras()
    assert find_trackers([logger]) == [("tracker of", logger)]


def test_tensorboard(picture: Picture, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="tb", version="")
    log_everything(find_trackers([logger])[0], picture, tmp_path)
    logger.experiment.flush()
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert events.Tags()["images"] == ["audit/most suspicious"]
    image = events.Images("audit/most suspicious")[0]
    assert (image.width, image.height) == (20, 10)
    assert events.Scalars("audit/wrong")[0].value == 12.5
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert texts["audit/ranking/text_summary"].splitlines() == [
        "| given | loss |",
        "| --- | --- |",
        "| a\\|b | 0.1235 |",
        "| c | 2 |",
    ]
    assert texts["headline/text_summary"] == "shown"
    assert "the 3 most suspicious" in texts["audit/most suspicious/caption/text_summary"]


def test_mlflow(picture: Picture, tmp_path: Path) -> None:
    """The calls of MLflow's client, recorded; that it has these methods is checked where it is installed."""
    real = importlib.import_module("mlflow").MlflowClient if importlib.util.find_spec("mlflow") else None
    calls: list[tuple[str, tuple[Any, ...]]] = []

    class Client:
        def __getattr__(self, name: str) -> Any:
            assert real is None or hasattr(real, name), f"MLflow has no {name}"
            return lambda *arguments: calls.append((name, arguments))

    logger = SimpleNamespace(experiment=Client(), run_id="r1", name="study")
    log_everything(MlflowTracker(logger), picture, tmp_path)
    assert [name for name, _ in calls] == [
        *("log_image", "log_text", "log_artifact", "log_metric", "set_tag", "log_artifact", "log_dict"),
    ]
    found = dict(calls[:2])
    assert found["log_image"][2] == "audit/most suspicious.png"
    assert found["log_text"][1:] == (
        "| given | loss |\n| --- | --- |\n| a\\|b | 0.1235 |\n| c | 2 |",
        "audit/ranking.md",
    )
    assert calls[-2][1] == ("r1", str(tmp_path / "ranking.csv"), "audit/audit-x")
