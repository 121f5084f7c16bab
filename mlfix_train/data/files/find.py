"""Files and samples found by the names that people and tools give them, often on another machine.

A name is first taken as it is written. What is tried after that is said in a note, and only counts where exactly one
path fits: backslashes, URLs, another Unicode form or case, another suffix or none, Label Studio's upload prefix, and
the end of the path alone.
"""

import functools
import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from mlfix_train.data.pixels.formats import image_suffixes, unread_suffixes
from mlfix_train.errors import format_list

SUFFIXES = image_suffixes() | {*unread_suffixes(), ".txt", ".xml", ".json"}
"""Endings that are taken for a suffix: ``2024.01.02`` has none."""
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
DRIVE = re.compile(r"[A-Za-z]:(?=/|\\)")
MANY = 50
"""Candidates from which on folders are looked up, too."""
UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of an uploaded file (``cb0618f6-photo.jpg``)."""
UPLOADED = re.compile(r"(?:.*/)?upload/(?:\d+/)?[^/]+")
"""A path in the folder of Label Studio's uploads, which says nothing of the file."""
UNUSUAL = re.compile(r"[\\%:?]|//|\./|^\s|[\s/.]$")
"""What a name may be read by in more than one way."""

BACKSLASHES, URLS = "reading backslashes as slashes", "decoding a URL"
UNICODE, CASE, SUFFIX = "ignoring the Unicode form", "ignoring upper and lower case", "ignoring the suffix"
PREFIX, END = "ignoring an upload prefix", "the end of the path alone"


class _Reading(NamedTuple):
    """One way to read a name: a POSIX path, and what was done to get it."""

    path: str
    ways: tuple[str, ...]


class Match(NamedTuple):
    """What a name means among some paths.

    Args:
        path: The one that fits; ``None`` if none does, or several.
        ways: What was done to find it, for notes; empty if it is as it is written.
        candidates: Several that fit equally well.
        folders: Number of folders that the name gives, and of those how many, from the last one, are the path's, too.
    """

    path: str | None = None
    ways: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    folders: tuple[int, int] = (0, 0)


class PathIndex:
    r"""POSIX paths, found by names as they are written elsewhere.

    Names may have backslashes, URL escapes (``%20``), ``file://`` and other URLs, Label Studio's
    ``/data/local-files/?d=`` and ``/data/upload/4/``, ``./`` and ``..``, drive letters or folders of another machine,
    composed or decomposed Unicode, another case, another suffix or none, and upload prefixes of 8 hex digits and a
    hyphen.

    Args:
        paths: The paths.
        anywhere: Whether one may be found by the end of its path alone; otherwise its folder has to be as named.

    Example:
        >>> PathIndex(["images/p0.jpg"]).search(r"C:\photos\images\p0.jpg").path
        'images/p0.jpg'
    """

    def __init__(self, paths: Iterable[str], anywhere: bool = True) -> None:
        self.files = list(paths)
        self.anywhere = anywhere
        self._exact = set(self.files)
        self._indexes: dict[tuple[str, int], dict[str, list[str]]] = {}

    def search(self, name: str) -> Match:
        """Returns the path that one name means."""
        readings = _readings(name)
        for path, ways in readings:
            if inside := self._inside(path):
                return Match(inside, ways)
        path, ways = readings[-1]
        *folders, last = [part for part in path.split("/") if part not in ("", "..", ".")] or [""]
        given, suffix = [] if UPLOADED.fullmatch(path) else [fold(folder) for folder in folders], _suffix(last)
        is_relative = not path.startswith(("/", ".."))
        for kind in _KEYS:
            best, files = (False, 0, False, False), list[str]()
            for file in self._candidates(kind, given, last):
                *theirs, its_last = file.split("/")
                common = _common_end(given, theirs)
                whole = is_relative and common == len(given) == len(theirs)
                score = (whole, common, _suffix(its_last) == suffix, its_last == last)
                if (whole or self.anywhere) and score >= best:
                    files = [*files, file] if score == best else [file]
                    best = score
            if len(files) == 1:
                if kind == "stem" and path.endswith(f"/{files[0]}"):
                    ways = (*ways, END)
                else:
                    ways = (*ways, *_differences(path, files[0], kind, best[1], best[0]))
                return Match(files[0], ways, (), (len(given), best[1]))
            if files:
                return Match(None, (), tuple(sorted(files)), (len(given), best[1]))
        return Match()

    def _candidates(self, kind: str, folders: list[str], last: str) -> list[str]:
        """Returns the files whose last part fits; of very many, those whose folders fit as well."""
        key = _KEYS[kind][0](last)
        found = self._index(kind, 0).get(key, []) if key else []
        for depth in range(1, len(folders) + 1):
            if len(found) <= MANY:
                break
            deeper = self._index(kind, depth).get("/".join([*folders[-depth:], key]))
            if not deeper:
                break
            found = deeper
        return found

    def _inside(self, path: str) -> str | None:
        """Returns the path that is exactly as given."""
        return path if path in self._exact else None

    def _index(self, kind: str, depth: int) -> dict[str, list[str]]:
        """Returns the files by the key of the last part of their paths, behind the last ``depth`` folders."""
        if (kind, depth) not in self._indexes:
            index: dict[str, list[str]] = {}
            key_of = _KEYS[kind][1]
            for file in self.files:
                *folders, last = file.split("/")
                if depth <= len(folders) and (key := key_of(last)):
                    if depth:
                        key = "/".join([*map(fold, folders[-depth:]), key])
                    index.setdefault(key, []).append(file)
            self._indexes[kind, depth] = index
        return self._indexes[kind, depth]


