"""Checks predictions of other frameworks before they are used: spellings of names, losses, probabilities.

Shapes: N samples, C classes.
"""

import logging
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from mlfix_train.audit.scores.label_scores import TOLERANCE
from mlfix_train.data.matching import name_key, spelled_alike
from mlfix_train.errors import RunError, format_list

log = logging.getLogger(__name__)

MIN_ROWS = 10
"""Rows from which on predictions that are never a given label are an error."""
FEW_RIGHT = 0.1
"""Share of predictions that are the given label below which there is a warning."""
MOSTLY = 0.6
"""Share of samples that are predicted as what is usual for their label, from which on the classes are mixed up."""
RESERVED = ("sample_id", "label", "pred", "loss", "prob", "label_prob", "margin", "split")
PREFIXES = ("", "prob_", "probability_", "pred_prob_", "pred_probs_", "p_")
"""What names of columns of probabilities may begin with, before the label."""
Place = Callable[[int], str]
"""Names a row for an error: ``line 3``."""


def unify_blanks(labels: pd.Series, source: str) -> pd.Series:
    """Returns labels with one spelling for those that differ by blanks around them or by their Unicode form alone."""
    spellings: dict[str, list[str]] = {}
    for name in labels.unique():
        spellings.setdefault(unicodedata.normalize("NFC", name).strip(), []).append(name)
    renamed = {name: plain for plain, names in spellings.items() if len(names) > 1 for name in names if name != plain}
    if not renamed:
        return labels
    log.warning(
        "%s: labels that differ by blanks or Unicode form are taken as one: %s",
        source,
        format_list(map(repr, renamed), 3),
    )
    return labels.map(lambda name: renamed.get(name, name))


def match_names(labels: pd.Series, preds: pd.Series, source: str) -> pd.Series:
    """Returns predictions in the spelling of the given labels, if only blanks, ``1`` and ``1.0``, or Unicode differ.

    Args:
        labels: given labels, text ``(N,)``.
        preds: predicted labels, text ``(N,)``; empty where unknown.
        source: the file, for errors.

    Raises:
        RunError: A prediction could be one of two labels, or none of :data:`MIN_ROWS` or more predictions is any of
            the labels.
    """
    given = set(labels.unique())
    same = spelled_alike((name for name in preds.unique() if name), given)
    if same:
        for name, candidates in same.items():
            if len(candidates) > 1:
                problem = (
                    f"{source}: the prediction {name!r} may be any of the labels {format_list(map(repr, candidates))}"
                )
                raise RunError(problem, "spell each label one way")
        renamed = {name: candidates[0] for name, candidates in same.items() if candidates}
        if renamed:
            pairs = format_list((f"{name!r} is {label!r}" for name, label in renamed.items()), 3)
            log.info("%s: predictions and labels are spelled differently and were matched: %s", source, pairs)
            preds = preds.map(lambda name: renamed.get(name, name))
    known = preds[preds != ""]
    if len(known) >= MIN_ROWS and given.isdisjoint(known.unique()):
        shown, others = format_list(sorted(given), 4), format_list(sorted(known.unique()), 4)
        numbers = all(name_key(name).lstrip("-").isdigit() for name in known.unique())
        hint = "pred contains class numbers: write the class names instead" if numbers else "use the same names in both"
        raise RunError(
            f"{source}: no prediction is one of the given labels: labels are {shown}, predictions {others}", hint
        )
    warn_if_few_right(labels[known.index], known, source)
    return preds


def warn_if_few_right(labels: pd.Series, preds: pd.Series, source: str) -> None:
    """Warns where hardly any prediction is the given label, with the likely reason."""
    right = float((labels == preds).mean()) if len(preds) else 1.0
    if len(preds) >= MIN_ROWS and right < FEW_RIGHT:
        text = "%s: only %.0f%% of the predictions match the given label: %s"
        log.warning(text, source, 100 * right, _why_wrong(labels, preds))


def _why_wrong(labels: pd.Series, preds: pd.Series) -> str:
    """Returns the likely reason why nearly all predictions differ from the labels, with the most frequent pair."""
    pairs = pd.DataFrame({"label": labels, "pred": preds})[labels != preds].value_counts()
    label, pred = pairs.index[0]
    pair = f"most often, {pairs.iloc[0]:,} times, {label!r} is predicted as {pred!r}"
    usual = pairs.reset_index().drop_duplicates("label")  # what is predicted for each label most often
    consistent = usual["count"].sum() / len(labels) > MOSTLY and usual["pred"].is_unique
    if not consistent:
        return f"{pair}; was the model trained on these labels, and are the rows in the order of the samples?"
    return f"{pair}, and each label as one other: the classes are in another order than where the model was trained"


