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

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False, timeout=600
        )

    def mlfix(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "mlfix_train.cli.main", *arguments)

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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "messages"),
    [
        (
            ("model._target_=icons.modle.IconNet",),
            ("model._target_=icons.modle.IconNet cannot be imported", "{folder}"),
        ),
        (("model.widht=3",), ("unknown key model.widht", "did you mean 'width'")),
        (("callbacks.mine._target_=icons.callbacks.EpochTimse",), ("callbacks.mine", "cannot be imported", "{folder}")),
        (("datamodule._target_=icons.data.IconDataset",), ("datamodule", "IconDataset")),
        (("model._target_=icons.data.IconDataset",), ("model", "IconDataset")),
    ],
    ids=["no module", "no argument", "no class", "not a DataModule", "not a module"],
)
def test_mistakes_are_named(project: Project, keys: tuple[str, ...], messages: tuple[str, ...]) -> None:
    done = project.mlfix("train", "--config-dir", "conf", "experiment=icons", "name=wrong", *keys)
    assert done.returncode == 2, done.stderr
    for message in messages:
        assert message.format(folder=project.folder) in done.stderr
