"""Weights files of any trainer: the tensors that they hold, under which names, and whether they fit a backbone."""

import argparse
import logging
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from mlfix_train.errors import RunError, format_list

log = logging.getLogger(__name__)

MAX_LEFTOVER = 0.02
"""Tensors left over below the backbone's own modules, as a share of its tensors, above which it is another network."""
HEADS = {"fc", "head", "heads", "head_dist", "classifier", "last_linear"}
"""What the last layers of networks are called, which a backbone lacks."""
COMPUTED = ("num_batches_tracked", "relative_position_index", "attn_mask", "total_ops", "total_params")
"""Ends of the names of tensors that are counted or computed, not learned."""
WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts of names that ``torch.compile`` and its like add, at any depth."""
NOT_WEIGHTS = re.compile(r"optim|sched|scaler|loops|callbacks", re.I)
"""Sections of a checkpoint that hold tensors, but no weights."""
AVERAGED = re.compile(r"(^|[._])(ema|teacher)([._]|$)", re.I)
"""In the name of the network that is loaded of several in a file: timm's averaged weights, DINO's teacher."""
AUXILIARY = re.compile(r"encoder_k|target|momentum|decoder", re.I)
"""In the name of one that is loaded last: MoCo's key encoder, BYOL's target, a decoder."""
SIGNATURES = (
    (b"version https://git-lfs", "it is a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull"),
    (b"<!doctype html", "it is a web page", "download the file itself, not the page about it"),
    (b"<html", "it is a web page", "download the file itself, not the page about it"),
    (b"{", "it is JSON text", "name the file with the tensors, such as model.safetensors"),
    (b"\x89hdf", "it is an HDF5 file of Keras", "convert it to PyTorch's tensors"),
    (b"\x1f\x8b", "it is compressed by gzip", "unpack it first"),
)
"""First bytes, in lower case, of files that people take for weights; what they are, and what to do."""
AGAIN = "copy or download it again"
FORMATS = "use a .safetensors file, or a torch file of tensors and plain values"


def load_backbone(
    backbone: nn.Module,
    path: Path,
    key: str = "model.weights",
    hint: str = "use weights of the same architecture (model.backbone, model.backbone_args)",
) -> None:
    """Loads weights from a file into a backbone of timm; tensors of a head are ignored.

    ``path`` is a ``.safetensors`` or torch file: a state dict, a checkpoint of ours or of another trainer, or the
    original authors' or torchvision's where timm converts them, or they list the same tensors in the same order. Names
    may carry a prefix, such as ``network.backbone.``. Of several networks in a file, the averaged one (``model_ema``,
    ``teacher``) comes first. What was loaded and what was not used is logged. ``key`` is what the configuration calls
    the file, for errors, and ``hint`` what to do about one that does not fit.

    Raises:
        RunError: The file is missing, unreadable, lacks a tensor of the backbone, or is of a larger network.
    """
    sections = read_sections(path, key)
    matches = [match for name, found in sections.items() for match in _matches(backbone, found, name)]
    best = min(matches, key=lambda match: match.rank)
    wanted = len(backbone.state_dict())
    if best.missing:
        problem = f"{key}={path} lacks {len(best.missing)} of the {wanted} tensors of this backbone, or has them in"
        details = [f"left over: {format_list(best.leftover, 3)}"] if best.leftover else []
        raise RunError(f"{problem} another shape: {format_list(best.missing, 3)}", hint, details)
    if len(best.leftover) > MAX_LEFTOVER * wanted:
        problem = f"{key}={path} is of a larger network: {len(best.leftover)} of its tensors have no place in this"
        raise RunError(f"{problem} backbone: {format_list(best.leftover, 3)}", hint)
    backbone.load_state_dict(best.tensors, strict=False)
    others = dict.fromkeys(match.place for match in matches if not match.missing and match.place != best.place)
    log.info("%s: %s%s", path, best.describe(wanted), f"; {format_list(others, 3)} would fit, too" if others else "")
    if best.leftover:
        log.warning("%s: not used: %s", path, format_list(best.leftover))


@dataclass(frozen=True)
class _Match:
    """How the tensors of a section that share a prefix fit a backbone.

    Attributes:
        place: Section and prefix.
        how: How names were translated; empty if they are the backbone's own.
        tensors: Those that fit by name and shape.
        missing: Names of the backbone's learned tensors without one.
        leftover: Names of tensors below the backbone's own modules that it has no place for.
        unused: Names of the section's other tensors.
    """

    place: str
    how: str
    tensors: Mapping[str, Tensor]
    missing: list[str]
    leftover: list[str]
    unused: list[str]

    @property
    def rank(self) -> tuple[int, int, int, int, str]:
        """Sorts the best match first."""
        preference = 0 if AVERAGED.search(self.place) else 2 if AUXILIARY.search(self.place) else 1
        return len(self.missing), preference, len(self.leftover), len(self.place), self.place

    def describe(self, wanted: int) -> str:
        """Returns what is loaded, from where, and what is not used."""
        parts = Counter(name.partition(".")[0] for name in self.unused)
        unused = format_list((f"{name} ({count})" for name, count in parts.items()), 4)
        source = f" of {self.place}" if self.place else ""
        text = f"loaded {len(self.tensors)} of {wanted} tensors of the backbone{source}{self.how}"
        return f"{text}; not used: {unused}" if unused else text


def _matches(backbone: nn.Module, found: Mapping[str, Tensor], section: str) -> Iterator[_Match]:
    """Yields how the tensors of a section fit a backbone, by prefix; translated where none fits as it is."""
    wanted = backbone.state_dict()
    complete = False
    for prefix in _prefixes(found, wanted):
        match = _match(backbone, wanted, found, section, prefix)
        complete = complete or not match.missing
        yield match
    if complete:
        return
    module = sys.modules[type(backbone).__module__]
    for prefix in {"": 0, **{part: 0 for name in found for part in _parents(name)}}:
        inside = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
        for name, convert in vars(module).items():  # timm's, for the original authors' and torchvision's weights
            if re.search(r"filter_fn$|^_filter_torchvision", name) and callable(convert):
                with suppress(Exception):  # it may stumble over weights of another network
                    converted = convert(dict(inside), backbone) if convert.__code__.co_argcount > 1 else convert(inside)
                    yield _match(backbone, wanted, converted, section, "", prefix, ", converted by timm")
        if ordered := _by_order(inside, wanted):
            yield _match(backbone, wanted, ordered, section, "", prefix, ", in the order of the file")


def _match(
    backbone: nn.Module,
    wanted: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    section: str,
    prefix: str,
    source: str | None = None,
    how: str = "",
) -> _Match:
    inside = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
    first = (getattr(backbone, "pretrained_cfg", None) or {}).get("first_conv")
    for name in [f"{one}.weight" for one in ([first] if isinstance(first, str) else first or ())]:
        if name in wanted and name in inside and wanted[name].shape[1] != inside[name].shape[1] == 3:
            inside[name] = adapt_input_conv(wanted[name].shape[1], inside[name])  # for grey images
    tensors = {name: tensor for name, tensor in inside.items() if name in wanted and tensor.shape == wanted[name].shape}
    missing = sorted(name for name in set(wanted) - set(tensors) if not name.endswith(COMPUTED))
    modules = {name.partition(".")[0] for name in wanted}
    others = [name for name in inside if name not in tensors and not name.endswith(COMPUTED)]
    leftover = [name for name in others if name.partition(".")[0] in modules and not HEADS & set(name.split("."))]
    outside = [name for name in found if not name.startswith(prefix) and not name.endswith(COMPUTED)]
    unused = [*(name for name in others if name not in leftover), *outside]
    place = ".".join(part for part in (section, (prefix if source is None else source).strip(".")) if part)
    return _Match(place, how, tensors, missing, sorted(leftover), unused)


def _prefixes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Returns what may stand before the backbone's names: what does so before one of a few of them, shortest first."""
    learned = [name for name in wanted if not name.endswith(COMPUTED)]
    few = {*learned[:2], learned[len(learned) // 2], *learned[-2:]} if learned else set()
    prefixes = {key.removesuffix(name) for name in few for key in found if f".{key}".endswith(f".{name}")}
    return sorted(prefixes | {""}, key=len)[:50]


def _parents(name: str) -> list[str]:
    """Returns the first one and two parts of a name, with their dots."""
    parts = name.split(".")
    return [".".join(parts[:n]) + "." for n in (1, 2) if len(parts) > n + 1]


def _by_order(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors under the backbone's names if both list the same shapes and kinds in the same order; else none.

    After them, the file may list those of a head.
    """
    own, given = ([name for name in names if not name.endswith(COMPUTED)] for names in (wanted, found))
    pairs = list(zip(own, given, strict=False))
    same = all(wanted[a].shape == found[b].shape and a.rpartition(".")[2] == b.rpartition(".")[2] for a, b in pairs)
    fits = same and len(own) <= len(given) <= len(own) + 4
    return {a: found[b] for a, b in pairs} if fits else {}


def read_state(path: Path, key: str = "model.weights") -> dict[str, Tensor]:
    """Returns the tensors of a weights file by name: of its largest section, see :func:`read_sections`."""
    return max(read_sections(path, key).values(), key=len)


def read_sections(path: Path, key: str = "model.weights") -> dict[str, dict[str, Tensor]]:
    """Returns the tensors of a weights file by name, of each section of a checkpoint, such as ``state_dict``.

    Tensors that are not in a section are in ``""``. ``key`` is what the configuration calls the file, for errors.

    Raises:
        RunError: The file is missing, damaged, or holds more than tensors and plain values.
    """
    if not path.is_file():
        where = "is a folder" if path.is_dir() else "does not exist"
        raise RunError(f"the weights file {path} {where}", f"set the file with the tensors: {key}=<file>")
    content = _read(path)
    sections = {
        name: {WRAPPERS.sub("", key): tensor for key, tensor in tensors.items()} for name, tensors in _tensors(content)
    }
    if not sections:
        raise RunError(f"the weights file {path} contains no tensors", "use a state dict or a checkpoint")
    return sections


def _tensors(content: Any, name: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    if not isinstance(content, Mapping):
        return
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield name, tensors
    for key, value in content.items():
        if not NOT_WEIGHTS.search(str(key)):
            yield from _tensors(value, f"{name}.{key}".strip("."))


def _read(path: Path) -> Any:
    with open(path, "rb") as file:
        head = file.read(64)
    size = path.stat().st_size
    if not size:
        raise _unreadable(path, "it is empty", AGAIN)
    for signature, what, hint in SIGNATURES:
        if head.lstrip().lower().startswith(signature):
            raise _unreadable(path, what, hint)
    try:
        if path.suffix == ".safetensors" or (head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size):
            from safetensors.torch import load_file

            return load_file(path)
        if head.startswith(b"PK"):
            _check_archive(path)
        with torch.serialization.safe_globals([argparse.Namespace, *_numpy_scalars()]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except RunError:
        raise
    except Exception as error:  # of safetensors, zipfile, pickle or torch
        text = str(error).strip() or type(error).__name__
        if found := re.search(r"GLOBAL ([\w.]+)", text):
            problem = f"it holds more than tensors, a pickled {found[1]}, which could run any code when it is loaded"
            hint = (
                'if you trust it, save its tensors alone, where its classes are installed: python -c "import torch; '
                f"m = torch.load('{path.name}', weights_only=False); torch.save(m.state_dict(), 'weights.pth')\""
            )
            raise _unreadable(path, problem, hint) from error
        if isinstance(error, (EOFError, zipfile.BadZipFile)):
            raise _unreadable(path, "it is truncated", AGAIN) from error
        raise _unreadable(path, text.partition("\n")[0][:200], FORMATS) from error


def _check_archive(path: Path) -> None:
    """Raises an error unless a zip archive is one of ``torch.save``."""
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in names:
        hint = "save its tensors: torch.save(torch.jit.load(<file>).state_dict(), 'weights.pth')"
        raise _unreadable(path, "it is a model of TorchScript", hint)
    if "data.pkl" not in names:
        arrays = all(name.endswith(".npy") for name in names)
        what = "it holds arrays of NumPy" if arrays else "it is a zip archive that torch.save did not write"
        raise _unreadable(path, what, FORMATS if arrays else f"unpack it; {FORMATS}")


def _numpy_scalars() -> list[Any]:
    """Returns what NumPy's numbers are made of in a pickle: trainers put them beside the weights."""
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    kinds = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.bool_)]
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def _unreadable(path: Path, problem: str, hint: str) -> RunError:
    return RunError(f"the weights file {path} cannot be read: {problem}", hint)
