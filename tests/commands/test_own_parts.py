"""Parts of a user's own, by `_target_` from modules beside the command: DataModule, optimizer, schedule, scores."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from shapes import FAST, draw_shapes

MINE = '''
import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from mlfix_train.audit.scores.registry import LabelScore
from mlfix_train.data.loading.datamodule import DataModule

seen = []

class Inverted(DataModule):
    """Inverts the images before they are normalized."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        seen.append(int(batch["image"].max()))
        return super().on_after_batch_transfer({**batch, "image": 255 - batch["image"]}, dataloader_idx)

class NotOne:
    def __init__(self, table):
        self.table = table

class NoLabels(L.LightningDataModule):
    def __init__(self, table, seed):
        super().__init__()
        self.table, self.seed = table, seed

class Silent(L.LightningModule):
    """Logs nothing, and returns logits alone."""

    def __init__(self, labels, width=8):
        super().__init__()
        layers = torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, len(labels))
        self.net = torch.nn.Sequential(*layers)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch["image"]), batch["label"])

    def validation_step(self, batch, batch_idx):
        return self.net(batch["image"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)

class Named(Silent):
    def validation_step(self, batch, batch_idx):
        return {"scores": self.net(batch["image"]), "loss": torch.zeros(())}

class NoInit(Silent):
    __init__ = L.LightningModule.__init__

class Fails(Silent):
    def training_step(self, batch, batch_idx):
        raise RuntimeError("my own mistake")

class NoValidation(Silent):
    validation_step = L.LightningModule.validation_step

def not_a_module(labels):
    return torch.nn.Linear(3, len(labels))

def name_length(power=1):
    def compute(evidence):
        return np.array([len(name) ** power for name in evidence.samples["path"]])
    return LabelScore("name_length", compute, True, "Characters of the path.", needs=("samples",))

def clash():
    return LabelScore("loss", lambda evidence: None, True, "A name that is taken.")

def short():
    return LabelScore("short", lambda evidence: np.zeros(3), True, "Three numbers, whatever comes.")

def text():
    return "a score"
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("mine", None)
    (tmp_path / "mine.py").write_text(MINE)
    draw_shapes(tmp_path / "photos", 12)
    return tmp_path


def train(mlfix: Any, *keys: str) -> Any:
    return mlfix("train", "data.root=photos", *FAST, "audit.n_panels=0", "recipe.epochs=1", *keys)


SGD = ("model.optimizer._target_=torch.optim.SGD", "model.optimizer.lr=0.02", "model.optimizer.momentum=0.5")
RUN = Path("outputs/default/original/seed=0")


def test_a_datamodule_of_ones_own(mlfix: Any, project: Path) -> None:
    done = train(mlfix, "datamodule._target_=mine.Inverted")
    assert done.code == 0, done.err
    assert sys.modules["mine"].seen
    identity = json.loads((RUN / "run.json").read_text())["identity"]
    assert identity["datamodule"] == {"_target_": "mine.Inverted"}, "it changes what is learned"


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("mine.NotOne", "lacks labels, held_out, arm, train_dataloader, val_dataloader"),
        ("mine.NoLabels", "lacks labels, held_out, arm"),
        ("mine.Missing", "cannot be imported"),
        ("mine2.Any", "modules are looked up in the installed packages and in"),
    ],
)
def test_a_datamodule_that_does_not_do(mlfix: Any, project: Path, target: str, problem: str) -> None:
    done = train(mlfix, f"datamodule._target_={target}")
    assert done.code == 2
    assert problem in done.err


def test_an_optimizer_and_a_schedule_of_torch(mlfix: Any, project: Path) -> None:
    schedule = "model.scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR"
    done = train(mlfix, *SGD, schedule, "callbacks.keep._target_=lightning.pytorch.callbacks.ModelCheckpoint")
    assert done.code == 0, done.err
    checkpoint = torch.load(next((RUN / "checkpoints").glob("epoch*.ckpt")), weights_only=False)
    (state,) = checkpoint["optimizer_states"]
    assert state["param_groups"][0]["momentum"] == 0.5
    (schedule_state,) = checkpoint["lr_schedulers"]
    assert schedule_state["T_max"] == schedule_state["last_epoch"], "a step per batch, to the end of the training"
    assert schedule_state["base_lrs"] == [0.02]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (["model.optimizer._target_=torch.optim.SDG"], "model.optimizer._target_=torch.optim.SDG cannot be imported"),
        (["model.scheduler._target_=torch.optim.lr_scheduler.StepLR", *SGD], "needs model.scheduler.step_size"),
        (["model.optimizer._target_=torch.optim.SGD", "model.optimizer.rate=1"], "unknown key model.optimizer.rate"),
        (
            ["model.scheduler._target_=torch.optim.lr_scheduler.StepLR", "model.scheduler.step_size=1"],
            "model.optimizer",
        ),
    ],
)
def test_an_optimizer_that_does_not_do(mlfix: Any, project: Path, keys: list[str], problem: str) -> None:
    done = train(mlfix, *keys)
    assert done.code in (1, 2)
    assert problem in done.err


