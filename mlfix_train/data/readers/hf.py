"""Reads a Hugging Face data set from the disk or the cache, by the ``datasets`` library (extra ``hf``)."""

import glob
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.data.files.tables import column_text, open_table
from mlfix_train.data.files.walk import list_files
from mlfix_train.data.pixels.containers import arrow_cell, arrow_rows, is_contained
from mlfix_train.data.readers.files import ARCHIVES, SPLIT_NAMES, check_root, group_names, warn_of_system_files
from mlfix_train.data.readers.folder import find_splits, split_of_folder
from mlfix_train.data.readers.labels import label_texts
from mlfix_train.data.readers.table import COLUMNS, find_files
from mlfix_train.data.samples import make_table
from mlfix_train.errors import ConfigError, DataError, did_you_mean, format_list, names_arguments

log = logging.getLogger(__name__)

INSTALL = 'pip install "mlfix-train[hf]"'
KEYS = ("image", "label", "sample_id", "group")
"""Keys of ``columns``."""
DATA_FILES = (*ARCHIVES, ".parquet", ".arrow", ".json", ".csv")
PATH, LABEL = "<path>", "<label>"
LABEL_NAMES = ("label", "labels", "class", "cls", "category", "target")
"""Columns that may be the label, where none has names of classes."""
ID_NAMES = ("sample_id", "image_id", "img_id", "id", "__key__", "key", "uid", "file_name", "filename")
"""Columns that are taken for the id, the first whose values are unique."""


@dataclass(frozen=True)
class HfData:
    """A loaded data set: its splits by name, whether it had splits at all, and which column is what."""

    splits: dict[str, Any]
    has_splits: bool
    image: str
    label: str | None
    source: str


@names_arguments("data")
def read_hf(
    root: str | Path | None = None,
    repo: str | None = None,
    config: str | None = None,
    splits: Sequence[str] | None = None,
    columns: Mapping[str, str | None] | None = None,
    group: str | None = None,
    cache: str | Path | None = None,
) -> pd.DataFrame:
    """Reads a folder (``imagefolder``, Parquet, ``save_to_disk``) or a data set in the cache; nothing is downloaded.

    The library reads Parquet and shards once into Arrow files in its cache; images stay there, or where their files
    are, and are decoded as image files are. The ``sample_id`` is the path below ``root`` where images are files of
    their own, else the id column, else ``<split>/<row>``, from 0. Other columns are kept, except lists and structures.

    Args:
        root: The folder.
        repo: Instead of ``root``, the name of a data set on the Hub that is in the cache, such as ``ylecun/mnist``.
        config: Configuration of the data set, if it has several.
        splits: Splits to read; by default all.
        columns: Names of the columns ``image``, ``label``, ``sample_id`` and ``group``; by default images and labels
            are found by their types, where only one column fits.
        group: Regular expression on the ``sample_id``, as in ``read_folder``; used without a group column.
        cache: Folder of the library's cache; by default its own.

    Raises:
        ConfigError: The library is not installed; neither or both of ``root`` and ``repo`` are set.
        DataError: The data set can't be read, a column is missing or does not fit, or several could be meant.
    """
    names = dict.fromkeys(KEYS) | dict(columns or {})
    if unknown := [name for name in names if name not in KEYS]:
        raise ConfigError(f"unknown key data.columns.{unknown[0]}", did_you_mean(unknown[0], KEYS))
    data = open_hf(root, repo, config, splits, names, cache)
    parts = {split: _read_split(data, split, part) for split, part in data.splits.items()}
    paths = [path for part in parts.values() for path in part[PATH]]
    if root:
        paths = _look_for(paths, Path(os.path.abspath(os.path.expanduser(str(root)))), data.source)
    warn_of_system_files(paths, data.source)
    ids = _ids(data, parts, paths, names["sample_id"], root)
    table = pd.concat([part.drop(columns=PATH) for part in parts.values()], ignore_index=True)
    labels = table.pop(LABEL).tolist()
    in_splits = [SPLIT_NAMES.get(split.lower(), split) for split, part in parts.items() for _ in range(len(part))]
    groups = group_names(ids, group)
    if names["group"]:
        _check_column(data, names["group"], "group")
        place = f"{data.source}, column {names['group']!r}"
        given = label_texts(table.pop(names["group"]).tolist(), place, "data.columns.group")
        groups = [value or name for value, name in zip(given, ids, strict=True)]
    table = table.rename(columns={name: f"{name}_in_file" for name in table.columns if name in COLUMNS})
    shown = in_splits if len(parts) > 1 else None
    classes = class_names(data)
    return make_table(ids, paths, labels, groups, shown, table, source=data.source, classes=classes)


