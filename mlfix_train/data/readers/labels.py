"""Labels as other libraries hold them (numbers, numpy scalars, lists), as text."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlfix_train.errors import DataError, format_list


def label_texts(values: Sequence[Any], source: str, key: str) -> list[str | None]:
    """Returns one label per sample as text: ``3`` and ``3.0`` as ``3``, booleans in lower case, ``None`` where empty.

    Args:
        values: N values.
        source: What errors call them.
        key: Setting that chooses them.

    Raises:
        DataError: A label is a list (several labels per sample), another structure, or a number with a fraction.
    """
    return [_text(row, value, source, key) for row, value in enumerate(values)]


def _text(row: int, value: Any, source: str, key: str) -> str | None:
    if hasattr(value, "ndim"):  # arrays and tensors
        value = value.item() if value.ndim == 0 or int(np.prod(value.shape)) == 1 else value.tolist()
    if isinstance(value, str):
        return value or None
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if isinstance(value, float):
        problem = f"{source}: the label of row {row} is {value:g}: a number to predict (regression), not a class"
        raise DataError(problem, f"choose a label that is a class by {key}")
    if isinstance(value, (list, tuple, set)):
        problem = f"{source}: the label of row {row} is a list, [{format_list(value, 3)}]: several labels per sample"
        hint = (
            f"multi-label data can't be used; choose one label per sample by {key}, or make a data set for each label"
        )
        raise DataError(problem, hint)
    problem = f"{source}: the label of row {row} is a {type(value).__name__}, not text or a number"
    raise DataError(problem, f"choose a label that is text or a number by {key}")
