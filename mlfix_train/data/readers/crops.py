"""Reads the crops that ``mlfix crop`` wrote."""

from pathlib import Path

import pandas as pd

from mlfix_train.data.crops.folder import INFO, TABLE, read_info
from mlfix_train.data.readers.table import read_table
from mlfix_train.errors import DataError, names_arguments


@names_arguments("data")
def read_crops(root: str | Path) -> pd.DataFrame:
    """Reads the crops in ``root``, the ``out`` of ``mlfix crop``: photos are groups, all annotations metadata.

    Raises:
        DataError: There are no crops, or cropping is not finished.
    """
    base = Path(str(root)).expanduser()
    has_info = (base / INFO).exists()  # without it the table and its crops still can be used
    info = read_info(base, "data.root") if has_info else {}
    if not (base / TABLE).is_file():
        hint = "set the folder that `mlfix crop` wrote; data=folder reads class folders"
        raise DataError(f"data.root={root} contains no crops ({TABLE} is missing)", hint)
    table = read_table(base / TABLE)
    table.attrs["classes"] = info.get("classes", [])
    return table
