"""Who may import whom, and what may be imported early: the rules of docs/design.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from shapes import REPO

PACKAGE = REPO / "mlfix_train"
ORDER = ("errors", "data", "models", "audit", "training", "config", "commands", "cli")
"""Imports go to the left, or stay in the room."""
LATE = {"wandb", "lpips", "starlette", "uvicorn", "matplotlib", "anywidget", "jinja2"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


LIBRARY = [path for path in FILES if room(path) not in ("config", "commands", "cli")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_keep_to_the_rooms(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mlfix_train":
            names = [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mlfix_train.")]
        for name in names:
            if name in ("COMMANDS", "__version__"):
                continue
            assert ORDER.index(name) <= ORDER.index(room(path)), f"{path.name} imports mlfix_train.{name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_load_inside_functions(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        assert not {name.split(".")[0] for name in names} & LATE


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from mlfix_train.cli import main, help; help.help_text(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO
    ).stdout.split()
    assert not {"torch", "numpy", "pandas", "lightning", "hydra", "omegaconf", "wandb", "PIL"} & set(loaded)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_knows_no_configuration_and_does_not_print(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & {"hydra", "omegaconf"}, "configuration"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "exit"), f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
            assert node.attr not in ("argv", "exit"), f"line {node.lineno}"
