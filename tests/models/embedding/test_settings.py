"""Settings of embedders: ranges, and no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlfix_train.errors import ConfigError
from mlfix_train.models.embedding.settings import LpipsSpec, VisualWordsSpec


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (LpipsSpec, "trunk", "alexnet"),
        (LpipsSpec, "size", 8),
        (LpipsSpec, "rerank", -1),
        (VisualWordsSpec, "count", 1),
        (VisualWordsSpec, "stage", 1000),
    ],
)
def test_wrong_settings_are_named(kind: type, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{key}={value}"):
        kind(**{key: value})


def test_settings_load_without_torch() -> None:
    code = "import sys; import mlfix_train.models.embedding.settings; print({'torch', 'timm'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
