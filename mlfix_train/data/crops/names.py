"""Names of crops: ``<label>/<photo>-<n>.jpg``, such as every file system takes, the same again at every reading."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from urllib.parse import unquote

import pandas as pd

RESERVED = {"con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))}
OURS = {"crop.json", "samples.parquet", "dropped.csv"}
FORBIDDEN = set('/\\:*?"<>|%')
LONGEST = 200
"""Bytes of a name; file systems take 255."""


def escape_name(name: str) -> str:
    """Returns ``name`` as the name of a file or folder on any system, by percent-encoding what is not allowed.

    Slashes and what Windows forbids, control characters, dots in front (hidden files), dots and blanks at the end, and
    names that Windows keeps for devices or that stand for our own files. Names over 200 bytes are cut, and end in a
    digest of the whole.
    """
    escaped = "".join(_encode(sign) if sign in FORBIDDEN or not sign.isprintable() else sign for sign in name)
    if escaped.startswith((".", " ")):
        escaped = _encode(escaped[0]) + escaped[1:]
    if escaped.endswith((".", " ")):
        escaped = escaped[:-1] + _encode(escaped[-1])
    if escaped.split(".")[0].lower() in RESERVED or escaped.lower() in OURS:
        escaped = _encode(escaped[0]) + escaped[1:]
    if len(escaped.encode()) > LONGEST:
        cut = escaped.encode()[: LONGEST - 17].decode(errors="ignore").rstrip("%")
        escaped = f"{cut}~{_digest(name, 8)}"
    return escaped


def unescape_name(name: str) -> str:
    """Returns what :func:`escape_name` was given (of names that were not cut)."""
    return unquote(name)


def _encode(sign: str) -> str:
    return "".join(f"%{byte:02X}" for byte in sign.encode())


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def crop_ids(boxes: pd.DataFrame, ids: str, suffix: str, own_keys: bool) -> list[str]:
    """Returns the sample id of every box: ``<label>/<photo>-<n><suffix>``.

    Args:
        boxes: N rows, see :class:`mlfix_train.data.annotations.base.Annotations`.
        ids: ``keys``: ``n`` is a digest of the box's key, or of its corners where it has none of its own;
            ``positions``: its place among the photo's boxes.
        suffix: ``.jpg`` or ``.png``.
        own_keys: whether ``annotation`` is a key that the source gives (rather than a line or place in a file).

    Returns:
        N ids, each once: of boxes that are the same in every respect, all but the first get ``.2``, ``.3``, ...
    """
    if ids == "positions":
        marks: Sequence[str] = [str(place) for place in boxes["position"]]
    elif own_keys:
        marks = [key if key.isdecimal() else _digest(key, 4) for key in boxes["annotation"]]
    else:
        edges = boxes[["x_min", "y_min", "x_max", "y_max"]].to_numpy(dtype=float)
        marks = [_digest(" ".join(f"{edge:.6g}" for edge in row), 4) for row in edges]
    escaped: dict[str, str] = {}
    taken: dict[str, int] = {}
    result = []
    for photo, label, mark in zip(boxes["photo"], boxes["label"], marks, strict=True):
        for name in (photo, label):
            if name not in escaped:
                parts = str(name).split("/") if name is photo else [str(name)]
                escaped[name] = "/".join(map(escape_name, parts))
        name = f"{escaped[label]}/{escaped[photo]}-{mark}"
        taken[name] = taken.get(name, 0) + 1
        result.append(f"{name}{f'.{taken[name]}' if taken[name] > 1 else ''}{suffix}")
    return result
