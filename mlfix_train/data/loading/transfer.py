"""Copies between CPU and GPU that don't make the CPU wait for work that the GPU still has to do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Copies a tensor of the CPU to a device, from page-locked memory if that is a GPU, so that nothing waits."""
    if torch.device(device).type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def to_host(values: Tensor) -> Callable[[], Tensor]:
    """Begins to copy a tensor to the CPU; the function returned waits for this copy alone, and returns it."""
    if values.device.type != "cuda":
        return lambda: values
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copy.copy_(values, non_blocking=True)
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(values.device))

    def wait() -> Tensor:
        done.synchronize()
        return copy

    return wait


def read_ahead(read: Callable[[Item], Result], items: Sequence[Item], readers: int = 3) -> Iterator[Result]:
    """Yields ``read(item)`` of all items in order; as many threads read the next ones while one is used."""
    with ThreadPoolExecutor(readers) as pool:
        upcoming = deque(pool.submit(read, item) for item in items[:readers])
        for number in range(len(items)):
            found = upcoming.popleft().result()
            if number + readers < len(items):
                upcoming.append(pool.submit(read, items[number + readers]))
            yield found
