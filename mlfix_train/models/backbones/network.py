"""A timm backbone and a head: images to logits.

Shapes: N images of H x W pixels, C classes, D channels of a feature map of h x w positions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from mlfix_train.errors import ConfigError, MlfixError, RunError, check_choice, did_you_mean
from mlfix_train.models.backbones.fit import fit_arguments, native_size, size_error, to_channels, why_not
from mlfix_train.models.backbones.hub import cached_weights, why_unreachable
from mlfix_train.models.backbones.weights import load_backbone

HEADS = ("concat_pool", "linear")


class ConcatPoolHead(nn.Sequential):
    """fastai's head, used in the published experiment: maps ``(N, D, h, w)`` to logits ``(N, C)``.

    Max and average pooling side by side, then two linear layers, ``hidden`` wide in between, with batch norm and
    dropout.
    """

    def __init__(self, features: int, num_classes: int, hidden: int = 512) -> None:
        super().__init__(
            _ConcatPool(),
            nn.BatchNorm1d(2 * features),
            nn.Dropout(0.25),
            nn.Linear(2 * features, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.BatchNorm1d(hidden),
            nn.Dropout(0.5),
            nn.Linear(hidden, num_classes, bias=False),
        )


class _ConcatPool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1)


class Network(nn.Module):
    """Backbone and head.

    Args:
        backbone: Name of a timm model.
        num_classes: Number of logits, C.
        head: ``concat_pool`` (the published head; for backbones with a feature map) or ``linear`` (the backbone's own
            pooling and one layer).
        pretrained: Download timm's weights for the backbone from the model hub, unless they are in its cache.
        weights: File with weights for the backbone, see :func:`load_backbone`; it replaces the download.
        backbone_args: Further arguments of ``timm.create_model``. With ``in_chans=1`` images are turned grey.
        channels_last: Lay feature maps out as NHWC, which is faster on CPUs and on GPUs with tensor cores.
        image_size: Side of the images, px: the network is made for it if it takes one size only, and tried on an image.

    Attributes:
        mean, std: Per channel, images in 0..1 are normalized by them before they go into the network: the backbone's,
            see :func:`image_statistics`.

    Raises:
        ConfigError: An unknown backbone or head, arguments that don't fit it, or images of another size than it takes.
        RunError: Weights that are unavailable or don't fit.
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        head: str = "linear",
        pretrained: bool = False,
        weights: str | Path | None = None,
        backbone_args: Mapping[str, Any] | None = None,
        channels_last: bool = True,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("model.head", head, HEADS)
        pooling = {"global_pool": ""} if head == "concat_pool" else {}
        self.arguments = {**pooling, **(backbone_args or {})}
        self.name = backbone
        self.backbone = create_backbone(backbone, pretrained, self.arguments, weights, image_size)
        self.channels = input_channels(self.arguments)
        self.mean, self.std = image_statistics(self.backbone)
        self.features = int(self.backbone.num_features)  # type: ignore[arg-type]
        self.head: nn.Module
        if head == "concat_pool":
            self.head = ConcatPoolHead(self.features, num_classes)
        else:
            self.head = nn.Linear(int(getattr(self.backbone, "head_hidden_size", self.features)), num_classes)
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if image_size is not None:
            self._check_size(image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Maps normalized images ``(N, 3, H, W)`` to logits ``(N, C)``.

        Raises:
            ConfigError: The images have another size than the backbone takes.
        """
        try:
            return self._logits(images)
        except MlfixError:
            raise
        except Exception:
            self._check_size(images.shape[-1])
            raise

    def _check_size(self, size: int) -> None:
        """Raises a ConfigError unless an image of ``size`` px passes through backbone and head."""
        if reason := why_not(self, size, forward=self._logits):
            raise size_error(self.name, size, reason, self.arguments)

    def _logits(self, images: Tensor) -> Tensor:
        images = to_channels(images, self.channels)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        needs_map = isinstance(self.head, ConcatPoolHead)
        features = self.backbone.forward_features(images) if needs_map else self.backbone(images)  # type: ignore[operator]
        if needs_map and (features.ndim != 4 or features.shape[1] != self.features):
            wanted = f"model.head=concat_pool needs a feature map (N, {self.features}, h, w)"
            raise ConfigError(f"{wanted}, but this backbone returns {tuple(features.shape)}", "use model.head=linear")
        logits: Tensor = self.head(features)
        return logits


def image_statistics(backbone: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and standard deviation per channel (of images from 0 to 1) that a backbone's input has to have.

    They are those of timm's ``pretrained_cfg``, also where the weights are not timm's, so that everyone who loads the
    weights uses the same ones; ImageNet's where the backbone has none.
    """
    config = getattr(backbone, "pretrained_cfg", None) or {}
    mean, std = config.get("mean") or IMAGENET_DEFAULT_MEAN, config.get("std") or IMAGENET_DEFAULT_STD
    if len(mean) != 3 or len(std) != 3:  # for images of another number of channels
        mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    return tuple(map(float, mean)), tuple(map(float, std))


def input_channels(arguments: Mapping[str, Any]) -> int:
    """Returns the channels that a backbone with these arguments takes, 3 or 1; a ConfigError for others."""
    channels = arguments.get("in_chans", 3)
    if channels not in (1, 3):
        problem = f"in_chans is {channels} in model.backbone_args, but images have three channels, or one turned grey"
        raise ConfigError(problem, "set model.backbone_args.in_chans to 1 or 3")
    return int(channels)


def create_backbone(
    name: str,
    pretrained: bool,
    arguments: Mapping[str, Any],
    weights: str | Path | None = None,
    image_size: int | None = None,
) -> nn.Module:
    """Builds a timm backbone without a classifier, made for images of ``image_size`` px if that is given.

    ``arguments`` are further ones of ``timm.create_model``; for the others, and errors, see :class:`Network`.
    """
    if not timm.is_model(name.split(".", maxsplit=1)[0]):
        raise ConfigError(f"model.backbone={name} is not a timm model", did_you_mean(name, timm.list_models()))
    pretrained = pretrained and not weights
    source = _find_weights(name) if pretrained else {}
    fitted = fit_arguments(name, image_size, arguments) if image_size else {}
    try:
        backbone = timm.create_model(name, pretrained=pretrained, num_classes=0, **{**source, **fitted, **arguments})
    except Exception as error:
        if fitted and "size mismatch" in str(error):
            problem = f"the pretrained weights of model.backbone={name} don't fit images of {image_size} px"
            raise ConfigError(problem, f"set pixels.size={native_size(name)}, or model.pretrained=false") from error
        if not pretrained or isinstance(error, (TypeError, AssertionError)) or "tag" in str(error):
            raise _backbone_error(name, arguments, error) from error
        reason = str(error).strip().partition("\n")[0][:200]
        raise _weights_error(name, f"{type(error).__name__}: {reason}") from error
    if not hasattr(backbone, "num_features"):
        problem = (
            f"model.backbone={name} with model.backbone_args={dict(arguments)} returns maps of its stages, not features"
        )
        raise ConfigError(problem, "leave out model.backbone_args.features_only")
    if weights:
        load_backbone(backbone, Path(weights).expanduser())
    return backbone


def _backbone_error(name: str, arguments: Mapping[str, Any], error: Exception) -> ConfigError:
    given = f" with model.backbone_args={dict(arguments)}" if arguments else ""
    hint = "see timm.create_model for the arguments of this backbone"
    return ConfigError(f"model.backbone={name}{given}: {error}", hint)


def _weights_error(name: str, reason: str) -> RunError:
    hint = "start from random weights (model.pretrained=false recipe=scratch), or use a weights file"
    return RunError(f"the pretrained weights of {name} are unavailable: {reason}", f"{hint}: model.weights=<file>")


def _find_weights(name: str) -> dict[str, Any]:
    """Returns the arguments of ``timm.create_model`` that take weights from a cache; none if the hub has to send them.

    Fails within seconds if the hub cannot be reached, either.
    """
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise _backbone_error(name, {}, error) from error
    if config is None or not config.has_weights:
        return {}
    if file := cached_weights(config):
        return {"pretrained_cfg_overlay": {"file": str(file), "custom_load": False}}
    if reason := why_unreachable(config):
        raise _weights_error(name, reason)
    return {}
