"""What users pass as labels, names and numbers (arrays, tensors, lists, pandas objects), as the arrays of an audit.

Shapes: N samples, C classes.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.errors import DataError, format_list

log = logging.getLogger(__name__)

MIN_RIGHT = 0.5
"""Share of labels that must be predicted for columns to be taken in the alphabetical order of the labels."""


def as_array(values: Any, name: str) -> np.ndarray:
    """Returns an array of whatever holds one: a tensor of any type on any device, a list, a pandas object.

    Raises:
        DataError: Rows of different lengths.
    """
    if hasattr(values, "detach"):  # a tensor; NumPy has no bfloat16
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    try:
        return np.asarray(values)
    except ValueError as error:
        problem = f"{name} has rows of different lengths"
        hint = "pass one label per sample; several labels per sample can't be audited" if name == "labels" else ""
        raise DataError(problem, hint or "pass a rectangular array") from error


def list_names(argument: str, names: Any) -> list[str]:
    """Returns names as text, in order; blanks around them are left out.

    Args:
        argument: what errors call them.
        names: a list or array, or a mapping between names and the numbers 0 to n - 1, in either direction.

    Raises:
        DataError: Something without an order, a name that is missing, or two that are the same.
    """
    if isinstance(names, (str, AbstractSet)):
        raise DataError(f"{argument} is a {type(names).__name__}", "pass a list of names, in order")
    if isinstance(names, Mapping):
        names = _by_number(argument, names)
    return _distinct_texts(argument, names, strip=True).tolist()


def _by_number(argument: str, names: Mapping[Any, Any]) -> list[Any]:
    """Returns the names of a mapping from numbers to names, or from names to numbers."""
    for numbers, texts in ((names.keys(), names.values()), (names.values(), names.keys())):
        places = {str(number): text for number, text in zip(numbers, texts, strict=True)}
        if len(places) == len(names) and set(places) == {str(number) for number in range(len(names))}:
            return [places[str(number)] for number in range(len(names))]
    problem = f"{argument} is a {type(names).__name__} that does not number its names from 0"
    raise DataError(problem, "pass a list of names, in order")


def list_ids(argument: str, ids: Any) -> pd.Index | None:
    """Returns sample ids (text, numbers or paths) as text, in order; ``None`` for ``None``.

    Raises:
        DataError: Something without an order, an id that is missing, or two that are the same.
    """
    if ids is None:
        return None
    if isinstance(ids, (str, AbstractSet, Mapping)):
        raise DataError(f"{argument} is a {type(ids).__name__}", "pass a list of names, in order")
    return _distinct_texts(argument, ids)


def _distinct_texts(argument: str, names: Any, strip: bool = False) -> pd.Index:
    """Returns names as text, without the blanks around them for ``strip``; none may be missing or occur twice."""
    listed = names.tolist() if hasattr(names, "tolist") else list(names)
    texts = [str(name).strip() if strip else str(name) for name in listed]
    missing = next((place for place, name in enumerate(listed) if pd.isna(name) or not texts[place]), None)
    if missing is not None:
        raise DataError(f"{argument}[{missing}] is {listed[missing]!r}", "give each a name")
    index = pd.Index(texts, dtype=object)
    if not index.is_unique:
        repeated = index[index.duplicated()].unique()
        raise DataError(f"{argument} has {len(repeated):,} names twice: {format_list(repeated, 3)}", "make them unique")
    return index


def list_groups(groups: Any, sample_ids: Sequence[str]) -> list[str]:
    """Returns the group of each sample as text; a sample without one (None, NaN, empty) is its own group."""
    listed = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    return [
        str(name) if pd.isna(group) or str(group) == "" else str(group)
        for group, name in zip(listed, sample_ids, strict=True)
    ]


def align_rows(**tables: Any) -> tuple[dict[str, Any], pd.Index | None]:
    """Puts pandas objects in the same order of rows, that of the first.

    Objects that are no pandas ones, or number their rows from 0, are taken as they are.

    Returns:
        The objects by name, and the index of the first if it holds distinct names (text).

    Raises:
        DataError: Two of them have an index of other rows.
    """
    indexed = {name: one for name, one in tables.items() if isinstance(one, (pd.Series, pd.DataFrame))}
    found, names = dict(tables), None
    for first, reference in indexed.items():
        index = reference.index
        if index.is_unique and pd.api.types.infer_dtype(index) == "string":
            names = index
        for name, other in indexed.items():
            if name == first or other.index.equals(index) or len(other) != len(reference):
                continue
            if index.is_unique and other.index.is_unique and other.index.isin(index).all():
                log.info("the rows of %s are put in the order of those of %s, by their index", name, first)
                found[name] = other.loc[index]
            elif not (_numbers_rows(index) or _numbers_rows(other.index)):
                row = next((row for row in other.index if row not in index), other.index[0])
                problem = f"{first} and {name} are indexed by different rows; of {name}, {row!r} has no match"
                raise DataError(problem, "give both the same index; or, if their rows match, pass arrays: .to_numpy()")
        break
    return found, names


def _numbers_rows(index: pd.Index) -> bool:
    return index.equals(pd.RangeIndex(len(index)))


def name_columns(pred_probs: Any, class_names: list[str] | None) -> tuple[Any, list[str] | None]:
    """Returns probabilities with columns in the order of the names, and these names.

    The columns of a DataFrame name the classes, unless they are numbers from 0; other arrays have no names.

    Raises:
        DataError: The columns and ``class_names`` are different names.
    """
    if not isinstance(pred_probs, pd.DataFrame) or _numbers_rows(pred_probs.columns):
        return pred_probs, class_names
    columns = list_names("the columns of pred_probs", pred_probs.columns)
    if class_names is None:
        return pred_probs, columns
    if set(columns) != set(class_names):
        shown = f"the columns of pred_probs are {format_list(columns, 6)}, class_names {format_list(class_names, 6)}"
        raise DataError(shown, "leave class_names out: the columns name the classes; or pass pred_probs.to_numpy()")
    return pred_probs.iloc[:, pd.Index(columns).get_indexer(pd.Index(class_names))], class_names


def list_categories(labels: Any, n_classes: int | None) -> list[str] | None:
    """Returns the categories of a pandas categorical, as names of the C classes; ``None`` for other labels."""
    categories = getattr(getattr(labels, "dtype", None), "categories", None)
    if categories is None or len(categories) != n_classes:
        return None
    return list_names("the categories of labels", categories)


def encode_labels(labels: Any, n_classes: int | None, class_names: list[str] | None) -> tuple[np.ndarray, list[str]]:
    """Returns labels as codes, int64 ``(N,)``, and the names of the C classes.

    Args:
        labels: N names (text), or numbers: the places of classes, from 0. Where all names are numbers, too, such as
            speed limits, numbers are names.
        n_classes: C, the columns of the predictions; ``None`` without predictions.
        class_names: C names; by default the sorted names, or the numbers.

    Raises:
        DataError: Labels that are missing or of no class, or that may be names as well as places; or more or fewer
            class names than columns.
    """
    values = _check_labels(labels)
    if n_classes is None:
        n_classes = len(class_names) if class_names is not None else len(np.unique(values))
        values = values.astype(str) if class_names is None else values
    if class_names is not None and len(class_names) != n_classes:
        problem = f"there are {len(class_names)} class names, but {n_classes} columns in pred_probs"
        raise DataError(problem, "pass class_names= with one name per column")
    are_numbers = values.dtype.kind in "iu"
    names = class_names or [str(code) for code in range(n_classes)]
    if are_numbers and not _numbers_are_names(values, names):
        codes = np.where((values >= 0) & (values < n_classes), values, -1).astype(np.int64)
    else:
        texts = pd.Index([str(value).strip() for value in values.tolist()], dtype=object)
        if class_names is None and not are_numbers:
            names = sorted(set(texts))
            if len(names) != n_classes:
                problem = f"there are {len(names)} different labels, but {n_classes} columns in pred_probs"
                raise DataError(problem, "pass class_names= with one name per column, in their order")
        codes = pd.Index(names, dtype=object).get_indexer(texts)
    unknown = np.flatnonzero(codes < 0)
    if len(unknown):
        value = values.tolist()[unknown[0]]
        problem = f"{len(unknown):,} labels are of no class, such as {value!r} in row {unknown[0]}"
        raise DataError(f"{problem}; the classes are {format_list(names, 6)}", _label_hint(value, n_classes))
    return codes, names


def _check_labels(labels: Any) -> np.ndarray:
    """Returns labels as an array of whole numbers or names ``(N,)``, none of them missing or several."""
    values = as_array(labels, "labels")
    if values.ndim != 1:
        raise DataError(f"labels have the shape {values.shape}", "pass one label per sample: an array (N,)")
    missing = np.flatnonzero(pd.isna(values))
    if len(missing):
        raise DataError(
            f"{len(missing):,} labels are missing, the first in row {missing[0]}", "leave these samples out"
        )
    if values.dtype.kind == "O":
        several = [isinstance(value, Collection) and not isinstance(value, str) for value in values]
        if any(several):
            row = several.index(True)
            problem = f"row {row} has the labels {values[row]!r}"
            raise DataError(problem, "pass one label per sample; several labels per sample can't be audited")
    if values.dtype.kind == "f":
        broken = np.flatnonzero(values % 1 != 0)
        if len(broken):
            raise DataError(f"row {broken[0]} has the label {values[broken[0]]}", "labels are class numbers or names")
    values = values.astype(np.int64) if values.dtype.kind in "fb" else values
    if values.dtype.kind == "i" and values.min(initial=0) < 0:
        row = int((values < 0).argmax())
        raise DataError(f"row {row} has the label {values[row]}", "leave out samples without a label, in all arrays")
    return values


def _numbers_are_names(values: np.ndarray, names: list[str]) -> bool:
    """Returns whether numbers are names of classes rather than their places.

    Raises:
        DataError: They may be both, with different meanings.
    """
    if names == [str(place) for place in range(len(names))]:
        return False
    found = {str(value) for value in np.unique(values)}
    are_places = bool(((values >= 0) & (values < len(names))).all())
    if found <= set(names) and are_places:
        problem = f"labels are numbers that may be names of classes ({format_list(names, 6)}) or their places, from 0"
        raise DataError(problem, "pass names as text: [str(label) for label in labels]; or names that are no numbers")
    return found <= set(names)


def _label_hint(label: Any, n_classes: int) -> str:
    if isinstance(label, str) and label.strip().isdigit():
        return "labels that are text must be names of classes; pass their numbers as integers"
    return f"labels must be names of classes, or their places, 0 to {n_classes - 1}"


def check_alphabetical(codes: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> None:
    """Checks that columns that have no names are in the alphabetical order of the labels, as was assumed.

    Raises:
        DataError: Fewer than :data:`MIN_RIGHT` of the labels are predicted.
    """
    right = float((codes == predicted).mean())
    if right < MIN_RIGHT:
        wrong = f"{100 * (1 - right):.0f}% of the labels are not predicted"
        problem = f"with the columns of pred_probs in the alphabetical order of the labels, {wrong}"
        raise DataError(problem, "pass class_names=, in the order of the columns")
    log.info("the columns of pred_probs are assumed to be the labels in alphabetical order: %s", format_list(names, 4))
