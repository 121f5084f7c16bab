"""A timm backbone and a head: images to logits. The torch module, apart from its Lightning wrapper."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlfix_train.errors import ConfigError, RunError, check_choice, did_you_mean, format_list

log = logging.getLogger(__name__)

HEADS = ("concat_pool", "linear")


class ConcatPoolHead(nn.Sequential):
    """The published head: average and max pooling side by side, then two layers with batch norm and dropout.

    Args:
        features: channels of the feature map.
        classes: number of logits.
        hidden: width between the two layers.

    Maps ``N,features,h,w`` to ``N,classes``.
    """

    def __init__(self, features: int, classes: int, hidden: int = 512) -> None:
        super().__init__(
            _ConcatPool(),
            nn.BatchNorm1d(2 * features),
            nn.Dropout(0.25),
            nn.Linear(2 * features, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.BatchNorm1d(hidden),
            nn.Dropout(0.5),
            nn.Linear(hidden, classes, bias=False),
        )


class _ConcatPool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1)


class Network(nn.Module):
    """Backbone and head.

    Args:
        backbone: name of a timm model.
        classes: number of logits.
        head: ``concat_pool`` (the published head; backbones with a feature map) or ``linear`` (the backbone's pooling
            and one layer).
        pretrained: fetch timm's weights for the backbone from the model hub.
        weights: file with weights for the backbone (``.safetensors``, or a torch file: a state dict, a checkpoint of
            ours or another trainer's); a head in it is left out.
        backbone_args: further arguments of ``timm.create_model``.
        channels_last: lay feature maps out as NHWC, which is faster on CPUs and on GPUs with tensor cores.

    Raises:
        ConfigError: an unknown backbone or head, or arguments that don't fit it.
        RunError: weights that can't be had or don't fit.
    """

    def __init__(
        self,
        backbone: str,
        classes: int,
        head: str = "linear",
        pretrained: bool = False,
        weights: str | Path | None = None,
        backbone_args: Mapping[str, Any] | None = None,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        check_choice("model.head", head, HEADS)
        pooled = {"global_pool": ""} if head == "concat_pool" else {}
        self.backbone = create_backbone(backbone, pretrained and not weights, {**pooled, **(backbone_args or {})})
        if weights:
            load_backbone(self.backbone, Path(weights).expanduser())
        self.features = int(self.backbone.num_features)  # type: ignore[arg-type]
        if head == "concat_pool":
            self.head: nn.Module = ConcatPoolHead(self.features, classes)
        else:
            self.head = nn.Linear(int(getattr(self.backbone, "head_hidden_size", self.features)), classes)
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Maps normalised images ``N,3,H,W`` to logits ``N,classes``."""
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        pooled = isinstance(self.head, ConcatPoolHead)
        features = self.backbone.forward_features(images) if pooled else self.backbone(images)  # type: ignore[operator]
        if pooled and (features.ndim != 4 or features.shape[1] != self.features):
            raise ConfigError(
                f"model.head=concat_pool needs a feature map N,{self.features},h,w, and this backbone gives "
                f"{tuple(features.shape)}",
                "use model.head=linear",
            )
        logits: Tensor = self.head(features)
        return logits


def create_backbone(name: str, pretrained: bool, arguments: Mapping[str, Any]) -> nn.Module:
    """Makes a timm backbone without a classifier.

    Raises:
        ConfigError: no such backbone, or arguments that don't fit it.
        RunError: its weights can't be fetched.
    """
    import timm

    import mlfix_train.models.backbones.small  # noqa: F401 - registers mlfix_small

    if not timm.is_model(name.split(".")[0]):
        raise ConfigError(f"model.backbone={name} is no model of timm", did_you_mean(name, timm.list_models()))
    if pretrained:
        _require_hub(name)
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments)
    except (TypeError, AssertionError) as error:
        raise _no_backbone(name, arguments, error) from error
    except Exception as error:
        if not pretrained or "tag" in str(error):
            raise _no_backbone(name, arguments, error) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise _no_weights(name, f"{type(error).__name__}: {reason[:200]}") from error


def _no_backbone(name: str, arguments: Mapping[str, Any], error: Exception) -> ConfigError:
    given = f" with model.backbone_args={dict(arguments)}" if arguments else ""
    return ConfigError(f"model.backbone={name}{given}: {error}", "see timm.create_model for what this backbone takes")


def _no_weights(name: str, reason: str) -> RunError:
    return RunError(
        f"the pretrained weights of {name} can't be had: {reason}",
        "start from random weights (model.pretrained=false recipe=scratch), "
        "or give a file with weights: model.weights=<file>",
    )


def _require_hub(name: str) -> None:
    """Fails at once where the hub's name can't be looked up; the hub's own client tries for most of a minute."""
    import os
    import socket
    import urllib.request
    from urllib.parse import urlparse

    import timm
    from huggingface_hub import try_to_load_from_cache

    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise _no_backbone(name, {}, error) from error
    if config is None or not config.hf_hub_id or urllib.request.getproxies():
        return
    host = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname or ""
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        if not isinstance(try_to_load_from_cache(config.hf_hub_id, "model.safetensors"), str):
            raise _no_weights(name, f"{host} can't be reached ({error.strerror})") from error


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Loads weights from a file into a backbone; entries of a classifier head are left out.

    Raises:
        RunError: the file is missing, unreadable, or lacks a tensor of the backbone.
    """
    found = read_state(path)
    wanted = backbone.state_dict()
    prefixes = {key[: -len(name)] for name in wanted for key in found if key.endswith(name)} or {""}

    def fitting(prefix: str) -> dict[str, Tensor]:
        return {
            name: found[prefix + name]
            for name, value in wanted.items()
            if prefix + name in found and found[prefix + name].shape == value.shape
        }

    best = max((fitting(prefix) for prefix in sorted(prefixes, key=len)[:50]), key=len)
    missing = sorted(name for name in set(wanted) - set(best) if not name.endswith("num_batches_tracked"))
    if missing:
        raise RunError(
            f"model.weights={path} lacks {len(missing)} of the {len(wanted)} tensors of this backbone, or has them in "
            f"another shape: {format_list(missing, 3)}",
            "give weights of the same architecture (model.backbone, model.backbone_args)",
        )
    backbone.load_state_dict(best, strict=False)
    log.info("%s: loaded %d of %d tensors of the backbone", path, len(best), len(wanted))


def read_state(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a weights file by name, unwrapped from ``state_dict`` or ``model``.

    Raises:
        RunError: the file is missing, damaged, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise RunError(f"the weights file {path} does not exist", "check model.weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise RunError(
            f"the weights file {path} can't be read: {reason}",
            "it is damaged, no torch file, or holds more than tensors",
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    entries = content if isinstance(content, dict) else {}
    tensors = {str(name): value for name, value in entries.items() if isinstance(value, Tensor)}
    if not tensors:
        raise RunError(f"the weights file {path} holds no tensors", "give a state dict or a checkpoint")
    return tensors
