"""``trainer=profile``: where a step's time goes, what it computes and moves, and what the device can do at most."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch

from mlfix_train.data.files.atomic import atomic_path

log = logging.getLogger(__name__)

ROWS = 25
"""Operations listed."""


class StepProfile(L.Callback):
    """Profiles some training steps, and writes ``profile.md``, ``operations.txt`` and ``trace.json``.

    The trace opens in Perfetto (ui.perfetto.dev) or chrome://tracing.

    Args:
        folder: where they go.
        steps: how many are profiled, after as many that warm up.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps = folder, steps
        self.profiler: Any = None
        self.clock = 0.0
        self.first = 0
        self.done = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts the profiler after the steps that warm up."""
        if self.done or trainer.global_step < self.steps or self.profiler is not None:
            return
        if batch_idx and batch_idx + self.steps > int(trainer.num_training_batches):
            return  # the next epoch has room for all of them; validation in between would be profiled too
        self.first = trainer.global_step
        _wait(pl_module.device)
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if pl_module.device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        self.profiler = torch.profiler.profile(activities=kinds, record_shapes=True)
        self.profiler.__enter__()
        self.clock = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends it after the steps that are asked for."""
        if self.profiler is None or self.done:
            return
        last = batch_idx + 1 >= int(trainer.num_training_batches)
        if trainer.global_step < self.first + self.steps and not last:
            return
        _wait(pl_module.device)
        seconds = time.perf_counter() - self.clock
        self.profiler.__exit__(None, None, None)
        self.done = True
        count = max(1, trainer.global_step - self.first)
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # what is counted and tried must not change the training
            self.write(pl_module, batch, seconds / count, count)
        self.profiler = None

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Says so where the training was too short."""
        if not self.done:
            needed = f"trainer.profile_steps={self.steps} and as many that warm up"
            log.warning("no step was profiled: the training has fewer than %d steps (%s)", 2 * self.steps, needed)

    def write(self, module: L.LightningModule, batch: Any, seconds: float, count: int) -> None:
        """Writes what was found."""
        images = batch["image"] if "image" in batch else batch["views"].flatten(0, 1)
        flops, moved = count_step(module, images)
        compute, copy = device_limits(module.device)
        table = self.profiler.key_averages()
        on_gpu = module.device.type == "cuda"
        key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        total = sum(getattr(row, key) for row in table) or 1
        lines = [
            "# Where a step's time goes", "",
            f"{count} steps of {len(images)} images of {images.shape[-1]} px on {_name(module.device)}.", "",
            "| what | value |", "| --- | --- |",
            f"| a step | {1e3 * seconds:.1f} ms, {len(images) / seconds:,.0f} images/s (profiler included) |",
            f"| computes | {flops / 1e9:,.1f} GFLOP a step, {flops / seconds / 1e12:.2f} TFLOP/s |",
            f"| moves | {moved / 1e9:,.2f} GB a step at least (weights, gradients, optimizer, activations once each "
            f"way), {moved / seconds / 1e9:,.0f} GB/s |",
            f"| the device's most | {compute / 1e12:.2f} TFLOP/s by a large bfloat16 product, "
            f"{copy / 1e9:,.0f} GB/s by a copy |",
            f"| of that | {100 * flops / seconds / compute:.0f}% of its compute, "
            f"{100 * moved / seconds / copy:.0f}% of its copying |",
            f"| at the limit | {1e3 * max(flops / compute, moved / copy):.1f} ms a step, "
            f"{len(images) / max(flops / compute, moved / copy):,.0f} images/s |", "",
            "| operation | share of the time | calls a step |", "| --- | --- | --- |",
        ]  # fmt: skip
        for row in sorted(table, key=lambda row: -getattr(row, key))[:ROWS]:
            lines.append(f"| {row.key[:60]} | {100 * getattr(row, key) / total:.1f}% | {row.count / count:,.0f} |")
        with atomic_path(self.folder / "profile.md") as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        words = self.profiler.key_averages(group_by_input_shape=True).table(sort_by=key, row_limit=100)
        (self.folder / "operations.txt").write_text(words, encoding="utf-8")
        self.profiler.export_chrome_trace(str(self.folder / "trace.json"))
        print(f"profile    {self.folder / 'profile.md'}", flush=True)


def _name(device: torch.device) -> str:
    return (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads of a CPU"
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_step(module: Any, images: torch.Tensor) -> tuple[int, int]:
    """Returns the floating-point operations of a step, forward and back, and the bytes that it moves at least.

    Bytes: weights are read twice and gradients written and read once, the optimizer reads and writes weight and two
    moments, activations (outputs of convolutions, norms and products) are written once and read once each way.
    """
    from torch.utils.flop_counter import FlopCounterMode

    network = module.network
    sizes: list[int] = []

    def note(_module: Any, _inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            sizes.append(output.numel() * output.element_size())

    kinds = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.modules.batchnorm._BatchNorm)
    hooks = [part.register_forward_hook(note) for part in network.modules() if isinstance(part, kinds)]
    compiled, network._compiled_call_impl = getattr(network, "_compiled_call_impl", None), None
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        with FlopCounterMode(display=False) as counter, torch.enable_grad():
            with module.trainer.precision_plugin.forward_context():
                found = network(images)
            grads = torch.autograd.grad(found.float().sum(), [p for p in network.parameters() if p.requires_grad])
    finally:
        network._compiled_call_impl = compiled
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(kept[name])
    weights = sum(grad.numel() for grad in grads) * 4
    return int(counter.get_total_flops()), 3 * sum(sizes) + weights * (2 + 2 + 6)


def device_limits(device: torch.device) -> tuple[float, float]:
    """Returns the most that a device was seen to compute (FLOP/s, bfloat16) and to copy (bytes/s, both ways)."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    compute = 2 * side**3 / _best(lambda: a @ a, device)
    block = torch.empty(1 << (30 if device.type == "cuda" else 28), dtype=torch.uint8, device=device)
    other = torch.empty_like(block)
    return compute, 2 * block.numel() / _best(lambda: other.copy_(block), device)


def _best(work: Callable[[], Any], device: torch.device) -> float:
    """Returns the least seconds of some tries."""
    times = []
    for _ in range(6):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times)