@names_arguments("data")
def open_hf(
    root: str | Path | None,
    repo: str | None,
    config: str | None = None,
    splits: Sequence[str] | None = None,
    columns: Mapping[str, str | None] | None = None,
    cache: str | Path | None = None,
) -> HfData:
    """Loads a data set and finds the columns of images and labels; arguments and errors as of :func:`read_hf`."""
    library = _library()
    if bool(root) == bool(repo):
        problem = "data.root and data.repo are both set" if root else "neither data.root nor data.repo is set"
        hint = "set data.root=<folder>, or data.repo=<name of a data set in the cache>, such as data.repo=ylecun/mnist"
        raise ConfigError(problem, hint)
    source = f"data.root={root}" if root else f"data.repo={repo}"
    base = check_root(str(root), "set data.root to the folder of the data set") if root else None
    folders = _split_folders(base) if base is not None and config is None else None
    files = None if base is None or folders is None else _patterns(base, folders)
    try:
        loaded = _load(library, base, repo, config, cache, files)
    except Exception as error:
        raise _describe_failure(error, source, bool(repo)) from error
    has_splits = isinstance(loaded, library.DatasetDict)
    found = dict(loaded) if has_splits else {str(loaded.split or "all"): loaded}
    wanted = list(found) if splits is None else [splits] if isinstance(splits, str) else list(splits)
    for name in wanted:
        if name not in found:
            raise DataError(f"{source} has no split {name!r} (data.splits)", did_you_mean(name, found))
    found = {name: found[name] for name in wanted if len(found[name])}
    if not found:
        raise DataError(f"{source}: there are no samples", "set data.root or data.splits to a part that has some")
    features = next(iter(found.values())).features
    names = dict.fromkeys(KEYS) | dict(columns or {})
    image = _image_column(features, names["image"], library, source)
    label = _label_column(features, names["label"], library, source)
    log.info("%s: images are in the column %r, labels in %r", source, image, label)
    if base is not None and isinstance(features[image], library.Image):
        for split in found if folders else ():
            found[split] = _own_rows(found[split], image, [base / place for place in (folders or {})[split]])
        as_text = {name for name in (label, names["sample_id"], names["group"]) if name and name in features}
        found = _as_written(library, base, found, image, sorted(as_text - {image}))
    return HfData(found, has_splits, image, label, source)


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(f"data=hf needs the datasets library, which can't be imported: {error}", INSTALL) from error
    if not hasattr(datasets, "load_from_disk"):  # a folder of this name beside the command
        place = next(iter(getattr(datasets, "__path__", [])), "another module")
        raise ConfigError(f"data=hf needs the datasets library, but `import datasets` finds {place}", INSTALL)
    return datasets


def _load(
    library: Any,
    base: Path | None,
    repo: str | None,
    config: str | None,
    cache: str | Path | None,
    files: dict[str, list[str]] | None,
) -> Any:
    with quiet_and_offline(library):
        if base is not None and any((base / name).is_file() for name in ("dataset_dict.json", "state.json")):
            return library.load_from_disk(str(base), keep_in_memory=False)
        folder = str(Path(cache).expanduser()) if cache else None
        options = {"cache_dir": folder, "keep_in_memory": False}
        return library.load_dataset(str(base or repo), config, data_files=files, **options)


