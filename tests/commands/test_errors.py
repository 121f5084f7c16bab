"""What a newcomer broke: wrong settings that were found late, damage that went unseen, promises that were not true."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from shapes import FAST, draw_shapes

from mlfix_train import run_command
from mlfix_train.commands.train import _describe_classifier
from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import MlfixError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_shapes(tmp_path_factory.mktemp("mended") / "shapes", per_label=16)


@pytest.fixture
def keys(data: Path, tmp_path: Path) -> list[str]:
    return [f"data.root={data}", f"outputs={tmp_path}/o", *FAST, "recipe.epochs=1"]


WRONG = (
    "pixels.cache=null",
    "trainer.check_val_every_n_epoch=0",
    "model.backbone=restnet18",
    "loader.sampling=balnced",
    "audit.table_rows=-1",
    "audit.probabilities=maybe",
    "trainer.devices=0",
    "split.folds=1",
    "split.fold=1",
    "pixels.size=4",
    "data.group='('",
    "split.train_only=[purple]",
    "=3",
    "+foo=1",
    "logger=null",
)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_setting_is_one_message_and_leaves_no_run(wrong: str, keys: list[str], tmp_path: Path, mlfix) -> None:
    answer = mlfix("train", *keys, wrong)
    assert answer.code == 2, answer.err
    assert "->" in answer.err and "Traceback" not in answer.err
    assert not list((tmp_path / "o").glob("default/*/*/run.json"))


@pytest.mark.parametrize("wrong", [*WRONG, "outputs=/proc/x"])
def test_from_a_notebook_every_mistake_is_one_of_ours(wrong: str, keys: list[str]) -> None:
    with pytest.raises(MlfixError, match="->"):
        run_command("train", *keys, wrong)


def test_a_wrong_setting_with_overwrite_keeps_the_finished_run(keys: list[str], tmp_path: Path, mlfix) -> None:
    assert mlfix("train", *keys).code == 0
    run = RunDirectory(tmp_path / "o/default/original/seed=0")
    before, predictions = run.read(), run.predictions.read_bytes()
    assert mlfix("train", *keys, "overwrite=true", "model.backbone=restnet18").code == 2
    assert run.read() == before
    assert run.predictions.read_bytes() == predictions
    assert mlfix("train", *keys, "overwrite=true", "recipe.lr=1e-3").code == 0
    assert run.predictions.read_bytes() != predictions
    assert run.read()["identity"]["recipe"]["lr"] == 1e-3


def test_flipped_bytes_in_a_checkpoint_are_told(keys: list[str], tmp_path: Path, mlfix, ctrl_c) -> None:
    run = RunDirectory(tmp_path / "o/default/original/seed=0")
    ctrl_c(1)
    answer = mlfix("train", *keys, "recipe.epochs=2")
    assert answer.code == 130 and answer.err.count("interrupted") == 1
    content = bytearray(run.checkpoint.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500] = bytes(255 - byte for byte in content[middle : middle + 500])
    run.checkpoint.write_bytes(content)
    answer = mlfix("train", *keys, "recipe.epochs=2")
    assert answer.code == 1
    assert "is damaged" in answer.err and "checksum" in answer.err and "rm '" in answer.err


def test_after_an_interrupted_overwrite_it_says_how_to_go_on(keys: list[str], mlfix, ctrl_c) -> None:
    ctrl_c(1)
    answer = mlfix("train", *keys, "recipe.epochs=2", "overwrite=true")
    assert answer.code == 130 and "the same command without overwrite=true resumes" in answer.err


def test_labels_that_differ_by_white_space_are_refused(data: Path, keys: list[str], tmp_path: Path, mlfix) -> None:
    rows = pd.DataFrame({"path": [str(p) for p in sorted(data.rglob("*.png"))]})
    rows["label"] = [Path(path).parent.name for path in rows["path"]]
    rows.loc[3, "label"] = "disc "
    rows.to_csv(tmp_path / "t.csv", index=False, quoting=csv.QUOTE_ALL)  # without quotes, blanks don't count
    answer = mlfix(
        "train", *[key for key in keys if "data.root" not in key], "data=table", f"data.file={tmp_path}/t.csv"
    )
    assert answer.code == 1
    assert "whitespace" in answer.err and "'disc '" in answer.err and "003.png" in answer.err


def test_a_label_that_is_never_held_out_is_named(keys: list[str], tmp_path: Path, data: Path, mlfix) -> None:
    shapes = draw_shapes(tmp_path / "few", per_label=10)
    (shapes / "solo").mkdir()
    (shapes / "solo/1.png").write_bytes(next(shapes.rglob("*.png")).read_bytes())
    answer = mlfix("train", *keys, f"data.root={shapes}")
    assert answer.code == 0, answer.err
    assert "1 label(s) have no held-out sample" in answer.err and "solo" in answer.err


def test_a_single_unreadable_picture_stops_nothing(keys: list[str], tmp_path: Path, mlfix) -> None:
    shapes = draw_shapes(tmp_path / "few", per_label=10)
    (shapes / "disc/003.png").write_bytes(b"")
    keys = [key for key in keys if "max_unreadable" not in key]
    answer = mlfix("train", *keys, f"data.root={shapes}")
    assert answer.code == 0, answer.err
    assert "disc/003.png: the file is empty" in answer.err
    assert mlfix("train", *keys, f"data.root={shapes}", "pixels.max_unreadable=0", "name=strict").code == 1


def test_one_broken_run_file_does_not_stop_the_audit_of_the_others(keys: list[str], tmp_path: Path, mlfix) -> None:
    assert mlfix("train", *keys).code == 0
    broken = tmp_path / "o/default/original/seed=7"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    answer = mlfix("audit", f"runs={tmp_path}/o", f"out={tmp_path}/audit", "n_panels=0")
    assert answer.code == 0, answer.err
    assert "seed=7/run.json can't be read" in answer.err and "skipped" in answer.err
    answer = mlfix("train", *keys, "seed=7")
    assert answer.code == 1
    assert "move " in answer.err and "delete" not in answer.err


def test_when_nothing_is_suspicious_it_says_so(keys: list[str], tmp_path: Path, mlfix) -> None:
    mlfix("train", *keys)
    run = RunDirectory(tmp_path / "o/default/original/seed=0")
    ranking = pd.read_csv(run.path / "ranking.csv")
    wrong = ranking["predicted_label"] != ranking["given_label"]
    assert run.read()["held_out_error"] == pytest.approx(100 * wrong.mean())
    state = {"data": {"labels": 3, "samples": 48}}
    ranking.assign(predicted_label=ranking["given_label"]).to_csv(run.path / "ranking.csv", index=False)
    assert any("none: the model agrees" in line for line in _describe_classifier(run, state)[1])
    ranking.assign(predicted_label="other").to_csv(run.path / "ranking.csv", index=False)
    assert not any("none: the model agrees" in line for line in _describe_classifier(run, state)[1])


def test_help_explains_every_key(mlfix) -> None:
    answer = mlfix("train", "--help")
    assert answer.code == 0
    for words in (
        "split:",
        "Share of the images that may be unreadable",
        "recipe=finetune",
        "sweep=before_after",
        "jobs: 1",
    ):
        assert words in answer.out
    assert "_target_:" not in answer.out and "hydra:" not in answer.out
