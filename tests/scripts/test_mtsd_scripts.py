"""The substitute for MTSD, and the published experiment as one script: tried on a few photos."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shapes import REPO

from mlfix_train import run_command
from mlfix_train.config.compose import load

KEYS = (
    "model=small recipe.epochs=1 loader.batch_size=32 logger=none split.train_only=[] trainer.accelerator=cpu "
    "audit.n_panels=0"
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPO), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}


def run(*command: str, cwd: Path, **more: str) -> str:
    env = {**ENVIRONMENT, **more}
    done = subprocess.run(list(command), cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mtsd")
    script = str(REPO / "scripts/make_fake_mtsd.py")
    options = "--photos 60 --size 1024x768 --panoramas 0.1 --planted 0.3 --broken 5 --classes 12 --seed 3"
    run(sys.executable, script, "fake", *options.split(), cwd=root)
    return root / "fake"


def test_the_substitute_has_mtsds_layout(fake: Path) -> None:
    splits = {path.stem: path.read_text().split() for path in (fake / "splits").iterdir()}
    assert set(splits) == {"train", "val", "test"} and sum(map(len, splits.values())) == 60
    annotated = {path.stem for path in (fake / "annotations").iterdir()}
    assert annotated == {*splits["train"], *splits["val"]}  # the test split is not public
    assert {path.stem for path in (fake / "images").iterdir()} == {key for keys in splits.values() for key in keys}
    for path in (fake / "annotations").iterdir():
        content = json.loads(path.read_text())
        assert Image.open(fake / f"images/{path.stem}.jpg").size == (content["width"], content["height"])
        for entry in content["objects"]:
            box = entry["bbox"]
            assert len(entry["key"]) == 22 and len(entry["properties"]) == 9
            if box["xmin"] > box["xmax"] and entry["label"] != "other-sign":
                assert content["ispano"] and set(box["cross_boundary"]) == {"left", "right"}
    truth = pd.read_csv(fake / "truth.csv")
    wrong = truth[truth["label"] != truth["true_label"]]
    assert wrong["label"].str.contains("speed-limit").all()
    assert len(wrong) == len((fake / "invalid-speed-limits.csv").read_text().splitlines()) - 1 > 5


def test_every_box_is_accounted_for_and_signs_across_the_edge_are_whole(fake: Path, tmp_path: Path) -> None:
    written, unusable = 0, 0
    for path in (fake / "annotations").iterdir():
        content = json.loads(path.read_text())
        written += len(content["objects"])
        for box in (entry["bbox"] for entry in content["objects"]):
            across = box["xmin"] < box["xmax"] or "cross_boundary" in box
            fine = across and box["xmin"] < content["width"] and box["ymin"] < box["ymax"]  # NaN is less than nothing
            unusable += not fine
    table = run_command("crop", f"data.root={fake}", f"out={tmp_path / 'crops'}", "format=png")
    dropped = pd.read_csv(tmp_path / "crops/dropped.csv")
    assert len(table) + len(dropped) == written
    assert set(dropped["problem"]) <= {"no area", "outside", "swapped corners", "not a number"}
    assert len(dropped) == unusable >= 3
    crossing = table[table["wraps"]]
    assert len(crossing) >= 3
    for row in crossing.itertuples():
        photo = Image.open(fake / f"images/{row.group}.jpg").convert("RGB")
        turned = Image.fromarray(np.roll(np.asarray(photo), photo.width // 2, axis=1))
        box = (row.x_min - photo.width // 2, row.y_min, row.x_max - photo.width // 2, row.y_max)
        whole = np.asarray(turned.resize((40, 40), Image.Resampling.BICUBIC, box), float)
        assert np.abs(np.asarray(Image.open(row.path), float) - whole).mean() < 1.0


RECORD = """#!/bin/bash
printf '%s\\n' "$@" "" >> commands
"""


@pytest.mark.parametrize("carry_out", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_commands_of_the_experiment_stop_for_the_review_and_go_on(
    carry_out: bool,
    fake: Path,
    tmp_path: Path,
    mlfix,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The script writes down what it calls; the slow one carries the commands out, in this process."""
    (tmp_path / "record").write_text(RECORD)
    (tmp_path / "record").chmod(0o755)
    script, fixes = str(REPO / "scripts/reproduce_mtsd.sh"), str(fake / "invalid-speed-limits.csv")
    settings = {
        "SEEDS": "2",
        "FOLDS": "2",
        "KEYS": KEYS,
        **dict.fromkeys(("PYTHON", "MLFIX"), str(tmp_path / "record")),
    }

    def commands(fixes: str) -> tuple[str, list[list[str]]]:
        told = run("bash", script, str(fake), fixes, "work", cwd=tmp_path, **settings)
        text = (tmp_path / "work/commands").read_text()
        (tmp_path / "work/commands").unlink()
        return told, [command.splitlines() for command in text.strip().split("\n\n")]

    told, [estimate, *first] = commands("none")
    monkeypatch.chdir(tmp_path / "work")
    assert "mark wrong labels with" in told and "review audit=audit" in told
    assert [command[0] for command in first] == ["crop", "train", "audit"]
    capsys.readouterr()
    estimate_by(estimate, monkeypatch)
    told = capsys.readouterr().out
    assert "14 trainings of 1 epochs" in told and "GB" in told and "total" in told
    for verb, *keys in first if carry_out else first[:1]:
        answer = mlfix(verb, *keys)
        assert answer.code == 0, answer.err
    assert Path("audit/report.html").is_file() == carry_out
    Path("audit").mkdir(exist_ok=True)
    Path("audit/report.html").touch()

    _, second = commands(fixes)
    assert second[:3] == first and [command[0] for command in second[3:]] == ["train", "compare", "train", "compare"]
    for name, train, compare in (("mtsd-speed-limits", *second[3:5]), ("mtsd-by-photo", *second[5:])):
        assert {f"name={name}", "seed=range(0,2)", "arm=original,fixed,control", f"fixes.path={fixes}"} < set(train)
        swept = [key for key in train[2:] if not key.startswith(("seed=", "sweep=", "arm="))]
        cfg = load("train", [*swept, "seed=1", "arm=fixed"])
        assert cfg.split.grouped is (name == "mtsd-by-photo")
        assert cfg.pixels.size == 40 and cfg.loader.sampling == "balanced"
        assert {f"control=outputs/{name}/control", f"out=evidence-{name}"} < set(compare)
    if not carry_out:
        return
    for verb, *keys in [first[0], first[1], *second[5:]]:
        answer = mlfix(verb, *keys)
        assert answer.code == 0, answer.err
        if verb == "crop":
            assert "photos were cropped before" in answer.out
        elif "sweep=out_of_fold" in keys:
            assert answer.out.count("skipped") == 2
    summary = json.loads(Path("evidence-mtsd-by-photo/summary.json").read_text())
    assert summary["slices"]["speed"]["effect"]["training"] is not None
    assert summary["slices"]["speed"]["control"] is not None


