"""`mlfix train -m stop=auto`: a study that is stopped when it is decided, and what is recorded about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from shapes import draw_shapes

from mlfix_train.cli import sweep as cli_sweep
from mlfix_train.config.schemas import to_object
from mlfix_train.data.runs import FINISHED, RunDirectory, run_path

SHAPES = ("disc", "square", "triangle")


@pytest.fixture
def sweep(tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``sweep(0.1, "seed=range(0,20)")``: a sweep of both arms whose fixed arm has this error, and no training."""
    monkeypatch.chdir(tmp_path)
    root = draw_shapes(tmp_path / "shapes", per_label=20)
    ids = [f"{label}/{number:03d}.png" for label in SHAPES for number in range(20)]
    (tmp_path / "fixes.csv").write_text(f"sample_id,new_label\n{ids[0]},invalid\n")
    error = {"original": 0.4}

    def train(composed: Any) -> float:
        cfg = to_object("train", composed)
        run = RunDirectory(run_path(cfg.outputs, cfg.name, cfg.arm, cfg.seed))
        rng = np.random.default_rng([cfg.seed, len(cfg.arm)])
        given = np.array([name.split("/")[0] for name in ids])
        preds = np.where(rng.random(len(ids)) < error[cfg.arm], "disc", given)
        preds = np.where(
            (preds == "disc") & (given == "disc") & (rng.random(len(ids)) < error[cfg.arm]), "square", preds
        )
        run.path.mkdir(parents=True, exist_ok=True)
        rows = {"sample_id": ids, "split": "val", "label": given, "pred": preds, "loss": rng.random(len(ids))}
        pd.DataFrame(rows).to_parquet(run.predictions, index=False)
        identity = {"arm": cfg.arm, "seed": cfg.seed, "split": {"fold": None}, "fixes": None}
        run.update(status=FINISHED, config=asdict(cfg), data={}, labels=list(SHAPES), identity=identity)
        return 1.0

    monkeypatch.setattr(cli_sweep, "train_composed", train)

    def call(fixed: float, *keys: str) -> Any:
        error["fixed"] = fixed
        base = (f"data.root={root}", "logger=none", f"fixes.path={tmp_path}/fixes.csv", "arm=original,fixed")
        return mlfix("train", "-m", *base, "stop=auto", *keys)

    return call


def finished(folder: Path = Path("outputs/default")) -> int:
    return len(list(folder.glob("*/seed=*/run.json")))


def test_a_clear_effect_stops_after_eight_of_twenty_seeds(sweep, mlfix) -> None:
    answer = sweep(0.05, "seed=range(0,20)")
    assert answer.code == 0, answer.err
    assert finished() == 16
    record = json.loads(Path("outputs/default/looks.json").read_text())
    assert [look["runs"] for look in record["looks"]] == [4, 8] and record["plan"]["max_runs"] == 20
    assert "It stopped because an effect is shown; 24 planned runs were saved." in answer.out
    assert "16 runs: 16 finished" in answer.out and "unfinished" not in answer.out
    arms = [f"{arm}=outputs/default/{arm}" for arm in ("original", "fixed")]
    assert mlfix("compare", *arms, "fixes.path=fixes.csv", "logger=none", "resamples=500").code == 0
    summary = json.loads(Path("compare/summary.json").read_text())
    assert summary["verdict"] == "better" and summary["looks"]["decision"] == "shown"
    assert summary["slices"]["all"]["effect"]["p_value"] == 2 / 256 and summary["headline"] in answer.out
    again = sweep(0.05, "seed=range(0,20)")
    assert again.code == 0 and finished() == 16, "the same command again trains nothing more"
    other = sweep(0.05, "seed=range(0,40)")
    assert other.code == 1 and "begun with another plan" in other.err and "max_runs: 20 -> 40" in other.err


def test_no_effect_worth_having_is_given_up(sweep) -> None:
    answer = sweep(0.4, "seed=range(0,12)", "stop.effect=0.01", "stop.spending=obrien_fleming")
    assert answer.code == 0, answer.err
    assert answer.out.count("Not shown") >= 1 and finished() >= 8
    assert "could hardly show" in answer.out or "All planned runs are there" in answer.out


@pytest.mark.parametrize(
    ("keys", "problem", "hint"),
    [
        (("seed=0,1", "arm=original"), "the arm fixed is missing", "sweep=before_after"),
        (("seed=0,1", "name=a,b"), "the runs have several names", "one name"),
        (("seed=0,1", "stop.every=1"), "stop.every=1 is out of range", "2"),
        (("seed=0,1", "stop.spending=pokock"), "stop.spending=pokock", "pocock"),
    ],
)
def test_what_cant_be_looked_at_is_refused(sweep, keys: tuple[str, ...], problem: str, hint: str) -> None:
    answer = sweep(0.1, *keys)
    assert answer.code == 2 and problem in answer.err and hint in answer.err, answer.err
    assert finished() == 0
