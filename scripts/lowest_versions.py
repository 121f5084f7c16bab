"""Prints the lower bounds of pyproject.toml as constraints for pip, for `make test-lowest`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lowest_versions(project: dict[str, list[str]]) -> list[str]:
    """Returns ``name==version`` for each dependency of a project table that has a lower bound."""
    bounds = [re.fullmatch(r"([A-Za-z0-9_.-]+)>=([0-9.]+)", line) for line in project["dependencies"]]
    return [f"{found[1]}=={found[2]}" for found in bounds if found]


if __name__ == "__main__":
    print("\n".join(lowest_versions(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"])))
