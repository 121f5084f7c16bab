"""LPIPS as an embedding: points whose squared distances are the perceptual distance of their images.

LPIPS compares two images by the squared differences of their unit-normalised features, weighted by channel, averaged
over places and summed over layers. Since that is a sum of squares, each image can be laid out as one long vector

    phi = concat over layers l of sqrt(w_lc / (H_l W_l)) * feature_lc(place) / |feature_l(place)|

with ``|phi_a - phi_b|^2 = LPIPS(a, b)``: N passes of the network take the place of N * N.

Source of LPIPS: Zhang, Isola, Efros, Shechtman and Wang 2018, "The unreasonable effectiveness of deep features as a
perceptual metric"; channel weights and trunks are those of its package ``lpips`` (BSD licence).

Shapes: N images, L layers, D the sum over layers of channels * height * width.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlfix_train.errors import ConfigError, DataError, RunError, check_choice, format_list
from mlfix_train.models.backbones.network import read_state

TRUNKS = ("alex", "vgg", "squeeze")
SMALLEST = {"alex": 31, "vgg": 16, "squeeze": 17}
"""Smallest side of an image that reaches a trunk's last layer, px."""
EPS = 1e-10
"""Added to the length of features (as the package does)."""
FILES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}


class LpipsEmbedding(nn.Module):
    """Maps images ``N,3,H,W`` in 0..1 to float32 ``N,D``, whose squared distances are LPIPS.

    Args:
        layers: maps images in 0..1 to L feature maps ``N,C,h,w``.
        weights: L channel weights, each C numbers of 0 or more; ``None`` weighs all channels by 1.
        used: what it is made of, in words.
    """

    def __init__(
        self, layers: Callable[[Tensor], Sequence[Tensor]], weights: Sequence[Tensor] | None, used: str
    ) -> None:
        super().__init__()
        self.layers, self.used = layers, used
        self.roots = None if weights is None else nn.ParameterList(_root(w, number) for number, w in enumerate(weights))
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``N,3,H,W`` in 0..1 to ``N,D``."""
        parts = []
        for number, features in enumerate(self.layers(images)):
            features = features.float()
            length = features.square().sum(1, keepdim=True).sqrt() + EPS
            scale = (features.shape[2] * features.shape[3]) ** -0.5
            unit = features / length * scale
            parts.append((unit if self.roots is None else unit * self.roots[number][None, :, None, None]).flatten(1))
        return torch.cat(parts, 1)


def _root(weights: Tensor, layer: int) -> nn.Parameter:
    if (weights < 0).any():
        raise DataError(
            f"layer {layer} of these LPIPS weights has a channel of weight {float(weights.min()):g}",
            "a distance needs weights of 0 or more: give weights that were trained so (the package's are)",
        )
    return nn.Parameter(weights.detach().float().sqrt(), requires_grad=False)


def all_pairs(phi: Tensor, block: int = 500) -> Tensor:
    """Returns the squared distances of all pairs: with the embedding above, their LPIPS.

    Args:
        phi: ``N,D``.
        block: rows at a time; each pair of blocks is multiplied once.

    Returns:
        ``N,N``, symmetric, 0 or more.
    """
    n = len(phi)
    squares = phi.square().sum(1)
    result = torch.empty(n, n, dtype=phi.dtype, device=phi.device)
    for i in range(0, n, block):
        for j in range(i, n, block):
            a, b = slice(i, min(i + block, n)), slice(j, min(j + block, n))
            gaps = torch.addmm(squares[b], phi[a], phi[b].T, alpha=-2.0).add_(squares[a, None]).clamp_min_(0)
            result[b, a] = gaps.T
            result[a, b] = gaps if i < j else (gaps + gaps.T) / 2
    return result.fill_diagonal_(0)


def lpips_trunk(trunk: str = "alex", weights: str | Path | None = None) -> LpipsEmbedding:
    """Builds the embedding on a trunk of the package ``lpips``.

    Args:
        trunk: ``alex``, ``vgg`` or ``squeeze``.
        weights: file with the trunk's weights (torchvision's, or a state dict of ``lpips.LPIPS``); ``None`` takes
            torchvision's from its cache, or fetches them once.

    Raises:
        ConfigError: another trunk.
        RunError: weights that can't be had or don't fit, with what can be done without.
    """
    check_choice("lpips.trunk", trunk, TRUNKS)
    state = read_trunk(Path(weights).expanduser()) if weights else _fetch(trunk)
    model = _package(trunk)
    names = {name: torchvision_name(name) for name in model.net.state_dict()}
    own = model.net.state_dict()
    lacking = sorted(
        there for here, there in names.items() if there not in state or state[there].shape != own[here].shape
    )
    if lacking:
        raise RunError(
            f"lpips.weights={weights} lacks {len(lacking)} of the {len(names)} tensors of the trunk {trunk}, or has "
            f"them in another shape: {format_list(lacking, 3)}",
            f"give torchvision's weights of this trunk, or another lpips.trunk ({', '.join(TRUNKS)})",
        )
    model.net.load_state_dict({here: state[there] for here, there in names.items()})
    source = weights or f"torchvision's {FILES[trunk]}"
    return from_package(model, f"LPIPS, trunk {trunk}, weights {source}")


def from_package(model: Any, used: str) -> LpipsEmbedding:
    """Builds the embedding of an ``lpips.LPIPS`` (not spatial), whatever its weights.

    Args:
        model: an ``lpips.LPIPS``.
        used: what it is, in words.
    """
    weights = [layer.model[-1].weight.flatten() for layer in model.lins] if model.lpips else None
    scale = model.scaling_layer
    embedding = LpipsEmbedding(lambda images: model.net(scale(2 * images - 1)), weights, used)
    embedding.add_module("model", model.eval())  # goes where the embedding goes
    return embedding


def from_grids(network: nn.Module, grids: Callable[[Tensor], Sequence[Tensor]], used: str) -> LpipsEmbedding:
    """Builds an embedding by the same formula from any network's feature maps, all channels weighed alike.

    That is what a user's own classifier or sorting network gives where no trunk can be had; it is not LPIPS, whose
    weights were fitted to people's judgements.
    """
    embedding = LpipsEmbedding(grids, None, used)
    embedding.add_module("model", network.eval())
    return embedding


def _package(trunk: str) -> Any:
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lpips.LPIPS(net=trunk, pnet_rand=True, verbose=False)


def read_trunk(path: Path) -> dict[str, Tensor]:
    """Returns a trunk's tensors under torchvision's names, from its file or from one of the package's.

    Raises:
        RunError: the file is missing or can't be read.
    """
    if not path.is_file():
        raise RunError(
            f"lpips.weights={path} does not exist",
            "give a file with the trunk's weights, or do without: by=network network=<run directory>, or by=pixels",
        )
    state = read_state(path)
    if any(name.startswith("net.slice") for name in state):
        trunk = {name: value for name, value in state.items() if "slice" in name}
        return {torchvision_name(name): value for name, value in trunk.items()}
    return state


def torchvision_name(name: str) -> str:
    """Returns torchvision's name of a tensor of the package: ``net.slice2.3.weight`` is ``features.3.weight``."""
    return re.sub(r"^(net\.)?slice\d+\.", "features.", name)


def _fetch(trunk: str) -> dict[str, Tensor]:
    import torchvision

    weights = getattr(torchvision.models, FILES[trunk]).DEFAULT
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
        return state
    except Exception as error:
        raise RunError(
            f"the weights of lpips.trunk={trunk} can't be had: {str(error).strip() or type(error).__name__}",
            "give a file with them (lpips.weights=<file>), or do without: by=network network=<run directory> embeds by "
            "your own classifier or sorting network, by=pixels by the pixels",
        ) from error


def check_size(trunk: str, side: int) -> None:
    """Checks that images of ``side`` px reach the trunk's last layer.

    Raises:
        ConfigError: they are too small.
    """
    check_choice("lpips.trunk", trunk, TRUNKS)
    if side < SMALLEST[trunk]:
        raise ConfigError(
            f"images of {side} px are too small for lpips.trunk={trunk}, which needs {SMALLEST[trunk]}",
            f"scale them up: lpips.size={2 * SMALLEST[trunk]}",
        )


def resized(images: Tensor, side: int | None) -> Tensor:
    """Returns images ``N,3,H,W`` scaled to ``side``; ``None`` leaves them."""
    if side is None or images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
