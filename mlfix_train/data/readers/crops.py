"""Reads the crops that ``mlfix crop`` wrote."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mlfix_train.data.files.json_files import read_json
from mlfix_train.data.readers.table import read_table
from mlfix_train.errors import DataError


def read_crops(root: str | Path) -> pd.DataFrame:
    """Reads the crops that ``mlfix crop`` wrote: photos are groups, everything in the annotations is metadata.

    Args:
        root: Its ``out``.

    Returns:
        A sample table.

    Raises:
        DataError: There are no crops, or cropping is not finished.
    """
    base = Path(str(root)).expanduser()
    state, file = base / "crop.json", base / "samples.parquet"
    unfinished = DataError(f"data.root={root} holds unfinished crops", "run the same `mlfix crop` command again")
    if not file.is_file():
        if state.is_file():
            raise unfinished
        hint = "set the folder that `mlfix crop` wrote; data=folder reads class folders"
        raise DataError(f"data.root={root} holds no crops (samples.parquet is missing)", hint)
    if state.exists():  # without it the table and its crops still can be used
        content, problem = read_json(state)
        if problem or not isinstance(content, dict):
            raise DataError(f"{state} can't be read: {problem or 'it is not an object'}", "crop again")
        if content.get("status") != "finished":
            raise unfinished
    return read_table(file)
