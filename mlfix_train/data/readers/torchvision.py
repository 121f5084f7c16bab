"""Reads a data set of :mod:`torchvision.datasets` that is on the disk; nothing is downloaded."""

import inspect
import logging
import os
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.data.pixels.containers import torchvision_item
from mlfix_train.data.readers.files import SPLIT_NAMES, group_names, warn_of_system_files
from mlfix_train.data.readers.labels import label_texts
from mlfix_train.data.samples import make_table
from mlfix_train.errors import ConfigError, DataError, did_you_mean, format_list, names_arguments

log = logging.getLogger(__name__)

SPLITS = ("train", "train-standard", "trainval", "val", "valid", "test")
"""Values of ``split=`` that are read by default; ``trainval`` only where there is no ``train``."""
FILES = ("samples", "imgs", "_samples", "_images", "_image_files")
"""Attributes that hold the image file of each item."""
LABELS = ("targets", "labels", "_labels", "y")
"""Attributes that hold the class number of each item."""
CLASS_NAMES = ("classes", "categories")


@names_arguments("data")
def read_torchvision(
    name: str,
    root: str | Path | None = None,
    splits: str | Sequence[str] | None = None,
    group: str | None = None,
    **arguments: Any,
) -> pd.DataFrame:
    """Reads a data set by the name of its class, such as ``CIFAR10``, ``MNIST``, ``Food101`` or ``ImageFolder``.

    Image files are read from where they are; images in arrays are items of the data set. The ``sample_id`` is the path
    of the file below ``root``, or ``<split>/<row>``, from 0. Labels are named by ``classes`` of the data set, else they
    are its class numbers.

    Args:
        name: The class.
        root: What ``root=`` of the class is.
        splits: Splits to read, such as ``train`` and ``test``; by default those that are there.
        group: Regular expression on the ``sample_id``, as in ``read_folder``.
        arguments: Further arguments of the class, such as ``annotation_level``.

    Raises:
        ConfigError: There is no such class, or it does not take an argument.
        DataError: The data set is not there, or its labels are not one class per image.
    """
    factory = _find_class(name)
    accepted = _parameters(factory)
    for key in arguments:
        if key not in accepted:
            raise ConfigError(f"unknown key data.{key}: {name} does not take it", did_you_mean(key, accepted))
    place = "" if root is None else str(Path(os.path.abspath(Path(str(root)).expanduser())))
    if "root" in accepted and not place:
        raise DataError("data.root is not set", f"set it to what root= of torchvision.datasets.{name} is")
    source = f"data.name={name} data.root={root}"
    rows: list[tuple[str, str, str | None, str]] = []
    classes: list[str] = []
    for split, options in _open_options(factory, name, place, splits, arguments, source).items():
        data = _open(factory, place, options)
        rows += _read_split(data, name, place, split, options, source)
        classes += _class_names(data) or ()
    if not rows:
        raise DataError(f"{source}: there are no samples", "set data.splits to a part that has some")
    ids, paths, labels, in_splits = (list(values) for values in zip(*rows, strict=True))
    warn_of_system_files([str(path) for path in paths], source)
    several = len(set(in_splits)) > 1
    shown = in_splits if several else None
    return make_table(ids, paths, labels, group_names(ids, group), shown, source=source, classes=classes)


def _find_class(name: str) -> Any:
    import torchvision.datasets

    known = [one for one in torchvision.datasets.__all__ if inspect.isclass(getattr(torchvision.datasets, one, None))]
    if name not in known:
        same = [one for one in known if one.lower() == str(name).lower()]
        hint = f"did you mean {same[0]!r}?" if same else did_you_mean(str(name), known)
        raise ConfigError(f"data.name={name} is no class of torchvision.datasets", hint)
    return getattr(torchvision.datasets, name)


def _parameters(factory: Any) -> list[str]:
    """Returns the arguments that a class takes, with those of the classes that it passes further ones on to."""
    names: dict[str, None] = {}
    for one in factory.__mro__:
        if "__init__" in one.__dict__ and one is not object:
            parameters = inspect.signature(one.__init__).parameters.values()
            kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
            names |= dict.fromkeys(part.name for part in parameters if part.kind not in kinds and part.name != "self")
            if not any(part.kind is inspect.Parameter.VAR_KEYWORD for part in parameters):
                break
    return [name for name in names if name not in ("download", "transform", "target_transform", "transforms", "loader")]


