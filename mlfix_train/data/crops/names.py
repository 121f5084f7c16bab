"""File names of crops, ``<label>/<photo>-<n>.jpg``: valid on every file system, and stable between calls."""

import hashlib
from collections import Counter

import pandas as pd

from mlfix_train.data.annotations.base import EDGES

RESERVED = {"con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))}
OWN_FILES = {"crop.json", "samples.parquet", "dropped.csv"}
FORBIDDEN = set('/\\:*?"<>|%')
MAX_BYTES = 200
"""Longest name; file systems allow 255 bytes."""


def escape_name(name: str) -> str:
    """Returns ``name`` as a valid name of a file or folder on any system, percent-encoded where necessary.

    Encoded are slashes and what Windows forbids, control characters, leading dots (hidden files), trailing dots and
    spaces, names that Windows reserves for devices, and names of our own files. Names over 200 bytes are cut and end in
    a hash of the whole name.
    """
    escaped = "".join(_encode(char) if char in FORBIDDEN or not char.isprintable() else char for char in name)
    if escaped.startswith((".", " ")):
        escaped = _encode(escaped[0]) + escaped[1:]
    if escaped.endswith((".", " ")):
        escaped = escaped[:-1] + _encode(escaped[-1])
    if escaped.split(".")[0].lower() in RESERVED or escaped.lower() in OWN_FILES:
        escaped = _encode(escaped[0]) + escaped[1:]
    if len(escaped.encode()) > MAX_BYTES:
        cut = escaped.encode()[: MAX_BYTES - 17].decode(errors="ignore").rstrip("%")
        escaped = f"{cut}~{_hash(name, 8)}"
    return escaped


def _encode(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode())


def _hash(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def crop_ids(boxes: pd.DataFrame, ids: str, suffix: str, stable_keys: bool) -> list[str]:
    """Returns the sample id of every box: ``<label>/<photo>-<n><suffix>``.

    ``n`` is, with ``ids=keys``, a hash of the box's key, or of its corners if ``annotation`` is no key that the source
    gives (``stable_keys``); with ``ids=positions`` its position in the photo. Identical boxes after the first get
    ``.2``, ``.3``, ...
    """
    if ids == "positions":
        numbers = [str(position) for position in boxes["position"]]
    elif stable_keys:
        numbers = [key if key.isdecimal() else _hash(key, 4) for key in boxes["annotation"]]
    else:
        edges = boxes[list(EDGES)].to_numpy(dtype=float)
        numbers = [_hash(" ".join(f"{edge:.6g}" for edge in row), 4) for row in edges]
    labels = {label: escape_name(str(label)) for label in boxes["label"].unique()}
    photos = {photo: "/".join(map(escape_name, str(photo).split("/"))) for photo in boxes["photo"].unique()}
    counts, result = Counter[str](), []
    for photo, label, number in zip(boxes["photo"], boxes["label"], numbers, strict=True):
        name = f"{labels[label]}/{photos[photo]}-{number}"
        counts[name] += 1
        result.append(f"{name}{f'.{counts[name]}' if counts[name] > 1 else ''}{suffix}")
    return result
