"""Predictions averaged over runs; against a loop in tests/audit/scores/test_ranking.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.predictions.held_out import merge_runs
from mlfix_train.errors import RunError

Predictions = Callable[..., pd.DataFrame]


def test_the_mean_predicted_probability_is_over_the_runs_that_state_one(predictions: Predictions) -> None:
    first, second = predictions(seed=0), predictions(seed=0)
    second["prob"] = second["prob"] / 2
    bare = first.drop(columns="prob")
    alone = merge_runs([first]).scores["predicted_prob"]
    np.testing.assert_allclose(merge_runs([first, bare]).scores["predicted_prob"], alone, rtol=1e-6)
    np.testing.assert_allclose(merge_runs([bare, second, first]).scores["predicted_prob"], 0.75 * alone, rtol=1e-6)
    assert np.isnan(merge_runs([bare, bare]).scores["predicted_prob"]).all()


def test_a_run_without_probabilities_neither_wins_nor_loses_a_tie() -> None:
    def run(pred: str, **columns: float) -> pd.DataFrame:
        return pd.DataFrame([{"sample_id": "s", "label": "a", "pred": pred, "loss": 1.0, **columns}])

    sure, half_sure = [run("b", prob=0.9), run("b")], [run("c", prob=0.5), run("c", prob=0.6)]
    for runs in (sure + half_sure, half_sure + sure):
        held = merge_runs(runs)
        assert held.class_names[held.predicted[0]] == "b", "0.9 on the mean is surer than 0.55"


def test_margins_are_missing_unless_all_runs_have_them(predictions: Predictions) -> None:
    held = merge_runs([predictions(), predictions(seed=1).drop(columns="margin")])
    assert np.isnan(held.scores["margin"]).all() and np.isnan(held.scores["normalized_margin"]).all()
    assert np.isfinite(held.scores["one_minus_margin"]).all()


def test_rows_are_found_by_sample_id(predictions: Predictions) -> None:
    held = merge_runs([predictions(n=5)])
    assert held.rows_of(["s003", "nowhere", "s000"]).tolist() == [3, -1, 0]
    assert held.given_labels.tolist() == predictions(n=5)["label"].tolist()


def test_runs_that_disagree_on_a_label_are_an_error(predictions: Predictions) -> None:
    other = predictions()
    other.loc[3, "label"] = "c" if other.loc[3, "label"] != "c" else "a"
    with pytest.raises(RunError, match=r"disagree on the given label of 1 sample\(s\): s003"):
        merge_runs([predictions(), other])
