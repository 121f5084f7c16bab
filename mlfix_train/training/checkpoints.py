"""Checkpoints that are whole or not there."""

from __future__ import annotations

import io
import os
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mlfix_train.data.files.atomic import atomic_path


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint writer, made to leave a checkpoint whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes a checkpoint beside its place, waits until it is on the disk, and moves it there."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