def _split_folders(base: Path) -> dict[str, list[str]] | None:
    """Returns the folders of each split of a folder of images, as :func:`find_splits` has them; none: all are one.

    The library would take any folder or file for a split that has such a word in its name (``test_drive/``,
    ``train_station.jpg``), and leave out the others. ``None`` if the folder holds something else, which is its choice.
    """
    found, readme = list_files(base), base / "README.md"
    if len(found.images) <= sum(name.lower().endswith(DATA_FILES) for name in found.others):
        return None
    if readme.is_file() and b"configs:" in readme.read_bytes():
        return None
    homes = {os.path.dirname(name) for name in found.images}
    home = "" if "" in homes else os.path.commonpath(homes)
    prefix = f"{home}/" if home and not split_of_folder(os.path.basename(home)) else ""
    parts = [tuple(name.removeprefix(prefix).split("/")) for name in found.images]
    first = {path[0] if len(path) > 1 else "" for path in parts}
    splits = first if all(map(split_of_folder, first)) else find_splits(base, parts)
    if not splits and any(split_of_folder(folder) for path in parts for folder in path[1:-1]):
        return None
    folders: dict[str, list[str]] = {}
    for folder in sorted(splits):
        name = SPLIT_NAMES.get(split_of_folder(folder), folder)
        folders.setdefault("validation" if name == "val" else name, []).append(f"{prefix}{folder}")
    return folders


