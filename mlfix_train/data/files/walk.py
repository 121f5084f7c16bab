"""The file walker of all readers: the images below a folder, and the files beside them.

What systems and programs keep for themselves (hidden files, thumbnails, recycle bins) is no data and is passed over.
Everything else that is left out is counted and named.
"""

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mlfix_train.data.pixels.formats import format_hint, image_suffixes, unread_suffixes
from mlfix_train.errors import DataError, format_list

log = logging.getLogger(__name__)

SYSTEM_NAMES = frozenset(
    {
        "$extend",  # Windows
        "$recycle.bin",
        "desktop.ini",
        "ehthumbs.db",
        "found.000",
        "recycler",
        "system volume information",
        "thumbs.db",
        "__macosx",  # macOS; its other files are hidden
        "icon\r",
        "network trash folder",
        "temporary items",
        "@eadir",  # NAS: Synology, QNAP
        "#recycle",
        "#snapshot",
        "@recently-snapshot",
        "@recycle",
        "lost+found",  # file systems
        "lost.dir",
        "__pycache__",
    }
)
"""Files and folders that systems keep for themselves, in lower case."""
SYSTEM_PREFIXES = ("synophoto_", "synoindex_", "syno@.", "thumbs.db:", "~$")
"""What names of such files begin with, in lower case."""
FIRST_LETTERS = frozenset({".", *(letter for prefix in SYSTEM_PREFIXES for letter in (prefix[0], prefix[0].upper()))})


@dataclass
class FileList:
    r"""The files below a folder. All are POSIX paths relative to it, sorted, and valid UTF-8.

    Args:
        images: Files that can be read as images, by their suffix in any case.
        others: All other files, except those that are passed over.
        folders: Folders that were entered.
        unread: Format to its files, of pictures and videos that can't be read here; they are among ``others``.
        system: Files and folders of systems and programs, but for hidden ones.
        hidden: Files and folders whose names begin with a dot.
        not_utf8: Files and folders whose names are not UTF-8, with those bytes as ``\xff``.
        circles: Links to a folder above them.
        repeated: Folders, mostly links, that are read by another path already.
        dangling: Links that lead nowhere, but for those with the suffix of an image, which count as unreadable images.
    """

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    unread: dict[str, list[str]] = field(default_factory=dict)
    system: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    not_utf8: list[str] = field(default_factory=list)
    circles: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)

    def warnings(self) -> list[str]:
        """Returns what the user should know about files that are left out, one sentence each."""
        found = [
            f"{_count(names, f'{name} file')} left out; {format_hint(name)}" for name, names in self.unread.items()
        ]
        if self.not_utf8:
            found.append(f"{_count(self.not_utf8, 'name')} not UTF-8 and left out; rename them (see `convmv`)")
        if self.circles:
            found.append(f"{_count(self.circles, 'link')} back to a folder above, and not followed")
        if self.repeated:
            found.append(f"{_count(self.repeated, 'path')} to a folder that is read by another path, and left out")
        if self.dangling:
            hint = "if its data belongs here, mount or restore what it leads to"
            found.append(f"{_count(self.dangling, 'link')} to nothing, and left out; {hint}")
        return found

    def describe(self) -> str:
        """Returns in a few words what the folder holds, beside images."""
        kinds = [f"{len(names):,} {name}" for name, names in self.unread.items()]
        known = {name for names in self.unread.values() for name in names}
        plain = [name for name in self.others if name not in known]
        kinds += [f"{len(plain):,} other file(s), such as {format_list(plain, 3)}"] if plain else []
        for what, names in (("hidden", self.hidden), ("system", self.system), ("not UTF-8", self.not_utf8)):
            kinds += [f"{len(names):,} {what}"] if names else []
        return ", ".join(kinds)


def _count(names: list[str], what: str) -> str:
    """Returns ``"3 links (a, b and 1 more) are"``."""
    verb = "is" if len(names) == 1 else "are"
    return f"{len(names):,} {what}{'' if len(names) == 1 else 's'} ({format_list(names, 3)}) {verb}"


def find_images(base: Path) -> FileList:
    """Lists the files below a folder, as :func:`list_files` does, and logs what is left out."""
    found = list_files(base)
    for warning in found.warnings():
        log.warning("%s: %s", base, warning)
    if found.system:
        shown = format_list(found.system, 3)
        log.info("%s: %d file(s) and folders that systems keep are passed over: %s", base, len(found.system), shown)
    return found


def list_files(base: Path) -> FileList:
    """Lists the files below a folder.

    Links are followed, but each real folder is read once; what is below ``base`` itself keeps its own path.

    Raises:
        DataError: Folders can't be read.
    """
    return _Walk(base).run()


