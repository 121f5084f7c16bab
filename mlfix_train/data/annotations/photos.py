"""The photos of an annotation file that describes many of them by their names."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mlfix_train.data.annotations.base import files_below, split_of
from mlfix_train.data.files.find import FileFinder

IMAGE_FOLDERS = ("images", "Images", "data")


class PhotoFinder:
    """Finds photos where their names say, otherwise by :class:`FileFinder`.

    Args:
        root: folder of the data set.
        images: folder that the names are relative to; by default the usual one that has most of them.
        path: the annotation file.
        names: the names of the photos in it.

    ``split`` is what the name of the file, or its folder, mentions.
    """

    def __init__(self, root: Path, images: str | Path | None, path: Path, names: Iterable[str]) -> None:
        home = path.parent
        parts = [path.stem, *reversed(path.relative_to(root).parts[:-1])] if path.is_relative_to(root) else [path.stem]
        self.split = next(filter(None, map(split_of, parts)), "")
        if images:
            self.folders = [Path(os.path.normpath(root / Path(images).expanduser()))]
        else:
            words = [word for word in (*path.stem.split("_"), self.split, home.name) if word]
            folders = [home, root, *(place / name for place in (root, home.parent, home) for name in IMAGE_FOLDERS)]
            folders += [root / word for word in words] + [root / "images" / word for word in words]
            posix = [name.replace("\\", "/") for name in names]
            some = posix[:: max(1, len(posix) // 20)]
            likely = max(folders, key=lambda folder: sum((folder / name).is_file() for name in some))
            self.folders = list(dict.fromkeys([likely, root]))
        self._finders: list[FileFinder] = []

    def find(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """Returns the path of each of N photos, and why none was found."""
        paths = [os.path.normpath(self.folders[0] / name.replace("\\", "/")) for name in names]
        problems = ["" if os.path.isfile(path) else "missing" for path in paths]
        for folder in self.folders if any(problems) else ():
            finder = FileFinder(folder, files_below(folder)[0] if folder.is_dir() else [])
            wanted = [name if problem else path for name, path, problem in zip(names, paths, problems, strict=True)]
            for place, file in enumerate(finder.find_all(wanted)):
                if problems[place]:
                    problems[place] = finder.problem(names[place])
                    paths[place] = os.path.normpath(os.path.join(finder.root, file)) if file else paths[place]
            self._finders.append(finder)
        return list(zip(paths, problems, strict=True))

    def notes(self) -> list[str]:
        """Returns in which ways photos were found other than where their names say."""
        return [note for finder in self._finders for note in finder.notes()]
