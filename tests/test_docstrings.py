"""The ``>>>`` examples of the public objects run, and give what they say."""

from __future__ import annotations

import doctest
import importlib
import logging
from pathlib import Path

import pytest

import mlfix_train

OBJECTS = [name for name in mlfix_train.__all__ if name[0] != "_" and not name.isupper()]
MODULES = sorted({*mlfix_train._MODULES.values(), "mlfix_train.audit.scores.registry", "mlfix_train.data.samples"})


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed, "see the captured output"


@pytest.mark.parametrize("name", OBJECTS)
def test_every_public_object_has_an_example(name: str) -> None:
    assert ">>>" in getattr(mlfix_train, name).__doc__
