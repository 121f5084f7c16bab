"""``torch.compile`` where it pays off, with a fallback to eager, and the largest batch that fits into memory."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

Forward = Callable[[Tensor], Tensor]

MIN_STEPS = 2000
"""Steps of a training from which on ``auto`` compiles on a GPU; a shorter one ends before compiling has paid off."""


def maybe_compile(
    network: nn.Module,
    wanted: bool | str,
    shape: tuple[int, ...],
    device: torch.device,
    steps: int,
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Forward | None:
    """Compiles a network if that is set, and tries one step of it on images of ``shape``.

    If ``wanted`` is ``auto``, it compiles on a GPU in trainings of :data:`MIN_STEPS` or more. On CPUs it does not: the
    gain there was 4% (``docs/benchmarks.md``). ``precision`` makes the context of the forward pass, such as autocast.

    Returns:
        The compiled forward pass, or ``None`` if compiling is off or failed (with a warning). The network is
        unchanged.

    Raises:
        torch.OutOfMemoryError: The step does not fit into memory.
    """
    if wanted is False or (wanted == "auto" and (device.type != "cuda" or steps < MIN_STEPS)):
        return None
    try:
        compiled: Forward = torch.compile(network.forward)
        dry_run(network, shape, device, compiled, precision)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        log.warning("the network cannot be compiled (%s: %s), so it runs eagerly", type(error).__name__, reason[:200])
        return None
    return compiled


def dry_run(
    network: nn.Module,
    shape: tuple[int, ...],
    device: torch.device,
    forward: Forward | None = None,
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> None:
    """Runs one forward and backward pass on random images and undoes every effect on the network and on torch's seed.

    ``forward`` is the compiled forward pass, ``None`` calls the network; for the others see :func:`maybe_compile`.
    """
    buffers, training = [buffer.clone() for buffer in network.buffers()], network.training
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            network.train()
            with precision():
                output = (forward or network)(torch.randn(shape, device=device))
            output.float().square().mean().backward()
        finally:
            network.train(training)
            for parameter in network.parameters():
                parameter.grad = None
            with torch.no_grad():
                for buffer, before in zip(network.buffers(), buffers, strict=True):
                    buffer.copy_(before)


def largest_batch(module: Any, device: torch.device, size: int, tried: int, images: int = 1) -> int:
    """Returns the largest half, quarter, eighth... of a batch size whose step fits into memory; 0 if none does.

    Memory must also hold the optimizer's two moments of every weight. Lightning's ``BatchSizeFinder`` searches before
    a training, by whole fits with checkpoints on disk, and then changes the batch size; this only advises.

    ``module`` is a LightningModule with a ``network`` and a Trainer, on any device, that is to train on ``device`` with
    ``images`` of ``size`` px per sample, 2 if the network sees two views; ``tried`` is the batch size that did not fit.
    """
    batch, errors = tried // 2, (RuntimeError, MemoryError)  # torch.OutOfMemoryError is a RuntimeError
    with suppress(*errors):
        module.to(device)
        moments = [torch.zeros_like(weight) for weight in module.parameters() for _ in range(2)]
        while batch >= 2:
            with suppress(*errors):
                precision = module.trainer.precision_plugin.forward_context
                dry_run(module.network, (images * batch, 3, size, size), device, precision=precision)
                return batch
            batch //= 2
            if device.type == "cuda":
                torch.cuda.empty_cache()
        moments.clear()
    return 0