class _Walk:
    """A walk through the folders below ``base``; links wait until all else is read."""

    def __init__(self, base: Path) -> None:
        self.base, self.root = base, os.path.realpath(base)
        self.found = FileList()
        self.denied: list[tuple[str, OSError]] = []
        self.folders = [("", self.root)]  # path below base, and real path
        self.links: list[tuple[str, str]] = []
        self.seen = {self.root}
        self.suffixes, self.unread = image_suffixes(), unread_suffixes()
        self.usual = tuple(self.suffixes)

    def run(self) -> FileList:
        while self.folders or self.links:
            if self.folders:
                self._read(*self.folders.pop())
            else:
                self.links.sort(reverse=True)
                self._enter(*self.links.pop())
        if self.denied:
            path, error = self.denied[0]
            others = f", nor {len(self.denied) - 1:,} other folder(s)" if len(self.denied) > 1 else ""
            lines = [f"{folder}: {reason.strerror}" for folder, reason in self.denied[1:6]]
            hint = "check the permissions, or move such folders elsewhere"
            raise DataError(f"{path} can't be read: {error.strerror}{others}", hint, lines)
        found = self.found
        for names in (found.images, found.others, found.folders, found.system, found.hidden, found.not_utf8):
            names.sort()
        for names in (found.circles, found.repeated, found.dangling, *found.unread.values()):
            names.sort()
        return found

    def _enter(self, name: str, real: str) -> None:
        if real in self.seen:
            self.found.repeated.append(name)
            return
        self.seen.add(real)
        self.found.folders.append(name)
        self.folders.append((name, real))

    def _read(self, folder: str, real_folder: str) -> None:
        try:
            entries = list(os.scandir(self.base / folder))
        except OSError as error:
            self.denied.append((str(self.base / folder), error))
            return
        for entry in entries:
            plain = entry.name
            name = f"{folder}/{plain}" if folder else plain
            if plain[0] not in FIRST_LETTERS and plain.endswith(self.usual) and plain.isascii() and _is_file(entry):
                self.found.images.append(name)  # nearly all of a million files
            elif not self._is_passed_over(plain, name):
                self._take(entry, name, real_folder)

    def _is_passed_over(self, plain: str, name: str) -> bool:
        """Notes a file or folder that is no data, or that has no name to store; returns whether it is one."""
        if not plain.isascii() and not _is_utf8(plain):
            self.found.not_utf8.append(printable(name))
        elif plain[0] == ".":
            self.found.hidden.append(name)
        elif is_of_system((plain,)):
            self.found.system.append(name)
        else:
            return False
        return True

    def _take(self, entry: "os.DirEntry[str]", name: str, real_folder: str) -> None:
        kind = _kind_of(entry)
        if kind == "folder":
            self._enter(name, f"{real_folder.rstrip(os.sep)}{os.sep}{entry.name}")
        elif kind == "link":
            real = os.path.realpath(entry.path)
            if _is_within(real_folder, real) or _is_within(self.root, real):
                self.found.circles.append(name)
            else:
                self.links.append((name, real))
        else:
            lower = entry.name.lower()
            suffix = ".nii" if lower.endswith(".nii.gz") else os.path.splitext(lower)[1]
            if kind == "file" and suffix in self.suffixes:
                self.found.images.append(name)
                return
            self.found.others.append(name)
            if entry.is_symlink() and not os.path.exists(entry.path):
                self.found.dangling.append(name)
            if suffix in self.unread:
                self.found.unread.setdefault(self.unread[suffix], []).append(name)


def is_of_system(parts: Iterable[str]) -> bool:
    """Returns whether any part of a path is called like a file or folder that systems keep for themselves."""
    return any(part in SYSTEM_NAMES or part.startswith(SYSTEM_PREFIXES) for part in map(str.lower, parts))


def printable(name: str) -> str:
    r"""Returns a name with bytes that are not UTF-8 as ``\xff``; others are unchanged."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """Returns whether it is a file and no link; an error of the system is told by :func:`_kind_of`."""
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError:
        return False


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_within(folder: str, other: str) -> bool:
    """Returns whether a real folder is another one, or below it."""
    return f"{folder}{os.sep}".startswith(f"{other.rstrip(os.sep)}{os.sep}")


def _kind_of(entry: "os.DirEntry[str]") -> str:
    """Returns ``folder``, ``link`` (to a folder), ``file``, or ``special`` (a pipe, a device, a link to itself)."""
    try:
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        if entry.is_file(follow_symlinks=False):
            return "file"
        if entry.is_dir():
            return "link"
        return "file" if entry.is_file() or not os.path.exists(entry.path) else "special"  # or a broken link
    except OSError:
        return "special"
