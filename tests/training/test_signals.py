"""Signals: the first one ends a run where it does no harm, more of them change nothing, SLURM's requeue the job."""

from __future__ import annotations

import contextlib
import pickle
import signal
from pathlib import Path

import pytest

from mlfix_train.training.signals import (
    RunInterrupted,
    SignalHandler,
    handle_signals,
    is_restarted,
    job_id,
    requeue_job,
)

SLURM = ("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_PROCID", "SLURM_ARRAY_JOB_ID", "SLURM_RESTART_COUNT", "RANK")


@pytest.fixture(autouse=True)
def no_job(pythons_handlers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SLURM, "LOCAL_RANK", "NODE_RANK", "SLURM_ARRAY_TASK_ID", "SUBMITIT_LOCAL_JOB_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("signum", "name", "code"), [(2, "Ctrl-C", 130), (15, "SIGTERM", 143), (10, "SIGUSR1", 138)])
def test_a_signal_ends_the_block_with_its_exit_code(signum: int, name: str, code: int) -> None:
    with pytest.raises(RunInterrupted) as error, handle_signals():
        signal.raise_signal(signum)
    assert (error.value.name, error.value.exit_code) == (name, code)
    assert isinstance(error.value, KeyboardInterrupt)
    copy = pickle.loads(pickle.dumps(RunInterrupted(signum, "run 3")))  # from a worker
    assert (copy.exit_code, str(copy)) == (code, "run 3")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "the handlers are those from before"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_more_signals_in_quick_succession_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunInterrupted) as error, handle_signals() as signals:  # noqa: PT012 what is interrupted
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)  # while what was interrupted is tidied up
            signal.raise_signal(signal.SIGTERM)
            with signals.blocked():
                signal.raise_signal(signal.SIGINT)
    assert error.value.signum == signal.SIGINT


def test_state_is_written_as_a_whole() -> None:
    written = []
    with pytest.raises(RunInterrupted), handle_signals() as signals:  # noqa: PT012
        with signals.blocked():
            signal.raise_signal(signal.SIGTERM)
            written.append(1)
        written.append(2)
    assert written == [1], "interrupted after the state was written"


def test_a_training_is_asked_for_the_end_of_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    with pytest.raises(RunInterrupted), handle_signals() as signals:  # noqa: PT012
        signals.is_training = True
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        steps.append("end of the batch")
        signals.check()
    assert steps == ["end of the batch"]
    monkeypatch.setattr("mlfix_train.training.signals.PATIENCE", 0.0)
    with pytest.raises(RunInterrupted), handle_signals() as signals:  # noqa: PT012
        signals.is_training = True
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("a second signal, later, does not wait for a batch that takes long")


def test_a_swallowed_interruption_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    with pytest.raises(RunInterrupted), handle_signals() as signals:  # noqa: PT012
        with handle_signals(), contextlib.suppress(BaseException):  # as some libraries do
            signal.raise_signal(signal.SIGTERM)
        done.append("the next run of the sweep")
    assert done == [] and not signals.hurry.is_set()
    with pytest.raises(RunInterrupted), handle_signals() as signals:  # noqa: PT012
        for patience, raises in ((2.0, True), (2.0, False), (0.0, True)):
            monkeypatch.setattr("mlfix_train.training.signals.PATIENCE", patience)
            try:
                signal.raise_signal(signal.SIGTERM)
            except RunInterrupted:
                assert raises
            else:
                assert not raises and signals.hurry.is_set()


def test_blocks_in_blocks_are_one_and_ignored_signals_stay_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    with handle_signals() as outer, handle_signals() as inner:
        assert inner is outer
        signal.raise_signal(signal.SIGHUP)
        assert outer.received is None
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_submitits_handler_has_the_last_word() -> None:
    """It requeues the job and ends the process, once the run has written its state."""
    order = []

    def requeue(signum: int, frame: object) -> None:
        order.append("requeued")
        raise SystemExit(144)

    signal.signal(signal.SIGUSR2, requeue)
    with pytest.raises(SystemExit) as error, handle_signals():  # noqa: PT012
        try:
            signal.raise_signal(signal.SIGUSR2)
        finally:
            order.append("state written")
    assert order == ["state written", "requeued"] and error.value.code == 144


def test_slurm_requeues_a_job_at_sigusr1_alone(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        with pytest.raises(RunInterrupted), handle_signals():
            signal.raise_signal(signum)
    assert scontrol.read_text() == "requeue 42\n", "scancel sends SIGTERM, and means it"
    with pytest.raises(RunInterrupted), handle_signals() as signals:  # noqa: PT012
        signals.requeueing = ()  # SLURMEnvironment(auto_requeue=False)
        signal.raise_signal(signal.SIGUSR1)
    assert scontrol.read_text() == "requeue 42\n"


def test_the_first_process_of_a_batch_job_requeues_it(scontrol: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    requeue_job()
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    requeue_job()
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    monkeypatch.setenv("SLURM_PROCID", "1")
    requeue_job()
    assert not scontrol.exists(), "no job, a shell, another process"
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "40")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    requeue_job()
    assert scontrol.read_text() == "requeue 40_3\n"
    (scontrol.parent / "bin/scontrol").write_text("#!/bin/sh\necho no permission >&2; exit 1\n")
    requeue_job()
    (scontrol.parent / "bin/scontrol").unlink()
    requeue_job()
    failures = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "40_3 could not be requeued (no permission); submit it again" in failures[0]
    assert "40_3 could not be requeued" in failures[1] and "scontrol" in failures[1]


def test_a_requeued_job_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (job_id(), is_restarted()) == ("", False)
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    assert (job_id(), is_restarted()) == ("42", False)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert is_restarted()
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "7")
    assert (job_id(), is_restarted()) == ("7", True)


def test_nothing_is_handled_outside_the_main_thread() -> None:
    import threading

    seen = []

    def work() -> None:
        with handle_signals() as signals:
            seen.append(isinstance(signals, SignalHandler) and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
