"""Arms: what each trains on, and that none touches the held-out samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mlfix_train.data.arms import training_rows
from mlfix_train.data.fixes.table import INVALID, match_fixes
from mlfix_train.data.splits import SplitSpec, draw_split
from mlfix_train.errors import ConfigError, FixesError

Counted = Callable[..., pd.DataFrame]


@pytest.fixture
def table(counted: Counted) -> pd.DataFrame:
    return counted(a=60, b=40, c=20)


@pytest.fixture
def held_out(table: pd.DataFrame) -> np.ndarray:
    return draw_split(table, SplitSpec(0.25, seed=5))


@pytest.fixture
def fixes(table: pd.DataFrame) -> pd.DataFrame:
    """Takes out every fourth a and every fifth b, and calls every tenth c an a."""
    answers = dict.fromkeys(table.index[:60:4], INVALID) | dict.fromkeys(table.index[60:100:5], INVALID)
    answers |= dict.fromkeys(table.index[100::10], "a")
    frame = pd.DataFrame({"sample_id": list(answers), "new_label": list(answers.values()), "old_label": ""})
    return match_fixes(frame.assign(row=range(2, len(frame) + 2)), table)


def test_original(table: pd.DataFrame, held_out: np.ndarray, fixes: pd.DataFrame) -> None:
    for given in (None, fixes):
        rows, labels = training_rows(table, held_out, "original", given, 0)
        assert rows.tolist() == [i for i in range(120) if not held_out[i]]
        assert labels.tolist() == table["label"].iloc[rows].tolist()


def test_fixed(table: pd.DataFrame, held_out: np.ndarray, fixes: pd.DataFrame) -> None:
    rows, labels = training_rows(table, held_out, "fixed", fixes, 0)
    wanted = []
    for i, name in enumerate(table.index):
        answer = fixes["new_label"].get(name, table["label"].iloc[i])
        if not held_out[i] and answer != INVALID:
            wanted.append((i, answer))
    assert list(zip(rows.tolist(), labels.tolist(), strict=True)) == wanted
    assert (labels != table["label"].to_numpy()[rows]).any()


@pytest.mark.parametrize("seed", range(5))
def test_control(table: pd.DataFrame, held_out: np.ndarray, fixes: pd.DataFrame, seed: int) -> None:
    original, _ = training_rows(table, held_out, "original", None, 0)
    rows, labels = training_rows(table, held_out, "control", fixes, seed)
    assert (np.diff(rows) > 0).all() and set(rows) < set(original)
    assert labels.tolist() == table["label"].iloc[rows].tolist(), "with given labels"
    invalid = set(fixes.index[fixes["new_label"] == INVALID]) & set(table.index[~held_out])
    for label in "abc":
        fewer = (table["label"].iloc[original] == label).sum() - (labels == label).sum()
        assert fewer == sum(name.startswith(f"{label}/") for name in invalid), label
    assert (labels == "c").sum() == (table["label"].iloc[original] == "c").sum(), "relabelling takes nothing out"
    again, _ = training_rows(table, held_out, "control", fixes, seed)
    assert (rows == again).all()


def test_control_draws_at_random(table: pd.DataFrame, held_out: np.ndarray, fixes: pd.DataFrame) -> None:
    taken = np.zeros(120)
    for seed in range(200):
        rows, _ = training_rows(table, held_out, "control", fixes, seed)
        out = np.setdiff1d(np.flatnonzero(~held_out), rows)
        taken[out] += 1
    assert not taken[held_out].any()
    for label in "ab":
        share = taken[(table["label"] == label).to_numpy() & ~held_out] / 200
        p = share.mean()
        assert 0 < p < 1 and abs(share - p).max() < 5 * np.sqrt(p * (1 - p) / 200), "every sample is as likely"


def test_the_table_is_left_alone(table: pd.DataFrame, held_out: np.ndarray, fixes: pd.DataFrame) -> None:
    before, mask = table.copy(), held_out.copy()
    for arm in ("original", "fixed", "control"):
        rows, labels = training_rows(table, held_out, arm, fixes, 0)
        labels[:] = "changed"
        assert not held_out[rows].any()
    assert table.equals(before) and (mask == held_out).all()


def test_fixes_of_held_out_samples_change_no_training(table: pd.DataFrame, held_out: np.ndarray) -> None:
    names = table.index[held_out][:7]
    frame = pd.DataFrame({"sample_id": names, "new_label": INVALID, "old_label": "", "row": range(7)})
    fixes = match_fixes(frame, table)
    original = training_rows(table, held_out, "original", None, 0)
    for arm in ("fixed", "control"):
        rows, labels = training_rows(table, held_out, arm, fixes, 0)
        assert (rows == original[0]).all() and (labels == original[1]).all()


def test_no_fixes_at_all(table: pd.DataFrame, held_out: np.ndarray) -> None:
    empty = match_fixes(pd.DataFrame(columns=["row", "sample_id", "new_label", "old_label"], dtype=object), table)
    for arm in ("fixed", "control"):
        rows, labels = training_rows(table, held_out, arm, empty, 0)
        assert len(rows) == (~held_out).sum() and labels.tolist() == table["label"].iloc[rows].tolist()


def test_errors(table: pd.DataFrame, held_out: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"(?s)arm=fixd.*did you mean 'fixed'"):
        training_rows(table, held_out, "fixd", None, 0)
    for arm in ("fixed", "control"):
        with pytest.raises(FixesError, match=rf"(?s)arm={arm} needs fixes.*fixes.path"):
            training_rows(table, held_out, arm, None, 0)
