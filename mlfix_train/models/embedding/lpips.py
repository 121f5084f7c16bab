"""LPIPS as an embedding: vectors whose squared Euclidean distances are the perceptual distances of their images.

LPIPS compares two images by the squared differences of their unit-normalized features, weighted by channel, averaged
over positions and summed over layers. Since that is a sum of squares, each image can be laid out as one long vector

    phi = concat over layers l of sqrt(w_lc / (h_l w_l)) * feature_lc(position) / |feature_l(position)|

with ``|phi_a - phi_b|^2 = LPIPS(a, b)``: N passes of the network instead of N * N.

Source: Zhang, Isola, Efros, Shechtman and Wang 2018, "The unreasonable effectiveness of deep features as a perceptual
metric"; channel weights and trunks are those of its package ``lpips`` (BSD license).

Shapes: N images, L layers with C channels and h x w positions, D the sum over layers of C * h * w.
"""

import hashlib
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlfix_train.errors import ConfigError, DataError, RunError, check_choice, format_list
from mlfix_train.models.backbones.weights import read_state
from mlfix_train.models.embedding.base import TorchEmbedder
from mlfix_train.models.embedding.network import TrainedEncoder
from mlfix_train.models.embedding.settings import TRUNKS, LpipsSpec
from mlfix_train.models.ssl.encoder import resize

MIN_SIZE = {"alex": 31, "vgg": 16, "squeeze": 17}
"""Smallest side of an image that reaches a trunk's last layer, px."""
EPSILON = 1e-10
"""Added to the length of features, as in the package."""
TORCHVISION_WEIGHTS = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}


