"""Checkpoints: the previous one stays until the next is complete; damage is found before a training begins."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import RunError
from mlfix_train.training.checkpoints import AtomicCheckpointIO, check_checkpoint, keep_weights, weights_path

CONTENT = {"state_dict": {"weight": torch.arange(1000.0)}, "epoch": 3}


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 0}, path)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="can't be saved: No space left on device; the previous one is kept"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 0}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"], "nothing half-written stays"


def test_a_checkpoint_lies_on_one_file_system_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's own goes through the system's temporary folder, and is not atomic across file systems."""
    monkeypatch.setattr("tempfile.mkstemp", lambda *_, **__: pytest.fail("the temporary folder was used"))
    AtomicCheckpointIO().save_checkpoint({"epoch": 0}, tmp_path / "last.ckpt")


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(CONTENT, path)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"last\.ckpt is damaged") as error:
        check_checkpoint(path, SimpleNamespace(on_load_checkpoint=lambda _: None))
    assert f"rm '{path}'" in error.value.hint


@pytest.mark.parametrize("keep", ["weights", "none"])
def test_a_finished_run_keeps_its_weights_or_nothing(tmp_path: Path, keep: str) -> None:
    run = RunDirectory(tmp_path)
    run.checkpoint.parent.mkdir()
    torch.save({**CONTENT, "optimizer_states": [1]}, run.checkpoint)
    keep_weights(run, keep, ["a", "b"])
    assert not run.checkpoint.exists()
    assert weights_path(run).exists() == (keep == "weights")
    if keep == "weights":
        kept = torch.load(weights_path(run), weights_only=True)
        assert set(kept) == {"state_dict", "labels", "epoch"} and kept["labels"] == ["a", "b"]
