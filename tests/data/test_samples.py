"""The sample table: what is refused, the order of labels, and what the fingerprint sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mlfix_train.data.samples import (
    label_list,
    make_table,
    require_labels,
    table_fingerprint,
    validate_table,
    write_table,
)
from mlfix_train.errors import DataError

IDS = ["b/1.jpg", "a/1.jpg", "a/2.jpg"]
PATHS = ["/d/b/1.jpg", "/d/a/1.jpg", "/d/a/2.jpg"]


def table(**changes: object) -> pd.DataFrame:
    values = {"sample_ids": IDS, "paths": PATHS, "labels": ["b", "a", "a"], **changes}
    return make_table(**values)


def test_defaults_and_order() -> None:
    made = table()
    assert made.index.tolist() == IDS and made.index.name == "sample_id"
    assert made["group"].tolist() == IDS, "a sample is its own group"
    assert made["split"].tolist() == ["", "", ""]
    assert made["path"].tolist() == PATHS


def test_metadata_is_carried_along_untouched() -> None:
    extra = pd.DataFrame({"speed": [1.5, 2.5, 3.5], "when": pd.to_datetime(["2020-01-01"] * 3)}, index=[9, 9, 9])
    made = table(metadata=extra)
    assert made["speed"].tolist() == [1.5, 2.5, 3.5]
    assert made["when"].dtype == extra["when"].dtype


@pytest.mark.parametrize("column", ["path", "label", "group", "split"])
def test_missing_column(column: str) -> None:
    with pytest.raises(DataError, match=rf"(?s)lacks the columns {column}.*it needs path"):
        validate_table(table().drop(columns=column))


def test_no_samples() -> None:
    with pytest.raises(DataError, match=r"my.csv: there are no samples"):
        make_table([], [], [], source="my.csv")


@pytest.mark.parametrize("bad", ["", None, 3, float("nan")])
def test_a_sample_without_a_name(bad: object) -> None:
    what = "the sample_id 3, which is not text" if bad == 3 else "no sample_id"
    with pytest.raises(DataError, match=f"row 2 has {what}"):
        table(sample_ids=["x", bad, "y"])


def test_a_name_that_stands_twice() -> None:
    with pytest.raises(DataError, match=r"(?s)1 sample_id\(s\) occur more than once: a/1.jpg.*unique column"):
        table(sample_ids=["a/1.jpg", "b", "a/1.jpg"])


def test_an_empty_label() -> None:
    with pytest.raises(DataError, match=r"1 sample\(s\) have an empty label: a/1.jpg"):
        table(labels=["b", "", "a"])


def test_a_label_is_text() -> None:
    """The DataModule looks labels up as text; readers turn numbers into text."""
    with pytest.raises(DataError, match="label"):
        table(labels=[7, 20, 20])


def test_labels_may_be_missing_and_look_like_missing() -> None:
    made = table(labels=[None, "NA", "nan"])
    assert label_list(made) == ["NA", "nan"]


def test_label_list_is_sorted_by_code_point() -> None:
    names = ["b", "B", "10", "9", "ä", "a"]
    made = make_table([f"{i}" for i in range(12)], ["p"] * 12, names + names)
    assert label_list(made) == ["10", "9", "B", "a", "b", "ä"]
    assert require_labels(made) == label_list(made)


def test_require_labels_unlabelled() -> None:
    with pytest.raises(DataError, match=r"(?s)1 of 3 samples have no label: a/1.jpg.*one folder per label"):
        require_labels(table(labels=["b", None, "a"]))
    with pytest.raises(DataError, match=r"3 of 3 samples have no label"):
        require_labels(table(labels=[None] * 3))


def test_require_labels_one_label() -> None:
    with pytest.raises(DataError, match=r"(?s)all 3 samples have one label, 'a'.*data.root must be the folder that"):
        require_labels(table(labels=["a", "a", "a"]))


def test_fingerprint() -> None:
    base = table(groups=["g", "g", "h"], splits=["train", "val", "train"])
    same = table(groups=["g", "g", "h"], splits=["train", "val", "train"], paths=["elsewhere"] * 3)
    assert table_fingerprint(base) == table_fingerprint(same), "where the files lie doesn't matter"
    assert len(table_fingerprint(base)) == 64
    prints = {table_fingerprint(base)}
    changes: list[Callable[[pd.DataFrame], pd.DataFrame]] = [
        lambda t: t.rename(index={"a/1.jpg": "a/9.jpg"}),
        lambda t: t.assign(label=["b", "a", "b"]),
        lambda t: t.assign(label=["b", "a", None]),
        lambda t: t.assign(group=["g", "h", "h"]),
        lambda t: t.assign(split=["train", "val", "val"]),
        lambda t: t.iloc[[1, 0, 2]],
        lambda t: t.iloc[:2],
        lambda t: t.assign(label=t["group"], group=t["label"]),
    ]
    for change in changes:
        prints.add(table_fingerprint(change(base)))
    assert len(prints) == 1 + len(changes)


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_write_table(tmp_path: Path, name: str) -> None:
    made = table(labels=["b", "NA", 'ü,"x"'], metadata=pd.DataFrame({"n": [1, 2, 3]}))
    path = write_table(made, tmp_path / "deep" / name)
    back = pd.read_parquet(path) if name.endswith("parquet") else pd.read_csv(path, keep_default_na=False)
    assert back.columns[0] == "sample_id"
    assert back.set_index("sample_id").astype(str).equals(made.astype(str))