def test_a_module_that_logs_nothing_and_returns_logits(mlfix: Any, project: Path) -> None:
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/mine.yaml").write_text("_target_: mine.Silent\nwidth: 4\n")
    done = train(mlfix, f"hydra.searchpath=[file://{project}/conf]", "model=mine")
    assert done.code == 0, done.err
    metrics = pd.read_csv(RUN / "metrics.csv")
    assert metrics["train_loss"].notna().all(), "the loss that training_step returns is the default metric"
    assert metrics["val_error"].between(0, 100).all()
    table = pd.read_parquet(RUN / "predictions.parquet")
    assert table["label"].isin(["disc", "square", "triangle"]).all()
    named = (f"hydra.searchpath=[file://{project}/conf]", "model=mine", "model._target_=mine.Named", "name=named")
    done = train(mlfix, *named)
    assert done.code == 1
    assert "a dict with scores, loss" in done.err and "set audit.outputs to the key" in done.err
    done = train(mlfix, *named, "audit.outputs=scores")
    assert done.code == 0, done.err


def test_modules_that_do_not_do(mlfix: Any, project: Path) -> None:
    for target, problem in (
        ("not_a_module", "makes a Linear, not a LightningModule"),
        ("NoValidation", "validation_step"),
    ):
        Path("conf/model").mkdir(parents=True, exist_ok=True)
        Path("conf/model/mine.yaml").write_text(f"_target_: mine.{target}\n")
        done = train(mlfix, f"hydra.searchpath=[file://{project}/conf]", "model=mine")
        assert done.code in (1, 2), done.err
        assert problem in done.err
        assert "Traceback" not in done.err


def test_an_argument_that_a_module_without_init_does_not_take(mlfix: Any, project: Path) -> None:
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/mine.yaml").write_text("_target_: mine.NoInit\nwidth: 4\n")
    done = train(mlfix, f"hydra.searchpath=[file://{project}/conf]", "model=mine")
    assert done.code == 2, done.err
    assert "unknown key model.width: mine.NoInit does not take it" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("launcher", ["own", "hydra"])
def test_a_sweep_names_the_run_that_the_users_code_stopped(mlfix: Any, project: Path, launcher: str) -> None:
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/mine.yaml").write_text("_target_: mine.Fails\n")
    by_hydra = ["hydra/launcher=basic"] if launcher == "hydra" else []
    keys = ("-m", *by_hydra, f"hydra.searchpath=[file://{project}/conf]", "model=mine", "seed=0,1", "retries=0")
    done = train(mlfix, *keys)
    assert done.code == 1
    line = MINE.splitlines().index('        raise RuntimeError("my own mistake")') + 1
    for seed in (0, 1):
        path = RUN.with_name(f"seed={seed}")
        place = f"{project}/mine.py, line {line}, not from mlfix-train"
        assert f"{path}: RuntimeError: my own mistake; the error comes from {place}" in done.err
    assert done.err.count('raise RuntimeError("my own mistake")') >= 2, "the lines of the traceback stay"


def predictions() -> None:
    rng = np.random.default_rng(0)
    names = sorted(path.relative_to("photos").as_posix() for path in Path("photos").rglob("*.png"))
    labels = [name.split("/")[0] for name in names]
    loss = rng.random(len(names))
    frame = pd.DataFrame({"sample_id": names, "label": labels, "pred": labels, "loss": loss})
    frame.to_csv("p.csv", index=False)


def test_a_score_of_ones_own_is_a_column_of_ranking_report_and_page(mlfix: Any, project: Path) -> None:
    predictions()
    keys = ("runs=p.csv", "data.root=photos", "out=a", "logger=none", "n_panels=0")
    done = mlfix("audit", *keys, "scores.mine._target_=mine.name_length", "scores.mine.power=2")
    assert done.code == 0, done.err
    ranking = pd.read_csv("a/ranking.csv")
    lengths = {name: len(str(project / "photos" / name)) for name in ranking["sample_id"]}
    short = len(str(project)) + 1  # paths are relative or absolute, as data.root is
    found = dict(zip(ranking["sample_id"], ranking["name_length"], strict=True))
    assert found in ({n: v**2 for n, v in lengths.items()}, {n: (v - short) ** 2 for n, v in lengths.items()})
    assert "name_length" in Path("a/report.html").read_text()
    assert mlfix("audit", *keys).code == 0
    assert "name_length" not in pd.read_csv("a/ranking.csv").columns, "only where it was asked for"


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("mine.clash", "a score named 'loss' exists"),
        ("mine.text", "makes a str, not a LabelScore"),
        ("mine.gone", "cannot be imported"),
        ("mine.short", r"returned the shape (3,) for 36 samples"),
    ],
)
def test_scores_that_do_not_do(mlfix: Any, project: Path, target: str, problem: str) -> None:
    predictions()
    done = mlfix("audit", "runs=p.csv", "out=a", "logger=none", "n_panels=0", f"scores.mine._target_={target}")
    assert done.code in (1, 2)
    assert problem in done.err
