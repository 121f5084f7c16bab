"""Splits: exact counts, whole groups, fair to small and large ones, and the same whatever is fixed later."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mlfix_train.data.samples import make_table
from mlfix_train.data.splits import SplitSpec, draw_split, stratified_parts
from mlfix_train.errors import ConfigError, DataError, name_keys

Counted = Callable[..., pd.DataFrame]
COUNTS = {"a": 100, "b": 37, "c": 10, "d": 3, "e": 2, "f": 1}


def grouped_table(labels: np.ndarray, groups: np.ndarray) -> pd.DataFrame:
    ids = [f"{i:06d}" for i in range(len(labels))]
    return make_table(ids, ids, labels.astype(str).tolist(), groups.astype(str).tolist())


def photos(rng: np.random.Generator, n: int = 1500) -> pd.DataFrame:
    """Photos of 1 to 8 signs of 30 labels with long-tailed frequencies."""
    sizes = rng.integers(1, 9, n)
    weights = 1 / np.arange(1, 31)
    labels = rng.choice(30, sizes.sum(), p=weights / weights.sum())
    return grouped_table(labels, np.repeat(np.arange(n), sizes))


def draw(
    table: pd.DataFrame,
    fraction: float = 0.2,
    seed: int = 0,
    folds: int | None = None,
    fold: int | None = None,
    **more: object,
) -> np.ndarray:
    return draw_split(table, SplitSpec(fraction, seed, folds, fold, **more))


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_counts_without_groups(counted: Counted, fraction: float, seed: int) -> None:
    table = counted(**COUNTS)
    mask = draw(table, fraction, seed)
    assert mask.dtype == bool and mask.shape == (len(table),)
    held = table["label"][mask].value_counts().to_dict()
    for label, n in COUNTS.items():
        wanted = 0 if n == 1 else min(max(int(n * fraction + 0.5), 1), n - 1)
        assert held.get(label, 0) == wanted, label


def test_seeds(counted: Counted) -> None:
    table = counted(**COUNTS)
    masks = [draw(table, seed=seed) for seed in range(20)]
    assert (masks[3] == draw(table, seed=3)).all()
    assert len({mask.tobytes() for mask in masks}) == 20
    share = np.mean([draw(table, seed=seed)[:100] for seed in range(300)], axis=0)
    assert abs(share - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / 300), "every sample is as likely to be held out"


def test_the_global_random_state_is_left_alone(counted: Counted) -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    draw(counted(a=10, b=10))
    assert (np.random.get_state()[1] == before).all()


def test_labels_of_fixes_do_not_matter_for_the_split(counted: Counted) -> None:
    """The split reads ids, labels and groups alone: metadata (such as true labels) and paths change nothing."""
    table = counted(a=30, b=30)
    other = table.assign(true_label="x", path="elsewhere", note=range(60))
    assert (draw(table) == draw(other)).all()


@pytest.mark.parametrize("folds", [None, 5])
def test_groups_stay_together(folds: int | None) -> None:
    table = photos(np.random.default_rng(0), 400)
    fold = None if folds is None else 2
    mask = pd.Series(draw(table, 0.2, 3, folds, fold), index=table["group"].to_numpy())
    assert (mask.groupby(level=0).nunique() == 1).all()
    loose = pd.Series(draw(table, 0.2, 3, folds, fold, grouped=False), index=table["group"].to_numpy())
    assert (loose.groupby(level=0).nunique() > 1).any(), "grouped=false parts them"


def test_shares_of_photos_with_several_labels() -> None:
    """Nearer to the wanted shares than a draw of photos that ignores labels, whose spread is known."""
    table = photos(np.random.default_rng(1))
    counts = table["label"].value_counts()
    groups = table["group"].astype(int).to_numpy()
    off, off_at_random = [], []
    for seed in range(12):
        mask = draw(table, 0.2, seed)
        assert abs(mask.mean() - 0.2) < 0.01
        chosen = np.random.default_rng(seed).random(groups.max() + 1)[groups] < 0.2
        for taken, deviations in ((mask, off), (chosen, off_at_random)):
            held = table["label"][taken].value_counts().reindex(counts.index, fill_value=0)
            deviations.append((held - 0.2 * counts) / np.sqrt(0.16 * counts))
    spread, at_random = (np.sqrt((np.array(rows) ** 2).mean(0)) for rows in (off, off_at_random))
    assert (spread[:5] < 0.5).all(), "the most frequent labels"
    assert np.sqrt((spread**2).mean()) < 0.75 * np.sqrt((at_random**2).mean())
    assert abs(np.array(off)).max() < 4


def test_shares_of_gtsrb_tracks(gtsrb_names: list[str]) -> None:
    labels = np.array([name.split("/")[0] for name in gtsrb_names])
    tracks = np.array([name.rsplit("_", 1)[0] for name in gtsrb_names])
    table = make_table(gtsrb_names, gtsrb_names, labels.tolist(), tracks.tolist())
    counts = table["label"].value_counts()
    assert len(table) == 39_209 and len(counts) == 43
    for seed in range(3):
        mask = draw(table, 0.2, seed)
        assert pd.Series(mask).groupby(tracks).nunique().max() == 1
        held = table["label"][mask].value_counts().reindex(counts.index, fill_value=0)
        assert (abs(held - 0.2 * counts) <= 30).all(), "each label is off by less than a track"
        assert abs(mask.mean() - 0.2) < 0.005


def test_large_and_small_groups_are_as_likely_held_out() -> None:
    sizes = np.tile([1, 1, 1, 2, 5, 12], 40)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.repeat(np.arange(len(sizes)) // 60, sizes)
    seeds = 120
    first = np.searchsorted(groups, np.arange(len(sizes)))
    held = np.array([stratified_parts(labels, groups, np.array([0.8, 0.2]), seed)[first] for seed in range(seeds)])
    for size in (1, 2, 5, 12):
        share = held[:, sizes == size].mean()
        assert abs(share - 0.2) < 0.025, (size, share)
    assert abs(held.mean(0) - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / seeds), "no group is special"


def test_photo_groups_are_as_likely_held_out_whatever_their_size() -> None:
    table = photos(np.random.default_rng(2))
    size = table.groupby("group")["label"].transform("size").to_numpy()
    labels, groups = table["label"].to_numpy(dtype=str), table["group"].to_numpy(dtype=str)
    shares = np.array([0.8, 0.2])
    held = np.mean([stratified_parts(labels, groups, shares, seed) for seed in range(25)], axis=0)
    small, large = held[size <= 2].mean(), held[size >= 7].mean()
    assert abs(small - 0.2) < 0.025 and abs(large - 0.2) < 0.025, (small, large)


@pytest.mark.parametrize("grouped", [True, False])
def test_folds_hold_every_sample_out_once(grouped: bool) -> None:
    table = photos(np.random.default_rng(3), 300)
    masks = np.array([draw(table, seed=1, folds=5, fold=k, grouped=grouped) for k in range(5)])
    assert (masks.sum(0) == 1).all()
    sizes = masks.sum(1)
    assert sizes.max() - sizes.min() < 0.05 * len(table)
    common = (table["label"] == "0").to_numpy()
    assert np.ptp(masks[:, common].sum(1)) <= (1 if not grouped else 12)


def test_folds_of_single_samples_are_even(counted: Counted) -> None:
    table = counted(**COUNTS)
    counts = [table["label"][draw(table, folds=4, fold=k)].value_counts() for k in range(4)]
    for label, n in COUNTS.items():
        shares = [int(count.get(label, 0)) for count in counts]
        assert sum(shares) == n and max(shares) - min(shares) <= 1


def test_fraction_is_not_used_with_folds(counted: Counted) -> None:
    table = counted(a=40, b=40)
    assert (draw(table, 0.7, folds=4, fold=1) == draw(table, 0.1, folds=4, fold=1)).all()


def test_column(counted: Counted) -> None:
    table = counted(a=3, b=3).assign(split=["train", "val", "Test ", "training", "train", "valid"], mine=list("xyxyxx"))
    assert draw(table, column="split").tolist() == [False, True, True, False, False, True]
    assert draw(table, column="split", held_out_values=["val", "test", "valid"]).sum() == 3
    with pytest.raises(DataError, match=r"(?s)column=.mine. has values .*'x', 'y'.*the values in held_out_values"):
        draw(table, column="mine")
    with pytest.raises(DataError, match=r"(?s)column=.mien.: the data has no such column.*mine"):
        draw(table, column="mien")
    with pytest.raises(DataError, match=r"neither train nor held out: 'test', 'valid'"):
        draw(table, column="split", held_out_values=["val"])
    with pytest.raises(DataError, match=r"has values that mean neither"):
        draw(counted(a=3, b=3), column="split")


@pytest.mark.parametrize("how", [{"fraction": 0.5}, {"folds": 2, "fold": 0}, {"column": "split"}])
def test_train_only(counted: Counted, how: dict) -> None:
    table = counted(a=20, other=20).assign(split=["val", "train"] * 20)
    mask = draw(table, train_only=["other"], **how)
    assert not mask[table["label"] == "other"].any()
    assert mask[table["label"] == "a"].sum() == 10


def test_train_only_samples_train_although_their_photo_is_held_out() -> None:
    table = grouped_table(np.tile(["a", "b", "other"], 50), np.repeat(np.arange(50), 3))
    mask = draw(table, 0.5, train_only=["other"])
    assert not mask[2::3].any() and (mask[0::3] == mask[1::3]).all() and 10 < mask[0::3].sum() < 40


def test_train_only_unknown(counted: Counted) -> None:
    with pytest.raises(ConfigError, match=r"train_only names labels that no sample has: othr"):
        draw(counted(a=3, other=3), train_only=["othr"])


@pytest.mark.parametrize("fraction", [0, 0.001, 0.95, 1, -1, "a", None, True, float("nan")])
def test_bad_fractions(counted: Counted, fraction: object) -> None:
    with pytest.raises(ConfigError, match=r"(?s)fraction=.*0.01 to 0.9"):
        draw(counted(a=9, b=9), fraction)


def test_bad_folds(counted: Counted) -> None:
    table = counted(a=9, b=9)
    for folds in (1, 0, -2, 2.5):
        with pytest.raises(ConfigError, match=r"folds=.*out of range"):
            draw(table, folds=folds, fold=0)
    for fold in (None, 3, -1, 0.5):
        with pytest.raises(ConfigError, match=r"(?s)fold=.*from 0 to 2"):
            draw(table, folds=3, fold=fold)
    with pytest.raises(ConfigError, match=r"fold=1 without folds"):
        draw(table, fold=1)


def test_empty_sides(counted: Counted) -> None:
    with pytest.raises(DataError, match=r"holds out no sample"):
        draw(counted(a=1, b=1))
    with pytest.raises(DataError, match=r"holds out no sample"):
        draw(counted(a=5, b=5), train_only=["a", "b"])
    with pytest.raises(DataError, match=r"leaves no sample to train on"):
        draw(counted(a=2, b=2).assign(split="val"), column="split")


def test_labels_that_are_never_trained_on_are_named(counted: Counted, caplog: pytest.LogCaptureFixture) -> None:
    table = counted(a=4, b=4).assign(split=["val"] * 4 + ["val", "train", "train", "train"])
    with caplog.at_level(logging.WARNING):
        draw(table, column="split")
    assert "1 label(s) are held out but never trained on" in caplog.text and ": a" in caplog.text


def test_errors_name_keys_in_a_command_and_arguments_in_python() -> None:
    with pytest.raises(ConfigError) as error:
        SplitSpec(fold=1)
    assert error.value.hint == "set the number of folds: folds=5"
    with pytest.raises(ConfigError) as error, name_keys():
        SplitSpec(fold=1)
    assert error.value.hint == "set the number of folds: split.folds=5"
