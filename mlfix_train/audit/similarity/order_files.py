"""Files of a visual order: ``order.parquet`` and ``embeddings.npy``; reading an order needs no torch.

Both have one row per readable image, in the order of the sample table. The columns of ``order.parquet``:

- ``sample_id``, and ``label``, null without labels
- ``position``: position in the order of all images, from 0
- ``label_position``: position in the order of the images of its label, -1 without a label
- ``outlier_score``: distance to its nearest neighbours relative to theirs; 0 and up, about 1 is usual, higher is more
  of an outlier
- ``label_outlier_score``: the same among the images of its label
- ``duplicate_group``: number of its group of near-duplicates, -1 if it has none
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.errors import DataError, format_list

VERSION = 1
COLUMNS = ("sample_id", "position", "label_position", "outlier_score", "label_outlier_score", "duplicate_group")


@dataclass(frozen=True)
class KeptEmbeddings:
    """A file of embeddings or features, ``.npy`` ``(M, D)``, and the sample id of each of its rows."""

    path: Path
    ids: pd.Index


def find_embeddings(folders: Iterable[str | Path | None], readable: pd.Index) -> KeptEmbeddings | None:
    """Finds the embeddings that an audit or ``mlfix sort`` kept, without reading them.

    Args:
        folders: Output folders, the best first; ``None`` is passed over.
        readable: Ids of the samples whose image can be read, in the order of the sample table.

    Returns:
        The first whose rows are known to be of these samples; ``None`` if there are none.
    """
    for folder in folders:
        for name in ("features.npy", "embeddings.npy"):
            if folder is None or not (path := Path(folder).expanduser() / name).is_file():
                continue
            try:
                count = len(np.load(path, mmap_mode="r"))
            except (OSError, ValueError, TypeError, EOFError):
                continue
            ids = _embedded_ids(path, readable)
            if ids is not None and len(ids) == count and readable.isin(ids).any():
                return KeptEmbeddings(path, ids)
    return None


def _embedded_ids(path: Path, readable: pd.Index) -> pd.Index | None:
    """Returns the sample ids of the rows of a file of embeddings, ``None`` if they are not known."""
    import pyarrow.parquet as pq

    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if facts.get("samples") == samples_fingerprint(readable):
            return readable
    except (OSError, ValueError, AttributeError):
        pass
    try:
        table = pq.read_table(path.with_name("order.parquet"), columns=["sample_id"])
        ids: pd.Index = pd.Index(table.column("sample_id").to_pandas())
        return ids
    except (OSError, ValueError, KeyError):
        return None


def samples_fingerprint(ids: Iterable[str]) -> str:
    """Returns a SHA-256 (hex) of sample ids in their order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def note_samples(folder: Path, ids: pd.Index) -> None:
    """Writes a fingerprint of the samples of ``features.npy`` beside it, in ``features.json``."""
    path = folder / "features.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    if facts.get("samples") != samples_fingerprint(ids):
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps({**facts, "samples": samples_fingerprint(ids)}), encoding="utf-8")


def write_embeddings(embeddings: np.ndarray, path: Path) -> Path:
    """Writes embeddings ``(N, D)`` as ``.npy``, atomically; returns the path."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, embeddings)
    return path


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
    found = found.set_index("sample_id")
    known = ids.isin(found.index)
    if not known.any() or (not partial and not known.all()):
        missed = f"{int((~known).sum()):,} of {len(ids):,} are missing, such as {format_list(ids[~known], 2)}"
        hint = "sort these samples: mlfix sort with the same data"
        raise DataError(f"{path} was made for other samples: {missed}", hint)
    result: pd.DataFrame = found.loc[ids[known]]
    result.attrs = metadata
    return result
