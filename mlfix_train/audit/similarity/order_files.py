"""Orders on disk: ``order.parquet`` and ``embeddings.npy`` with the fingerprint of what they were made from.

``order.parquet`` has a row for each image that could be read, in the order of the sample table, as have the rows of
``embeddings.npy``:

- ``sample_id``, and ``label`` where there are labels;
- ``position``: its place in the order of all images, from 0;
- ``label_position``: its place in the order of its label's images;
- ``outlier_score``: how unlike its nearest neighbours it is, 1 is usual, higher is stranger;
- ``label_outlier_score``: the same among its label's images;
- ``duplicate_group``: number of its near-duplicates' group, -1 where it has none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.errors import DataError, format_list

VERSION = 1
COLUMNS = ("sample_id", "position", "label_position", "outlier_score", "label_outlier_score", "duplicate_group")


def samples_fingerprint(ids: Iterable[str]) -> str:
    """Returns a SHA-256 (hex) of sample ids and their order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def write_embeddings(embeddings: np.ndarray, path: Path) -> Path:
    """Writes ``N,D`` embeddings as ``.npy``, whole or not at all; returns the path."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, embeddings)
    return path


def read_embeddings(path: Path, count: int, source: str = "embeddings") -> np.ndarray:
    """Reads embeddings of ``count`` images.

    Raises:
        DataError: no such file, no numbers, or another number of rows, with what to do.
    """
    from mlfix_train.audit.similarity.neighbours import check_embeddings  # brings torch, which orders alone don't need

    hint = "give embeddings.npy of `mlfix sort`, or an N,D array that numpy.save wrote, a row an image in their order"
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{source}={path} does not exist", hint) from error
    except (OSError, ValueError, EOFError) as error:
        first = str(error).split(". ")[0]
        raise DataError(f"{source}={path} can't be read: {first}", hint) from error
    if not isinstance(found, np.ndarray):
        raise DataError(f"{source}={path} holds several arrays", hint)
    if found.ndim != 2 or len(found) != count:
        raise DataError(
            f"{source}={path} has the shape {found.shape}, and there are {count:,} images",
            "it belongs to other images: embed these anew (leave it out), or give the data that it was made from",
        )
    return check_embeddings(found, f"{source}={path}")


def write_order(order: pd.DataFrame, path: Path, about: dict[str, Any]) -> Path:
    """Writes an order as Parquet with ``about`` (as JSON, under the key ``mlfix``) in its schema; returns the path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(order, preserve_index=False)
    kept = {**(table.schema.metadata or {}), b"mlfix": json.dumps({"version": VERSION, **about}).encode()}
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(kept), temporary)
    return path


def read_order(where: str | Path, ids: pd.Index, key: str = "order", partial: bool = False) -> pd.DataFrame:
    """Reads an order and fits it to samples.

    Args:
        where: directory of ``mlfix sort``, or its ``order.parquet``.
        ids: the samples that it is wanted for.
        key: what the configuration calls it, for errors.
        partial: allow samples that it does not hold; they are left out.

    Returns:
        Its rows, indexed by ``sample_id``, in the order of ``ids``; ``attrs`` holds what was written beside it.

    Raises:
        DataError: no such file, no order, or one of other samples.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(where).expanduser()
    path = path / "order.parquet" if path.is_dir() else path
    hint = f"give the directory that `mlfix sort` wrote: {key}=<directory>"
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {}).get(b"mlfix", b"null"))
        found = table.to_pandas()
    except FileNotFoundError as error:
        raise DataError(f"{key}={where} holds no order.parquet", hint) from error
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DataError(f"{path} can't be read: {str(error).splitlines()[0]}", hint) from error
    missing = [name for name in COLUMNS if name not in found.columns]
    if missing or not isinstance(about, dict):
        raise DataError(
            f"{path} is no order of `mlfix sort`: it lacks {format_list(missing) or 'its fingerprint'}", hint
        )
    found = found.set_index("sample_id")
    known = ids.isin(found.index)
    if not known.any() or (not partial and not known.all()):
        raise DataError(
            f"{path} was made for other samples: it lacks {int((~known).sum()):,} of {len(ids):,}, such as "
            f"{format_list(ids[~known], 2)}",
            "sort these samples: mlfix sort with the same data",
        )
    result = found.loc[ids[known]]
    result.attrs = about
    return result
