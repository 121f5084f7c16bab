"""Fixtures of all tests: a picture set, the command line in this process, and the built wheel."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from shapes import REPO, draw_shapes

from mlfix_train.training.signals import HANDLED


@pytest.fixture(autouse=True)
def quiet_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, beside a folder ``site`` in which it is installed without its dependencies."""
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place), str(REPO)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = place.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place / "site")]
    subprocess.run([*install, str(built)], check=True, capture_output=True)
    return built


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return draw_shapes(tmp_path / "shapes")


@pytest.fixture
def alarm() -> Iterator[None]:
    """Fails a test that hangs, in whatever it waits for."""

    def ring(*_: object) -> None:
        raise TimeoutError("the test took more than five minutes")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 300, 60)  # again, if the cleaning up hangs too
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """``ctrl_c(epoch)`` makes the next training in this process get SIGINT once, at the second batch of that epoch."""
    from lightning.pytorch import Trainer

    from mlfix_train.training.progress import MetricsRecorder

    def arm(epoch: int) -> None:
        waiting = [True]

        def interrupt(recorder: object, trainer: Trainer, module: object, batch: object, batch_idx: int) -> None:
            if waiting and trainer.current_epoch == epoch and batch_idx == 1:
                waiting.clear()
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(MetricsRecorder, "on_train_batch_start", interrupt)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # CI may have us ignore it
    try:
        yield arm
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def pythons_handlers() -> Iterator[None]:
    """Python's own handlers of the signals that end a run; CI may have us ignore some."""
    before = {signum: signal.signal(signum, signal.SIG_DFL) for signum in HANDLED}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for SLURM's command, which writes its arguments into the file returned."""
    command, calls = tmp_path / "bin/scontrol", tmp_path / "calls"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    return calls


@dataclass
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def pretrained_at_hand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Audits compare images by their pixels, which is quick, but in tests marked ``pretrained``."""
    if request.node.get_closest_marker("pretrained") is None:
        monkeypatch.setattr("mlfix_train.audit.embedded.has_pretrained", lambda: False)


@pytest.fixture
def mlfix(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """The ``mlfix`` command in this process: ``mlfix("train", "data.root=x")``.

    Without ``-m`` Hydra does not compose the configuration once more to see whether that asks for several runs, which
    takes as long as all else that many commands do; commands in processes of their own are as users have them.
    """
    from hydra._internal.hydra import Hydra

    from mlfix_train.cli import main as cli

    def call(verb: str, *arguments: object) -> Answer:
        capsys.readouterr()
        given = [str(argument) for argument in arguments]
        with monkeypatch.context() as patch:
            if "-m" not in given:
                patch.setattr(Hydra, "get_mode", lambda *given, **named: None)
            code = cli.run(verb, given)
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return call
