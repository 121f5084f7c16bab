"""Sweeps in this process: retries."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlfix_train.data import cache
from mlfix_train.errors import RunError
from mlfix_train.training.launchers.serial import run_serially
from mlfix_train.training.sweep import Attempt, SweepRun

RUN = SweepRun(Path("x"))


def test_a_fault_is_tried_again_and_a_user_error_is_not() -> None:
    calls: list[int] = []
    attempts: list[Attempt] = []

    def fault(_: SweepRun) -> None:
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("out of luck")

    assert run_serially([RUN], fault, retries=2, on_attempt=attempts.append)[0].error is None
    assert [attempt.retried for attempt in attempts] == [True, True, False]
    calls.clear()
    found = run_serially([RUN], fault, retries=1, on_attempt=attempts.append)
    assert "out of luck" in str(found[0].error)

    def refuse(_: SweepRun) -> None:
        calls.append(1)
        raise RunError("no", "so")

    calls.clear()
    assert isinstance(run_serially([RUN], refuse, retries=5, on_attempt=attempts.append)[0].error, RunError)
    assert len(calls) == 1


def test_an_interrupt_ends_the_sweep_and_nothing_stays_cached() -> None:
    def interrupt(_: SweepRun) -> None:
        assert cache.cached("key", lambda: 1) == 1 == cache.cached("key", lambda: 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_serially([RUN, RUN], interrupt, on_attempt=lambda _: None)
    assert cache.cached("key", lambda: 3) == 3
