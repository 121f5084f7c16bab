"""`mlfix train -m stop=auto`: a study that is stopped when it is decided, and what is recorded about it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from shapes import draw_shapes

from mlfix_train.cli import sweep as cli_sweep
from mlfix_train.commands.train_stop import StudyWatch
from mlfix_train.config.compose import load
from mlfix_train.config.schemas import to_object
from mlfix_train.config.train import StopConfig, TrainConfig
from mlfix_train.data.runs import FINISHED, RunDirectory, run_path
from mlfix_train.errors import ConfigError, RunError

SHAPES = ("disc", "square", "triangle")
IDS = [f"{label}/{number:03d}.png" for label in SHAPES for number in range(20)]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """The configuration of a study of drawn shapes; the current folder is a new one."""
    monkeypatch.chdir(tmp_path)
    draw_shapes(tmp_path / "shapes", per_label=20)
    (tmp_path / "fixes.csv").write_text(f"sample_id,new_label\n{IDS[0]},invalid\n")
    return load("train", ["data.root=shapes", "fixes.path=fixes.csv", "name=study"])


def finish(cfg: TrainConfig, error: float) -> None:
    """Writes a finished run that predicts this share of its samples wrongly."""
    run = RunDirectory(run_path(cfg.outputs, cfg.name, cfg.arm, cfg.seed))
    rng = np.random.default_rng([cfg.seed, len(cfg.arm)])
    given = np.array([name.split("/")[0] for name in IDS])
    preds = np.where(rng.random(len(IDS)) < error, np.where(given == "disc", "square", "disc"), given)
    run.path.mkdir(parents=True, exist_ok=True)
    rows = {"sample_id": IDS, "split": "val", "label": given, "pred": preds, "loss": rng.random(len(IDS))}
    pd.DataFrame(rows).to_parquet(run.predictions, index=False)
    identity = {"arm": cfg.arm, "seed": cfg.seed, "split": {"fold": None}, "fixes": None}
    run.update(status=FINISHED, config=asdict(cfg), data={}, labels=list(SHAPES), identity=identity)


def planned(base: TrainConfig, seeds: Iterable[int], arms: Iterable[str] = ("original", "fixed")) -> dict[Path, Any]:
    configs = [replace(base, seed=seed, arm=arm) for seed in seeds for arm in arms]
    return {run_path(cfg.outputs, cfg.name, cfg.arm, cfg.seed): cfg for cfg in configs}


def test_a_clear_effect_stops_after_eight_of_twenty_seeds(base: TrainConfig, capsys: Any) -> None:
    runs = planned(base, range(20))
    watch = StudyWatch(runs, StopConfig(auto=True, every=4))
    assert [len(block) for block in watch.blocks] == [8] * 5
    assert {runs[path].seed for path in watch.blocks[1]} == {4, 5, 6, 7}
    decided = []
    for block in watch.blocks[:2]:
        for path in block:
            finish(runs[path], 0.4 if runs[path].arm == "original" else 0.05)
        decided.append(watch.is_decided())
    assert decided == [False, True]
    record = json.loads(Path("outputs/study/looks.json").read_text())
    assert [look["runs"] for look in record["looks"]] == [8] and record["plan"]["max_runs"] == 20
    said = capsys.readouterr().out
    assert "4 seeds of each arm are too few to show anything" in said
    assert "It stopped because an effect is shown; 24 planned runs were saved." in said
    assert "Fixing 1 label made better models" in said and "the page   mlfix compare original=" in said
    assert StudyWatch(runs, StopConfig(auto=True, every=4)).is_decided(), "the same command again stops at once"
    with pytest.raises(RunError, match="begun with another plan"):
        StudyWatch(planned(base, range(40)), StopConfig(auto=True, every=4))


def test_only_a_study_of_both_arms_can_be_looked_at(base: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="the arm fixed is missing") as caught:
        StudyWatch(planned(base, range(8), ("original",)), StopConfig(auto=True))
    assert "sweep=before_after" in caught.value.hint
    with pytest.raises(ConfigError, match="the runs have several names"):
        StudyWatch({**planned(base, [0]), **planned(replace(base, name="b"), [0])}, StopConfig(auto=True))


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"every": 0}, "every=0 is out of range"),
        ({"spending": "pokock"}, "pokock"),
        ({"effect": 0.1}, "no effect alone"),
    ],
)
def test_what_is_wrong_with_the_keys(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        StopConfig(auto="effect" not in section, **section)


def test_a_sweep_trains_block_by_block(base: TrainConfig, mlfix, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(composed: Any) -> float:
        finish(to_object("train", composed), 0.2)
        return 1.0

    monkeypatch.setattr(cli_sweep, "train_composed", train)
    keys = ("data.root=shapes", "fixes.path=fixes.csv", "name=study", "logger=none")
    answer = mlfix("train", "-m", *keys, "arm=original,fixed", "seed=0,1,2", "stop=auto", "stop.every=2")
    assert answer.code == 0, answer.err
    assert json.loads(Path("outputs/study/looks.json").read_text())["looks"][0]["runs"] == 3
    assert "runs: " in answer.out and "unfinished" not in answer.out


def test_a_single_run_is_no_sweep_to_stop(mlfix) -> None:
    answer = mlfix("train", "data.root=shapes", "stop=auto")
    assert answer.code == 2 and "add -m" in answer.err
