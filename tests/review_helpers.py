"""A review without a command around it: a few samples, an audit of them, and a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.review import session as review_session
from mlfix_train.audit.review.session import ReviewSession
from mlfix_train.data.samples import make_table

LABELS = ("limit 20", "limit 100", "stop")


def table_of(n: int = 90, labels: tuple[str, ...] = LABELS, **columns: Any) -> pd.DataFrame:
    """``n`` samples with each label in turn, two samples per track, and ``weather`` as metadata."""
    ids = [f"{labels[i % len(labels)]}/{i:03d}.jpg" for i in range(n)]
    given = [labels[i % len(labels)] for i in range(n)]
    metadata = pd.DataFrame({"weather": [("sun", "rain", None)[i % 4 % 3] for i in range(n)], **columns})
    return make_table(ids, ids, given, [f"t{i // 6}-{i % 3}" for i in range(n)], metadata=metadata)


def ranking_of(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """An audit in which every seventh sample is suspicious and predicted as the next label."""
    labels = sorted(table["label"].unique())
    given = table["label"].to_numpy()
    rng = np.random.default_rng(seed)
    wrong = np.arange(len(table)) % 7 == 0
    suspicion = np.where(wrong, rng.uniform(0.7, 1, len(table)), rng.uniform(0, 0.1, len(table)))
    other = np.array([labels[(labels.index(name) + 1) % len(labels)] for name in given])
    predicted = np.where(wrong, other, given)
    frame = pd.DataFrame(
        {
            "sample_id": table.index,
            "given_label": given,
            "predicted_label": predicted,
            "suggested_label": predicted,
            "suspicion": suspicion,
            "is_label_issue": wrong,
            "loss": 3 * suspicion,
        }
    )
    return frame.sort_values("suspicion", ascending=False)


def order_of(table: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    """A random visual order."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"position": rng.permutation(len(table)), "label_position": 0}, index=table.index)
    frame["outlier_score"], frame["label_outlier_score"] = rng.random(len(table)), rng.random(len(table))
    frame["label_position"] = frame.groupby(table["label"])["position"].rank().astype(int) - 1
    return frame


def pixels_of(rows: np.ndarray) -> np.ndarray:
    """Images of one color each, which identifies the row."""
    rows = np.asarray(rows)
    color = np.stack([rows % 251, rows // 251 * 20 % 251, np.full(len(rows), 120)], axis=-1).astype(np.uint8)
    return np.broadcast_to(color[:, None, None, :], (len(rows), 16, 16, 3)).copy()


def open_session(
    out: Path,
    table: pd.DataFrame | None = None,
    audit: bool = True,
    fixes: str | None = None,
    ignore: tuple[str, ...] = (),
    reviewer: str = "anna",
) -> ReviewSession:
    """Opens a review of ``table`` in ``out``."""
    table = table_of() if table is None else table
    return review_session.open_session(
        table,
        pixels_of(np.arange(len(table))),
        out,
        ranking=ranking_of(table) if audit else None,
        order=order_of(table),
        calibrated=audit,
        fixes=fixes,
        ignore=ignore,
        reviewer=reviewer,
        title="test",
    )


def mark(session: ReviewSession, *marks: tuple[str, str | None], reviewer: str = "anna", **more: Any) -> dict[str, Any]:
    """Marks samples by id."""
    wanted = [{"sample_id": name, "new_label": label, **more} for name, label in marks]
    return session.handle("marks", {"marks": wanted, "reviewer": reviewer})


def lines(session: ReviewSession) -> dict[str, str]:
    """Returns sample and new label of each line of fixes.csv."""
    frame = pd.read_csv(session.fixes_path, keep_default_na=False, dtype=str)
    return dict(zip(frame["sample_id"], frame["new_label"], strict=True))
