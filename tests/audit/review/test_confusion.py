"""Suspicion by label and by pair of labels, compared with pandas; and one sample in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from review_helpers import mark, open_session, order_of, ranking_of, table_of

from mlfix_train.audit.review import confusion
from mlfix_train.audit.review.confusion import summarize_labels
from mlfix_train.audit.review.explain import explain_sample
from mlfix_train.audit.review.samples import FAULT, make_samples


def test_suspicion_is_summed_by_label_and_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(600)
    samples = make_samples(table, ranking_of(table))
    rng = np.random.default_rng(0)
    samples.suspicion[5] = np.nan
    reviewed, marked = rng.random(600) < 0.4, rng.random(600) < 0.1
    found = summarize_labels(samples, samples.suspicion, reviewed, marked)
    frame = pd.DataFrame(
        {
            "given": samples.given,
            "suggested": samples.suggested,
            "count": 1,
            "suspicion": np.nan_to_num(samples.suspicion),
            "reviewed": reviewed,
            "marked": marked,
        }
    )
    for name, keys in (("labels", ["given"]), ("pairs", ["given", "suggested"])):
        wanted = frame.groupby(keys)[["count", "suspicion", "reviewed", "marked"]].sum().reset_index()
        wanted = wanted.sort_values("suspicion", ascending=False)
        assert list(found[name]) == wanted.columns.tolist() and len(wanted) > 2
        for column in wanted:
            assert found[name][column] == pytest.approx(wanted[column].tolist(), abs=0.006)
    assert found["left_out"] == [0, 0.0]
    monkeypatch.setattr(confusion, "MAX_PAIRS", 2)
    short = summarize_labels(samples, samples.suspicion, reviewed, marked)
    assert short["pairs"]["count"] == found["pairs"]["count"][:2]
    assert short["left_out"] == [len(wanted) - 2, pytest.approx(wanted["suspicion"].iloc[2:].sum(), abs=0.01)]


def test_a_pair_opens_as_a_group(tmp_path: Path) -> None:
    session = open_session(tmp_path, table_of(210))
    found = session.handle("confusion", {})
    pairs, samples = found["pairs"], session.samples
    assert found["is_count"], "suspicion is a probability here"
    view = session.handle("view", {"group_by": "suggested"})
    groups = dict(zip(zip(view["given"], view["other"], strict=True), view["sizes"], strict=True))
    told = zip(pairs["given"], pairs["suggested"], strict=True)
    assert dict(zip(told, pairs["count"], strict=True)) == groups
    given, suggested = pairs["given"][0], pairs["suggested"][0]
    assert view["names"][0] == f"{samples.labels[given]} → {samples.labels[suggested]}"
    assert {name.partition(", ")[2] for name in view["names"] if "→" not in name} == {"suggestion agrees"}
    name = samples.ids[np.flatnonzero((samples.given == given) & (samples.suggested == suggested))[0]]
    mark(session, (name, "invalid"))
    after = session.handle("confusion", {})["pairs"]
    assert (after["marked"][0], after["reviewed"][0]) == (1, 1)
    session.close()


def test_a_sample_in_words() -> None:
    table = table_of(100)
    ranking = ranking_of(table).assign(
        self_confidence=0.02, neighbour_disagreement=0.9, twin_disagreement=0.5, disagreement=0.25, runs=4, fault=""
    )
    top = ranking["sample_id"].iloc[0]
    ranking.loc[ranking["sample_id"] == top, ["suspicion", "predicted_label", "fault"]] = [1.0, "stop", "dark"]
    order = order_of(table)
    order.loc[top, "label_outlier_score"] = 9.0
    samples = make_samples(table, ranking, order)
    row = samples.row(top)
    given, suggested = samples.label(samples.given[row]), samples.label(samples.suggested[row])
    other = [] if suggested == "stop" else ["The models alone predict stop."]
    assert suggested != given and FAULT in samples.columns
    assert explain_sample(samples, row) == [
        "Suspicion 100%, rank 1 of 100.",
        f"All evidence together suggests {suggested}.",
        *other,
        "The models give the given label a chance of 2%.",
        "25% of the runs predict another label.",
        "90% of the votes of similar images (near-copies: 50%) are for another label.",
        "It looks unlike the other images of its label: more so than 99% of all.",
        "Beside the label: dark.",
    ]
    last = samples.row(ranking["sample_id"].iloc[-1])
    assert explain_sample(samples, last, 0.001)[:2] == [
        "Less than 1% likely to be wrong, rank 100 of 100.",
        "All evidence together agrees with the given label.",
    ]
    assert explain_sample(make_samples(table), 0) == []
