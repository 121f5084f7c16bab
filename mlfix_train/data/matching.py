"""Names that are spelled in two ways: of samples in a file and in the data, of labels in two columns.

Files that people and other tools write call a sample by its path on another machine, with backslashes, as a URL, by the
name of the file alone, without suffix, as a number, or with the prefix that Label Studio gives to uploads. A name is
matched where that is certain: one sample fits, and nothing in the name speaks against it.
"""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import unquote

import pandas as pd

from mlfix_train.errors import format_list

log = logging.getLogger(__name__)

UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of an uploaded file."""
UPLOADED = re.compile(r"^(?:.*/)?upload/(?:\d+/)?(?=[^/]+$)")
"""The folder of Label Studio's uploads, which says nothing of the sample."""


def name_key(name: str) -> str:
    """Returns a key that is the same for different spellings of a name: `` stop``, ``1.0`` and ``1``, é and é."""
    text = unicodedata.normalize("NFC", name).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else text


def spelled_alike(names: Iterable[str], known: Iterable[str]) -> dict[str, list[str]]:
    """Returns, for each of ``names`` that is none of the ``known``, those with the same :func:`name_key`."""
    known = set(known)
    by_key: dict[str, list[str]] = {}
    for name in sorted(known):
        by_key.setdefault(name_key(name), []).append(name)
    return {name: by_key.get(name_key(name), []) for name in names if name not in known}


def path_key(name: str) -> str:
    r"""Returns a key that is the same for different spellings of a path.

    Slashes and backslashes, ``./``, drive letters, ``file://`` and other servers, URL escapes, Unicode forms and blanks
    around it don't count: ``C:\data\a b.jpg`` and ``./data/a%20b.jpg`` are the same.
    """
    text = name.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if "://" in text:
        text = re.sub(r"^[A-Za-z][\w+.-]*://[^/]*", "", text).partition("?")[0]
    if "\\" in text:
        text = text.replace("\\", "/")
    if "%" in text:
        text = unicodedata.normalize("NFC", unquote(text))
    if ":" in text:
        text = re.sub(r"^[A-Za-z]:/", "", text)
    if "/" in text and ("//" in text or "./" in text or text[0] == "/"):
        text = "/".join(part for part in text.split("/") if part not in ("", "."))
    return text


def path_ends(path: str) -> list[str]:
    """Returns a path and its ends without leading folders, the longest first."""
    parts = path.split("/")
    return ["/".join(parts[i:]) for i in range(len(parts))]


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"


