"""Out of memory: an error that suggests a batch size that fits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mlfix_train.errors import RunError

CPU_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory")
"""Parts of torch's messages about a CPU that is out of memory."""


@contextmanager
def explain_out_of_memory(trainer: Any, module: Any, data: Any, images_per_sample: int = 1) -> Iterator[None]:
    """Turns an out-of-memory error into one that names the key and a batch size that fits.

    Lightning's ``BatchSizeFinder`` would search before each training and change the batch size, and with it what is
    learned; this searches only after a failure, and only to give advice.

    ``data`` is the DataModule, with ``loader`` and ``pixels``; a sorting network has two ``images_per_sample``.

    Raises:
        RunError: Out of memory.
    """
    message = ""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        message = str(error)
        if not isinstance(error, torch.OutOfMemoryError) and not any(part in message for part in CPU_OUT_OF_MEMORY):
            raise
        error.__traceback__ = None  # its frames hold the tensors that fill the memory
    if message:
        raise _out_of_memory(message, trainer, module, data, images_per_sample)


def _out_of_memory(message: str, trainer: Any, module: Any, data: Any, images_per_sample: int) -> RunError:
    from mlfix_train.models.compile import largest_batch

    device, batch_size = trainer.strategy.root_device, data.loader.batch_size
    for optimizer in trainer.optimizers:
        optimizer.state.clear()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    key, hint = f"loader.batch_size={batch_size}", "use a smaller loader.eval_batch_size"
    if "validating" in message or trainer.validating:
        key = f"loader.eval_batch_size={data.loader.eval_batch_size}"
    elif fits := largest_batch(module, device, data.pixels.size, batch_size, images_per_sample):
        hint = f"loader.batch_size={fits} fits"
    else:
        hint = "not even two samples fit: use a smaller model or pixels.size, or another device"
    problem = f"out of memory on {device} with {key}: {message.splitlines()[0][:160]}"
    return RunError(problem, f"{hint}; overwrite=true then starts the run from the beginning")