class LpipsFeatures(nn.Module):
    """Maps images in 0..1 ``(N, 3, H, W)`` to float32 ``(N, D)``, whose squared distances are LPIPS.

    Args:
        layers: Maps images in 0..1 to L feature maps ``(N, C, h, w)``.
        weights: L channel weights, each C numbers of 0 or more; ``None`` weighs all channels by 1.
        name: What it is, for reports.
        image_size: Side of the images it was made for, px; ``None`` if any will do.
        fingerprint: Hex hash of the weights.
        model: What ``layers`` computes with; moves to a device with the features.

    Raises:
        DataError: A negative channel weight.
    """

    def __init__(
        self,
        layers: Callable[[Tensor], Sequence[Tensor]],
        weights: Sequence[Tensor] | None,
        name: str,
        image_size: int | None = None,
        fingerprint: str = "",
        model: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.layers, self.name, self.image_size, self.fingerprint = layers, name, image_size, fingerprint
        for layer, weight in enumerate(weights or ()):
            if (weight < 0).any():
                problem = f"layer {layer} of these LPIPS weights has a channel of weight {float(weight.min()):g}"
                raise DataError(problem, "a distance needs weights of 0 or more, as those of the package lpips are")
        self.roots = None if weights is None else nn.ParameterList(w.detach().float().sqrt() for w in weights)
        self.requires_grad_(False)
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Maps images in 0..1 ``(N, 3, H, W)`` to ``(N, D)``."""
        parts = []
        for number, layer in enumerate(self.layers(images)):
            features = layer.float()
            length = features.square().sum(1, keepdim=True).sqrt() + EPSILON
            unit = features / length * (features.shape[2] * features.shape[3]) ** -0.5
            parts.append((unit if self.roots is None else unit * self.roots[number][None, :, None, None]).flatten(1))
        return torch.cat(parts, 1)


class LpipsEmbedder(TorchEmbedder):
    """LPIPS: neighbours are found in a projection and re-ranked by the exact distance.

    ``features`` are those of a trunk (:func:`load_trunk`) or of a network of your own (:func:`network_features`);
    ``spec`` gives the size of the images, and how many candidates are re-ranked.
    """

    def __init__(
        self, features: LpipsFeatures, spec: LpipsSpec | None = None, width: int | None = 128, device: str = "cpu"
    ) -> None:
        spec = spec or LpipsSpec()
        super().__init__(
            features.name,
            width=width,
            unit_length=False,
            n_candidates=spec.rerank,
            image_size=features.image_size,
            device=device,
            settings=[features.name, features.fingerprint, spec.size],
        )
        self._features, self.size = features.to(device), spec.size

    def compute(self, images: Tensor) -> Tensor:
        """Maps images in 0..1 ``(n, 3, H, W)`` to ``(n, D)``."""
        features: Tensor = self._features(resize(images, self.size))
        return features


def load_trunk(trunk: str = "alex", weights: str | Path | None = None) -> LpipsFeatures:
    """Builds the features of a trunk of the package ``lpips``.

    Args:
        trunk: ``alex``, ``vgg`` or ``squeeze``.
        weights: File with the trunk's weights (torchvision's, or a state dict of ``lpips.LPIPS``); ``None`` takes
            torchvision's from its cache, or downloads them once.

    Raises:
        ConfigError: Another trunk.
        RunError: Weights that are unavailable or don't fit; the hint names alternatives.
    """
    import lpips

    check_choice("lpips.trunk", trunk, TRUNKS)
    path = Path(weights).expanduser() if weights else None
    state = _read_trunk(trunk, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = lpips.LPIPS(net=trunk, pnet_rand=True, verbose=False)
    own = model.net.state_dict()
    found = {name: state[_torchvision_name(name)] for name in own if _torchvision_name(name) in state}
    missing = sorted(_torchvision_name(n) for n in own if n not in found or found[n].shape != own[n].shape)
    if missing:
        count = f"{len(missing)} of the {len(own)} tensors of the trunk {trunk}"
        problem = f"lpips.weights={weights} lacks {count}, or has them in another shape: {format_list(missing, 3)}"
        hint = f"use torchvision's weights of this trunk, or another lpips.trunk ({', '.join(TRUNKS)})"
        raise RunError(problem, hint)
    model.net.load_state_dict(found)
    source = weights or f"torchvision's {TORCHVISION_WEIGHTS[trunk]}"
    fingerprint = hashlib.sha256(path.read_bytes()).hexdigest() if path else TORCHVISION_WEIGHTS[trunk]
    return from_package(model, f"LPIPS, trunk {trunk}, weights {source}", fingerprint)


def from_package(model: Any, name: str, fingerprint: str = "") -> LpipsFeatures:
    """Builds the features of an ``lpips.LPIPS`` (not spatial), whatever its weights; reports call it ``name``."""
    weights = [layer.model[-1].weight.flatten() for layer in model.lins] if model.lpips else None
    return LpipsFeatures(
        lambda images: model.net(model.scaling_layer(2 * images - 1)), weights, name, None, fingerprint, model
    )


def network_features(trained: TrainedEncoder) -> LpipsFeatures:
    """Builds features by the same formula from the maps of a trained encoder, all channels weighted equally.

    This works with your own classifier or sorting network when no trunk is available. It is not LPIPS, whose weights
    were fitted to people's judgments.
    """
    encoder, name = trained.encoder, f"LPIPS' formula on {trained.name}, all channels weighted equally"
    return LpipsFeatures(
        lambda images: encoder.feature_maps(encoder.normalize(images)),
        None,
        f"{name} (not LPIPS itself)",
        trained.image_size,
        trained.fingerprint,
        encoder,
    )


def _torchvision_name(name: str) -> str:
    """Returns torchvision's name of a tensor of the package: ``net.slice2.3.weight`` is ``features.3.weight``."""
    return re.sub(r"^(net\.)?slice\d+\.", "features.", name)


def _read_trunk(trunk: str, path: Path | None) -> dict[str, Tensor]:
    """Returns a trunk's tensors under torchvision's names, from a file of torchvision or ``lpips``, or downloaded."""
    if path:
        if not path.is_file():
            hint = (
                "set a file with the trunk's weights, or do without: by=network network=<run directory>, or by=pixels"
            )
            raise RunError(f"lpips.weights={path} does not exist", hint)
        return {_torchvision_name(name): value for name, value in read_state(path, "lpips.weights").items()}
    import torchvision

    try:
        weights = getattr(torchvision.models, TORCHVISION_WEIGHTS[trunk]).DEFAULT
        return weights.get_state_dict(progress=False, check_hash=True)  # type: ignore[no-any-return]
    except Exception as error:
        raise RunError(
            f"the weights of lpips.trunk={trunk} are unavailable: {str(error).strip() or type(error).__name__}",
            "set a file with them (lpips.weights=<file>), or do without: by=network network=<run directory> embeds "
            "with your own classifier or sorting network, by=pixels uses the pixels",
        ) from error


def check_size(trunk: str, side: int) -> None:
    """Raises a ConfigError unless images of ``side`` px reach the trunk's last layer."""
    check_choice("lpips.trunk", trunk, TRUNKS)
    if side < MIN_SIZE[trunk]:
        problem = f"images of {side} px are too small for lpips.trunk={trunk}, which needs {MIN_SIZE[trunk]}"
        raise ConfigError(problem, f"scale them up: lpips.size={2 * MIN_SIZE[trunk]}")
