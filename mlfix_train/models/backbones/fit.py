"""timm's networks and the size of the images: made for it where timm can, else which size they take."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from mlfix_train.errors import ConfigError, MlfixError
from mlfix_train.models.backbones import small

SIZES = (32, 48, 64, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)
"""Sides, px, among which one is looked for that a network takes."""
MAX_CUT = 0.05
"""Largest share of a side that a network may leave out because its patches don't divide it."""
KEYS = ("model.backbone", "model.backbone_args", "pixels.size")
"""What the configuration calls a network's name, its arguments and the size of the images, for errors."""
SIZE_ARGUMENTS = {"img_size", "dynamic_img_size", "strict_img_size"}
"""Arguments of timm that say which sizes a network takes."""


def fit_arguments(
    name: str, size: int, arguments: Mapping[str, Any], keys: tuple[str, str, str] = KEYS
) -> dict[str, Any]:
    """Returns the further arguments of ``timm.create_model`` that make a network for images of ``size`` px.

    None for a network that takes any size, that is made for this one, or whose ``arguments`` settle it. A transformer
    is made for the size, or if its patches don't divide it, pads the images. For ``keys`` see :data:`KEYS`.

    Raises:
        ConfigError: It can't be made for this size; the hint names one that it takes.
    """
    config = _config(name)
    if config is None or not config.fixed_input_size or config.input_size[-1] == size or SIZE_ARGUMENTS & {*arguments}:
        return {}
    made = {"img_size": size}
    network, reason = _try(name, {**arguments, **made}, size)
    if not reason:
        return made
    if patch := _patch_size(network):
        padded = {"img_size": math.ceil(size / patch) * patch, "dynamic_img_size": True, "dynamic_img_pad": True}
        if not _try(name, {**arguments, **padded}, size)[1]:
            return padded
    raise size_error(name, size, reason, arguments, keys)


def why_not(network: nn.Module, size: int, channels: int = 3, forward: Callable[[Tensor], Any] | None = None) -> str:
    """Returns why a network can't take images of ``size`` px; empty if it can. The network stays as it is.

    ``forward`` is called instead of the network, if it is given.

    Raises:
        MlfixError: One that the network raises itself.
    """
    modes = [(part, part.training) for part in network.modules()]
    weight = next(network.parameters(), torch.zeros(()))
    images = torch.zeros(1, channels, size, size, device=weight.device, dtype=weight.dtype)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            network.eval()
            (forward or network)(images)
    except (MlfixError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # networks raise what their operations do
        return _reason(error)
    finally:
        for part, training in modes:
            part.training = training
    patch = _patch_size(network)
    return f"its patches of {patch} px don't divide it" if size % patch > MAX_CUT * size else ""


def native_size(name: str) -> int:
    """Returns the side, px, of the images that a network was made for."""
    config = _config(name)
    if config is None:
        return small.NATIVE_SIZE if name == "mlfix_small" else 224
    return int(config.input_size[-1])


def has_fixed_size(name: str) -> bool:
    """Returns whether a network is made for images of one size, as most transformers are."""
    config = _config(name)
    return config is not None and bool(config.fixed_input_size)


def next_size(name: str, size: int, arguments: Mapping[str, Any]) -> int | None:
    """Returns ``size``, or the next larger one of :data:`SIZES`, that a network takes without padding; or ``None``."""
    fixed = has_fixed_size(name) and not SIZE_ARGUMENTS & {*arguments}
    network: nn.Module | None = None
    for side in (size, *sorted(side for side in {*SIZES, native_size(name)} if side > size)):
        if network is None or fixed:
            network, reason = _try(name, {**arguments, **({"img_size": side} if fixed else {})}, side)
        else:
            reason = why_not(network, side, _channels(arguments))
        if not reason:
            return side
    return None


def size_error(
    name: str, size: int, reason: str, arguments: Mapping[str, Any], keys: tuple[str, str, str] = KEYS
) -> ConfigError:
    """Returns the error about a network that can't take images of ``size`` px, with a size that it takes."""
    key, arguments_key, size_key = keys
    given = f" with {arguments_key}={dict(arguments)}" if arguments else ""
    other = next_size(name, size, arguments)
    hints = [f"set {size_key}={other}"] if other else []
    hints += [f"change the network by {arguments_key}"] if arguments_key else []
    problem = f"{key}={name}{given} can't take images of {size} px: {reason}"
    return ConfigError(problem, ", or ".join([*hints, f"use another {key}"]))


def _config(name: str) -> Any:
    """Returns timm's description of a network's weights; ``None`` for unknown ones, which timm names later."""
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:
        return None


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or f"{type(error).__name__} in its forward pass"


def _channels(arguments: Mapping[str, Any]) -> int:
    return int(arguments.get("in_chans") or 3)


def _try(name: str, arguments: Mapping[str, Any], size: int) -> tuple[nn.Module | None, str]:
    """Returns a network with random weights, ``None`` if it can't be built, and why it can't take such images."""
    try:
        network = timm.create_model(name, num_classes=0, **arguments)
    except Exception as error:  # timm checks little, so an operation may fail
        return None, _reason(error)
    return network, why_not(network, size, _channels(arguments))


def _patch_size(network: nn.Module | None) -> int:
    """Returns the side of the patches, px, that a network divides an image into; 1 if it pads it or uses none."""
    parts = network.modules() if network is not None else ()
    found = next((part for part in parts if isinstance(part, PatchEmbed)), None)
    return 1 if found is None or found.dynamic_img_pad else int(found.patch_size[0])


def check_forward(module: nn.Module, size: int, target: str) -> None:
    """Checks that the ``forward`` of a user's module takes images of ``size`` px, as far as that can be seen.

    It passes if its parameters are not there yet, or if it takes something else than images. ``target`` is its class.

    Raises:
        ConfigError: An operation of torch in it, or an assertion, refuses an image.
    """
    modes = [(part, part.training) for part in module.modules()]
    if any(nn.parameter.is_lazy(weight) or weight.is_meta for weight in module.parameters()):
        return
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            module.eval()(torch.zeros(2, 3, size, size))
    except (RuntimeError, AssertionError) as error:
        if isinstance(error, NotImplementedError) or "Trainer" in str(error):  # no forward, or one that needs a trainer
            return
        hint = "set pixels.size to that of the images it was made for, in color: pixels.size=<px>"
        raise ConfigError(f"model._target_={target} can't take images of {size} px: {_reason(error)}", hint) from error
    except Exception:  # such as a forward that takes a batch: nothing is known
        return
    finally:
        for part, training in modes:
            part.training = training


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Returns color images ``(N, 3, H, W)`` as a network with ``channels`` takes them: 1 is their luma (BT.601)."""
    if channels != 1 or images.shape[1] != 3:
        return images
    return 0.299 * images[:, 0:1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:3]
