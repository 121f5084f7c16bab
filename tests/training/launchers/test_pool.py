"""How a pool of workers trains runs: what is tried again, and what signals do."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlfix_train.training.launchers.pool import Ended, NodeLostError, run_in_pool
from mlfix_train.training.signals import RunInterrupted
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


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_second_signal_hurries_the_ending_and_does_not_stop_it(
    sent: signal.Signals, pythons_handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlfix_train.training.signals.PATIENCE", 0.0)
    before = signal.getsignal(sent)
    pool = OneWorker()
    with pytest.raises(RunInterrupted) as error:
        run_in_pool(pool, [SweepRun(Path("x"))], lambda _: os.kill(os.getpid(), sent), 0, print)
    assert error.value.signum == sent
    assert pool.calls == ["interrupt, hurry True", "close, kill True"]
    assert signal.getsignal(sent) == before
