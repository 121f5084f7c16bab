"""The area under the margin: against a loop, over processes, through an interruption, in a real training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mlfix_train.audit.predictions.dynamics import MarginMeter, margins, read_dynamics, write_dynamics
from mlfix_train.errors import RunError


def batches(count: int = 6, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    rng = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(8, 4, generator=rng),
            torch.randint(4, (8,), generator=rng),
            torch.randint(10, (8,), generator=rng),
        )
        for _ in range(count)
    ]


def test_the_meter_against_a_loop() -> None:
    meter, seen, last = MarginMeter(12), dict[int, list[float]](), dict[int, int]()
    for number, (logits, labels, index) in enumerate(batches()):
        meter.add(logits, labels, index)
        for x, label, row in zip(logits.tolist(), labels.tolist(), index.tolist(), strict=True):
            seen.setdefault(row, []).append(x[label] - max(v for k, v in enumerate(x) if k != label))
            last[row] = label
        if number % 3 == 2:
            meter.end_epoch()
    table = meter.table([f"s{i}" for i in range(12)], list("abcd"))
    assert table["sample_id"].tolist() == [f"s{i}" for i in sorted(seen)]
    assert table["times"].tolist() == [len(seen[i]) for i in sorted(seen)]
    np.testing.assert_allclose(table["aum"], [np.mean(seen[i]) for i in sorted(seen)], rtol=1e-4, atol=1e-6)
    assert table["label"].tolist() == ["abcd"[last[i]] for i in sorted(seen)]
    again = MarginMeter(12)
    again.restore(meter.state())
    pd.testing.assert_frame_equal(again.table([f"s{i}" for i in range(12)], list("abcd")), table)
    other = MarginMeter(13)
    other.restore(meter.state())
    assert not other.total.any(), "the sums of another data set are not used"


def test_margins_leave_the_logits_alone() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]], dtype=torch.bfloat16)
    assert margins(logits, torch.tensor([0, 2])).tolist() == [1.0, -4.0]
    assert logits.tolist() == [[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]]


def test_two_processes_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = MarginMeter(10)
    for batch in batches():
        alone.add(*batch)
    alone.end_epoch()
    mine, other = MarginMeter(10), MarginMeter(10)
    for number, batch in enumerate(batches()):
        (mine if number % 2 else other).add(*batch)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)

    def all_reduce(sums: torch.Tensor, op: object = None) -> None:
        if sums.is_floating_point():
            sums.add_(other.current)
        else:
            assert op == torch.distributed.ReduceOp.MAX
            torch.maximum(sums, other.label, out=sums)

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    mine.end_epoch()
    torch.testing.assert_close(mine.total, alone.total)
    assert ((mine.label >= 0) == (alone.label >= 0)).all()
    assert not mine.current.any()


def test_files(tmp_path: Path) -> None:
    table = pd.DataFrame({"sample_id": ["a"], "label": ["x"], "aum": [1.5], "times": [3]})
    pd.testing.assert_frame_equal(read_dynamics(write_dynamics(table, tmp_path / "d.parquet")), table)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match=r"bad\.parquet can't be read"):
        read_dynamics(tmp_path / "bad.parquet")
    table.drop(columns="aum").to_parquet(tmp_path / "less.parquet")
    with pytest.raises(RunError, match="lacks the columns aum"):
        read_dynamics(tmp_path / "less.parquet")


def test_a_training_counts_every_sample_and_an_interruption_changes_nothing(
    shapes: Path, tmp_path: Path, mlfix: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shapes import FAST

    from mlfix_train.audit.callback import AuditCallback

    keys = ("train", f"data.root={shapes}", *FAST, "recipe.epochs=3", "loader.sampling=shuffled")
    assert mlfix(*keys, f"outputs={tmp_path}/whole").code == 0
    whole = read_dynamics(tmp_path / "whole/default/original/seed=0/dynamics.parquet")
    held = pd.read_parquet(tmp_path / "whole/default/original/seed=0/predictions.parquet")["sample_id"]
    assert not set(whole["sample_id"]) & set(held)
    assert len(whole) + len(held) == 72
    assert whole["times"].sum() == 3 * 3 * 16, "three epochs of three batches of 16"

    original = AuditCallback.on_train_epoch_end

    def broken(self: Any, trainer: Any, module: Any) -> None:
        original(self, trainer, module)
        if trainer.current_epoch == 1 and not (tmp_path / "broke").exists():
            (tmp_path / "broke").touch()
            raise KeyboardInterrupt

    monkeypatch.setattr(AuditCallback, "on_train_epoch_end", broken)
    assert mlfix(*keys, f"outputs={tmp_path}/part").code == 130
    assert mlfix(*keys, f"outputs={tmp_path}/part").code == 0
    assert (tmp_path / "broke").exists()
    resumed = read_dynamics(tmp_path / "part/default/original/seed=0/dynamics.parquet")
    pd.testing.assert_frame_equal(resumed, whole)
