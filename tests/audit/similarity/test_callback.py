"""Agreement of labels among nearest neighbours."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.similarity.callback import label_agreement


def table(labels: list, groups: list | None = None) -> pd.DataFrame:
    index = pd.Index([f"{i}.png" for i in range(len(labels))], name="sample_id")
    return pd.DataFrame({"label": labels, "group": groups or list(index)}, index=index)


def test_label_agreement_leaves_out_a_samples_own_group() -> None:
    x = np.array([[1, 0], [1, 0.01], [0.9, 0.1], [0, 1], [0.01, 1]], np.float32)
    rows = table(["a", "b", "a", "b", None], ["g", "g", "h", "i", "j"])
    # 0: nearest of another group is 2 (a): right. 1: 2 (a): wrong. 2: 1 (b), wrong. 3: 2 (a), as 4 has no label: wrong.
    assert label_agreement(x, rows) == pytest.approx(25.0)
    assert label_agreement(x, rows, block_size=2) == pytest.approx(25.0)
    assert label_agreement(x, table([None] * 5)) is None
    assert label_agreement(x, table(["a"] * 5, ["g"] * 5)) is None
