"""Rankings against a loop over samples, and on the published predictions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from mlfix_train.audit.predictions.held_out import merge_runs
from mlfix_train.audit.predictions.table import predictions_table
from mlfix_train.audit.scores.ranking import rank, rank_samples, ranking_columns, write_ranking
from mlfix_train.audit.scores.registry import Evidence
from mlfix_train.errors import DataError, RunError


def by_hand(runs: list[pd.DataFrame]) -> list[dict[str, Any]]:
    """One sample after the other, in plain Python."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for row in run.to_dict("records"):
            rows.setdefault(row["sample_id"], []).append(row)
    found = []
    for name, seen in rows.items():
        count = len(seen)
        loss = math.fsum(row["loss"] for row in seen) / count
        votes = Counter(row["pred"] for row in seen)
        sure = {pred: math.fsum(row["prob"] for row in seen if row["pred"] == pred) for pred in votes}
        predicted = max(votes, key=lambda pred: (votes[pred], sure[pred]))
        given = seen[0]["label"]
        margins = [(math.exp(-row["loss"]) - math.exp(-row["loss"] - row["margin"]) + 1) / 2 for row in seen]
        doubt = 1 - math.fsum(margins) / count
        not_self = math.fsum(-math.expm1(-row["loss"]) for row in seen) / count
        suggested = predicted
        found.append(
            {
                "sample_id": name,
                "given_label": given,
                "predicted_label": predicted,
                "suggested_label": suggested,
                "pooled_loss": -math.log1p(-not_self),
                "slice": f"{given} → {suggested}",
                "loss": loss,
                "margin": math.fsum(row["margin"] for row in seen) / count,
                "self_confidence": math.fsum(row["label_prob"] for row in seen) / count,
                "normalized_margin": 1 - doubt,
                "disagreement": sum(row["pred"] != given for row in seen) / count,
                "runs": count,
            }
        )
    found.sort(key=lambda row: (-row["pooled_loss"], row["sample_id"]))
    return [{**row, "rank": rank} for rank, row in enumerate(found, start=1)]


def assert_same(found: pd.DataFrame, wanted: list[dict[str, Any]]) -> None:
    assert list(found.columns) == ranking_columns()
    assert len(found) == len(wanted)
    for row, want in zip(found.to_dict("records"), wanted, strict=True):
        for name, value in want.items():
            if isinstance(value, float):
                assert row[name] == pytest.approx(value, rel=1e-5, abs=1e-7), (want["sample_id"], name)
            else:
                assert row[name] == value, (want["sample_id"], name)


def one_row(name: str, label: str, pred: str, loss: float, prob: float = 0.5) -> pd.DataFrame:
    row = {"sample_id": name, "split": "val", "label": label, "pred": pred, "loss": loss, "prob": prob}
    return pd.DataFrame([{**row, "label_prob": math.exp(-loss), "margin": 1.0 if label == pred else -1.0}])


@pytest.mark.parametrize("runs", [1, 2, 5])
def test_against_a_loop(predictions: Callable[..., pd.DataFrame], runs: int) -> None:
    tables = [predictions(seed=seed) for seed in range(runs)]
    assert_same(rank_samples(tables), by_hand(tables))


def test_runs_that_hold_out_different_samples(predictions: Callable[..., pd.DataFrame]) -> None:
    tables = [predictions(seed=seed).sample(frac=0.6, random_state=seed) for seed in range(4)]
    found = rank_samples(tables)
    assert_same(found, by_hand(tables))
    assert set(found["runs"]) > {1, 2}
    folds = [predictions().iloc[:20], predictions().iloc[20:]]
    pd.testing.assert_frame_equal(rank_samples(folds), rank_samples([predictions()]))


def test_scores_run_from_0_to_1_and_bad_is_low(predictions: Callable[..., pd.DataFrame]) -> None:
    found = rank_samples([predictions(sharpness=s, seed=i, n=300) for i, s in enumerate((0.1, 3, 300))])
    for name in ("label_score", "suspicion", "disagreement", "self_confidence", "normalized_margin"):
        assert found[name].between(0, 1).all(), name
    assert (np.diff(found["suspicion"]) <= 0).all()
    assert (np.diff(found["label_score"]) >= 0).all()
    assert found["rank"].tolist() == list(range(1, 301))
    np.testing.assert_allclose(found["label_score"] + found["suspicion"], 1, atol=1e-12)


def test_small_chances_are_not_rounded_away() -> None:
    found = rank_samples([one_row("s", "a", "a", 1e-18), one_row("t", "a", "a", 2e-18)])
    assert found["sample_id"].tolist() == ["t", "s"]
    np.testing.assert_allclose(found["pooled_loss"], [2e-18, 1e-18])


def test_only_labels_without_a_chance_are_issues_of_predictions_alone() -> None:
    tables = [
        one_row("sure", "a", "b", 6.0, 0.99),
        one_row("likely", "a", "b", 1.0, 0.6),
        one_row("right", "a", "a", 0.1),
    ]
    found = rank_samples([pd.concat(tables)])
    assert found["sample_id"].tolist() == ["sure", "likely", "right"]
    assert found["is_label_issue"].tolist() == [True, False, False]
    assert found["suggested_label"].tolist() == ["b", "b", "a"]


