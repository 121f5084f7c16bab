"""Images that are not files of their own: members of a tar file, rows of an Arrow file or of a torchvision data set.

The ``path`` of such a sample says where its image is, as fsspec chains addresses: ``<kind>://<place>::<file>``. It is
plain text, so tables, worker processes and run directories pass it on like the path of a file, and
:func:`mlfix_train.data.pixels.decode.open_image` opens both.

- ``tar://<byte>+<size>/<member>::<shard>``: a member of an uncompressed tar file, by its place in the file;
- ``arrow://<row>/<column>::<file>``: a cell of an Arrow stream, as the Hugging Face ``datasets`` library writes it: an
  encoded image, or the struct ``bytes, path``;
- ``torchvision://<row>/<class>?<arguments>::<root>``: an item of a data set of :mod:`torchvision.datasets`, whose
  arguments include a checksum of its images, ``crc32``.
"""

import io
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

import numpy as np
from PIL import Image

KINDS = ("tar://", "arrow://", "torchvision://")
OPEN_FILES = 64
"""Arrow files and data sets that a process keeps open."""


def is_contained(path: str) -> bool:
    """Returns whether ``path`` is a place inside a file, and not a file."""
    return path.startswith(KINDS)


def tar_member(shard: str | Path, name: str, offset: int, size: int) -> str:
    """Returns the path of a member of a tar file, whose ``size`` bytes begin at byte ``offset``."""
    return f"tar://{offset}+{size}/{quote(name, safe='/')}::{shard}"


def arrow_cell(column: str, file: str | Path, row: int) -> str:
    """Returns the path of an image in an Arrow stream."""
    return f"arrow://{row}/{quote(column, safe='')}::{file}"


def torchvision_item(name: str, arguments: dict[str, Any], root: str | Path, row: int) -> str:
    """Returns the path of an item of a torchvision data set of class ``name``."""
    return f"torchvision://{row}/{name}?{quote(json.dumps(arguments, sort_keys=True), safe='')}::{root}"


def containing_file(path: str) -> str:
    """Returns the file that has to be there and unchanged for an image to be the same: itself, a shard, an Arrow file.

    It is empty where the path has a checksum instead.
    """
    if not is_contained(path):
        return path
    return "" if path.startswith("torchvision://") else path.partition("::")[2]


def place_in(path: str) -> tuple[str, str, str, str]:
    """Returns kind, row or bytes, name and file of a path made by this module."""
    kind, _, rest = path.partition("://")
    place, _, file = rest.partition("::")
    position, _, name = place.partition("/")
    return kind, position, name, file


def image_suffix(path: str) -> str | None:
    """Returns the suffix of an image's name in lower case; ``None`` if it has no name but may be any image."""
    if path.startswith("arrow://"):
        return None
    return os.path.splitext(unquote(place_in(path)[2]) if path.startswith("tar://") else path)[1].lower()


def open_bytes(path: str) -> BinaryIO:
    """Opens an encoded image, be it a file or inside one.

    Raises:
        OSError: The file is missing, or has no such member or row.
    """
    return io.BytesIO(read_contained(path)) if is_contained(path) else open(path, "rb")


def read_contained(path: str) -> bytes:
    """Returns an image inside a file as it is encoded there; of an item of a torchvision data set, a PNG.

    Raises:
        OSError: The file is missing, or has no such member or row.
    """
    kind, position, name, file = place_in(path)
    if kind == "torchvision":
        return _item_bytes(name, file, int(position))
    if kind == "arrow":
        return _cell_bytes(file, unquote(name), int(position))
    offset, _, size = position.partition("+")
    with open(file, "rb") as shard:
        shard.seek(int(offset))
        content = shard.read(int(size))
    if len(content) < int(size):
        raise OSError("the shard is truncated")
    return content


def _cell_bytes(file: str, column: str, row: int) -> bytes:
    stat = os.stat(file)
    table, starts = _arrow_table(file, stat.st_size, stat.st_mtime_ns)
    if row >= table.num_rows:
        raise OSError(f"the file has {table.num_rows:,} rows")
    chunk = int(np.searchsorted(starts, row, side="right")) - 1
    value = table.column(column).chunk(chunk)[row - int(starts[chunk])].as_py()
    content = value.get("bytes") if isinstance(value, dict) else value
    if content is None:
        raise OSError("the row has no image")
    return bytes(content)


def arrow_rows(file: str) -> int:
    """Returns how many rows an Arrow stream has."""
    stat = os.stat(file)
    return int(_arrow_table(file, stat.st_size, stat.st_mtime_ns)[0].num_rows)


@lru_cache(maxsize=OPEN_FILES)
def _arrow_table(file: str, size: int, mtime_ns: int) -> tuple[Any, np.ndarray]:
    """Maps an Arrow stream into memory; returns it with the first row of each of its batches."""
    import pyarrow as pa

    table = pa.ipc.open_stream(pa.memory_map(file)).read_all()
    lengths = [len(chunk) for chunk in table.column(0).chunks] if table.num_columns else []
    return table, np.cumsum([0, *lengths[:-1]])


def _item_bytes(name: str, root: str, row: int) -> bytes:
    class_name, _, arguments = name.partition("?")
    image = open_torchvision(class_name, root, unquote(arguments))[row][0]
    image = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


@lru_cache(maxsize=4)
def open_torchvision(name: str, root: str, arguments: str) -> Any:
    """Returns a data set of :mod:`torchvision.datasets`; ``arguments`` is JSON, without ``crc32`` if it is there."""
    import torchvision.datasets

    options = {key: value for key, value in json.loads(arguments).items() if key != "crc32"}
    return getattr(torchvision.datasets, name)(**({"root": root} if root else {}), **options)
