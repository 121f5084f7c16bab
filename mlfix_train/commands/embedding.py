"""Embedders by the settings of ``mlfix sort``: what is left until it calls ``build_embedder`` itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from mlfix_train.config import build as config
from mlfix_train.errors import ConfigError, DataError, check_choice, check_range
from mlfix_train.models.embedding.base import TorchEmbedder
from mlfix_train.models.embedding.build import build_embedder
from mlfix_train.models.embedding.settings import LpipsSpec, VisualWordsSpec

KINDS = ("auto", "pixels", "network", "words", "lpips", "embeddings")


class Embedding:
    """An embedder under the names that the command uses; without one, embeddings are read from a file."""

    def __init__(self, embedder: Any, used: str = "") -> None:
        self.embedder, self._used = embedder, used

    @property
    def used(self) -> str:
        """What it is, for reports."""
        return self._used or str(self.embedder.name)

    @property
    def function(self) -> Any:
        """From images to features."""
        return self.embedder and self.embedder.compute

    def __getattr__(self, name: str) -> Any:
        names = {"rerank": "n_candidates", "pixels": "image_size"}
        empty = {"rerank": 0, "pixels": None, "notes": {}, "whiten": False, "projection": None}
        return getattr(self.embedder, names.get(name, name)) if self.embedder is not None else empty[name]


def kind_of(cfg: DictConfig) -> str:
    """Returns the kind of embedder that ``by`` means, and checks that what it needs is given.

    Raises:
        ConfigError: It isn't.
    """
    kind = check_choice("by", cfg.by, KINDS)
    if kind == "auto":
        kind = "embeddings" if cfg.embeddings else "network" if cfg.network else "pixels"
    for name, needs in (("network", "network"), ("words", "network"), ("embeddings", "embeddings")):
        if kind == name and not cfg[needs]:
            raise ConfigError(f"by={name} needs {needs}", f"give {needs}=<...>, or by=pixels, which needs nothing")
    if cfg.width is not None:
        config.check_type("width", cfg.width, "int")
        check_range("width", cfg.width, 1, 65_536)
    return kind


def build(cfg: DictConfig, device: str) -> Embedding:
    """Builds the embedder that ``by`` names.

    Raises:
        MlfixError: What it needs is missing, damaged, or doesn't fit.
    """
    kind = kind_of(cfg)
    if kind == "embeddings":
        return Embedding(None, f"embeddings of {cfg.embeddings}")
    embedder = build_embedder(
        "visual_words" if kind == "words" else kind,
        network=cfg.network,
        width=cfg.width,
        lpips=config.checked(LpipsSpec, config.plain(cfg.lpips), "lpips"),
        visual_words=config.checked(VisualWordsSpec, config.plain(cfg.words), "words"),
        device=device,
        image_size=int(cfg.pixels.size or 40),
    )
    return Embedding(embedder)


def fit(built: Embedding, pixels: Any, rows: np.ndarray, device: str, half: bool, seed: int) -> None:
    """Fits visual words and projection to a sample of the images."""
    embedder: TorchEmbedder = built.embedder
    embedder.fit(pixels, rows, seed=seed, bfloat16=half)


def check_memory(bytes_needed: float) -> None:
    """Checks that memory holds points that were not projected.

    Raises:
        DataError: It does not, with the sizes.
    """
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # a system that doesn't say
        return
    if bytes_needed > free:
        raise DataError(
            f"points that are not projected take {bytes_needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free",
            "project them: width=128 (the error of it is measured and reported)",
        )


def check_room(folder: Path, bytes_needed: float, hint: str) -> None:
    """Checks that a disk has room.

    Raises:
        DataError: It has not, with the sizes and the hint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if bytes_needed > 0.95 * free:
        raise DataError(
            f"the exact features take {bytes_needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free", hint
        )