class FileFinder(PathIndex):
    r"""Finds files below a folder, see :class:`PathIndex`.

    A file that two names claim goes to the one that says it exactly; otherwise to neither.

    Args:
        root: folder that relative names start from.
        files: the files, as POSIX paths relative to ``root``.
        anywhere: whether a file may be found by the end of its path alone; otherwise its folder has to be as named.

    Example:
        >>> finder = FileFinder("/data", ["images/p0.jpg"])
        >>> finder.find(r"C:\photos\images\p0.jpg")
        'images/p0.jpg'
        >>> finder.notes()[0].partition(",")[0]
        '1 file was found by reading backslashes as slashes and the end of the path alone'
    """

    def __init__(self, root: str | os.PathLike[str], files: Iterable[str], anywhere: bool = True) -> None:
        super().__init__(files, anywhere)
        self.root = posixpath.normpath(Path(os.path.abspath(root)).as_posix())
        self._found: dict[str, Match] = {}
        self._owners: dict[str, str] = {}
        self._overruled: list[tuple[str, str]] = []

    def find(self, name: str) -> str | None:
        """Returns the file that a name means, as in ``files``; see :meth:`find_all`, which sees all names at once."""
        return self.find_all([name])[0]

    def find_all(self, names: Iterable[str]) -> list[str | None]:
        """Returns the file that each of N names means, or ``None``, for which :meth:`problem` gives the reason.

        An absolute path, or one that leads out of ``root``, is returned as an absolute path if it exists.
        """
        given = list(names)
        claims = defaultdict[str, list[str]](list)
        for name in dict.fromkeys(given):
            if name in self._exact:
                if self._owners.setdefault(name, name) != name:
                    self._overruled.append((self._owners[name], name))
                    self._owners[name] = name
            elif name not in self._found:
                self._found[name] = match = self.search(name)
                found = match.path
                if found is not None and _is_inexact(match.ways):
                    claims[found].append(name)
                elif found is not None:
                    self._owners[found] = name
        for file, claimants in claims.items():
            everyone = [*claimants, self._owners[file]] if file in self._owners else claimants
            if len(everyone) > 1 and len(set(map(plain_path, everyone))) > 1:
                for name in claimants:
                    others = format_list((repr(other) for other in everyone if other != name), 2)
                    self._found[name] = Match(candidates=(f"{file}, which {others} may mean, too",))
            else:
                self._owners.setdefault(file, claimants[0])
        return [name if name in self._exact else self._found[name].path for name in given]

    def problem(self, name: str) -> str:
        """Returns why :meth:`find` found no file: that none fits, or the candidates; empty if it found one."""
        if self.find(name) is not None:
            return ""
        candidates = self._found[name].candidates
        if not candidates:
            return f"no file is called {name!r} below {self.root}"
        return f"{name!r} may be {format_list(candidates, 4)}: it is not certain which file is meant"

    def notes(self) -> list[str]:
        """Returns a sentence on each way in which names were read otherwise than as they are written."""
        counts = defaultdict[tuple[str, ...], list[tuple[str, str]]](list)
        for name, match in self._found.items():
            if match.path is not None and match.ways:
                counts[match.ways].append((name, match.path))
        notes = [
            f"{len(pairs):,} file{'s were' if len(pairs) > 1 else ' was'} found by {' and '.join(ways)}, "
            f"such as {pairs[0][0]!r}: {pairs[0][1]}"
            for ways, pairs in counts.items()
        ]
        return notes + [f"{file} was found for {other!r} before it was named itself" for other, file in self._overruled]

    def _inside(self, path: str) -> str | None:
        """Returns the file of a path that is exactly right; one outside of the root is looked up on disk."""
        if path in self._exact:
            return path
        if not path.startswith(("/", "..")):
            return None
        whole = posixpath.normpath(posixpath.join(self.root, path))
        below = whole.removeprefix(f"{self.root}/")
        if below in self._exact:
            return below
        return whole if below == whole and os.path.isfile(whole) else None


