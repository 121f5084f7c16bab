"""Checkpoints of a run: written atomically, checked before use, reduced to weights when the run is finished."""

from __future__ import annotations

import io
import logging
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mlfix_train.data.files import atomic
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import RunError, describe_os_error

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint beside its destination, flushes it to disk, and renames it.

    Lightning's own (2.6.6) writes to the system's temporary folder and then moves the file. Across file systems that
    is a copy, which a kill or a full disk truncates, and it never calls ``fsync``.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes a checkpoint; until it is complete, the previous one stays in place.

        Raises:
            RunError: The disk is full, or another error of the system.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            kept = "the previous one is kept" if Path(path).exists() else "there is none yet"
            problem = f"the checkpoint {path} can't be saved: {error.strerror or error}; {kept}"
            raise RunError(problem, describe_os_error(error, "outputs").hint) from error


def remove_leftovers(directory: RunDirectory) -> None:
    """Removes files that were being written when a run was killed, and checkpoints of Lightning's for SLURM."""
    for folder in (directory.path, directory.checkpoint.parent):
        atomic.remove_leftovers(folder)
    for path in directory.path.glob("hpc_ckpt_*.ckpt"):
        log.info("%s is removed: a run resumes from checkpoints/%s alone", path, directory.checkpoint.name)
        path.unlink()


def weights_path(directory: RunDirectory) -> Path:
    """Returns the file that holds the weights of a finished run."""
    return directory.path / "checkpoints" / "model.ckpt"


def check_checkpoint(path: Path, module: Any) -> int:
    """Checks a checkpoint before a training is set up around it; the module's ``on_load_checkpoint`` sees its content.

    Returns:
        Number of complete epochs.

    Raises:
        RunError: It is damaged, or was written for other labels or another network.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load ignores the checksums that torch.save wrote
            broken = archive.testzip()
        if broken:
            raise ValueError(f"the checksum of {broken} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        content["state_dict"]
        epochs = int(content["epoch"]) + 1
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        hint = f"delete it (the run then starts from its first epoch): rm '{path}'"
        raise RunError(f"the checkpoint {path} is damaged: {reason}", hint) from error
    module.on_load_checkpoint(content)
    return epochs


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
