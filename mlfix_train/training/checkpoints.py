"""Checkpoints of a run: written atomically, checked before use, reduced to weights when the run is finished."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import RunError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint beside its destination, flushes it to disk, and renames it.

    Lightning's own (2.6.6) writes to the system's temporary folder and then moves the file. Across file systems that
    is a copy, which a kill or a full disk truncates, and it never calls ``fsync``.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes a checkpoint; until it is complete, the previous one stays in place."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())


def weights_path(directory: RunDirectory) -> Path:
    """Returns the file that holds the weights of a finished run."""
    return directory.path / "checkpoints" / "model.ckpt"


def check_checkpoint(path: Path, module: Any) -> None:
    """Checks a checkpoint before a training is set up around it; the module's ``on_load_checkpoint`` sees its content.

    Raises:
        RunError: It is damaged, or was written for other labels or another network.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load ignores the checksums that torch.save wrote
            broken = archive.testzip()
        if broken:
            raise ValueError(f"the checksum of {broken} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        content["state_dict"], content["epoch"]
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        hint = f"delete it (the run then starts from its first epoch): rm '{path}'"
        raise RunError(f"the checkpoint {path} is damaged: {reason}", hint) from error
    module.on_load_checkpoint(content)


def keep_weights(directory: RunDirectory, keep: str, labels: Sequence[str]) -> None:
    """Replaces the checkpoint of a finished run, which includes the optimizer state, by the weights alone.

    With ``keep="none"`` not even these are kept. ``labels`` are the classes, stored beside the weights.
    """
    if not directory.checkpoint.exists():
        return
    if keep == "weights":
        content = torch.load(directory.checkpoint, map_location="cpu", weights_only=True)
        with atomic_path(weights_path(directory)) as temporary:
            weights = {"state_dict": content["state_dict"], "labels": list(labels), "epoch": content["epoch"]}
            torch.save(weights, temporary)
    directory.checkpoint.unlink()
