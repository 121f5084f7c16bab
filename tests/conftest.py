"""Fixtures of all tests: a picture set, and the command line in this process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from shapes import draw_shapes


@pytest.fixture(autouse=True)
def quiet_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return draw_shapes(tmp_path / "shapes")


@pytest.fixture
def alarm() -> Iterator[None]:
    """Fails a test that hangs, in whatever it waits for."""

    def ring(*_: object) -> None:
        raise TimeoutError("the test took more than five minutes")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(300)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def mlfix(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """The ``mlfix`` command in this process: ``mlfix("train", "data.root=x")``."""
    from mlfix_train.cli import main as cli

    def call(verb: str, *arguments: object) -> Answer:
        capsys.readouterr()
        code = cli.run(verb, [str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return call
