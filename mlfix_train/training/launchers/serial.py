"""Trains the runs of a sweep one after the other in this process."""

from __future__ import annotations

from collections.abc import Sequence

from mlfix_train.data.cache import caching
from mlfix_train.training.signals import handle_signals
from mlfix_train.training.sweep import Attempt, AttemptCallback, SweepRun, TrainFunction, is_user_error


def run_serially(
    runs: Sequence[SweepRun], train: TrainFunction, *, retries: int = 1, on_attempt: AttemptCallback
) -> list[Attempt]:
    """Trains runs one after the other; they share the sample table, the pixel store and the images on the device.

    Args:
        runs: The runs, in order.
        train: Trains one of them.
        retries: How often a run that failed unexpectedly is tried again.
        on_attempt: Called after each attempt.

    Returns:
        The last attempt at each run, in order.

    Raises:
        RunInterrupted: A signal.
    """
    with caching(), handle_signals():
        return [train_with_retries(run, train, retries, on_attempt) for run in runs]


def train_with_retries(run: SweepRun, train: TrainFunction, retries: int, on_attempt: AttemptCallback) -> Attempt:
    """Trains one run, again if it failed unexpectedly, and returns the last attempt."""
    while True:
        try:
            attempt = Attempt(run, value=train(run))
        except Exception as error:
            attempt = Attempt(run, error, retries > 0 and not is_user_error(error))
        on_attempt(attempt)
        if not attempt.retried:
            return attempt
        retries -= 1
