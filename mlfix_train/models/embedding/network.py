"""Embeds images by the features of a network that was trained here: a sorting network or a classifier."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mlfix_train.data.runs import FINISHED, find_runs
from mlfix_train.errors import ConfigError, RunError
from mlfix_train.models.embedding.base import TorchEmbedder
from mlfix_train.models.ssl.encoder import Encoder


@dataclass(frozen=True)
class TrainedEncoder:
    """The encoder of a finished run.

    Attributes:
        encoder: With the run's weights, in evaluation mode.
        name: What it is, for reports.
        image_size: Side of the images it was trained with, px.
        fingerprint: Hex hash of its weights and of the settings that it was built from.
    """

    encoder: Encoder
    name: str
    image_size: int
    fingerprint: str


def load_encoder(run: str | Path, device: str = "cpu") -> TrainedEncoder:
    """Builds the encoder of a finished run.

    ``run`` is the run directory of a sorting network or a classifier, or a checkpoint in it.

    Raises:
        RunError: There is no such run, it is unfinished, kept no weights, or trained a model of another kind.
        ConfigError: The directory holds several runs.
    """
    place = Path(run).expanduser()
    if place.suffix == ".ckpt":  # <run>/checkpoints/model.ckpt
        place = place.parent.parent
    runs = find_runs(str(place), "network")
    if len(runs) > 1:
        raise ConfigError(f"network={run} contains {len(runs)} runs", f"choose one of them, such as {runs[0].path}")
    path, status, config = runs[0].path, runs[0].status, runs[0].require()["config"]
    weights = path / "checkpoints" / "model.ckpt"
    if status != FINISHED:
        raise RunError(f"network={path} is {status or 'not started'}", "let its training finish first")
    if not weights.exists():
        raise RunError(f"{path} kept no weights", "train it with checkpoint.keep=weights")
    settings: dict[str, Any] = config["model"]
    if not settings.get("backbone"):
        problem = f"{path} trained {settings.get('_target_', 'a model')}, which has no model.backbone"
        hint = "use a run of a Classifier or a SortingNetwork, or an embedder of your own"
        raise RunError(problem, hint)
    sorting = str(settings.get("_target_", "")).endswith(".SortingNetwork")
    pools_itself = sorting or settings.get("head") == "linear"
    encoder = Encoder(
        str(settings["backbone"]),
        settings.get("input_size"),
        bool(settings.get("contrast", sorting)),
        weights=weights,
        backbone_args={**({} if pools_itself else {"global_pool": "avg"}), **(settings.get("backbone_args") or {})},
        image_size=int(config["pixels"]["size"]),
    )
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    name = f"the {'sorting network' if sorting else 'classifier'} {run} ({settings['backbone']})"
    return TrainedEncoder(encoder.to(device).eval(), name, int(config["pixels"]["size"]), digest)


class NetworkEmbedder(TorchEmbedder):
    """Pooled features of an encoder, see :func:`load_encoder`, compared by their cosine in ``width`` dimensions."""

    def __init__(self, trained: TrainedEncoder, width: int | None = 128, device: str = "cpu") -> None:
        size, settings = trained.image_size, trained.fingerprint
        super().__init__(trained.name, width=width, image_size=size, device=device, settings=settings)
        self.encoder = trained.encoder

    def compute(self, images: Tensor) -> Tensor:
        """Maps images in 0..1 ``(n, 3, H, W)`` to pooled features ``(n, D)``."""
        features: Tensor = self.encoder(self.encoder.normalize(images))
        return features
