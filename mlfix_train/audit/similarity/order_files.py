"""Files of a visual order: ``order.parquet`` and ``embeddings.npy``; reading an order needs no torch.

Both have one row per readable image, in the order of the sample table. The columns of ``order.parquet``:

- ``sample_id``, and ``label``, null without labels
- ``position``: position in the order of all images, from 0
- ``label_position``: position in the order of the images of its label, -1 without a label
- ``outlier_score``: distance to its nearest neighbours relative to theirs; 0 and up, about 1 is usual, higher is more
  of an outlier
- ``label_outlier_score``: the same among the images of its label
- ``duplicate_group``: number of its group of near-duplicates, -1 if it has none

An audit writes ``embeddings.npy`` too; ``embeddings.parquet`` beside it has the ``sample_id`` of each row.
"""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.samples import find_names
from mlfix_train.errors import DataError, format_list

log = logging.getLogger(__name__)

VERSION = 1
COLUMNS = ("sample_id", "position", "label_position", "outlier_score", "label_outlier_score", "duplicate_group")


def samples_fingerprint(ids: Iterable[str]) -> str:
    """Returns a SHA-256 (hex) of sample ids in their order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def write_embeddings(embeddings: np.ndarray, path: Path, ids: Iterable[str] | None = None, used: str = "") -> Path:
    """Writes embeddings ``(N, D)`` as ``.npy``, atomically; returns the path.

    ``ids``, of the images without an order beside them, and what these were embedded by (``used``) go to a ``.parquet``
    of the same name; without ids, such a file of earlier embeddings is removed.
    """
    path.with_suffix(".parquet").unlink(missing_ok=True)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, embeddings)
    if ids is not None:
        write_order(pd.DataFrame({"sample_id": list(ids)}), path.with_suffix(".parquet"), {"used": used})
    return path


@dataclass(frozen=True)
class KeptEmbeddings:
    """A file of embeddings, ``.npy`` ``(M, D)``, the sample id of each row, and what the images were embedded by."""

    path: Path
    ids: list[str]
    used: str


def find_embeddings(folders: Iterable[str | Path | None]) -> KeptEmbeddings | None:
    """Finds embeddings that ``mlfix sort`` or ``mlfix audit`` kept, without reading them.

    Args:
        folders: Output folders, or an ``order.parquet`` in one, the best first; ``None`` is passed over.

    Returns:
        The first of which the samples are known, ``None`` if there are none; what cannot be used is logged.
    """
    for folder in folders:
        if folder is None:
            continue
        path = Path(folder).expanduser()
        path = (path if path.is_dir() else path.parent) / "embeddings.npy"
        tables = [path.with_suffix(".parquet"), path.with_name("order.parquet")]
        listed = next((table for table in tables if table.exists()), None)
        if listed is None or not path.exists():
            continue
        try:
            return _keep(path, listed)
        except DataError as error:
            log.warning("%s; similar images are searched for without it", error.problem)
    return None


def _keep(path: Path, listed: Path) -> KeptEmbeddings:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(listed, columns=["sample_id"])
        metadata = json.loads((table.schema.metadata or {}).get(b"mlfix", b"{}"))
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    except (OSError, pa.ArrowException, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be used: {str(error).splitlines()[0]}") from error
    if len(shape) != 2 or shape[0] != len(table):
        raise DataError(f"{path} has the shape {shape}, but {listed.name} lists {len(table):,} images")
    return KeptEmbeddings(path, table["sample_id"].to_pylist(), str(metadata.get("used") or "their embeddings"))


def read_embeddings(path: Path, count: int, key: str = "embeddings", ids: pd.Index | None = None) -> np.ndarray:
    """Reads embeddings, float32 ``(count, D)``.

    Args:
        path: A ``.npy`` file.
        count: Number of images.
        key: What the configuration calls the file, for errors.
        ids: Sample ids; if ``order.parquet`` is beside the file, it must list the same in the same order.

    Raises:
        DataError: The file is missing or unreadable, is not a finite matrix, or belongs to other images.
    """
    from mlfix_train.audit.similarity.neighbours import check_embeddings  # imports torch

    hint = "use the embeddings.npy of `mlfix sort`, or an (N, D) array written by numpy.save, one row per image"
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{key}={path} does not exist", hint) from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{key}={path} cannot be read: {str(error).split('. ')[0]}", hint) from error
    if not isinstance(found, np.ndarray):
        raise DataError(f"{key}={path} contains several arrays", hint)
    if found.ndim != 2 or len(found) != count:
        hint = "it belongs to other images: omit it to embed these, or use the data it was made from"
        raise DataError(f"{key}={path} has the shape {found.shape}, but there are {count:,} images", hint)
    if ids is not None and (path.parent / "order.parquet").is_file():
        order = read_order(path.parent, ids, key)
        if order.attrs.get("samples") != samples_fingerprint(ids):
            hint = "use the data it was made from, or omit it to embed these images"
            raise DataError(f"{key}={path} lists these images in a different order", hint)
    return check_embeddings(found, f"{key}={path}")


def write_order(order: pd.DataFrame, path: Path, metadata: dict[str, Any]) -> Path:
    """Writes an order as Parquet, with ``metadata`` as JSON under the key ``mlfix`` of its schema; returns the path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(order, preserve_index=False)
    mlfix = json.dumps({"version": VERSION, **metadata}).encode()
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), b"mlfix": mlfix}), temporary)
    return path


def read_order(where: str | Path, ids: pd.Index, key: str = "order", partial: bool = False) -> pd.DataFrame:
    """Reads an order and aligns it with samples.

    Args:
        where: Directory of ``mlfix sort``, or its ``order.parquet``.
        ids: Sample ids.
        key: What the configuration calls the directory, for errors.
        partial: Leave out samples that are not in the order, instead of raising.

    Returns:
        The columns of the order, indexed by ``sample_id``, in the order of ``ids``; ``attrs`` holds its metadata.

    Raises:
        DataError: The file is missing, is not an order, or belongs to other samples.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(where).expanduser()
    path = path / "order.parquet" if path.is_dir() else path
    hint = f"set {key}=<output folder of mlfix sort>"
    try:
        table = pq.read_table(path)
        metadata = json.loads((table.schema.metadata or {}).get(b"mlfix", b"null"))
        found = table.to_pandas()
    except FileNotFoundError as error:
        raise DataError(f"{key}={where} contains no order.parquet", hint) from error
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}", hint) from error
    missing = [name for name in COLUMNS if name not in found.columns]
    if missing or not isinstance(metadata, dict):
        raise DataError(f"{path} was not written by `mlfix sort`: no {format_list(missing) or 'fingerprint'}", hint)
    rows = find_names(ids, found["sample_id"])
    known = rows >= 0
    if not known.any() or (not partial and not known.all()):
        missed = f"{int((~known).sum()):,} of {len(ids):,} are missing, such as {format_list(ids[~known], 2)}"
        hint = "sort these samples: mlfix sort with the same data"
        raise DataError(f"{path} was made for other samples: {missed}", hint)
    result: pd.DataFrame = found.iloc[rows[known]].set_index("sample_id")
    result.attrs = metadata
    return result