def _open(factory: Any, root: str, options: Mapping[str, Any]) -> Any:
    return factory(**({"root": root} if root else {}), **options)


def _open_options(
    factory: Any, name: str, root: str, splits: str | Sequence[str] | None, arguments: dict[str, Any], source: str
) -> dict[str, dict[str, Any]]:
    """Returns the arguments of each split that is on the disk, by its name."""
    accepted = _parameters(factory)
    wanted = None if splits is None else [splits] if isinstance(splits, str) else list(splits)
    options: dict[str, dict[str, Any]] = {}
    if "train" in accepted:
        options = {"train": {"train": True}, "test": {"train": False}}
        options = {
            key: value for key, value in options.items() if arguments.get("train", value["train"]) == value["train"]
        }
        known = list(options)
    elif "split" in accepted and "split" not in arguments:
        known = _known_splits(factory, root)
        usable = wanted or [one for one in SPLITS if one in known and not (one == "trainval" and "train" in known)]
        options = {one: {"split": one} for one in usable}
    else:
        known = [str(arguments.get("split", "all"))]
        options = {known[0]: {}}
    for one in wanted or []:
        if one not in known:
            raise ConfigError(f"data.splits: {name} has no split {one!r}", did_you_mean(one, known))
    options = {key: {**arguments, **value} for key, value in options.items() if wanted is None or key in wanted}
    return _on_disk(factory, name, root, options, source, required=wanted is not None)


def _known_splits(factory: Any, root: str) -> list[str]:
    """Returns the values that ``split=`` of a class takes, as its error names them."""
    try:
        _open(factory, root, {"split": "?"})
    except ValueError as error:
        listed = re.search(r"Valid values are \{(.*)\}", str(error))
        return re.findall(r"'([^']*)'", listed[1]) if listed else ["train", "test"]
    except Exception:
        return ["train", "test"]
    return ["train", "test"]


def _on_disk(
    factory: Any, name: str, root: str, options: dict[str, dict[str, Any]], source: str, required: bool
) -> dict[str, dict[str, Any]]:
    found, reasons = {}, {}
    for split, values in options.items():
        try:
            _open(factory, root, values)
            found[split] = values
        except (ModuleNotFoundError, ImportError) as error:
            problem = f"data.name={name} needs {error.name or error}, which is not installed"
            raise ConfigError(problem, f"pip install {error.name}") from error
        except Exception as error:
            reasons[split] = " ".join(str(error).split()) or type(error).__name__
    if reasons and (required or not found):
        hint = f"set data.root to what root= of torchvision.datasets.{name} is; have it download the data set there"
        if root and Path(os.path.abspath(root)).name == getattr(factory, "base_folder", None):
            hint = f"set the folder above, which is root= of torchvision.datasets.{name}: "
            hint += f"data.root={Path(os.path.abspath(root)).parent}"
        details = [f"{split}: {reason[:200]}" for split, reason in reasons.items()]
        raise DataError(f"{source} can't be read: {format_list(reasons)} not found", hint, details)
    for split, reason in reasons.items():
        log.warning("%s: the split %s is not there and is left out: %s", source, split, reason[:200])
    return found


def _read_split(
    data: Any, name: str, root: str, split: str, options: dict[str, Any], source: str
) -> list[tuple[str, str, str | None, str]]:
    """Returns id, path, label and split of each item."""
    if not len(data):
        return []
    _check_target(data, source)
    numbers, checksum = _class_numbers(data), _checksum(data)
    files = _image_files(data)
    if numbers is None or (files is None and checksum is None):
        numbers, checksum = _read_items(data)
    labels = _label_names(numbers, data, source)
    if files is not None:
        ids = [os.path.relpath(path, root).replace(os.sep, "/") if root else path for path in files]
        paths = [os.path.abspath(path) for path in files]
    else:
        ids = [f"{split}/{row}" for row in range(len(data))]
        arguments = {**options, "crc32": checksum}
        paths = [torchvision_item(name, arguments, root, row) for row in range(len(data))]
    return [(*row, SPLIT_NAMES.get(split, split)) for row in zip(ids, paths, labels, strict=True)]