def _differences(path: str, file: str, kind: str, common: int, whole: bool) -> list[str]:
    """Returns in which ways a file's path differs from what was given, apart from the folders before the last ones."""
    *folders, given = path.split("/")
    *its_folders, last = file.split("/")
    ways, pairs = [], list(zip(folders[len(folders) - common :], its_folders[len(its_folders) - common :], strict=True))
    if kind != "stem":
        ways.append(PREFIX)
        if _suffix(given) != _suffix(last):
            ways.append(SUFFIX)
    elif fold(given) == fold(last):
        pairs.append((given, last))
    else:
        ways.append(SUFFIX)
        pairs.append((stem(given), stem(last)))
    plain = [(unquote(a), unquote(b)) for a, b in pairs if a != b]
    composed = [(_nfc(a), _nfc(b)) for a, b in plain if a != b]
    ways += [URLS] if [pair for pair in pairs if pair[0] != pair[1]] != plain else []
    ways += [UNICODE] if [pair for pair in plain if pair[0] != pair[1]] != composed else []
    ways += [CASE] if any(a != b for a, b in composed) else []
    return ways if whole else [*ways, END]


def stem(name: str) -> str:
    """Returns a file's name without its suffix, if it ends in a known one (:data:`SUFFIXES`)."""
    bare, dot, suffix = name.rpartition(".")
    return bare if bare and f"{dot}{suffix}".lower() in SUFFIXES else name


def _suffix(name: str) -> str:
    return fold(name).rpartition(".")[2]


@functools.lru_cache(1 << 16)  # folders are many files'
def fold(name: str) -> str:
    """Returns a name as it is compared: URL escapes decoded, composed Unicode, lower case."""
    if name.isascii() and "%" not in name:
        return name.lower()
    return _nfc(unquote(name)).casefold()


def without_upload_prefix(name: str) -> str | None:
    """Returns the name of a file that was uploaded to Label Studio, without the prefix; ``None`` if it has none."""
    match = UPLOAD.match(name)
    return name[match.end() :] if match else None


def _nfc(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _common_end(given: list[str], folders: list[str]) -> int:
    """Returns how many folders, from the last one, are the same."""
    common = 0
    while common < min(len(given), len(folders)) and given[-1 - common] == fold(folders[-1 - common]):
        common += 1
    return common


def plain_path(name: str) -> str:
    r"""Returns a name as a POSIX path: ``C:\data\a b.jpg`` and ``file:///data/a%20b.jpg`` as ``/data/a b.jpg``."""
    return _readings(name)[-1].path


def _is_inexact(ways: tuple[str, ...]) -> bool:
    return any(way not in (BACKSLASHES, URLS) for way in ways)


def _readings(name: str) -> list[_Reading]:
    """Returns the paths that a name may stand for, the most literal one first."""
    if not UNUSUAL.search(name):
        return [_Reading(name, ())]
    found: list[_Reading] = []
    path, ways = name.strip(), tuple[str, ...]()
    if URL.match(path) or "?d=" in path:
        parts = urlsplit(path)
        local = parse_qs(parts.query).get("d")
        path, ways = (local[0] if local else unquote(parts.path)), (URLS,)
    found.append(_Reading(_normal(path), ways))
    if "\\" in path:
        path, ways = DRIVE.sub("", path).replace("\\", "/"), (*ways, BACKSLASHES)
        found.append(_Reading(_normal(path), ways))
    if DRIVE.match(path):
        path = DRIVE.sub("", path)
        found.append(_Reading(_normal(path), ways))
    if "%" in path and unquote(path) != path:
        found.append(_Reading(_normal(unquote(path)), ways if URLS in ways else (*ways, URLS)))
    return list(dict.fromkeys(found))


def _normal(path: str) -> str:
    if "//" in path or "./" in path or path.endswith(("/.", "/")):
        return posixpath.normpath(path)
    return path


def _upload_form(name: str) -> str:
    """Returns a name as Label Studio stores uploads: blanks are underscores, what is neither word, dot nor hyphen goes.

    Source: ``get_valid_filename`` in Django's documentation of ``django.utils.text``.
    """
    return fold(re.sub(r"[^-\w.]", "", _nfc(name).strip().replace(" ", "_")))


def _folded_stem(name: str) -> str:
    return fold(stem(name))


def _upload_stem(name: str) -> str:
    return _upload_form(stem(name))


def _upload_stem_without_prefix(name: str) -> str:
    bare = without_upload_prefix(name)
    return "" if bare is None else _upload_stem(bare)


_KEYS: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "stem": (_folded_stem, _folded_stem),
    "upload": (_upload_stem, _upload_stem_without_prefix),
    "name of an upload": (_upload_stem_without_prefix, _upload_stem),
}
"""How the last part of a given name, and of a file's path, are compared: best first; an empty key fits nothing."""
