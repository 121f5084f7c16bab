"""Embedders from their section of the configuration: a pretrained network, or one of the user's own."""

from collections.abc import Mapping
from typing import Any

from mlfix_train.audit.similarity.pipeline import check_embedder
from mlfix_train.config.instantiate import instantiate
from mlfix_train.config.sections import pretrained_spec
from mlfix_train.errors import ConfigError
from mlfix_train.models.embedding.base import Embedder


def build_embedder(section: Mapping[str, Any] | None, device: str = "cpu", width: int | None = 128) -> Embedder:
    """Builds the embedder of section ``embedder``: with ``_target_`` the user's own, else a pretrained network.

    Args:
        section: The keys of :class:`.PretrainedSpec`, none of which has to be set, or ``_target_`` and its arguments.
        device: Where a pretrained network computes.
        width: Dimensions of its embeddings, at most; ``None`` keeps all features.

    Raises:
        ConfigError: An unknown key or network, no weights at hand, or an object that is not an embedder.
        RunError: A file of weights that is missing or does not fit.
    """
    if section and "_target_" in section:
        return check_embedder(instantiate(section, "embedder"))
    from mlfix_train.models.embedding.pretrained import load_pretrained

    return load_pretrained(pretrained_spec(section), device, width)


def computes_in_bfloat16(device: str) -> bool:
    """Returns whether bfloat16 is the quicker precision on a device."""
    from mlfix_train.training.trainer import best_precision

    return best_precision("gpu" if device.startswith("cuda") else device) == "bf16-mixed"


def select_device(device: str) -> str:
    """Returns the device that ``device`` names, ``auto`` being a GPU where there is one.

    Raises:
        ConfigError: A GPU that torch does not find.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device={device}: torch finds no GPU", "set device=cpu")
    return device