def check_losses(losses: pd.Series, source: str, place: Place) -> np.ndarray:
    """Returns losses as float64 ``(N,)``.

    Raises:
        RunError: One is not a finite number, or below 0; its row is named.
    """
    numbers = pd.to_numeric(losses, errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise RunError(
            f"{source}: {place(bad[0])} has the loss {losses.iloc[bad[0]]!r}", "losses must be finite numbers"
        )
    negative = np.flatnonzero(numbers < 0)
    if len(negative):
        problem = f"{source}: {place(negative[0])} has the loss {numbers[negative[0]]:g}, below 0"
        hint = "a cross-entropy is 0 or more, higher is worse; if this is a log-likelihood, negate it"
        raise RunError(f"{problem} ({len(negative):,} of {len(numbers):,} losses are)", hint)
    return numbers


def check_shares(values: pd.Series, source: str, place: Place) -> np.ndarray:
    """Returns probabilities as float64 ``(N,)``.

    Raises:
        RunError: One is not a number from 0 to 1; its row is named.
    """
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~((numbers >= 0) & (numbers <= 1 + 1e-6)))
    if len(bad):
        problem = f"{source}: {place(bad[0])} has the {values.name} {values.iloc[bad[0]]!r}"
        raise RunError(problem, "probabilities must be from 0 to 1; if these are log-probabilities, take exp")
    return np.asarray(np.minimum(numbers, 1.0))


def probability_columns(table: pd.DataFrame, labels: Iterable[str], source: str, place: Place) -> dict[str, str] | None:
    """Finds the columns of a table that hold the probability of each class.

    They are named as the labels, alone or after one of :data:`PREFIXES`; classes that are never a label may be among
    them. Each row sums to 1.

    Returns:
        Class name to column, in the order of the columns; ``None`` if there are none.

    Raises:
        RunError: Columns that are named as the labels do not hold probabilities; a row is named.
    """
    given = {name_key(name): name for name in labels}
    for prefix in PREFIXES:
        named = {
            given.get(name_key(str(column)[len(prefix) :]), str(column)[len(prefix) :]): column
            for column in table.columns
            if str(column).startswith(prefix) and column not in RESERVED
        }
        if not set(given.values()) <= set(named):
            continue
        numbers = {name: pd.to_numeric(table[column], errors="coerce") for name, column in named.items()}
        shares = {name: values.to_numpy(np.float64) for name, values in numbers.items()}
        likely = [name for name, values in shares.items() if ((values >= 0) & (values <= 1 + TOLERANCE)).all()]
        for names in (likely, [name for name in named if name in set(given.values())]):
            total = np.sum([shares[name] for name in names], axis=0) if names else np.zeros(len(table))
            bad = np.flatnonzero(~(np.abs(total - 1) <= TOLERANCE))
            if set(given.values()) <= set(names) and not len(bad):
                return {name: named[name] for name in names}
        empty = [str(named[name]) for name in names if np.isnan(shares[name][bad[0]])]
        if empty:
            raise RunError(
                f"{source}: {place(bad[0])} has no number in {format_list(empty, 4)}", "complete or remove the row"
            )
        problem = f"{source}: {place(bad[0])}: the columns {format_list(names, 4)} sum to {total[bad[0]]:.4g}"
        raise RunError(
            problem, "each row of probabilities must sum to 1: use the softmax of the logits over all classes"
        )
    return None


def check_numbers(values: Sequence[object] | np.ndarray, n_classes: int, source: str) -> np.ndarray:
    """Returns labels as class numbers, int64 ``(N,)``.

    Raises:
        RunError: One is not a whole number from 0 to ``n_classes - 1``.
    """
    numbers = pd.to_numeric(pd.Series(list(values)), errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~((numbers >= 0) & (numbers < n_classes) & (numbers % 1 == 0)))
    if len(bad):
        problem = f"{source}: row {bad[0]} has the label {values[bad[0]]}, and there are {n_classes} columns"
        raise RunError(problem, f"labels must be 0 to {n_classes - 1}, or names")
    return numbers.astype(np.int64)
