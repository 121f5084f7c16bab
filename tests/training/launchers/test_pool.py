"""How a pool of workers trains runs: what is tried again, and what signals do."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlfix_train.training.launchers import pool as pools
from mlfix_train.training.launchers.pool import Ended, NodeLostError, interruption, run_in_pool
from mlfix_train.training.sweep import Attempt, SweepRun, TrainFunction


class OneWorker:
    """A pool of one worker, which calls the function at once; a run that raises KeyboardInterrupt sends the signal."""

    def __init__(self) -> None:
        self.ended: list[Ended] = []
        self.calls: list[str] = []

    def idle(self) -> list[int]:
        return [0]

    def submit(self, worker: int, train: TrainFunction, run: SweepRun, left: int) -> None:
        try:
            self.ended.append((run, left, train(run), None))
        except Exception as error:
            self.ended.append((run, left, None, error))

    def wait(self) -> Iterator[Ended]:
        while self.ended:
            yield self.ended.pop()

    def is_busy(self) -> bool:
        return bool(self.ended)

    def interrupt(self, hurry: threading.Event, grace: float) -> None:
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C again
        self.calls.append(f"interrupt, hurry {hurry.wait(5)}")

    def close(self, kill: bool = False) -> None:
        self.calls.append(f"close, kill {kill}")


def test_a_run_whose_machine_is_lost_is_always_tried_again() -> None:
    runs, attempts = [SweepRun(Path("x"))], list[Attempt]()

    def lost_twice(_: SweepRun) -> str:
        if len(attempts) < 2:
            raise NodeLostError("its node is lost")
        return "done"

    (last,) = run_in_pool(OneWorker(), runs, lost_twice, 0, attempts.append)
    assert last.value == "done" and [attempt.retried for attempt in attempts] == [True, True, False]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_hurries_the_ending_and_does_not_stop_it(sent: signal.Signals) -> None:
    before = signal.getsignal(sent)
    pool = OneWorker()
    with pytest.raises(KeyboardInterrupt):
        run_in_pool(pool, [SweepRun(Path("x"))], lambda _: os.kill(os.getpid(), sent), 0, print)
    assert pool.calls == ["interrupt, hurry True", "close, kill True"]
    assert signal.getsignal(sent) == before


def test_a_signal_that_was_lost_may_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with interruption() as signals, interruption() as inner:
        assert inner is signals
        for patience, raises in ((0.0, True), (60.0, False), (0.0, True)):
            monkeypatch.setattr(pools, "PATIENCE", patience)
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt:
                assert raises
            else:
                assert not raises and signals.hurry.is_set()
