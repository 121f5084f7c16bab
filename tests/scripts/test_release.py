"""The release script, in a throw-away repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from datetime import datetime
from pathlib import Path

import pytest
from shapes import REPO

FILES = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "Makefile")
FOLDERS = ("mlfix_train", "hydra_plugins", "configs", "scripts")
pytest.importorskip("build", reason="needs the extra dev")
pytest.importorskip("twine", reason="needs the extra dev")


def release(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "CHECKS": "", "PYTHONPATH": ""}
    command = ["bash", "scripts/release.sh", *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b.c")
    for name in FILES:
        shutil.copy(REPO / name, tmp_path / name)
    for name in FOLDERS:
        shutil.copytree(REPO / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".gitignore").write_text("dist/\n__pycache__/\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "all")
    return tmp_path


@pytest.mark.slow
def test_a_release(root: Path) -> None:
    rehearsed = release(root, "--dry-run", "98.7.6")
    assert rehearsed.returncode == 0, rehearsed.stderr
    assert "nothing is committed or tagged" in rehearsed.stdout
    assert git(root, "status", "--porcelain") == git(root, "tag") == ""
    with zipfile.ZipFile(root / "dist/mlfix_train-98.7.6-py3-none-any.whl") as wheel:
        assert b"Version: 98.7.6\n" in wheel.read("mlfix_train-98.7.6.dist-info/METADATA")

    made = release(root, "98.7.6")
    assert made.returncode == 0, made.stderr
    assert "v98.7.6" in made.stdout and git(root, "tag").split() == ["v98.7.6"]
    assert git(root, "status", "--porcelain") == ""
    assert set(git(root, "show", "--name-only", "--format=").split()) == {
        "CHANGELOG.md",
        "CITATION.cff",
        "mlfix_train/__init__.py",
    }
    heading = f"## [Unreleased]\n\n## [98.7.6] - {datetime.now().astimezone():%Y-%m-%d}\n\n### Added\n"
    assert heading in (root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "\nversion: 98.7.6\n" in (root / "CITATION.cff").read_text(encoding="utf-8")

    again = release(root, "98.7.7")
    assert again.returncode == 1 and "nothing under [Unreleased]" in again.stderr


def test_what_is_refused(root: Path) -> None:
    git(root, "tag", "v1.0.0")
    for arguments, told in (
        (("1.0",), "'1.0' is no version"),
        (("1.0.0",), "the tag v1.0.0 exists"),
        ((), "no version"),
    ):
        done = release(root, *arguments)
        assert done.returncode == 1 and told in done.stderr
    (root / "README.md").write_text("changed")
    done = release(root, "1.0.1")
    assert done.returncode == 1 and "not committed" in done.stderr
    assert (root / "README.md").read_text() == "changed" and not (root / "dist").exists()


def test_a_failure_leaves_the_tree_as_it_was(root: Path) -> None:
    (root / "pyproject.toml").write_text("[project")
    git(root, "commit", "--quiet", "-am", "broken")
    done = release(root, "98.7.6")
    assert done.returncode != 0 and git(root, "status", "--porcelain") == git(root, "tag") == ""
