"""``mlfix train model=sorting_network``: labels or none, neighbours for a person to see, resumed and never mixed up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from shapes import SORTING, draw_shapes, start

from mlfix_train.data.runs import RunDirectory


@pytest.fixture
def place(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(shapes.parent)
    return shapes.parent


def unsorted(place: Path) -> Path:
    """The same pictures in one folder, without labels."""
    folder = place / "heap"
    folder.mkdir()
    for number, path in enumerate(sorted((place / "shapes").rglob("*.png"))):
        (folder / f"{number:03d}.png").write_bytes(path.read_bytes())
    return folder


def test_a_run_leaves_weights_a_panel_and_its_record(place: Path, mlfix) -> None:
    answer = mlfix("train", "data.root=shapes", *SORTING)
    run = RunDirectory(place / "outputs/sorting/original/seed=0")
    assert answer.code == 0 and "learned    from 72 images, without labels" in answer.out
    state = run.require()
    assert state["kind"] == "sorting_network" and state["status"] == "finished" and 0 <= state["agreement"] <= 100
    rows = pd.read_csv(run.path / "metrics.csv")
    assert list(rows) == ["epoch", "train_loss", "val_agreement", "lr", "seconds", "samples_per_second"]
    assert rows["train_loss"].iloc[-1] < rows["train_loss"].iloc[0]
    assert Image.open(run.path / "panels/neighbours.png").size[0] > 500
    weights = torch.load(run.path / "checkpoints/model.ckpt", weights_only=True)
    assert any(name.startswith("network.backbone.") for name in weights["state_dict"])
    assert "already finished, skipped" in mlfix("train", "data.root=shapes", *SORTING).out
    assert "contains a run with other settings" in mlfix("train", "data.root=shapes", *SORTING, "views.crop=0.9").err


def test_without_labels_it_learns_the_very_same(place: Path, mlfix) -> None:
    heap = unsorted(place)
    answer = mlfix("train", f"data.root={heap}", *SORTING, "recipe.epochs=2", "name=heap")
    assert answer.code == 0 and "neighbors" not in answer.out
    mlfix("train", "data.root=shapes", *SORTING, "recipe.epochs=2")
    states = [
        torch.load(place / f"outputs/{name}/original/seed=0/checkpoints/model.ckpt", weights_only=True)["state_dict"]
        for name in ("heap", "sorting")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert "val_agreement" not in (place / "outputs/heap/original/seed=0/metrics.csv").read_text()


@pytest.mark.slow
def test_neighbours_go_to_wandb_as_training_goes(place: Path, mlfix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")  # W&B's process, once started, stays in the folder that it was started in
    (place / "elsewhere").mkdir()
    mlfix("train", f"data.root={place / 'shapes'}", f"outputs={place / 'elsewhere'}", *SORTING[:-3], "recipe.epochs=1")
    monkeypatch.chdir(place)
    keys = [key for key in SORTING if not key.startswith("logger")]
    assert mlfix("train", "data.root=shapes", *keys).code == 0
    folder = next((place / "outputs/sorting/original/seed=0/wandb").glob("offline-run-*"))
    wandb = str(Path(sys.executable).with_name("wandb"))
    command = [wandb, "leet", "inspect", "--json", str(folder)]
    read = subprocess.run(command, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    assert "sorting/neighbours" in read.stdout and "val/agreement" in read.stdout
    assert len(list((folder / "files/media/images/sorting").glob("neighbours_*.png"))) == 3


def test_an_interrupted_training_goes_on_and_ends_as_if_it_had_not_been(place: Path, mlfix, ctrl_c) -> None:
    keys = ["data.root=shapes", *SORTING]
    ctrl_c(1)
    answer = mlfix("train", *keys, "name=broken")
    run = RunDirectory(place / "outputs/broken/original/seed=0")
    assert answer.code == 130 and "resumes after the last complete epoch" in answer.err
    assert run.status == "interrupted" and run.checkpoint.exists() and len(pd.read_csv(run.path / "metrics.csv")) == 1
    answer = mlfix("train", *keys, "name=broken")
    assert answer.code == 0 and "resuming from" in answer.err and "epoch 1/3" not in answer.err
    assert mlfix("train", *keys, "name=whole").code == 0
    states = [
        torch.load(place / f"outputs/{name}/original/seed=0/checkpoints/model.ckpt", weights_only=True)["state_dict"]
        for name in ("broken", "whole")
    ]
    assert all(torch.allclose(states[0][key].float(), states[1][key].float(), atol=1e-5) for key in states[0])


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    draw_shapes(tmp_path / "shapes")
    keys = ("data.root=shapes", *SORTING, "recipe.epochs=1", "trainer.devices=2", "trainer.strategy=ddp")
    process = start("train", *keys, cwd=tmp_path)
    said, wrong = process.communicate(timeout=240)
    assert process.returncode == 0, wrong
    run = RunDirectory(tmp_path / "outputs/sorting/original/seed=0")
    assert run.read()["status"] == "finished" and "learned    from 72 images" in said
    assert len(pd.read_csv(run.path / "metrics.csv")) == 1 and (run.path / "panels/neighbours.png").exists()


@pytest.mark.slow
def test_seeds_sweep_as_those_of_classifiers_do(place: Path, mlfix) -> None:
    answer = mlfix("train", "-m", "data.root=shapes", *SORTING, "recipe.epochs=1", "seed=range(0,2)", "report=line")
    assert (
        answer.code == 0
        and "2 finished" in answer.out
        and answer.out.count("nearest neighbours of the same label") == 2
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["arm=fixed"], "arm=fixed has no effect on model=sorting_network"),
        (["split.folds=3", "split.fold=0"], "split.folds=3 has no effect"),
        (["views.crop=2"], "views.crop"),
        (["views.kepe_color=false"], "did you mean views.keep_color"),
        (["model.projector_layers=0"], "model.projector_layers"),
        (["model.backbone=resnet19"], "model.backbone=resnet19 is not a timm model"),
    ],
)
def test_wrong_settings_are_named_and_leave_nothing(place: Path, mlfix, keys: list[str], message: str) -> None:
    answer = mlfix("train", "data.root=shapes", *SORTING, *keys)
    assert answer.code == 2 and message in answer.err
    assert not (place / "outputs/sorting/original/seed=0/run.json").exists()


def test_positive_pairs_within_groups_need_groups(place: Path, mlfix) -> None:
    answer = mlfix("train", "data.root=shapes", *SORTING, "views.positive_pair=group")
    assert answer.code == 1 and "every image is a group of its own" in answer.err


def test_other_commands_tell_it_from_a_classifier(place: Path, mlfix) -> None:
    mlfix("train", "data.root=shapes", *SORTING, "recipe.epochs=1")
    answer = mlfix("audit", "runs=outputs/sorting")
    assert answer.code == 1 and "is a sorting network, which predicts no labels" in answer.err


def test_it_learns_what_the_pixels_do_not_tell(tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw_shapes(tmp_path / "shapes", per_label=80, seed=3)
    keys = ["recipe.epochs=12", "model.projector_width=128", "loader.batch_size=48"]
    mlfix("train", "data.root=shapes", *SORTING, *keys)
    rows = pd.read_csv(tmp_path / "outputs/sorting/original/seed=0/metrics.csv")
    assert rows["val_agreement"].iloc[-1] > 85  # shapes of any color on noise: by the pixels about 60
    assert np.isfinite(rows["train_loss"]).all()
