"""Judgements: which labels a person looked at, and which of them are wrong, from a review or from one's own data.

A label that was looked at and not marked is right, unless the answer was "unsure", which judges nothing. Fixes of
labels that were not looked at one by one, such as those of another tool, are wrong labels found, but say nothing about
others.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.data.fixes.table import read_fixes
from mlfix_train.data.samples import INVALID, UNSURE
from mlfix_train.errors import DataError

log = logging.getLogger(__name__)

MIN_REVIEWED = 200
"""Samples that were on the screen outside of the sample to judge count as judged if at least this many were reviewed
and one was marked: until then, someone may only have looked around."""

LABEL_COLUMNS = ("given_label", "predicted_label", "suggested_label")  # of a ranking


@dataclass(frozen=True, eq=False)
class Judgements:
    """Judged rows of a ranking.

    Attributes:
        rows: int64 ``(J,)``, rows that were judged.
        wrong: bool ``(J,)``, whether their label is wrong.
        found: int64, further rows whose label is wrong.
        kept: int64, further rows whose label was kept as given.
    """

    rows: np.ndarray
    wrong: np.ndarray
    found: np.ndarray
    kept: np.ndarray


def match_judgements(
    ranking: pd.DataFrame,
    judged: Mapping[str, Any] | pd.Series | pd.DataFrame | str | Path,
    looked_at: Collection[str] | None = None,
) -> Judgements:
    """Finds judged samples in a ranking.

    Args:
        ranking: with ``sample_id`` and ``given_label``.
        judged: sample id to whether the label is wrong; or fixes (a DataFrame with ``sample_id`` and ``new_label``, or
            a file), with the ids that were ``looked_at``; or the folder of a review, which knows them.
        looked_at: ids of all samples that were looked at, fixed or not.

    Raises:
        DataError: Nothing was judged, values that are not true or false, or ids that are not in the ranking.
        FixesError: The fixes can't be read.
    """
    if isinstance(judged, (str, Path)):
        path = Path(judged).expanduser()
        if path.is_dir():
            fixes, looked_at = read_review(path)
        else:
            fixes = read_fixes(path)
        return _match_fixes(ranking, fixes, looked_at, str(judged))
    if isinstance(judged, pd.DataFrame):
        return _match_fixes(ranking, judged, looked_at, "the fixes")
    if looked_at is not None:
        raise DataError("looked_at goes with fixes only", "leave it out: judged already says which labels are right")
    series = pd.Series(judged)
    if series.index.has_duplicates:
        name = series.index[series.index.duplicated()][0]
        raise DataError(f"{name!r} was judged twice", "give one judgement per sample")
    valid = series.map(lambda value: isinstance(value, (bool, np.bool_)) or (not pd.isna(value) and value in (0, 1)))
    if not valid.all():
        name = series.index[~valid.to_numpy(bool)][0]
        raise DataError(f"the judgement of {name!r} is {series[name]!r}", "use True (wrong) or False (right)")
    rows = _rows(ranking, series.index, "judged")
    if not len(rows):
        raise DataError("no label was judged", "judge some, such as those of draw_to_judge")
    none = np.zeros(0, np.int64)
    return Judgements(rows, series.to_numpy().astype(bool), none, none)


def _match_fixes(
    ranking: pd.DataFrame, fixes: pd.DataFrame, looked_at: Collection[str] | None, source: str
) -> Judgements:
    if looked_at is None:
        hint = "pass looked_at=<ids of all samples that were looked at>, or the folder of a review"
        raise DataError(f"{source} says which labels are wrong, but not which were found to be right", hint)
    given = pd.Series(ranking["given_label"].to_numpy(dtype=object), index=ranking["sample_id"])
    known = fixes[fixes["sample_id"].isin(given.index)]
    new = pd.Series(known["new_label"].to_numpy(dtype=object), index=known["sample_id"])
    new = new[~new.index.duplicated(keep="last")]
    is_unsure = new == UNSURE
    if is_unsure.any() and any(ranking[name].eq(UNSURE).any() for name in LABEL_COLUMNS if name in ranking):
        text = "%s: %r is a label of these data, so %d fixes count as that label, not as an answer"
        log.warning(text, source, UNSURE, int(is_unsure.sum()))
        is_unsure = pd.Series(False, is_unsure.index)
    is_wrong = ((new == INVALID) | (new != given[new.index])) & ~is_unsure
    fixed = set(is_wrong.index[is_wrong])
    ids = pd.Index(list(dict.fromkeys(looked_at)), dtype=object)
    ids = ids[ids.isin(given.index) & ~ids.isin(is_unsure.index[is_unsure])]
    if not len(ids):
        raise DataError(
            f"{source}: none of the {len(ranking):,} ranked samples was looked at",
            "judge some: mlfix review, then 'Judge a sample'",
        )
    found = pd.Index([name for name in fixed if name not in ids], dtype=object)
    kept = new.index[~is_wrong & ~is_unsure & ~new.index.isin(ids)]
    wrong = np.array([name in fixed for name in ids], bool)
    more = (np.sort(_rows(ranking, names, source)) for names in (found, kept))
    return Judgements(_rows(ranking, ids, source), wrong, *more)


def _rows(ranking: pd.DataFrame, ids: pd.Index, source: str) -> np.ndarray:
    rows = pd.Index(ranking["sample_id"]).get_indexer(ids)
    if (rows < 0).any():
        missing = ids[rows < 0]
        raise DataError(
            f"{len(missing):,} samples that were {source} are not in the ranking, such as {missing[0]!r}",
            "use the sample ids of the ranking",
        )
    return np.asarray(rows, np.int64)


def read_review(folder: str | Path) -> tuple[pd.DataFrame, list[str]]:
    """Reads what was judged in a review, whether or not its page is open.

    Args:
        folder: of the review, with ``fixes.csv``, ``seen.jsonl`` and ``journal.jsonl``.

    Returns:
        The fixes, and the ids of all samples that were judged, see :func:`counts_as_judged`.

    Raises:
        DataError: It is not the folder of a review.
    """
    path = Path(folder).expanduser()
    if not (path / "fixes.csv").exists() or not (path / "journal.jsonl").exists():
        raise DataError(f"{folder} is not the folder of a review", "set review=<output folder of mlfix review>")
    fixes = read_fixes(path / "fixes.csv")
    seen, sample = dict[str, None](), dict[str, None]()
    for entry in _lines(path / "seen.jsonl"):
        (sample if entry.get("random") else seen).update(dict.fromkeys(entry.get("seen", [])))
    reviewed, reviewed_sample = dict[str, None](), dict[str, None]()
    for entry in _lines(path / "journal.jsonl"):
        for ids, key in ((reviewed, "sample_ids"), (reviewed_sample, "random_ids")):
            names = entry.get(key, [])
            if entry.get("action") in ("mark", "review", "redo"):
                ids.update(dict.fromkeys(names))
            elif entry.get("action") == "undo":
                for name in names:
                    ids.pop(name, None)
    judged = {**sample, **reviewed_sample, **reviewed}
    by_group = bool(reviewed.keys() - reviewed_sample.keys())
    n_wrong = int(((fixes["new_label"] != fixes["old_label"]) & (fixes["new_label"] != UNSURE)).sum())
    if counts_as_judged(n_wrong, len({**seen, **judged}), by_group):
        judged |= seen
    return fixes, list(judged)


def counts_as_judged(n_marked: int, n_reviewed: int, group_reviewed: bool) -> bool:
    """Whether samples that were on the screen outside of the sample to judge count as judged."""
    return group_reviewed or (n_marked > 0 and n_reviewed >= MIN_REVIEWED)


def _lines(path: Path) -> list[dict[str, Any]]:
    """Returns the JSON objects in the lines of a file; truncated lines are left out."""
    entries = []
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries
