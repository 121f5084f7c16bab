"""Faster steps by CUDA graphs or ``torch.compile``, else eager; the largest batch that fits into memory."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

Forward = Callable[[Tensor], Tensor]


class GraphedStep:
    """Forward and backward pass of a network in training, recorded once as CUDA graphs and replayed.

    A step of a ResNet50 on small images launches some 950 kernels, which takes a processor longer than a GPU needs to
    run them; a replay launches two graphs. The same kernels run on the same numbers, dropout included. Its output is
    valid until the next step. A batch of another shape, or weights that were frozen or unfrozen since, run eagerly.

    Args:
        network: maps images to a tensor, in training mode; what it does besides, such as hooks, is not repeated.
        images: a batch, on the GPU.
        precision: makes the context of the forward pass, such as autocast.
    """

    def __init__(
        self, network: nn.Module, images: Tensor, precision: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        self.network, self.shape, self._weights = network, images.shape, list(network.parameters())
        self._trained = self._trained_weights()
        if hasattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch"):  # since torch 2.10
            # Gradients are added on another stream than they were recorded on; torch synchronizes the two, and warns.
            torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        buffers = [buffer.clone() for buffer in network.buffers()]
        with torch.random.fork_rng([images.device]):
            try:
                with precision(), _no_autocast_cache():
                    sample = torch.zeros_like(images, memory_format=torch.contiguous_format)
                    # A wrapper, since it is changed: the network itself stays as it is, for validation and checkpoints.
                    self._replay: Any = torch.cuda.make_graphed_callables(
                        _Wrapper(network), (sample,), allow_unused_input=True
                    )
            finally:
                with torch.no_grad():
                    for buffer, before in zip(network.buffers(), buffers, strict=True):
                        buffer.copy_(before)

    def __call__(self, images: Tensor) -> Tensor:
        """Runs the forward pass of a training step."""
        if images.shape != self.shape or self._trained_weights() != self._trained:
            eager: Tensor = self.network(images)
            return eager
        output: Tensor = self._replay(images)
        return output

    def _trained_weights(self) -> tuple[bool, ...]:
        return tuple(weight.requires_grad for weight in self._weights)


class _Wrapper(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.network(images)
        return output


@contextmanager
def _no_autocast_cache() -> Iterator[None]:
    """Has autocast convert weights at each use: a graph would replay with those of the time when it was recorded."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def maybe_graph(
    network: nn.Module,
    wanted: bool | str,
    images: Tensor,
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Forward | None:
    """Records the training step of a network as CUDA graphs.

    Args:
        network: maps images to a tensor; in training mode.
        wanted: true, false, or ``auto``: unless a part of the network has hooks, which a replay leaves out.
        images: a batch; not on a GPU, nothing is recorded.
        precision: makes the context of the forward pass, such as autocast.

    Returns:
        The forward pass, see :class:`GraphedStep`, or ``None`` if it is off or failed (with a warning).
    """
    if wanted is False or images.device.type != "cuda" or (wanted == "auto" and _has_hooks(network)):
        return None
    generator = torch.cuda.default_generators[images.get_device()]
    seed = generator.get_state()
    try:
        with _refuse_to_wait():
            dry_run(network, tuple(images.shape), images.device, precision=precision)
        return GraphedStep(network, images, precision)
    except torch.OutOfMemoryError:
        log.warning("a CUDA graph of the step does not fit into memory, so it is launched kernel by kernel")
    except Exception as error:
        message = "the step can't be recorded as a CUDA graph (%s), so it is launched kernel by kernel"
        log.warning(message, _reason(error))
    fresh = torch.Generator(images.device)  # that of a recording that failed waits for its end forever
    fresh.set_state(seed)
    generator.graphsafe_set_state(fresh)
    torch.cuda.empty_cache()
    return None


@contextmanager
def _refuse_to_wait() -> Iterator[None]:
    """Makes what waits for the GPU an error: it can't be recorded, and an attempt would break the random generator."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it does not find all that waits
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)


def _has_hooks(network: nn.Module) -> bool:
    return any(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in network.modules()
    )


def _reason(error: Exception) -> str:
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"{type(error).__name__}: {line[:200]}"


def maybe_compile(
    network: nn.Module,
    wanted: bool,
    shape: tuple[int, ...],
    device: torch.device,
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Forward | None:
    """Compiles a network if that is set, and tries one step of it on images of ``shape``.

    On images of 40 px it gained 4% on a CPU and nothing on a GPU (``docs/benchmarks.md``). ``precision`` makes the
    context of the forward pass, such as autocast.

    Returns:
        The compiled forward pass, or ``None`` if compiling is off or failed (with a warning). The network is
        unchanged.

    Raises:
        torch.OutOfMemoryError: The step does not fit into memory.
    """
    if not wanted:
        return None
    try:
        compiled: Forward = torch.compile(network.forward)
        dry_run(network, shape, device, compiled, precision)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        log.warning("the network cannot be compiled (%s), so it runs eagerly", _reason(error))
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
