"""Names that are spelled in two ways: of samples in a file and in the data, of labels in two columns.

Files that people and other tools write call a sample by its path on another machine, by the name of the file alone, as
a number, or otherwise (:class:`mlfix_train.data.files.find.PathIndex`). A name is matched where that is certain: one
sample fits, and nothing in the name speaks against it.
"""

import itertools
import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import pandas as pd

from mlfix_train.data.files.find import CASE, END, PREFIX, SUFFIX, PathIndex, plain_path
from mlfix_train.errors import format_list

log = logging.getLogger(__name__)


def name_key(name: str) -> str:
    """Returns a key that is the same for different spellings of a name: `` stop``, ``1.0`` and ``1``, é and é."""
    text = unicodedata.normalize("NFC", name).strip()
    try:
        number = float(text.replace("_", "x"))  # Python reads 7_01 as 701
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


class _Found(NamedTuple):
    """Samples that a name may mean, how they were found, and whether only a part of the path says so."""

    ids: list[str]
    way: str
    is_guess: bool = False


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

        Each stands for one sample. If any is an id, a spelling of it, a path that ends in one, or folders and name of
        its image, only such names count: the others are of samples that are not in the table. Else parts of paths will
        do, of one name per sample.
        """
        matched, guesses = MatchedIds(), dict[str, _Found]()
        for name in dict.fromkeys(map(str, names)):
            found = _Found([name], "") if name in self._known else self._find(name)
            if found.is_guess and found.ids:
                guesses[name] = found
            elif len(found.ids) == 1:
                matched.ids[name] = found.ids[0]
                matched.ways |= {name: found.way} if found.way else {}
            elif found.ids:
                matched.ambiguous[name] = f"it may be any of {format_list(found.ids, 3)}"
        if not matched.ids:
            claims = {(found.ids[0], plain_path(name)) for name, found in guesses.items() if len(found.ids) == 1}
            counts = Counter(sample for sample, _ in claims)
            for name, found in guesses.items():
                first = found.ids[0]
                if len(found.ids) > 1:
                    matched.ambiguous[name] = f"it may be any of {format_list(found.ids, 3)}"
                elif counts[first] > 1:
                    matched.ambiguous[name] = f"other names stand for {first}, too"
                else:
                    matched.ids[name], matched.ways[name] = first, found.way
        return matched

    def _find(self, name: str) -> _Found:
        if (key := name_key(name)) in self._by_number:
            return _Found(self._by_number[key], "as numbers")
        found = self._by_id.find(name)
        if self._paths and (found.is_guess or not found.ids):
            by_file = self._by_file.find(name)
            if by_file.ids and not (found.ids and by_file.is_guess):
                return by_file._replace(way="by the path of the image")
        return found

    @cached_property
    def _by_id(self) -> "_Paths":
        return _Paths(self._ids, self._ids)

    @cached_property
    def _by_file(self) -> "_Paths":
        ends = zip(min(self._paths), max(self._paths), strict=False)
        common = "".join(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], ends))
        return _Paths(self._paths, self._ids, common.count("/"))

    @cached_property
    def _by_number(self) -> dict[str, list[str]]:
        pairs = ((name_key(name), name) for name in self._ids if len(name) < 20)
        return _grouped((key, name) for key, name in pairs if key.lstrip("-").isdigit())


class _Paths:
    """Samples by their ids, or by the paths of their images, of which the first ``depth`` folders are all the same."""

    def __init__(self, paths: list[str], ids: list[str], depth: int = 0) -> None:
        self._ids = _grouped(zip(map(plain_path, paths), ids, strict=True))
        self._index, self._depth = PathIndex(self._ids), depth
        self._are_names_unique = len({path.rpartition("/")[2] for path in self._ids}) == len(ids)

    def find(self, name: str) -> _Found:
        match = self._index.search(name)
        given, common = match.folders
        fitting = [path for path in match.candidates if common >= min(given, self._folders(path))]
        if match.path is None:
            return _Found([name for path in fitting for name in self._ids[path]], "", True)
        folders = self._folders(match.path)
        if END in match.ways and common < min(given, folders) and not self._are_names_unique:
            return _Found([], "")  # its folders are others
        is_whole = END not in match.ways or common >= folders > 0
        way = f"by {' and '.join(match.ways)}" if match.ways else "written in another way"
        return _Found(self._ids[match.path], way, not is_whole or bool({CASE, SUFFIX, PREFIX} & {*match.ways}))

    def _folders(self, path: str) -> int:
        return path.count("/") - self._depth


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, name in pairs:
        groups.setdefault(key, []).append(name)
    return groups