def _patterns(base: Path, folders: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Returns the library's patterns for files of each split, with the metadata in folders above."""
    metadata = [file.relative_to(base) for file in _metadata_files(base)]
    patterns: dict[str, list[str]] = {}
    for split, places in folders.items():
        above = {file.as_posix() for file in metadata for place in places if Path(place).is_relative_to(file.parent)}
        patterns[split] = [*(f"{glob.escape(place)}/**" for place in places), *map(glob.escape, sorted(above))]
    return patterns or {"train": ["**"]}


def _own_rows(part: Any, image: str, places: list[Path]) -> Any:
    """Returns a split without the rows of other splits, which metadata in a folder above list, too."""
    below = tuple(f"{place}{os.sep}" for place in places)
    rows = [row for row, file in enumerate(_image_files(part, image)) if file.startswith(below)]
    return part if len(rows) == len(part) else part.select(rows)


@contextmanager
def quiet_and_offline(library: Any) -> Iterator[None]:
    """Keeps the library from the network, and from drawing progress bars over ours."""
    offline, bars = library.config.HF_HUB_OFFLINE, library.are_progress_bars_disabled()
    library.config.HF_HUB_OFFLINE = True
    library.disable_progress_bars()
    try:
        yield
    finally:
        library.config.HF_HUB_OFFLINE = offline
        if not bars:
            library.enable_progress_bars()


def _describe_failure(error: Exception, source: str, in_cache: bool) -> DataError:
    reasons = []
    cause: BaseException | None = error
    while cause is not None:
        reasons.append(" ".join(str(cause).split()) or type(cause).__name__)
        cause = cause.__cause__
    hint = "check the folder: it needs image files, Parquet, or what save_to_disk wrote"
    if in_cache:
        hint = "load it once with datasets.load_dataset, which downloads it, or set data.config and data.cache"
    details = [f"because: {reason[:300]}" for reason in dict.fromkeys(reasons[1:])]
    return DataError(f"{source} can't be read by the datasets library: {reasons[0][:300]}", hint, details)


def _metadata_files(base: Path) -> list[Path]:
    return [path for path in sorted(base.rglob("metadata.*")) if path.suffix in (".csv", ".jsonl", ".parquet")]


def _look_for(paths: list[str], base: Path, source: str) -> list[str]:
    """Returns paths, those of files that are not there as :func:`find_files` finds them; says which images are unused.

    Raises:
        DataError: Most images are not there, but archives are.
    """
    files = [path for path in paths if not is_contained(path)]
    if not files:
        return paths
    prefix = os.path.join(base, "")
    found = dict(
        zip(files, find_files(files, [path.removeprefix(prefix) for path in files], base, source), strict=True)
    )
    missing = [path for path in found.values() if not os.path.exists(path)]
    there = list_files(base)
    archives = [name for name in there.others if name.lower().endswith(ARCHIVES)]
    if archives and len(missing) > len(files) / 2:
        problem = f"{source}: {len(missing):,} of {len(files):,} images are not there, such as {missing[0]}"
        raise DataError(problem, f"unpack {format_list(archives, 3)} where the metadata expect the images")
    used = set(found.values())
    unused = [name for name in there.images if prefix + name not in used]
    if unused:
        reason = "in no metadata file" if _metadata_files(base) else "in none of the splits that are read"
        log.warning("%s: %d image(s) are %s and left out: %s", source, len(unused), reason, format_list(unused, 3))
    return [found.get(path, path) for path in paths]


def _image_files(part: Any, image: str) -> list[str]:
    """Returns the file of each row's image, empty where the image is inside the data."""
    import pyarrow.compute as pc

    column = arrow_column(part, image)
    if not any(field.name == "path" for field in column.type):
        return [""] * len(column)
    return [os.path.abspath(path) if path else "" for path in pc.struct_field(column, "path").to_pylist()]


def _as_written(library: Any, base: Path, parts: dict[str, Any], image: str, columns: list[str]) -> dict[str, Any]:
    """Returns splits with the text of ``metadata.csv`` in some columns: the library reads ``007`` there as 7."""
    texts: dict[str, dict[str, str]] = {}
    for file in _metadata_files(base):
        if file.suffix == ".csv":
            table = open_table(file, "data.root", DataError)
            key = next((name for name in ("file_name", f"{image}_file_name") if name in table.frame), None)
            for name in columns if key else ():
                if name in table.frame:
                    files = [os.path.abspath(file.parent / path.replace("\\", "/")) for path in table.frame[key]]
                    texts.setdefault(name, {}).update(zip(files, table.frame[name], strict=True))
    written = dict(parts)
    for split, part in parts.items():
        for name, text_of in texts.items():
            files = [path.replace("\\", "/") for path in _image_files(part, image)]
            given = column_text(arrow_column(part, name).to_pandas(), name, error_type=DataError)
            values = [text_of.get(path, read) or None for path, read in zip(files, given, strict=True)]
            feature, order = library.Value("string"), written[split].column_names
            kept = written[split].remove_columns(name)
            written[split] = kept.add_column(name, values, feature=feature).select_columns(order)
    return written


def _is_image(feature: Any, library: Any) -> bool:
    """Whether a column holds encoded images: of the type Image, the struct of one, or bytes."""
    if isinstance(feature, library.Image):
        return True
    if isinstance(feature, dict):
        return "bytes" in feature and set(feature) <= {"bytes", "path"}
    return str(getattr(feature, "dtype", "")) in ("binary", "large_binary")


def _image_column(features: Any, wanted: str | None, library: Any, source: str) -> str:
    found = [str(name) for name, feature in features.items() if _is_image(feature, library)]
    if wanted:
        if wanted not in features:
            raise DataError(f"{source}: no column {wanted!r} (data.columns.image)", did_you_mean(wanted, features))
        if wanted not in found:
            problem = (
                f"{source}: the column {wanted!r} holds {_kind(features[wanted])}, not images (data.columns.image)"
            )
            raise DataError(problem, f"set it to {format_list(found)}" if found else "use a data set of images")
        return wanted
    if len(found) > 1:
        problem = f"{source}: several columns hold images: {format_list(found)}"
        raise DataError(problem, f"set the one to look at, such as data.columns.image={found[0]}")
    if found:
        return found[0]
    hint = "use a data set with an image in each row"
    for name, feature in features.items():
        if isinstance(getattr(feature, "feature", None), library.Image):
            hint = f"{name!r} holds lists of images; make a row of each image"
    shown = format_list((f"{name} ({_kind(feature)})" for name, feature in features.items()), 8)
    raise DataError(f"{source}: no column holds images; there are {shown}", hint)


def _label_column(features: Any, wanted: str | None, library: Any, source: str) -> str | None:
    if wanted:
        if wanted not in features:
            raise DataError(f"{source}: no column {wanted!r} (data.columns.label)", did_you_mean(wanted, features))
        _check_single(features, wanted, library, source)
        return wanted
    found = [str(name) for name, feature in features.items() if isinstance(feature, library.ClassLabel)]
    found = found or [str(name) for name in features if name.lower() in LABEL_NAMES]
    if len(found) > 1:
        problem = f"{source}: several columns may be the label: {format_list(found)}"
        raise DataError(problem, f"set the one to look at, such as data.columns.label={found[0]}")
    if found:
        _check_single(features, found[0], library, source)
        return found[0]
    several = [name for name, feature in features.items() if _has_many_labels(feature, library)]
    if several:
        _check_single(features, several[0], library, source)
    others = format_list((name for name in features if not _is_image(features[name], library)), 8)
    hint = f"; data.columns.label=<name> takes one of these: {others}" if others else ""
    log.warning("%s: no column holds classes, samples have no label%s", source, hint)
    return None


def _has_many_labels(feature: Any, library: Any) -> bool:
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    return isinstance(inner, library.ClassLabel)


def _check_single(features: Any, name: str, library: Any, source: str) -> None:
    feature = features[name]
    if isinstance(feature, (library.ClassLabel, library.Value)) and not _is_image(feature, library):
        return
    problem = f"{source}: the column {name!r} holds {_kind(feature)}, not one label per sample"
    if isinstance(feature, (dict, library.Image)) or _is_image(feature, library):
        raise DataError(problem, "set data.columns.label to a column with one class per sample")
    hint = "multi-label data can't be used; set data.columns.label to a column with one class per sample"
    raise DataError(f"{problem}, but several (multi-label)", hint)


def _kind(feature: Any) -> str:
    if isinstance(feature, dict):
        return "structures"
    if isinstance(feature, list) or hasattr(feature, "feature"):
        return "lists"
    return str(getattr(feature, "dtype", None) or type(feature).__name__)


def _check_column(data: HfData, name: str, key: str) -> None:
    features = next(iter(data.splits.values())).features
    if name not in features:
        raise DataError(f"{data.source}: no column {name!r} (data.columns.{key})", did_you_mean(name, features))


def class_names(data: HfData) -> list[str]:
    """Returns the names of the classes that a ``ClassLabel`` of any split lists."""
    features = (part.features.get(data.label) for part in data.splits.values())
    return list(dict.fromkeys(name for feature in features for name in getattr(feature, "names", None) or ()))


def label_values(data: HfData, part: Any) -> list[str | None]:
    """Returns the labels of a split: names of a ClassLabel, numbers and text as text, ``None`` where empty or -1.

    Raises:
        DataError: A class number without a name, or values that are no classes.
    """
    if data.label is None:
        return [None] * len(part)
    values = arrow_column(part, data.label).to_pylist()
    names = getattr(part.features[data.label], "names", None)
    place = f"{data.source}, column {data.label!r}"
    if names is None:
        return label_texts(values, place, "data.columns.label")
    wrong = next((value for value in values if value is not None and not -1 <= value < len(names)), None)
    if wrong is not None:
        raise DataError(f"{place}: class {wrong} has no name; there are {len(names):,}", "correct the ClassLabel")
    return [None if value is None or value < 0 else names[value] for value in values]


def arrow_column(part: Any, name: str) -> Any:
    """Returns a column of a split as Arrow data, in the order of its rows; nothing is decoded."""
    column = part.data.column(name)
    return column if part._indices is None else column.take(part._indices.column(0))


def _read_split(data: HfData, split: str, part: Any) -> pd.DataFrame:
    """Returns paths, labels and the plain columns of a split."""
    frame = {PATH: pd.Series(_paths(data, split, part), dtype=object)}
    frame[LABEL] = pd.Series(label_values(data, part), dtype=object)
    for name, feature in part.features.items():
        if name in (data.image, data.label):
            continue
        kind = type(feature).__name__
        if kind == "ClassLabel":
            frame[name] = pd.Series(label_values(replace(data, label=name), part), dtype=object)
        elif kind == "Value" and "binary" not in str(feature.dtype):
            frame[name] = arrow_column(part, name).to_pandas()
    return pd.DataFrame(frame)


def _paths(data: HfData, split: str, part: Any) -> list[str]:
    """Returns the file of each image, or its place in an Arrow file."""
    import pyarrow.compute as pc

    rows = np.arange(len(part.data)) if part._indices is None else part._indices.column(0).to_numpy()
    column = part.data.column(data.image)
    is_struct = hasattr(column.type, "num_fields") and column.type.num_fields > 0
    embedded = np.ones(len(column), bool)
    files: list[str | None] = [None] * len(column)
    if is_struct:
        embedded = np.asarray(pc.is_valid(pc.struct_field(column, "bytes")))
        if any(field.name == "path" for field in column.type):
            files = pc.struct_field(column, "path").to_pylist()
    places = _places(data, split, part) if embedded.any() or None in files else []
    return [
        os.path.abspath(str(files[row])) if files[row] and not embedded[row] else arrow_cell(data.image, *places[row])
        for row in rows.tolist()
    ]


def _places(data: HfData, split: str, part: Any) -> list[tuple[str, int]]:
    """Returns the Arrow file of each row of the whole table, and the row in it."""
    places: list[tuple[str, int]] = []
    for entry in part.cache_files:
        if len(places) < len(part.data):
            places += [(str(entry["filename"]), row) for row in range(arrow_rows(str(entry["filename"])))]
    if len(places) != len(part.data):
        problem = f"{data.source}: the images of {split} are in no file of their own"
        raise DataError(problem, "write the data set with save_to_disk, and set data.root to that folder")
    return places


def _ids(
    data: HfData, parts: Mapping[str, pd.DataFrame], paths: list[str], column: str | None, root: str | Path | None
) -> list[str]:
    """Returns the ids: of a column, paths below the root, or split and row."""
    place = f"{data.source}, column {column!r}"
    if column:
        _check_column(data, column, "sample_id")
        if any(column not in part for part in parts.values()):
            raise DataError(f"{place}: it holds no text or numbers", "set data.columns.sample_id to one that does")
        key = "data.columns.sample_id"
        return _unique_ids({split: label_texts(part[column].tolist(), place, key) for split, part in parts.items()})
    base = Path(os.path.abspath(os.path.expanduser(str(root)))) if root else None
    if base is not None and all(path.startswith(f"{base}{os.sep}") for path in paths):
        found = [Path(path).relative_to(base).as_posix() for path in paths]
        if len(set(found)) == len(found):
            return found
    for name in ID_NAMES:
        if not all(name in part and _may_be_ids(part[name]) for part in parts.values()):
            continue
        found = _unique_ids({split: part[name].astype(str).tolist() for split, part in parts.items()})
        if len(set(found)) == len(found) and "" not in found:
            log.info("%s: the ids are those of the column %r", data.source, name)
            return found
    if data.has_splits:
        return [f"{split}/{row}" for split, part in parts.items() for row in range(len(part))]
    return [str(row) for part in parts.values() for row in range(len(part))]


def _may_be_ids(column: pd.Series) -> bool:
    is_plain = pd.api.types.is_integer_dtype(column) or pd.api.types.is_string_dtype(column)
    return bool(is_plain and column.notna().all())


def _unique_ids(ids: Mapping[str, Sequence[str | None]]) -> list[str]:
    """Returns ids, with their split before them if they are unique only within it."""
    plain = [name or "" for part in ids.values() for name in part]
    if len(ids) == 1 or len(set(plain)) == len(plain):
        return plain
    return [f"{split}/{name}" for split, part in ids.items() for name in part]
