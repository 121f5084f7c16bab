"""Run directories: never half-written, one process at a time, found by directory and glob."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlfix_train.data.files import atomic
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.runs import FINISHED, RunDirectory, differences, find_runs
from mlfix_train.errors import RunError


def test_update_and_read(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "a" / "seed=0")
    assert run.read() == {} and run.status == ""
    run.update(status="running", labels=["ü", "b"], where=Path("/x"), nested={"a": 1})
    run.update(status=FINISHED, more=None)
    wanted = {"status": "finished", "labels": ["ü", "b"], "where": "/x", "nested": {"a": 1}, "more": None}
    assert run.read() == wanted and run.status == FINISHED
    assert json.loads((run.path / "run.json").read_text(encoding="utf-8")) == wanted
    assert os.fspath(run) == str(run.path)
    assert run.predictions == run.path / "predictions.parquet"


def test_a_failed_update_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path)
    run.update(status="running")
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", lambda *args: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match=r"Input/output"):
            run.update(status="finished")
    real = Path.write_text

    def half(self: Path, text: str, **how: object) -> int:
        real(self, text[:5], **how)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", half)
        with pytest.raises(OSError, match=r"No space"):
            run.update(status="failed")
    assert run.status == "running"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"], "no leftovers"


def test_atomic_path(tmp_path: Path) -> None:
    target = tmp_path / "new" / "x.txt"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent and temporary != target
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:  # noqa: PT012 what is interrupted
        temporary.write_text("ha")
        raise KeyboardInterrupt
    assert target.read_text() == "whole" and os.listdir(target.parent) == ["x.txt"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"3", b"null"])
def test_a_broken_run_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=r"(?s)run.json can't be read.*move .* away"):
        RunDirectory(tmp_path).read()


HOLD = """
import sys
from mlfix_train.data.runs import RunDirectory
with RunDirectory(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lock_between_processes(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "seed=0")
    with run.locked():
        run.update(host="here", pid=7)
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(
                RunError, match=rf"(?s)seed=0 is in use by another process \(.*, pid {other.pid}\).*wait for it"
            ),
            run.locked(),
        ):
            pytest.fail("both hold it")
        with RunDirectory(tmp_path / "seed=1").locked():
            pass
        other.kill()
        other.wait()
        with run.locked():
            assert run.read()["host"] == "here"


def test_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with pytest.raises(ValueError, match=r"x"), run.locked():
        raise ValueError("x")
    with run.locked():
        pass


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    for name in ("exp/original/seed=0", "exp/original/seed=1", "exp/original/seed=10,fold=2", "exp/fixed/seed=0"):
        RunDirectory(tmp_path / "outputs" / name).update(status="finished")
    (tmp_path / "outputs" / "exp" / "original" / "seed=2").mkdir()
    (tmp_path / "outputs" / "exp" / "notes.txt").write_text("")
    return tmp_path / "outputs"


def names(found: list[RunDirectory], root: Path) -> list[str]:
    return [run.path.relative_to(root).as_posix() for run in found]


def test_find_runs(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = ["exp/original/seed=0", "exp/original/seed=1", "exp/original/seed=10,fold=2"]
    everything = ["exp/fixed/seed=0", *original]
    assert names(find_runs(outputs / "exp/original/seed=0"), outputs) == original[:1]
    assert names(find_runs(str(outputs / "exp/original")), outputs) == original
    assert names(find_runs(f"{outputs}/"), outputs) == everything
    assert names(find_runs(f"{outputs}/exp/*/seed=0"), outputs) == ["exp/fixed/seed=0", "exp/original/seed=0"]
    assert names(find_runs(f"{outputs}/exp/o*"), outputs) == original
    assert names(find_runs(f"{outputs}/**/seed=1"), outputs) == ["exp/original/seed=1"]
    twice = [f"{outputs}/exp/*/seed=0", f"{outputs}/exp/fixed", str(outputs / "exp" / "original" / "seed=0")]
    assert names(find_runs(twice), outputs) == ["exp/fixed/seed=0", "exp/original/seed=0"], "each once"
    monkeypatch.chdir(outputs)
    assert [str(run.path) for run in find_runs("exp/fixed")] == ["exp/fixed/seed=0"]
    monkeypatch.setenv("HOME", str(outputs))
    assert len(find_runs("~/exp/original")) == 3


def test_a_name_with_signs_of_a_glob(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "a[1]" / "seed=0").update(status="finished")
    assert len(find_runs(tmp_path / "a[1]")) == 1


def test_find_runs_through_links(outputs: Path, tmp_path: Path) -> None:
    """Runs of several places, linked into one directory."""
    (tmp_path / "picked").mkdir()
    (tmp_path / "picked" / "one").symlink_to(outputs / "exp/original/seed=0")
    (tmp_path / "picked" / "two").symlink_to(outputs / "exp/fixed/seed=0")
    assert len(find_runs(tmp_path / "picked")) == 2


def test_find_runs_errors(outputs: Path) -> None:
    with pytest.raises(RunError, match=r"(?s)original=.*gone matches nothing.*a glob"):
        find_runs(outputs / "gone", "original")
    with pytest.raises(RunError, match=r"runs=.*seed=99. matches nothing"):
        find_runs([str(outputs), f"{outputs}/exp/*/seed=99*"])
    for empty in ("exp/original/seed=2", "exp/notes.txt"):
        with pytest.raises(RunError, match=r"(?s)contains no run.*no run.json below it"):
            find_runs(outputs / empty)


def test_differences() -> None:
    old = {"a": 1, "b": {"c": 2, "d": {"e": [1, 2]}}, "gone": True, "same": None}
    new = {"a": 1, "b": {"c": 3, "d": {"e": [1, 3]}}, "new": "x", "same": None}
    assert differences(old, new) == ["b.c: 2 -> 3", "b.d.e: [1, 2] -> [1, 3]", "gone: True -> None", "new: None -> x"]
    assert differences(old, old) == []
    assert differences({"a": {"b": 1}}, {"a": 5}) == ["a: {'b': 1} -> 5"]
    (line,) = differences({"k": "x" * 200}, {"k": "y"})
    assert len(line) < 80 and line.endswith("-> y")
