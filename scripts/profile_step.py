"""What a training step computes and moves, and how much of that the device can do at most.

    python scripts/profile_step.py data.root=<folder> [more keys of `mlfix train`]

Counts one step, forward and backward, of the model that the keys describe, measures the device by a large bfloat16
product and a copy, and prints the fastest that a step could be. Where the time of real steps goes is shown by
`mlfix train trainer=profile`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

TRIES = 6


def main() -> None:
    """Prints the figures of the keys on the command line."""
    from mlfix_train.commands.train import build_task
    from mlfix_train.config.compose import load

    cfg = load("train", sys.argv[1:])
    task = build_task(cfg)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module: Any = task.build_module().to(device)
    images = torch.randn(task.images_per_sample * cfg.loader.batch_size, 3, cfg.pixels.size, cfg.pixels.size)
    flops, moved = count_step(module.network, images.to(device))
    compute, copy = device_limits(device)
    seconds = max(flops / compute, moved / copy)
    print(f"a step       {len(images)} images of {images.shape[-1]} px on {device}")
    print(f"computes     {flops / 1e9:,.1f} GFLOP, moves at least {moved / 1e9:,.2f} GB")
    print(f"the device   {compute / 1e12:.2f} TFLOP/s (bfloat16 product), {copy / 1e9:,.0f} GB/s (copy)")
    print(f"at the limit {1e3 * seconds:.1f} ms per step, {len(images) / seconds:,.0f} images/s")


def count_step(network: Any, images: torch.Tensor) -> tuple[int, int]:
    """Returns the floating-point operations of a step, forward and backward, and the bytes that it moves at least.

    Bytes: weights are read twice, gradients written and read once, the optimizer reads and writes the weight and two
    moments; activations (outputs of convolutions, norms and linear layers) are written once and read once each way.

    Args:
        network: Maps images to a tensor.
        images: ``(N, 3, H, W)``, on the network's device.
    """
    sizes: list[int] = []

    def note(_module: Any, _inputs: Any, output: Any) -> None:
        sizes.append(output.numel() * output.element_size())

    kinds = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
    hooks = [part.register_forward_hook(note) for part in network.modules() if isinstance(part, kinds)]
    try:
        with FlopCounterMode(display=False) as counter, torch.autocast(images.device.type, torch.bfloat16):
            output = network.forward(images)  # not compiled, so that every operation is counted
            weights = [weight for weight in network.parameters() if weight.requires_grad]
            torch.autograd.grad(output.float().sum(), weights)
    finally:
        for hook in hooks:
            hook.remove()
    return int(counter.get_total_flops()), 3 * sum(sizes) + 4 * sum(map(torch.Tensor.numel, weights)) * (2 + 2 + 6)


def device_limits(device: torch.device, toy: bool = False) -> tuple[float, float]:
    """Returns the most that a device was seen to compute (FLOP/s, bfloat16) and to copy (bytes/s, both ways)."""
    on_gpu = device.type == "cuda"
    side = 8192 if on_gpu else 256 if toy else 2048
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    compute = 2 * side**3 / _fastest(lambda: a @ a, device)
    source = torch.empty(1 << (30 if on_gpu else 28), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return compute, 2 * source.numel() / _fastest(lambda: target.copy_(source), device)


def _fastest(work: Callable[[], Any], device: torch.device) -> float:
    """Returns the least seconds of some tries."""
    times = []
    for _ in range(TRIES):
        _synchronize(device)
        start = time.perf_counter()
        work()
        _synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
