"""A timm backbone and a head: images to logits; pretrained weights and weights files.

Shapes: N images of H x W pixels, C classes, D channels of a feature map of h x w positions.
"""

import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

import mlfix_train.models.backbones.small  # noqa: F401 - registers mlfix_small
from mlfix_train.errors import ConfigError, RunError, check_choice, did_you_mean, format_list
from mlfix_train.models.backbones.hub import cached_weights, why_unreachable

log = logging.getLogger(__name__)

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
        backbone_args: Further arguments of ``timm.create_model``.
        channels_last: Lay feature maps out as NHWC, which is faster on CPUs and on GPUs with tensor cores.

    Attributes:
        mean, std: Per channel, images in 0..1 are normalized by them before they go into the network: the backbone's,
            see :func:`image_statistics`.

    Raises:
        ConfigError: An unknown backbone or head, or arguments that don't fit it.
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
    ) -> None:
        super().__init__()
        check_choice("model.head", head, HEADS)
        pooling = {"global_pool": ""} if head == "concat_pool" else {}
        self.backbone = create_backbone(backbone, pretrained, {**pooling, **(backbone_args or {})}, weights)
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

    def forward(self, images: Tensor) -> Tensor:
        """Maps normalized images ``(N, 3, H, W)`` to logits ``(N, C)``."""
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


def create_backbone(
    name: str, pretrained: bool, arguments: Mapping[str, Any], weights: str | Path | None = None
) -> nn.Module:
    """Builds a timm backbone without a classifier.

    ``arguments`` are further ones of ``timm.create_model``; for the others, and errors, see :class:`Network`.
    """
    if not timm.is_model(name.split(".", maxsplit=1)[0]):
        raise ConfigError(f"model.backbone={name} is not a timm model", did_you_mean(name, timm.list_models()))
    pretrained = pretrained and not weights
    source = _find_weights(name) if pretrained else {}
    try:
        backbone = timm.create_model(name, pretrained=pretrained, num_classes=0, **{**source, **arguments})
    except Exception as error:
        if not pretrained or isinstance(error, (TypeError, AssertionError)) or "tag" in str(error):
            raise _backbone_error(name, arguments, error) from error
        reason = str(error).strip().partition("\n")[0][:200]
        raise _weights_error(name, f"{type(error).__name__}: {reason}") from error
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


def load_backbone(
    backbone: nn.Module,
    path: Path,
    key: str = "model.weights",
    hint: str = "use weights of the same architecture (model.backbone, model.backbone_args)",
) -> None:
    """Loads weights from a file into a backbone of timm; tensors of a head are ignored.

    ``path`` is a ``.safetensors`` or torch file: a state dict, a checkpoint of ours or of another trainer, or the
    original authors' where timm converts them. Names may carry a prefix, such as ``network.backbone.``. ``key`` is what
    the configuration calls the file, for errors, and ``hint`` what to do about one that does not fit.

    Raises:
        RunError: The file is missing, unreadable, or lacks a tensor of the backbone.
    """
    found = read_state(path, key)
    wanted = backbone.state_dict()
    best, missing = _match(found, wanted)
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)  # timm's, for originals
    if missing and convert is not None:
        with suppress(Exception):  # it may stumble over weights of another network
            best, missing = min((best, missing), _match(convert(found, backbone), wanted), key=lambda one: len(one[1]))
    if missing:
        count = f"{len(missing)} of the {len(wanted)} tensors of this backbone"
        problem = f"{key}={path} lacks {count}, or has them in another shape: {format_list(missing, 3)}"
        raise RunError(problem, hint)
    backbone.load_state_dict(best, strict=False)
    log.info("%s: loaded %d of %d tensors of the backbone", path, len(best), len(wanted))


def _match(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the tensors that fit a backbone by name, less a common prefix, and shape; and the names of the others."""
    prefixes = {key[: -len(name)] for name in wanted for key in found if key.endswith(name)} or {""}

    def fitting(prefix: str) -> dict[str, Tensor]:
        named = {name: found[prefix + name] for name in wanted if prefix + name in found}
        return {name: tensor for name, tensor in named.items() if tensor.shape == wanted[name].shape}

    best = max((fitting(prefix) for prefix in sorted(prefixes, key=len)[:50]), key=len)
    return best, sorted(name for name in set(wanted) - set(best) if not name.endswith("num_batches_tracked"))


def read_state(path: Path, key: str = "model.weights") -> dict[str, Tensor]:
    """Returns the tensors of a weights file by name, also from below ``state_dict`` or ``model``.

    ``key`` is what the configuration calls the file, for errors.

    Raises:
        RunError: The file is missing, damaged, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise RunError(f"the weights file {path} does not exist", f"check {key}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
        hint = "use a .safetensors file, or a torch file of tensors and plain values"
        raise RunError(f"the weights file {path} cannot be read: {reason}", hint) from error
    for section in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(section), dict):
            content = content[section]
    entries = content.items() if isinstance(content, dict) else ()
    tensors = {str(name): value for name, value in entries if isinstance(value, Tensor)}
    if not tensors:
        raise RunError(f"the weights file {path} contains no tensors", "use a state dict or a checkpoint")
    return tensors
