"""Folds batch norms into the convolutions before them: the same function with fewer passes over the feature maps."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

MAX_ERROR = 1e-3
"""Largest difference between outputs before and after, relative to the largest output."""


def fold_batch_norms(network: nn.Module, images: Tensor) -> nn.Module:
    """Returns a copy of a network in evaluation mode whose batch norms are folded into convolutions where possible.

    Which norm follows which convolution is seen in a forward pass of ``images``, any input that the network takes. The
    activation of timm's ``BatchNormAct2d`` stays. A network that has no such pairs, or whose output changes by more
    than rounding, is returned itself.
    """
    with torch.no_grad():
        pairs, before = _find_pairs(network, images)
        if not pairs:
            return network
        folded = copy.deepcopy(network)
        for conv, norm in pairs:
            _fold(folded, conv, norm)
        error = (folded(images) - before).abs().max()
    return folded if error <= MAX_ERROR * before.abs().max() else network


def _find_pairs(network: nn.Module, images: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """Returns the names of convolutions and of the norms that take their outputs as they are, and the network's output.

    A pair counts if both are called once.
    """
    outputs: dict[int, tuple[str, int, Tensor]] = {}  # the tensors are kept, so that no id is used again
    calls: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []

    def after_conv(name: str, output: Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1
        outputs[id(output)] = (name, output._version, output)

    def before_norm(name: str, maps: Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1
        conv, version, _ = outputs.get(id(maps), ("", -1, maps))
        if conv and version == maps._version:  # else it was changed in place since
            pairs.append((conv, name))

    hooks = []
    for name, part in network.named_modules():
        if isinstance(part, nn.Conv2d):
            hooks.append(part.register_forward_hook(lambda _, __, output, name=name: after_conv(name, output)))
        elif isinstance(part, nn.BatchNorm2d) and part.track_running_stats:
            hooks.append(part.register_forward_pre_hook(lambda _, inputs, name=name: before_norm(name, inputs[0])))
    try:
        output: Tensor = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [(conv, norm) for conv, norm in pairs if calls[conv] == calls[norm] == 1], output


def _fold(network: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    parent, _, child = norm_name.rpartition(".")
    activation = getattr(norm, "act", None)
    network.get_submodule(parent).add_module(child, activation if isinstance(activation, nn.Module) else nn.Identity())
