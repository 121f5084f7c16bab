"""Fixes written back in Python; every format's files are tried by tests/commands/test_export.py."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from box_helpers import ONE
from photos import Photo, write_mtsd

from mlfix_train.data.annotations.mtsd import Mtsd
from mlfix_train.data.annotations.write_back import box_fixes, check_copies, write_fixed_annotations
from mlfix_train.errors import ConfigError, DataError

BOXES = [*ONE, ("yield", (50, 10, 90, 40)), ("stop", (100, 10, 140, 40))]


@pytest.fixture
def source(tmp_path: Path) -> Mtsd:
    return Mtsd(write_mtsd(tmp_path / "data", [Photo("p", boxes=BOXES)]))


def fixes_of(new: dict[str, str], invalid: str = "remove") -> pd.DataFrame:
    labels = [label for label, _ in BOXES]
    keys = [f"pkey{number}" for number in range(len(BOXES))]
    crops = pd.DataFrame({"group": "p", "annotation": keys, "label": labels}, index=keys)
    return box_fixes(crops, pd.DataFrame({"new_label": new}), labels, invalid)


def test_what_becomes_of_a_fix() -> None:
    given = {"pkey0": "yield", "pkey1": "invalid", "pkey2": "stop"}
    assert fixes_of(given)["new_label"].tolist() == ["yield", None]
    assert fixes_of(given, "keep")["annotation"].tolist() == ["pkey0"]
    assert fixes_of(given, "stop")["new_label"].tolist() == ["yield", "stop"]
    with pytest.raises(ConfigError, match="invalid=stp is not remove"):
        fixes_of(given, "stp")


def test_copies_in_python(source: Mtsd, tmp_path: Path) -> None:
    written = write_fixed_annotations(
        source, source.read(), fixes_of({"pkey0": "yield", "pkey1": "invalid"}), tmp_path / "out"
    )
    assert (written.relabeled, written.removed, written.unchanged) == (1, 1, 1)
    (file,) = written.files
    assert [entry["label"] for entry in json.loads(file.read_text())["objects"]] == ["yield", "stop"]


def test_other_changes_are_noticed(source: Mtsd) -> None:
    before, after = source.read(), source.read()
    check_copies(before, after, fixes_of({}))
    after.boxes.loc[1, "x_max"] += 1
    with pytest.raises(DataError, match="not the original annotations with the fixes"):
        check_copies(before, after, fixes_of({}))
