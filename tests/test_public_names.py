"""The public names: all there, documented, loaded when first used."""

from __future__ import annotations

import subprocess
import sys

import pytest
from shapes import REPO

import mlfix_train


@pytest.mark.parametrize("name", [name for name in mlfix_train.__all__ if name[0] != "_" and not name.isupper()])
def test_each_name_is_there_and_documented(name: str) -> None:
    assert len(getattr(mlfix_train, name).__doc__.splitlines()) >= 1
    assert f"`{name}`" in mlfix_train.__doc__
    assert name in dir(mlfix_train)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Audti'"):
        mlfix_train.Audti  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, mlfix_train; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO)
    assert not {"torch", "numpy", "pandas", "lightning", "hydra"} & set(loaded.stdout.split())
