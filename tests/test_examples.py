"""``examples/own_project`` runs outside of the checkout on the installed wheel, and so do the user's mistakes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from shapes import REPO

NO_CHECKOUT = """
import os, sys
site = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [p for p in sys.path if p == site or not os.path.isfile(os.path.join(p, "mlfix_train", "__init__.py"))]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
"""
"""Runs when Python starts: the only mlfix_train that can be imported is the installed one."""


@dataclass
class Project:
    """A copy of the example, its results, and how to run Python in it."""

    folder: Path
    env: dict[str, str]

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        options = {"cwd": self.folder, "env": self.env, "input": stdin, "timeout": 900}
        return subprocess.run(arguments, capture_output=True, text=True, check=False, **options)

    def wrong(self) -> set[str]:
        """Returns the pictures with planted errors."""
        truth = pd.read_csv(self.folder / "truth.csv", index_col="sample_id")["label"]
        names = ["sample_id", "label"]
        given = pd.read_csv(self.folder / "pictures/labels.tsv", sep="\t", names=names, index_col="sample_id")["label"]
        return set(given.index[given != truth.loc[given.index]])

    def logged(self, pattern: str) -> list[dict[str, object]]:
        return [json.loads(line) for file in self.folder.glob(pattern) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def project(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The example after train_with_lightning.py and loop.sh."""
    site, folder = wheel.parent / "site", tmp_path_factory.mktemp("outside") / "own_project"
    (site / "sitecustomize.py").write_text(NO_CHECKOUT)
    shutil.copytree(REPO / "examples/own_project", folder)
    env = {**os.environ, "PYTHONPATH": str(site), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    project = Project(folder, {**env, "WANDB_MODE": "offline"})
    done = project.run(sys.executable, "-c", "import mlfix_train; print(mlfix_train.__file__)")
    assert Path(done.stdout.strip()).is_relative_to(site), done.stdout + done.stderr
    for command in ((sys.executable, "draw_images.py"), (sys.executable, "train_with_lightning.py"), ("./loop.sh",)):
        done = project.run(*command)
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return project


@pytest.mark.slow
def test_planted_errors_are_found_by_both_ways(project: Project) -> None:
    wrong = project.wrong()
    assert len(wrong) == 32
    for audit, least in (("audit", 0.85), ("audit-lightning", 0.75)):
        ranking = pd.read_csv(project.folder / audit / "ranking.csv")
        assert len(ranking) == 320
        found = len(wrong & set(ranking["sample_id"].head(50)))
        assert found >= least * len(wrong), f"{audit}: {found} of {len(wrong)}"
        assert (project.folder / audit / "panels/worst.png").exists(), "the images came through the project's reader"
    fixes = pd.read_csv(project.folder / "fixes.csv")
    assert set(fixes["sample_id"]) <= wrong
    effect = json.loads((project.folder / "comparison/summary.json").read_text())["slices"]["all"]["effect"]
    assert effect["total"] > 0


@pytest.mark.slow
def test_the_lines_for_the_audit_are_three(project: Project) -> None:
    script = (project.folder / "train_with_lightning.py").read_text().splitlines()
    lines = [line for line in script if line.endswith("# audit")]
    assert len(lines) == 3
    assert all("udit" not in line for line in script[8:] if line not in lines)
    folds = [pd.read_parquet(file) for file in sorted(project.folder.glob("lightning/fold-*/predictions.parquet"))]
    assert len(folds) == 3 and len(set(pd.concat(folds)["sample_id"])) == 320
    assert len(list(project.folder.glob("lightning/fold-*/report.html"))) == 3


@pytest.mark.slow
def test_all_own_parts_were_used(project: Project) -> None:
    runs = "outputs/folds/original/seed=0,fold=*"
    times = [file.read_text().splitlines() for file in project.folder.glob(f"{runs}/checkpoints/epoch_times.txt")]
    assert [len(lines) for lines in times] == [10, 10, 10], "callback"
    assert any("train/loss" in line for line in project.logged(f"{runs}/log.jsonl")), "logger"
    assert any(line.get("table") == "audit/ranking" for line in project.logged(f"{runs}/log.jsonl")), "tracker"
    assert list(project.folder.glob(f"{runs}/csv/metrics.csv")), "a second logger beside it"
    assert json.loads((project.folder / "order/sort.json").read_text())["used"] == "brightness map", "embedder"
    assert pd.read_csv(project.folder / "audit/ranking.csv")["ink_oddity"].between(0, 1).all(), "score"
    assert pd.read_csv(project.folder / "audit-lightning/ranking.csv")["ink_oddity"].notna().all(), "score"
    assert "ink_oddity" in (project.folder / "audit/report.html").read_text(), "score on the page"
    config = json.loads(next(project.folder.glob(f"{runs}/run.json")).read_text())["config"]
    assert config["data"]["_target_"] == "icons.data.read_icons", "reader"
    assert config["model"]["optimizer"]["_target_"] == "icons.optimizer.SignDescent", "optimizer"
    rates = pd.read_csv(next(project.folder.glob(f"{runs}/metrics.csv")))["lr"]
    assert rates.iloc[0] == pytest.approx(1.8e-3) and rates.iloc[-1] == pytest.approx(0, abs=1e-12), "linear schedule"
    assert config["datamodule"]["_target_"] == "icons.data.MirroringDataModule", "DataModule"


BROKEN = """
import lightning as L


class NoSteps(L.LightningModule):
    def __init__(self, labels):
        super().__init__()

    def training_step(self, batch, batch_idx):
        return self.net(batch["image"]).sum()


class NoTable(L.LightningDataModule):
    labels = ()


def returns_a_dict(root, file):
    return {"a.png": "cat"}


def fails(root, file):
    raise ValueError("line 3 of labels.tsv has no tab")
"""
"""Parts that lack something."""
RUN_ALL = """
import contextlib, io, json, os, sys
from mlfix_train.cli.main import run_safely

answers = []
for keys in json.load(sys.stdin):
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = run_safely(keys[0], ["--config-dir", "conf", *keys[1:]])
    answers.append([code, err.getvalue()])
print(json.dumps(answers))
"""
"""Runs many commands in one process, since starting Python takes longer than the mistakes do."""
TRAIN = ("train", "experiment=icons", "name=wrong")
MISTAKES: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    "no module": (
        (*TRAIN, "model._target_=icons.modle.IconNet"),
        2,
        ("model._target_=icons.modle.IconNet cannot be imported", "{folder}"),
    ),
    "no class": (
        (*TRAIN, "callbacks.mine._target_=icons.callbacks.EpochTimse"),
        2,
        ("callbacks.mine._target_=icons.callbacks.EpochTimse cannot be imported", "{folder}"),
    ),
    "no optimizer": (
        (*TRAIN, "model.optimizer._target_=icons.optimizer.SignDecent"),
        2,
        ("model.optimizer._target_=icons.optimizer.SignDecent cannot be imported", "{folder}"),
    ),
    "an argument": ((*TRAIN, "model.widht=3"), 2, ("unknown key model.widht", "did you mean 'width'")),
    "an argument of the optimizer": (
        (*TRAIN, "model.optimizer.momentun=0"),
        2,
        ("unknown key model.optimizer.momentun", "did you mean 'momentum'"),
    ),
    "a model without these keys": (
        (*TRAIN, "model._target_=broken.NoSteps", "~model.width"),
        2,
        ("unknown key model.optimizer: broken.NoSteps does not take it",),
    ),
    "a DataModule without a table": (
        (*TRAIN, "datamodule={_target_:broken.NoTable}"),
        2,
        ("datamodule._target_=broken.NoTable lacks table, held_out, arm",),
    ),
    "a reader without a table": (
        (*TRAIN, "data._target_=broken.returns_a_dict"),
        2,
        ("data._target_=broken.returns_a_dict returned a dict", "make_table"),
    ),
    "a reader that fails": (
        (*TRAIN, "data._target_=broken.fails"),
        1,
        ("line 3 of labels.tsv has no tab", "comes from {folder}/broken.py, line", "not from mlfix-train"),
    ),
    "no callback": (
        (*TRAIN, "callbacks.mine._target_=icons.logger.JsonLinesLogger"),
        2,
        ("callbacks.mine._target_=icons.logger.JsonLinesLogger makes a JsonLinesLogger, not a Callback",),
    ),
    "no logger": (
        (*TRAIN, "logger.mine._target_=icons.callbacks.EpochTimes"),
        2,
        ("logger.mine._target_=icons.callbacks.EpochTimes makes a EpochTimes, not a Logger",),
    ),
    "an embedder without methods": (
        ("sort", "data=icons", "embedder._target_=icons.callbacks.EpochTimes", "out=wrong"),
        2,
        ("embedder: EpochTimes has no name", "features, project", "TorchEmbedder"),
    ),
    "no score": (
        ("audit", "runs=outputs/folds", "scores.x._target_=icons.callbacks.EpochTimes", "out=wrong"),
        2,
        ("scores.x._target_=icons.callbacks.EpochTimes makes a EpochTimes, not a LabelScore",),
    ),
}
"""Name of a mistake: the command, its exit code, and what it says."""


@pytest.mark.slow
def test_mistakes_are_named(project: Project) -> None:
    (project.folder / "broken.py").write_text(BROKEN)
    commands = json.dumps([keys for keys, _, _ in MISTAKES.values()])
    done = project.run(sys.executable, "-c", RUN_ALL, stdin=commands)
    answers = json.loads(done.stdout)
    for (name, (_, code, messages)), answer in zip(MISTAKES.items(), answers, strict=True):
        assert answer[0] == code, f"{name}: {answer[1]}"
        for message in messages:
            assert message.format(folder=project.folder) in answer[1], name
