"""What tells images apart in ``mlfix sort``: pixels, a network, visual words, LPIPS, or embeddings from a file."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from mlfix_train.config import build as config
from mlfix_train.data.loading.augment import normalize
from mlfix_train.data.runs import FINISHED, RunDirectory, find_runs
from mlfix_train.errors import ConfigError, DataError, RunError, check_choice, check_range
from mlfix_train.models.embedding.network import Standardize, embed
from mlfix_train.models.embedding.pca import Projection, distance_error, fit_projection

log = logging.getLogger(__name__)

KINDS = ("auto", "pixels", "network", "words", "lpips", "embeddings")
SAMPLE = 4_000
"""Images that a projection is fitted to."""
TESTED = 1_000
"""Images on which its error is measured."""
Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Embedding:
    """How images become points.

    Attributes:
        used: what it is, in words.
        function: float images ``n,3,H,W`` in 0..1 to features ``n,D``; ``None`` for embeddings from a file.
        whiten: give all principal components one deviation.
        unit: bring points to length 1, so that distances are those of the cosine.
        rerank: candidates whose exact distance decides who is nearest; 0 where the projection is all there is.
        pixels: side of the images it wants, where it wants one.
        notes: figures for ``sort.json``.
    """

    used: str
    function: Function | None
    whiten: bool = False
    unit: bool = True
    rerank: int = 0
    pixels: int | None = None
    projection: Projection | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def project(self, features: np.ndarray) -> np.ndarray:
        """Brings features ``n,D`` to points ``n,K``, once a projection was fitted."""
        points = self.projection(features) if self.projection else np.asarray(features, dtype=np.float32)
        return as_unit(points) if self.unit else points


def as_unit(points: np.ndarray) -> np.ndarray:
    """Brings rows to length 1; a row of zeros stays."""
    return np.asarray(points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def kind_of(cfg: DictConfig) -> str:
    """Returns what ``by`` comes to, and checks that what it needs is given.

    Raises:
        ConfigError: it isn't.
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


def describe_network(cfg: DictConfig) -> tuple[DictConfig, Path]:
    """Returns the settings and the weights of the run that ``network`` names.

    Raises:
        RunError: there is no such run, it is unfinished, or kept no weights.
        ConfigError: several runs.
    """
    where = Path(str(cfg.network)).expanduser()
    if where.suffix == ".ckpt":  # <run>/checkpoints/model.ckpt
        where = where.parent.parent
    runs = find_runs(str(where), "network")
    if len(runs) > 1:
        raise ConfigError(f"network={cfg.network} holds {len(runs)} runs", f"name one of them, such as {runs[0].path}")
    run: RunDirectory = runs[0]
    state = run.require()
    weights = run.path / "checkpoints" / "model.ckpt"
    if run.status != FINISHED:
        raise RunError(f"network={run.path} is {run.status or 'not started'}", "let its training finish first")
    if not weights.exists():
        raise RunError(f"{run.path} kept no weights", "train it with checkpoint.keep=weights")
    return OmegaConf.create(state["config"]), weights


def load_encoder(cfg: DictConfig, device: str) -> tuple[Any, DictConfig]:
    """Builds the encoder of the run that ``network`` names, with its weights; returns it and the run's settings."""
    from mlfix_train.models.ssl.encoder import Encoder

    settings, weights = describe_network(cfg)
    model = settings.model
    sorting = config.is_sorting(settings)
    pool = {} if sorting or model.get("head") == "linear" else {"global_pool": "avg"}
    encoder = Encoder(
        str(model.backbone),
        model.get("input_size"),
        bool(model.get("contrast", False)),
        weights=weights,
        backbone_args={**pool, **config.plain(model.backbone_args)},
    )
    return encoder.to(device).eval(), settings


def build(cfg: DictConfig, device: str) -> Embedding:
    """Builds what ``by`` names.

    Raises:
        MlfixError: what it needs is missing, damaged, or doesn't fit.
    """
    kind = kind_of(cfg)
    if kind == "pixels":
        return Embedding("pixels at even light", Standardize(), whiten=True)
    if kind == "embeddings":
        return Embedding(f"embeddings of {cfg.embeddings}", None, unit=False)
    if kind == "lpips" and not cfg.network:
        from mlfix_train.models.embedding.lpips import check_size, lpips_trunk, resized

        _check_lpips(cfg)
        check_size(str(cfg.lpips.trunk), int(cfg.lpips.size or cfg.pixels.size or 40))
        perceptual = lpips_trunk(str(cfg.lpips.trunk), cfg.lpips.weights).to(device)
        return Embedding(
            perceptual.used,
            lambda images: perceptual(resized(images, cfg.lpips.size)),
            unit=False,
            rerank=int(cfg.lpips.rerank),
        )
    encoder, settings = load_encoder(cfg, device)
    name = "sorting network" if config.is_sorting(settings) else "classifier"
    used, size = f"the {name} {cfg.network} ({settings.model.backbone})", int(settings.pixels.size)
    if kind == "network":
        return Embedding(used, lambda images: encoder(normalize(images)), pixels=size)
    if kind == "lpips":
        from mlfix_train.models.embedding.lpips import from_grids, resized

        _check_lpips(cfg)
        own = from_grids(encoder, lambda images: encoder.feature_maps(normalize(images)), "").to(device)
        return Embedding(
            f"LPIPS' formula on {used}, all channels weighed alike (not LPIPS itself)",
            lambda images: own(resized(images, cfg.lpips.size)),
            unit=False,
            rerank=int(cfg.lpips.rerank),
            pixels=size,
        )
    return Embedding(f"visual words of {used}", lambda images: _stage(cfg, encoder, images), unit=False, pixels=size)


