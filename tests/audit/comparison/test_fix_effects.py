"""What the fixes did, fix by fix, on tables counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from comparison_helpers import summarize

from mlfix_train.audit.comparison import fix_effects
from mlfix_train.audit.comparison.label_changes import shrink_effects
from mlfix_train.audit.comparison.study import ArmRuns

LABELS = ["a", "b", "c", "d"]


def study(fixes: dict[str, str], gains: dict[str, float], **options: Any) -> dict[str, Any]:
    """Six runs of each arm on 100 samples a label; the fixed arm predicts a label better by its gain, 0 to 1."""
    rng = np.random.default_rng(0)
    given = np.repeat(LABELS, 100)
    ids = [f"s{i}" for i in range(len(given))]
    arms = []
    for arm in ("original", "fixed"):
        tables = {}
        for seed in range(6):
            rate = np.array([0.4 - (gains.get(label, 0.0) if arm == "fixed" else 0.0) for label in given])
            pred = np.where(rng.random(len(given)) < rate, np.where(given == "a", "b", "a"), given)
            tables[f"seed={seed}"] = pd.DataFrame({"sample_id": ids, "label": given, "pred": pred})
        arms.append(ArmRuns(arm, tables))
    index = pd.Index(list(fixes), name="sample_id", dtype=object)
    table = pd.DataFrame({"new_label": pd.Series(list(fixes.values()), index, dtype=object)})
    for key, value in options.items():
        table[key] = value
    return summarize(*arms, table, resamples=200)


def test_pairs_of_given_and_new_label_are_counted() -> None:
    found = study({"s0": "b", "s1": "b", "s150": "invalid", "train1": "invalid"}, {}, given_label=["a", "a", "b", "c"])
    pairs = {(row["given"], row["new"]): row for row in found["by_fix"]["pairs"]}
    assert pairs["a", "b"]["fixes"] == pairs["a", "b"]["held_out"] == 2
    assert pairs["a", "b"]["before"] + pairs["a", "b"]["after"] == pytest.approx(100), "predicted a or b"
    assert pairs["b", "invalid"]["after"] is None and pairs["c", "invalid"]["held_out"] == 0
    evaluation, effect = found["by_fix"]["evaluation"], found["slices"]["all"]["effect"]
    assert evaluation["removed"] + evaluation["relabelled"] == pytest.approx(effect["evaluation"], abs=1e-5)
    assert "Of 3 fixed held-out samples, 1 were removed and 2 relabelled." in found["by_fix"]["sentences"][0]


def test_confusions_add_up_to_the_training_effect() -> None:
    found = study({}, {"a": 0.3, "c": 0.1})
    rows = found["by_fix"]["confusions"]
    assert sum(row["points"] for row in rows) == pytest.approx(found["slices"]["all"]["effect"]["training"], abs=1e-5)
    first = rows[0]
    assert (first["label"], first["predicted"], first["rows"]) == ("a", "b", 100)
    assert first["before"] - first["after"] == pytest.approx(30, abs=7)


def test_removed_against_relabelled() -> None:
    found = study({"s0": "invalid", "s101": "c"}, {"a": 0.35, "b": 0.02, "c": 0.02})["by_fix"]
    assert found["training"]["removed"]["labels"] == 1 and found["training"]["relabelled"]["labels"] == 2
    assert found["training"]["removed"]["training"] == pytest.approx(35, abs=7)
    assert found["training"]["none"]["rows"] == 100
    assert any("no proof that removing is better" in line for line in found["sentences"])
    found = study({"s0": "invalid", "s101": "c"}, {"a": 0.1, "b": 0.1, "c": 0.1})["by_fix"]
    assert any("can't be told apart: they differ no more than chance" in line for line in found["sentences"])
    found = study({"s0": "invalid"}, {})["by_fix"]
    assert "Every fix removes its sample; none relabels one." in found["sentences"]


def test_labels_that_carry_the_effect_are_named_or_it_is_said_that_one_cant_tell() -> None:
    found = study({}, {"a": 0.35, "c": -0.2})
    said = found["by_fix"]["sentences"][-1]
    assert said.startswith("The labels that carry most of the training effect") and said.index("a (") < said.index(
        "c ("
    )
    by_label = {row["label"]: row for row in found["labels"]}
    assert sum(row["share"] for row in found["labels"]) == pytest.approx(
        found["slices"]["all"]["effect"]["training"], abs=1e-4
    )
    assert 0 < by_label["a"]["shrunk"] < by_label["a"]["training"]
    rows = [{"label": label, "rows": 9, "training": 0.1, "shrunk": 0.1} for label in LABELS]
    assert "can't be told: the labels differ no more than chance" in fix_effects._carriers_sentence(rows)


def test_shrinking_by_hand() -> None:
    """Two effects of equal noise: the variance between them is what they differ by beyond it."""
    rows = [{"training": 0.0, "standard_error": 1.0}, {"training": 4.0, "standard_error": 1.0}]
    shrink_effects(rows)
    between = 8.0 - 1.0  # their sample variance less that of the noise
    assert [row["shrunk"] for row in rows] == pytest.approx([2 - 2 * between / 8, 2 + 2 * between / 8])
    rows = [{"training": 0.0, "standard_error": 3.0}, {"training": 4.0, "standard_error": 3.0}]
    shrink_effects(rows)
    assert [row["shrunk"] for row in rows] == [2.0, 2.0], "no more than chance"


def test_shrunk_effects_are_nearer_to_the_truth() -> None:
    rng = np.random.default_rng(1)
    truth, errors = rng.normal(0.5, 1.0, 200), rng.uniform(0.5, 3.0, 200)
    rows = [{"training": t + rng.normal(0, e), "standard_error": e} for t, e in zip(truth, errors, strict=True)]
    shrink_effects(rows)
    raw, shrunk = (np.array([row[key] for row in rows]) for key in ("training", "shrunk"))
    assert np.mean((shrunk - truth) ** 2) < 0.35 * np.mean((raw - truth) ** 2)
