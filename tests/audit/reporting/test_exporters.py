"""Rankings for other tools; the tools' own readers are tried by tests/commands/test_audit.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.audit.reporting.exporters import SCORES, apply_fixes, write_cleanlab, write_fiftyone


def ranking() -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "sample_id": ["a", "b", "c"],
            "given_label": ["x", "y", "x"],
            "suggested_label": ["y", "x", "x"],
            "predicted_label": ["y", "x", "x"],
            "label_score": [0.1, 0.2, 0.9],
            "is_label_issue": [True, True, False],
        },
        index=[7, 3, 5],
    )
    return table.assign(**dict.fromkeys(SCORES, 0.5))


def test_fixed_samples_have_their_new_label_and_are_no_issue() -> None:
    fixed = apply_fixes(ranking(), pd.DataFrame({"new_label": {"b": "z", "a": "invalid"}}))
    assert fixed["sample_id"].tolist() == ["b", "c"]
    assert fixed["given_label"].tolist() == fixed["suggested_label"].tolist() == ["z", "x"]
    assert fixed["is_label_issue"].tolist() == [False, False]


def test_probabilities_sum_to_one_and_labels_are_numbers(tmp_path: Path) -> None:
    probabilities = np.float32([[1, 3], [2, 2], [0, 5]])
    files = write_cleanlab(ranking(), ["x", "y"], tmp_path, probabilities)
    assert all(file.is_file() for file in files)
    assert np.load(tmp_path / "labels.npy").tolist() == [0, 1, 0]
    np.testing.assert_allclose(np.load(tmp_path / "pred_probs.npy"), [[0.25, 0.75], [0.5, 0.5], [0, 1]])


def test_fiftyone_names_images_by_path(tmp_path: Path) -> None:
    write_fiftyone(ranking(), {name: f"/photos/{name}.jpg" for name in "abc"}, tmp_path)
    labels = json.loads((tmp_path / "labels.json").read_text())["labels"]
    assert labels["/photos/a.jpg"]["label"] == "x" and labels["/photos/a.jpg"]["attributes"]["suspicion"] == 0.5
    assert json.loads((tmp_path / "predictions.json").read_text())["suggested_by"] == "mlfix audit"
