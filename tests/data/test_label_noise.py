"""Planted label errors: as many as asked for, never right by chance, where the map says, the same for a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mlfix_train.data.label_noise import TRUE_LABEL, confusions_among, plant_confusions, plant_similar, plant_uniform
from mlfix_train.data.samples import make_table
from mlfix_train.errors import ConfigError, DataError

Counted = Callable[..., pd.DataFrame]


@pytest.mark.parametrize("fraction", [0, 0.013, 0.1, 0.5, 1])
def test_uniform_counts(counted: Counted, fraction: float) -> None:
    table = counted(a=150, b=100, c=50)
    before = table.copy()
    planted = plant_uniform(table, fraction, seed=4)
    wrong = planted["label"] != planted[TRUE_LABEL]
    assert wrong.sum() == round(fraction * 300)
    assert planted[TRUE_LABEL].tolist() == table["label"].tolist() and table.equals(before)
    assert planted.drop(columns=["label", TRUE_LABEL]).equals(table.drop(columns="label"))


def test_uniform_is_uniform(counted: Counted) -> None:
    planted = plant_uniform(counted(a=8000, b=4000, c=3000, d=1000), 0.5, seed=1)
    wrong = planted[planted["label"] != planted[TRUE_LABEL]]
    for label, group in wrong.groupby(TRUE_LABEL):
        shares = group["label"].value_counts(normalize=True)
        assert set(shares.index) == set("abcd") - {label}
        assert abs(shares - 1 / 3).max() < 5 * np.sqrt(2 / 9 / len(group))
    assert len(wrong) == 8000
    assert abs((wrong[TRUE_LABEL] == "b").sum() / 4000 - 0.5) < 0.05, "labels are hit in proportion"


def test_seeds(counted: Counted) -> None:
    table = counted(a=50, b=50)
    assert plant_uniform(table, 0.2, 7).equals(plant_uniform(table, 0.2, 7))
    assert not plant_uniform(table, 0.2, 7).equals(plant_uniform(table, 0.2, 8))
    confusions = {"a": "b"}
    assert plant_confusions(table, 0.2, confusions, 7).equals(plant_confusions(table, 0.2, confusions, 7))
    assert not plant_confusions(table, 0.2, confusions, 7).equals(plant_confusions(table, 0.2, confusions, 8))


def test_confusions(counted: Counted) -> None:
    table = counted(a=400, b=100, c=30, d=30)
    planted = plant_confusions(table, 0.1, {"a": ["b", "c"], "b": "a"}, seed=2)
    wrong = planted[planted["label"] != planted[TRUE_LABEL]]
    assert wrong[TRUE_LABEL].value_counts().to_dict() == {"a": 40, "b": 10}
    assert set(wrong["label"][wrong[TRUE_LABEL] == "a"]) == {"b", "c"}
    assert set(wrong["label"][wrong[TRUE_LABEL] == "b"]) == {"a"}
    everything = plant_confusions(table, 1, {"a": "b", "b": "a"})
    assert everything["label"].value_counts().to_dict() == {"b": 400, "a": 100, "c": 30, "d": 30}, "in one step"
    assert plant_confusions(table, 0.5, {})["label"].tolist() == table["label"].tolist()


def test_errors(counted: Counted) -> None:
    table = counted(stop=5, yield_=5)
    for fraction in (-0.1, 1.1, "x"):
        with pytest.raises(ConfigError, match=r"fraction=.* out of range"):
            plant_uniform(table, fraction)
        with pytest.raises(ConfigError, match=r"fraction=.* out of range"):
            plant_confusions(table, fraction, {"stop": "yield_"})
    with pytest.raises(DataError, match=r"fewer than two labels"):
        plant_uniform(counted(a=5), 0.1)
    with pytest.raises(DataError, match=r"(?s)names 'stopp', a label that no sample has.*did you mean 'stop'"):
        plant_confusions(table, 0.1, {"stopp": "yield_"})
    with pytest.raises(DataError, match=r"names 'yeld_', a label that no sample has"):
        plant_confusions(table, 0.1, {"stop": ["yeld_"]})
    for bad in ("stop", ["yield_", "stop"], []):
        with pytest.raises(DataError, match=r"maps 'stop' to"):
            plant_confusions(table, 0.1, {"stop": bad})


def test_samples_without_a_label_are_refused() -> None:
    table = make_table(["1", "2", "3"], ["p"] * 3, ["a", None, "b"])
    with pytest.raises(DataError):
        plant_uniform(table, 0.5)


def test_confusions_among() -> None:
    names = [f"speed-limit-{limit}" for limit in (20, 30, 50, 60, 70, 80, 100, 120)]
    confusions = confusions_among(names)
    assert set(confusions) == set(names)
    assert set(confusions["speed-limit-60"]) == {"speed-limit-50", "speed-limit-80"}
    assert confusions["speed-limit-30"][0] == "speed-limit-80"
    assert confusions["speed-limit-100"][0] == "speed-limit-120"
    assert all(name not in others and len(others) == 2 for name, others in confusions.items())
    assert len(confusions_among(names, 3)["speed-limit-20"]) == 3


def grouped(n: int = 400) -> pd.DataFrame:
    ids = [f"s{i:03d}" for i in range(n)]
    labels = [f"speed-limit-{(30, 50, 80)[i // 10 % 3]}" for i in range(n)]
    return make_table(ids, ids, labels, [f"t{i // 10}" for i in range(n)])


def test_whole_tracks_are_mislabelled_alike() -> None:
    table = grouped()
    names = sorted(table["label"].unique())
    planted = plant_confusions(table, 0.2, confusions_among(names), seed=1, whole_groups=True)
    wrong = planted["label"] != planted[TRUE_LABEL]
    by_group = wrong.groupby(planted["group"]).agg(["sum", "size"])
    assert set(by_group["sum"] / by_group["size"]) == {0, 1}, "all of a track or none"
    assert planted.groupby("group")["label"].nunique().max() == 1
    for name in names:
        assert abs(wrong[table["label"] == name].mean() - 0.2) < 0.05


def test_similar_images_are_mistaken_in_proportion_to_their_similarity() -> None:
    table = grouped()
    confused_with = ["speed-limit-50" if label == "speed-limit-30" else "speed-limit-30" for label in table["label"]]
    similarity = np.where(np.arange(400) < 200, 9.0, 1.0)
    similarity[:20] = 0
    counts = np.zeros(400)
    for seed in range(200):
        planted = plant_similar(table, 0.1, confused_with, similarity, seed)
        wrong = (planted["label"] != planted[TRUE_LABEL]).to_numpy()
        assert wrong.sum() == 38
        assert (planted["label"].to_numpy()[wrong] == np.array(confused_with)[wrong]).all()
        counts += wrong
    assert not counts[:20].any()
    assert 4 < counts[20:200].mean() / counts[200:].mean() < 9, "nine times as likely, less what is drawn already"
    pd.testing.assert_frame_equal(planted, plant_similar(table, 0.1, confused_with, similarity, 199))


def test_a_rival_that_is_the_own_label_is_refused() -> None:
    table = grouped(30)
    with pytest.raises(DataError, match="s000 is confused with its own label"):
        plant_similar(table, 0.1, list(table["label"]), np.ones(30))
    with pytest.raises(DataError, match="below 0 or NaN"):
        plant_similar(table, 0.1, ["x"] * 30, np.full(30, np.nan))