def _check_lpips(cfg: DictConfig) -> None:
    if cfg.lpips.size is not None:
        config.check_type("lpips.size", cfg.lpips.size, "int")
        check_range("lpips.size", cfg.lpips.size, 16, 1024)
    config.check_type("lpips.rerank", cfg.lpips.rerank, "int")
    check_range("lpips.rerank", cfg.lpips.rerank, 0, 1000)


def _stage(cfg: DictConfig, encoder: Any, images: torch.Tensor) -> torch.Tensor:
    stages = encoder.feature_maps(normalize(images))
    number = int(cfg.words.stage)
    if not -len(stages) <= number < len(stages):
        raise ConfigError(f"words.stage={number}: the network has {len(stages)} stages", "-1 is the last of them")
    grid: torch.Tensor = stages[number]
    return grid


def learn_words(cfg: DictConfig, built: Embedding, pixels: Any, rows: np.ndarray, device: str) -> None:
    """Learns the visual words from a sample of the images, and lets the embedding use them."""
    from mlfix_train.models.embedding.visual_words import PLACES, bag_of_words, learn_words, place_features

    grids, rng = built.function, np.random.default_rng(int(cfg.seed))
    assert grids is not None
    per_image = len(place_features(grids(torch.zeros(1, 3, *pixels.shape[1:3], device=device)))[0])
    sample = np.sort(rng.choice(rows, min(len(rows), max(1, PLACES // per_image)), replace=False))
    places = embed(pixels, lambda images: place_features(grids(images)).flatten(1), sample, device=device)
    words = learn_words(places.reshape(len(sample) * per_image, -1), int(cfg.words.count), seed=int(cfg.seed))
    built.function = bag_of_words(grids, words)
    built.used = f"{len(words):,} {built.used}, {per_image} places an image"


def fit(built: Embedding, pixels: Any, rows: np.ndarray, width: int | None, device: str, half: bool, seed: int) -> None:
    """Fits the projection to a sample of the images, and measures its error on others."""
    assert built.function is not None
    if width is None or len(rows) < 3:
        return
    rng = np.random.default_rng(seed)
    drawn = rng.choice(rows, min(len(rows), SAMPLE + TESTED), replace=False)
    length = embed(pixels, built.function, drawn[:1], device=device, half=half).shape[1]
    if length <= width and not built.whiten:
        return
    count = min(len(drawn), max(64, min(SAMPLE + TESTED, int(1.5e9 / (4 * length)))))  # 1.5 GB of features
    features = embed(pixels, built.function, np.sort(drawn[:count]), device=device, half=half)
    features = features[rng.permutation(count)]
    held = max(2, count // 5)
    fitted = features[held:] if count - held >= 2 else features
    built.projection = fit_projection(fitted, width, built.whiten)
    if built.whiten:
        built.notes["variance_kept"] = round(built.projection.kept, 4)
    else:
        tested = features[:held]
        error = distance_error(tested, built.projection(tested))
        built.notes["projection"] = {
            "from": length, "to": built.projection.width, "variance_kept": round(built.projection.kept, 4),
            "squared_distance_error_mean": round(error["mean"], 5),
            "squared_distance_error_p95": round(error["p95"], 5),
            "nearest_10_kept": round(error["nearest"], 4), "measured_on": held,
        }  # fmt: skip


def check_memory(bytes_needed: float) -> None:
    """Checks that memory holds points that were not projected.

    Raises:
        DataError: it does not, with the sizes and the hint.
    """
    import os

    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # a system that doesn't say
        return
    if bytes_needed > free:
        raise DataError(
            f"points that are not projected take {bytes_needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free",
            "project them: width=128 (the error of it is measured and told)",
        )


def check_room(folder: Path, bytes_needed: float, hint: str) -> None:
    """Checks that a disk has room.

    Raises:
        DataError: it has not, with the sizes and the hint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if bytes_needed > 0.95 * free:
        raise DataError(
            f"the exact features take {bytes_needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free", hint
        )
