"""``metrics.csv`` and the line of an epoch."""

from __future__ import annotations

from mlfix_train.commands.train import describe_epoch
from mlfix_train.training.progress import EpochReport


def test_an_epoch_is_reported_with_the_time_left() -> None:
    row = {"epoch": 2, "train_loss": 0.5, "val_error": 12.5, "seconds": 60.0, "samples_per_second": 1234.5}
    report = EpochReport(row, epochs=5)
    assert report.seconds_left == 120
    assert describe_epoch("study/fixed/seed=0", report) == (
        "study/fixed/seed=0: epoch 3/5, train loss 0.500, held-out error 12.50%, 1,234 samples/s, 2 min left"
    )
    row = {"epoch": 0, "train_loss": 0.5, "val_agreement": 91.26, "seconds": 1, "samples_per_second": 10}
    assert "nearest neighbours of the same label 91.3%" in describe_epoch("x", EpochReport(row, 1))