def estimate_by(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates as a command line of Python says, but for the training that it measures."""
    spec = importlib.util.spec_from_file_location("estimate_mtsd", command[0])
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "try_training", lambda keys, work, n: (2.0, 1.0, 1e6, 0.5))
    monkeypatch.setattr(sys, "argv", command)
    module.main()


@pytest.mark.slow
def test_the_experiment_says_what_it_takes_stops_for_the_review_and_goes_on(fake: Path, tmp_path: Path) -> None:
    script, fixes = str(REPO / "scripts/reproduce_mtsd.sh"), str(fake / "invalid-speed-limits.csv")
    mlfix = f"{Path(sys.executable).parent}/mlfix"
    settings = {"SEEDS": "2", "FOLDS": "2", "PYTHON": sys.executable, "MLFIX": mlfix, "KEYS": KEYS}
    told = run("bash", script, str(fake), fixes, "work", cwd=tmp_path, ESTIMATE="only", **settings)
    assert "14 trainings of 1 epochs" in told and "GB" in told and "total" in told
    assert not (tmp_path / "work/crops").exists()

    told = run("bash", script, str(fake), "none", "work", cwd=tmp_path, **settings)
    assert "mark wrong labels with" in told and "review audit=audit" in told
    assert (tmp_path / "work/audit/report.html").is_file()
    assert not (tmp_path / "work/outputs/mtsd-speed-limits").exists()

    files = sorted((tmp_path / "work/outputs").rglob("run.json"))
    before = [path.read_bytes() for path in files]
    told = run("bash", script, str(fake), fixes, "work", cwd=tmp_path, **settings)
    assert "photos were cropped before" in told
    assert len(files) == 2 and [path.read_bytes() for path in files] == before
    for name in ("mtsd-speed-limits", "mtsd-by-photo"):
        summary = json.loads((tmp_path / f"work/evidence-{name}/summary.json").read_text())
        assert summary["slices"]["speed"]["effect"]["training"] is not None
        assert summary["slices"]["speed"]["control"] is not None
        about = json.loads((tmp_path / f"work/outputs/{name}/fixed/seed=1/run.json").read_text())["config"]
        assert about["split"]["grouped"] is (name == "mtsd-by-photo")
        assert about["pixels"]["size"] == 40 and about["loader"]["sampling"] == "balanced"


def test_scripts_name_what_is_missing(tmp_path: Path) -> None:
    script = REPO / "scripts"
    for command, told in (
        ((sys.executable, script / "estimate_mtsd.py", "nowhere", "--runs", "3"), "data.root=nowhere does not exist"),
        ((sys.executable, script / "make_fake_mtsd.py", "x", "--size", "abc"), "abc is not a size"),
        (("bash", script / "reproduce_mtsd.sh", tmp_path, "nofile.csv"), "nofile.csv does not exist"),
        (("bash", script / "reproduce_mtsd.sh", tmp_path / "no", "none"), "does not exist"),
    ):
        done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert told in done.stderr and "Traceback" not in done.stderr