def _without_prefix(path: str) -> str:
    """Returns a path without the prefix of an upload."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{UPLOAD.sub('', name)}"


@dataclass
class MatchedIds:
    """What names in a file stand for.

    Attributes:
        ids: Name to sample id, of all names that are certain.
        ambiguous: Name to what speaks against it, of names that fit in more than one way.
        ways: Name to how it was matched, of those that are not the id itself.
    """

    ids: dict[str, str] = field(default_factory=dict)
    ambiguous: dict[str, str] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)

    def log(self, source: str) -> None:
        """Logs what was matched other than exactly."""
        if self.ways:
            ways = format_list((f"{count:,} {way}" for way, count in Counter(self.ways.values()).items()), 6)
            name = next(iter(self.ways))
            text = "%s: names were matched to samples: %s; such as %r to %r"
            log.info(text, source, ways, name, self.ids[name])


class IdMatcher:
    """Finds the samples of a table by names of any spelling.

    Args:
        table: Sample table; of its columns, ``path`` is used if it is there.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self._ids = [str(name) for name in table.index]
        self._known = set(self._ids)
        self._paths: list[str] = table["path"].astype(str).tolist() if "path" in table.columns else []

    def match(self, names: Iterable[str]) -> MatchedIds:
        """Matches names.

        Each stands for one sample. If any is an id, a spelling of it, or a path that ends in one, only such names
        count: the others are of samples that are not in the table. Else parts of paths will do, of one name per sample.
        """
        matched, guesses = MatchedIds(), dict[str, tuple[list[str], str]]()
        for name in dict.fromkeys(map(str, names)):
            found, way, is_guess = ([name], "", False) if name in self._known else self._find(name)
            if is_guess:
                guesses[name] = found, way
            elif len(found) == 1:
                matched.ids[name] = found[0]
                matched.ways |= {name: way} if way else {}
            elif found:
                matched.ambiguous[name] = f"it may be any of {format_list(found, 3)}"
        if not matched.ids:
            counts = Counter(found[0] for found, _ in guesses.values() if len(found) == 1)
            for name, (found, way) in guesses.items():
                if len(found) == 1 and counts[found[0]] == 1:
                    matched.ids[name], matched.ways[name] = found[0], way
                elif len(found) == 1:
                    matched.ambiguous[name] = f"other names stand for {found[0]}, too"
                else:
                    matched.ambiguous[name] = f"it may be any of {format_list(found, 3)}"
        return matched

    def _find(self, name: str) -> tuple[list[str], str, bool]:
        """Returns the samples that fit, in which way, and whether only a part of its path says so."""
        path = path_key(name)
        if path in self._by_path:
            return self._by_path[path], "written in another way", False
        if path in self._by_file:
            return self._by_file[path], "by the path of the image", False
        if (key := name_key(name)) in self._by_number:
            return self._by_number[key], "as numbers", False
        found = self._find_path(path)
        if not found[0] and (bare := _without_prefix(UPLOADED.sub("", path))) != path:
            found = self._find_path(bare)[0], "without the prefix of an upload", True
        if not found[0] and path in self._by_bare_end:
            found = self._by_bare_end[path], "without the prefix of an upload", True
        return found

    def _find_path(self, path: str) -> tuple[list[str], str, bool]:  # noqa: PLR0911 one way each
        """Finds samples by the end of their path, or by a path that ends in theirs."""
        ends = path_ends(path)
        if found := next((self._by_path[end] for end in ends if end in self._by_path), None):
            return found, "below other folders", "/" not in found[0]
        if path in self._by_end:
            return self._by_end[path], "without their folders", True
        for candidates in (ends, path_ends(_stem(path))):  # the name has no suffix, or another
            if candidates[0] in self._by_stem_end:
                return self._by_stem_end[candidates[0]], "without their suffix", True
            if found := next((self._by_stem[end] for end in candidates if end in self._by_stem), None):
                return found, "below other folders and without their suffix", True
        folded = (end.casefold() for end in ends)
        if found := next((self._by_folded[end] for end in folded if end in self._by_folded), None):
            return found, "in upper or lower case", True
        if self._has_unique_names and ends[-1] in self._by_end:
            return self._by_end[ends[-1]], "by the name of the file, in another folder", True
        return [], "", False

    @cached_property
    def _keys(self) -> list[str]:
        return [path_key(name) for name in self._ids]

    @cached_property
    def _by_path(self) -> dict[str, list[str]]:
        return self._index((key, name) for key, name in zip(self._keys, self._ids, strict=True))

    @cached_property
    def _by_file(self) -> dict[str, list[str]]:
        pairs = zip(self._paths, self._ids, strict=True) if self._paths else ()
        return self._index((path_key(path), name) for path, name in pairs)

    @cached_property
    def _by_number(self) -> dict[str, list[str]]:
        pairs = ((name_key(name), name) for name in self._ids if len(name) < 20)
        return self._index((key, name) for key, name in pairs if key.lstrip("-").isdigit())

    @cached_property
    def _by_end(self) -> dict[str, list[str]]:
        return self._index(
            (end, name) for key, name in zip(self._keys, self._ids, strict=True) for end in path_ends(key)
        )

    @cached_property
    def _by_bare_end(self) -> dict[str, list[str]]:
        bare = ((_without_prefix(key), key, name) for key, name in zip(self._keys, self._ids, strict=True))
        return self._index((end, name) for short, key, name in bare if short != key for end in path_ends(short))

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return self._index((_stem(key), name) for key, name in zip(self._keys, self._ids, strict=True))

    @cached_property
    def _by_stem_end(self) -> dict[str, list[str]]:
        return self._index(
            (end, name) for key, name in zip(self._keys, self._ids, strict=True) for end in path_ends(_stem(key))
        )

    @cached_property
    def _by_folded(self) -> dict[str, list[str]]:
        return self._index((key.casefold(), name) for key, name in zip(self._keys, self._ids, strict=True))

    @cached_property
    def _has_unique_names(self) -> bool:
        """Whether the names of the files, without folders, tell all samples apart."""
        return len({key.rpartition("/")[2] for key in self._keys}) == len(self._keys)

    @staticmethod
    def _index(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
        index: dict[str, list[str]] = {}
        for key, name in pairs:
            index.setdefault(key, []).append(name)
        return index
