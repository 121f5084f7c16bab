"""Compiling the inner network, rehearsed before the training: what can't be compiled runs without, and says so once."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from mlfix_train.errors import ConfigError

log = logging.getLogger(__name__)

WORTH_STEPS = 2000
"""Steps from which on ``auto`` compiles on a GPU: it has to be compiled first, once for all runs of a sweep."""


def check_compile(wanted: object) -> None:
    """Raises a ConfigError unless ``wanted`` is ``auto``, true or false."""
    if wanted is not True and wanted is not False and wanted != "auto":
        raise ConfigError(f"model.compile={wanted} is not a value of this key", "it takes auto, true or false")


def settle(module: Any, network: nn.Module, wanted: bool | str, images: int = 1) -> None:
    """Compiles a LightningModule's network where that is asked for or pays, and tries it out.

    On CPUs ``auto`` does not: it gained 4% there, once compiled (``docs/benchmarks.md``).

    Args:
        module: the LightningModule, at the start of a fit.
        network: maps normalised images to a tensor.
        wanted: ``auto``, true or false.
        images: images a sample: 2 where the network sees two views.
    """
    steps = int(module.trainer.estimated_stepping_batches)
    if wanted == "auto" and module.device.type == "cuda" and steps >= WORTH_STEPS:
        network.compile()
    if getattr(network, "_compiled_call_impl", None) is None:
        return
    data = module.trainer.datamodule
    shape = (images * data.loader.batch_size, 3, data.pixels.size, data.pixels.size)
    try:
        rehearse(module, network, shape)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        network._compiled_call_impl = None  # what nn.Module.compile set
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        log.warning("the network can't be compiled (%s: %s): it runs without", type(error).__name__, reason[:200])


def rehearse(module: Any, network: nn.Module, shape: tuple[int, ...]) -> None:
    """Takes a network through one step, forward and back, and leaves no trace in it."""
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    devices = [module.device] if module.device.type == "cuda" else []
    training = network.training
    with torch.random.fork_rng(devices):
        try:
            network.train()
            with module.trainer.precision_plugin.forward_context():
                found = network(torch.randn(shape, device=module.device))
            found.float().square().mean().backward()
        finally:
            network.train(training)
            for parameter in network.parameters():
                parameter.grad = None
            with torch.no_grad():
                for name, buffer in network.named_buffers():
                    buffer.copy_(kept[name])


def largest_batch(module: Any, device: torch.device, size: int, tried: int, images: int = 1) -> int:
    """Returns the largest of ``tried``'s halves of which a step fits into a device's memory; 0 where none does.

    Beside the step there must be room for the optimizer's two moments of every weight.

    Args:
        module: the LightningModule, on whatever device it is now.
        device: where it is to train.
        size: side of the images, pixels.
        tried: the batch that did not fit.
        images: images a sample.
    """
    batch = tried // 2
    moments: list[torch.Tensor] = []
    try:
        module.to(device)
        moments = [torch.zeros_like(weight) for weight in module.parameters() for _ in range(2)]
        while batch >= 2:
            try:
                rehearse(module, module.network, (images * batch, 3, size, size))
                return batch
            except (torch.OutOfMemoryError, RuntimeError, MemoryError):
                batch //= 2
            if device.type == "cuda":
                torch.cuda.empty_cache()
    except (torch.OutOfMemoryError, RuntimeError, MemoryError):
        return 0
    finally:
        moments.clear()
    return 0
