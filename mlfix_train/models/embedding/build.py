"""Builds an embedder by its name."""

from pathlib import Path

from mlfix_train.errors import ConfigError, check_choice
from mlfix_train.models.embedding.base import Embedder
from mlfix_train.models.embedding.lpips import LpipsEmbedder, check_size, load_trunk, network_features
from mlfix_train.models.embedding.network import NetworkEmbedder, load_encoder
from mlfix_train.models.embedding.pixels import PixelEmbedder
from mlfix_train.models.embedding.settings import EMBEDDERS, LpipsSpec, VisualWordsSpec
from mlfix_train.models.embedding.visual_words import VisualWordsEmbedder


def build_embedder(
    kind: str,
    *,
    network: str | Path | None = None,
    width: int | None = 128,
    lpips: LpipsSpec | None = None,
    visual_words: VisualWordsSpec | None = None,
    device: str = "cpu",
    image_size: int = 40,
) -> Embedder:
    """Builds one of our embedders.

    Args:
        kind: ``pixels``, ``network``, ``visual_words`` or ``lpips``.
        network: Run directory of the network; ``lpips`` uses it in place of a trunk.
        width: Dimensions that embeddings are projected to, at most; ``None`` keeps all.
        lpips: Settings of LPIPS.
        visual_words: Settings of visual words.
        device: Where features are computed, ``cpu`` or ``cuda``.
        image_size: Side of the images that are to be embedded, px; LPIPS checks it.

    Raises:
        MlfixError: An unknown kind, or what it needs is missing, damaged, or doesn't fit.
    """
    check_choice("by", kind, EMBEDDERS)
    if kind in ("network", "visual_words") and not network:
        raise ConfigError(f"by={kind} needs network", "give network=<run directory>, or by=pixels, which needs nothing")
    if kind == "pixels":
        return PixelEmbedder(width, device)
    trained = load_encoder(network, device) if network else None
    if kind == "lpips":
        spec = lpips or LpipsSpec()
        if trained is None:
            check_size(spec.trunk, spec.size or image_size)
        features = load_trunk(spec.trunk, spec.weights) if trained is None else network_features(trained)
        return LpipsEmbedder(features, spec, width, device)
    assert trained is not None
    if kind == "network":
        return NetworkEmbedder(trained, width, device)
    return VisualWordsEmbedder(trained, visual_words, width, device)