def test_disagreement_counts_runs_and_the_vote_decides_the_issue() -> None:
    runs = [one_row("s", "a", pred, 1.0) for pred in ("b", "a", "a", "c", "a")]
    row = rank_samples(runs).iloc[0]
    assert row["disagreement"] == pytest.approx(0.4)
    assert row["predicted_label"] == "a"
    assert (row["slice"], bool(row["is_label_issue"])) == ("a → a", False)
    row = rank_samples([*runs, *runs[:1] * 3]).iloc[0]
    assert (row["predicted_label"], row["slice"]) == ("b", "a → b")


def test_of_equal_votes_the_surest_wins_then_the_alphabet() -> None:
    sure = [one_row("s", "a", "a", 1.0, 0.6), one_row("s", "a", "z", 1.0, 0.7)]
    assert rank_samples(sure)["predicted_label"][0] == rank_samples(sure[::-1])["predicted_label"][0] == "z"
    even = [one_row("s", "a", "c", 1.0), one_row("s", "a", "b", 1.0)]
    assert rank_samples(even)["predicted_label"][0] == rank_samples(even[::-1])["predicted_label"][0] == "b"


def test_ties_of_loss_go_by_name_whatever_the_order_of_rows(predictions: Callable[..., pd.DataFrame]) -> None:
    table = predictions(n=80).assign(loss=np.float32(0.5), margin=np.float32(0.25))
    shuffled = table.sample(frac=1, random_state=1)
    found = rank_samples([shuffled])
    assert found["sample_id"].tolist() == sorted(table["sample_id"])
    pd.testing.assert_frame_equal(found, rank_samples([table]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_named(predictions: Callable[..., pd.DataFrame], value: float) -> None:
    table = predictions()
    table.loc[4, "loss"] = value
    with pytest.raises(DataError, match="1 predictions have a loss that is not a finite number: s004"):
        rank_samples([predictions(), table])


def test_runs_that_disagree_on_a_given_label_are_refused(predictions: Callable[..., pd.DataFrame]) -> None:
    other = predictions(seed=1)
    other.loc[[3, 9], "label"] = "elsewhere"
    with pytest.raises(RunError, match=r"given label of 2 sample\(s\): s003, s009"):
        rank_samples([predictions(), other])


def test_no_runs() -> None:
    with pytest.raises(RunError, match="no predictions"):
        rank_samples([])


def test_the_file_holds_the_contracts_columns(tmp_path: Path, ranking: Callable[..., pd.DataFrame]) -> None:
    table = ranking()
    table.loc[0, "given_label"] = 'NA, "quoted"'
    path = write_ranking(table, tmp_path / "a" / "ranking.csv")
    found = pd.read_csv(path, keep_default_na=False, na_values=[""])
    contract = [
        "sample_id",
        "given_label",
        "predicted_label",
        "suspicion",
        "label_score",
        "is_label_issue",
        "rank",
        "slice",
    ]
    assert list(found.columns)[:8] == contract
    pd.testing.assert_frame_equal(found, table, check_dtype=False, rtol=1e-6)


@pytest.mark.parametrize(("pull", "right", "wrong_aum", "clear"), [(3.0, 2.0, -4.0, True), (1.5, 1.5, -1.0, False)])
def test_the_estimate_says_whether_wrong_labels_are_separated(
    pull: float, right: float, wrong_aum: float, clear: bool
) -> None:
    rng = np.random.default_rng(2)
    n, names = 8000, list("abcde")
    true = rng.integers(5, size=n)
    wrong = rng.random(n) < 0.03
    labels = np.where(wrong, (true + 1) % 5, true)
    logits = rng.normal(size=(n, 5)) + pull * np.eye(5)[true]
    aum = 1.2 * rng.normal(size=n) + np.where(wrong, wrong_aum, right)
    held = merge_runs([predictions_table([f"s{i:05d}" for i in range(n)], labels, logits, names)], names)
    near = held.sample_ids.str[1:].astype(int)
    found = rank(Evidence(held, aum=aum[near]))
    estimate = found.estimate
    assert found.table["suspicion"].is_monotonic_decreasing
    assert set(found.kinds) == {"runs", "dynamics"}
    if not clear:
        assert estimate is None
        return
    assert estimate is not None
    assert estimate.interval[0] <= wrong.sum() <= estimate.interval[1]
    assert estimate.interval[0] <= estimate.wrong <= estimate.interval[1]
    assert found.table["suspicion"].sum() == pytest.approx(estimate.wrong, abs=0.1)


# --- the published predictions ---


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Mann and Whitney's U over its maximum."""
    ranks = scipy.stats.rankdata(score)
    p, n = positive.sum(), (~positive).sum()
    return float((ranks[positive].sum() - p * (p + 1) / 2) / (p * n))


def test_the_published_models_find_the_invalid_speed_signs(published: Any) -> None:
    runs = [table[table["label"].str.contains("speed")] for table in published.arms["original"].values()]
    assert len(runs) == 20
    single = []
    for run in runs:
        found = rank_samples([run])
        single.append(auroc(found["suspicion"].to_numpy(), found["sample_id"].isin(published.fixes.index).to_numpy()))
    together = rank_samples(runs)
    bad = together["sample_id"].isin(published.fixes.index).to_numpy()
    assert (len(together), bad.sum()) == (1512, 45)
    assert set(together["runs"]) == {20}
    assert round(auroc(together["loss"].to_numpy(), bad), 3) == 0.917, "the mean loss, as published"
    for score in (together["suspicion"], -together["label_score"], -together["rank"]):
        assert round(auroc(score.to_numpy(), bad), 4) == 0.9186, "the mean probability does better"
    assert round(float(np.mean(single)), 3) == 0.911
