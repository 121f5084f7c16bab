"""The `mlfix` command itself."""

from __future__ import annotations

from shapes import start

from mlfix_train import COMMANDS
from mlfix_train.cli.help import SUMMARIES, help_text


def test_help_names_every_verb() -> None:
    assert set(SUMMARIES) == set(COMMANDS)
    for verb in COMMANDS:
        assert f"  {verb}" in help_text()


def test_an_unknown_verb_names_the_nearest(mlfix) -> None:
    answer = mlfix("trian")
    assert answer.code == 2
    assert "did you mean 'train'?" in answer.err


def test_help_of_a_verb_shows_its_keys(mlfix) -> None:
    answer = mlfix("compare", "--help")
    assert answer.code == 0
    assert "original:" in answer.out


def test_missing_keys_are_named(mlfix) -> None:
    answer = mlfix("compare")
    assert answer.code == 2
    assert "original, fixed" in answer.err or "fixed, fixes.path, original" in answer.err


def test_the_command_exits_with_its_code(tmp_path) -> None:
    for arguments, code in (
        ((), 2),
        (("--version",), 0),
        (("train", "data.root=nowhere"), 1),
        (("train", "sede=1"), 2),
    ):
        process = start(*arguments, cwd=tmp_path)
        process.communicate(timeout=60)
        assert process.returncode == code, arguments


def test_hydra_leaves_nothing_behind(tmp_path, mlfix, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    mlfix("train", "data.root=nowhere")
    mlfix("train", "--cfg", "job")
    assert list(tmp_path.iterdir()) == []
