"""The `mlfix` command itself."""

from __future__ import annotations

from shapes import start

from mlfix_train import COMMANDS
from mlfix_train.cli.help import SUMMARIES, help_text
from mlfix_train.errors import describe_os_error


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
        (("--version",), 0),
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


def test_a_reader_that_stops_early_is_no_bug(tmp_path) -> None:
    process = start("train", "--help", cwd=tmp_path)
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == ""


def test_presets_of_the_user_are_known(tmp_path, monkeypatch, mlfix) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text("# @package _global_\nrecipe: {epochs: 3}\n")
    (tmp_path / "conf/experiment/wrong.yaml").write_text("# @package _global_\nrecipe: {epocs: 3}\n")
    monkeypatch.chdir(tmp_path)
    folder = f"--config-dir={tmp_path}/conf"
    answer = mlfix("train", folder, "--cfg", "job", "data.root=x", "experiment=mine")
    assert answer.code == 0 and "epochs: 3" in answer.out
    answer = mlfix("train", folder, "data.root=x", "experiment=mien")
    assert answer.code == 2 and "did you mean 'mine'?" in answer.err
    answer = mlfix("train", folder, "data.root=x", "experiment=wrong")
    assert answer.code == 2 and "unknown key recipe.epocs" in answer.err and "recipe.epochs" in answer.err
    for sweep in (("-m", folder), ("-m", "--config-dir", "conf")):
        answer = mlfix("train", *sweep, "data.root=nowhere", "experiment=mine", "seed=0,1", f"outputs={tmp_path}/o")
        assert answer.code == 1 and "nowhere" in answer.err and "2 could not be trained" in answer.out
    answer = mlfix("train", "-m", "--config-dir=cnof", "data.root=x")
    assert answer.code == 2 and f"there is no folder {tmp_path / 'cnof'}" in answer.err


def test_an_embedder_of_ones_own_is_a_key(tmp_path, mlfix) -> None:
    answer = mlfix("sort", "data.root=x", "embedder._target_=nowhere.Mine", "--cfg", "job")
    assert answer.code == 0 and "_target_: nowhere.Mine" in answer.out


def test_a_missing_input_file_is_not_a_folder_to_write_to() -> None:
    error = describe_os_error(FileNotFoundError(2, "No such file", "labels.tsv"), "out", "audit")
    assert "labels.tsv" in str(error) and "check the path" in error.hint
    assert "choose a folder" in describe_os_error(FileNotFoundError(2, "No such file", "audit/x"), "out", "audit").hint
