"""A review without a command around it: a few samples, their audit, and the desk that answers for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.review.fixes_file import begin
from mlfix_train.audit.review.journal import Journal
from mlfix_train.audit.review.marks import Ledger
from mlfix_train.audit.review.progress import SeenLog
from mlfix_train.audit.review.samples import make_samples
from mlfix_train.audit.review.session import Desk
from mlfix_train.audit.review.sprites import Sprites
from mlfix_train.data.samples import make_table

LABELS = ("limit 20", "limit 100", "stop")


def table_of(n: int = 90, labels: tuple[str, ...] = LABELS, **columns: Any) -> pd.DataFrame:
    """``n`` samples whose labels take turns; two samples a track; ``weather`` as metadata."""
    ids = [f"{labels[i % len(labels)]}/{i:03d}.jpg" for i in range(n)]
    given = [labels[i % len(labels)] for i in range(n)]
    metadata = pd.DataFrame({"weather": [("sun", "rain", None)[i % 4 % 3] for i in range(n)], **columns})
    return make_table(ids, ids, given, [f"t{i // 6}-{i % 3}" for i in range(n)], metadata=metadata)


def ranking_of(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """An audit in which every seventh sample is suspicious, and taken for the next label."""
    labels = sorted(table["label"].unique())
    given = table["label"].to_numpy()
    rng = np.random.default_rng(seed)
    wrong = np.arange(len(table)) % 7 == 0
    suspicion = np.where(wrong, rng.uniform(0.7, 1, len(table)), rng.uniform(0, 0.1, len(table)))
    other = np.array([labels[(labels.index(name) + 1) % len(labels)] for name in given])
    predicted = np.where(wrong, other, given)
    columns = {"predicted_label": predicted, "suggested_label": predicted, "suspicion": suspicion,
               "is_label_issue": wrong, "loss": 3 * suspicion}  # fmt: skip
    frame = pd.DataFrame({"sample_id": table.index, "given_label": given, **columns})
    return frame.sort_values("suspicion", ascending=False)


def order_of(table: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    """A visual order by chance."""
    rng = np.random.default_rng(seed)
    place = rng.permutation(len(table))
    frame = pd.DataFrame({"position": place, "label_position": 0, "outlier_score": rng.random(len(table)),
                          "label_outlier_score": rng.random(len(table))}, index=table.index)  # fmt: skip
    frame["label_position"] = frame.groupby(table["label"])["position"].rank().astype(int) - 1
    return frame


def pixels_of(rows: np.ndarray) -> np.ndarray:
    """Pictures of one colour each, by which a row can be told."""
    rows = np.asarray(rows)
    colour = np.stack([rows % 251, rows // 251 * 20 % 251, np.full(len(rows), 120)], axis=-1).astype(np.uint8)
    return np.broadcast_to(colour[:, None, None, :], (len(rows), 16, 16, 3)).copy()


def open_desk(
    out: Path, table: pd.DataFrame | None = None, audit: bool = True, fixes: str | None = None,
    allow: tuple[str, ...] = (), reviewer: str = "anna",
) -> Desk:  # fmt: skip
    table = table_of() if table is None else table
    samples = make_samples(table, ranking_of(table) if audit else None, order_of(table), calibrated=audit)
    journal = Journal(out / "journal.jsonl")
    try:
        ledger = Ledger(samples, journal)
        file, opened = begin(out / "fixes.csv", ledger, table, fixes, allow, reviewer)
        seen = SeenLog(out / "seen.jsonl", samples)
    except BaseException:
        journal.close()
        raise
    sprites = Sprites(pixels_of, 16, "test", out / "sprites")
    return Desk(samples, ledger, seen, file, sprites, "test", reviewer, opened.notes, opened.conflicts,
                "new_labels" in allow)  # fmt: skip


def mark(desk: Desk, *marks: tuple[str, str | None], reviewer: str = "anna", **more: Any) -> dict[str, Any]:
    """Marks samples by id."""
    wanted = [{"sample_id": name, "new_label": label, **more} for name, label in marks]
    return desk.answer("marks", {"marks": wanted, "reviewer": reviewer})


def lines(desk: Desk) -> dict[str, str]:
    """What fixes.csv says: sample to new label."""
    frame = pd.read_csv(desk.file.path, keep_default_na=False, dtype=str)
    return dict(zip(frame["sample_id"], frame["new_label"], strict=True))
