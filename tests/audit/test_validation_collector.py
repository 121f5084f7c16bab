"""Validation outputs of one process and of two, gathered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mlfix_train.audit.validation_collector import gather_on_rank_zero


def part(index: list[int], shift: float = 0.0) -> dict[str, np.ndarray]:
    i = np.array(index)
    return {"index": i, "label": i % 3, "logits": np.stack([i, -i, i + shift], 1).astype(np.float32)}


def test_gathering_keeps_each_sample_once_in_order() -> None:
    found = gather_on_rank_zero([part([7, 3]), part([5]), part([0, 7, 3])])
    assert found is not None
    assert found["index"].tolist() == [0, 3, 5, 7]
    assert found["label"].tolist() == [0, 0, 2, 1]
    np.testing.assert_array_equal(found["logits"], part([0, 3, 5, 7])["logits"])


def gather_worker(rank: int, folder: Path, batches: list[list[dict[str, np.ndarray]]]) -> None:
    """What one of two processes of the test below does."""
    address = f"file://{folder / 'rendezvous'}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    found = gather_on_rank_zero(batches[rank])
    torch.save(found, folder / f"rank-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_only_rank_zero_receives_what_two_processes_gather(tmp_path: Path) -> None:
    """Each process holds every second sample, padded by a repeat of the first."""
    batches = [[part([0, 2]), part([4])], [part([1, 3]), part([0])]]
    torch.multiprocessing.start_processes(gather_worker, (tmp_path, batches), nprocs=2, start_method="spawn")
    found, nothing = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=False) for rank in range(2))
    assert nothing is None
    assert found["index"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(found["logits"], part([0, 1, 2, 3, 4])["logits"])