def _check_target(data: Any, source: str) -> None:
    """Raises a DataError if items are not an image and one class."""
    item = data[0]
    if not isinstance(item, tuple) or len(item) != 2:
        raise DataError(f"{source}: items are not pairs of an image and a class", "use a data set for classification")
    target = item[1]
    hint = "use a data set for classification; boxes are read by `mlfix crop data=coco` and the like"
    if isinstance(target, dict) or (isinstance(target, (list, tuple)) and target and isinstance(target[0], dict)):
        raise DataError(f"{source}: labels are annotations of regions, not classes", hint)
    if target is not None and not isinstance(target, str) and np.ndim(target) > 1:
        raise DataError(f"{source}: labels are arrays of the shape {np.shape(target)}, not classes", hint)
    key = "target_type" if hasattr(data, "target_type") else "name"
    label_texts([target], source, f"data.{key}")


def _class_numbers(data: Any) -> list[Any] | None:
    """Returns the class of each item without decoding any, or ``None`` if it is not known."""
    for attribute in (*LABELS, *FILES):
        values = getattr(data, attribute, None)
        if values is None or not hasattr(values, "__len__") or len(values) != len(data):
            continue
        if attribute in FILES:
            values = [value[1] if isinstance(value, (tuple, list)) and len(value) > 1 else None for value in values]
        values = values.tolist() if hasattr(values, "tolist") else list(values)
        if all(_same(values[row], data[row][1]) for row in {0, len(data) // 2, len(data) - 1}):
            return values
    return None


def _same(value: Any, target: Any) -> bool:
    target = target.item() if hasattr(target, "item") and np.ndim(target) == 0 else target
    return type(value) is not bool and bool(np.ndim(value) == 0 and value == target)


def _image_files(data: Any) -> list[str] | None:
    """Returns the image file of each item, if the data set holds them."""
    for attribute in (*FILES, "data"):
        values = getattr(data, attribute, None)
        if not isinstance(values, list) or len(values) != len(data):
            continue
        paths = [value[0] if isinstance(value, (tuple, list)) and value else value for value in values]
        if all(isinstance(path, (str, os.PathLike)) for path in paths) and os.path.exists(paths[0]):
            return [os.fspath(path) for path in paths]
    return None


def _checksum(data: Any) -> int | None:
    """Returns the CRC-32 of the images of a data set that holds them in one array."""
    images = getattr(data, "data", None)
    if images is None or not hasattr(images, "shape") or len(images.shape) < 3 or len(data) not in images.shape:
        return None
    return zlib.crc32(np.ascontiguousarray(np.asarray(images)).data)


def _read_items(data: Any) -> tuple[list[Any], int]:
    """Returns the class of each item and a checksum of all images, by looking at each."""
    numbers, checksum = [], 0
    for row in range(len(data)):
        image, target = data[row]
        numbers.append(target)
        checksum = zlib.crc32(np.ascontiguousarray(np.asarray(image)).data, checksum)
    return numbers, checksum


def _label_names(numbers: list[Any], data: Any, source: str) -> list[str | None]:
    """Returns the name of each class number; those of a data set without names stay numbers, -1 has no label."""
    texts = label_texts(numbers, source, "data.name")
    names = _class_names(data)
    texts = [None if text == "-1" else text for text in texts]
    known = [text for text in texts if text is not None]
    if names is None or not all(text.isdecimal() and int(text) < len(names) for text in known):
        return texts
    return [None if text is None else names[int(text)] for text in texts]


def _class_names(data: Any) -> list[str] | None:
    """Returns the names of the classes, with the number behind those that several have."""
    names = next((getattr(data, name) for name in CLASS_NAMES if isinstance(getattr(data, name, None), list)), None)
    if names is None:
        return None
    shown = [", ".join(name) if isinstance(name, (tuple, list)) else str(name) for name in names]
    counts = Counter(shown)
    return [f"{name} ({number})" if counts[name] > 1 else name for number, name in enumerate(shown)]
