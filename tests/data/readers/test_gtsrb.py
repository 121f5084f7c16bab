"""GTSRB as its makers offer it: class folders of PPM files with CSV files of semicolons, test images apart."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapes import REPO

from mlfix_train.data.readers.gtsrb import LABELS, read_gtsrb
from mlfix_train.errors import ConfigError, DataError

HEAD = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"


def training(root: Path, classes: tuple[int, ...] = (0, 1, 14)) -> Path:
    for number in classes:
        folder = root / f"GTSRB/Final_Training/Images/{number:05d}"
        folder.mkdir(parents=True)
        lines = []
        for track in range(2):
            for frame in range(3):
                name = f"{track:05d}_{frame:05d}.ppm"
                Image.fromarray(np.full((20 + frame, 30, 3), 40 * number % 250, np.uint8)).save(folder / name)
                lines.append(f"{name};30;{20 + frame};5;6;25;15;{number}\n")
        (folder / f"GT-{number:05d}.csv").write_text(HEAD + "".join(lines))
    return root


def test_training_images(tmp_path: Path) -> None:
    for root in (training(tmp_path), tmp_path / "GTSRB"):
        table = read_gtsrb(root)
        assert len(table) == 18
        assert collections.Counter(table["label"]) == {"speed-limit-20": 6, "speed-limit-30": 6, "stop": 6}
        assert table["group"].nunique() == 6 and set(table["split"]) == {"train"}
        assert all(Path(path).is_file() for path in table["path"])
    row = table.loc["Final_Training/Images/00014/00001_00002.ppm"]
    assert row[["label", "group", "class_id", "height", "roi_x2"]].tolist() == ["stop", "00014/00001", 14, 22, 25]


def test_test_images_are_taken_in_where_they_are(tmp_path: Path, caplog) -> None:
    training(tmp_path)
    with pytest.raises(DataError, match=r"no GT-final_test\.csv"):
        read_gtsrb(tmp_path, test=True)
    folder = tmp_path / "GTSRB/Final_Test/Images"
    folder.mkdir(parents=True)
    Image.new("RGB", (30, 30)).save(folder / "00000.ppm")
    (tmp_path / "GT-final_test.csv").write_text(HEAD + "00000.ppm;30;30;5;6;25;15;14\n")
    table = read_gtsrb(tmp_path)
    assert table.loc["GTSRB/Final_Test/Images/00000.ppm", ["label", "split"]].tolist() == ["stop", "test"]
    assert len(read_gtsrb(tmp_path, test=False)) == 18
    (tmp_path / "GT-final_test.csv").write_text(HEAD + "00000.ppm;30;30;5;6;25;15;77\n")
    with pytest.raises(DataError, match=r"00000\.ppm has the ClassId '77'"):
        read_gtsrb(tmp_path)
    rows = "00000.ppm;30.0;30;5;6;25;15;14.0\n00001.ppm;30;30;5;6;25;15;\n00002.ppm;30;30;5;6;25;15;77\n"
    (tmp_path / "GT-final_test.csv").write_text(HEAD + rows)
    table = read_gtsrb(tmp_path)
    assert table.loc["GTSRB/Final_Test/Images/00000.ppm", ["label", "width"]].tolist() == ["stop", 30]
    assert (table["split"] == "test").sum() == 1
    assert "2 image(s) without a class 0 to 42 are left out" in caplog.text and "00002.ppm" in caplog.text
    (tmp_path / "GT-final_test.csv").write_text(HEAD.replace(";", ",") + "00000.ppm,30,30,5,6,25,15,14\n")
    assert read_gtsrb(tmp_path).loc["GTSRB/Final_Test/Images/00000.ppm", "label"] == "stop", "saved again with commas"
    (tmp_path / "GT-final_test.csv").write_text("name;ClassId\na;1\n")
    with pytest.raises(DataError, match="lacks the columns Filename; it has name, ClassId"):
        read_gtsrb(tmp_path)


def test_other_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folders 00000 to 00042"):
        read_gtsrb(tmp_path)
    (tmp_path / "00000").mkdir()
    (tmp_path / "00001").mkdir()
    with pytest.raises(DataError, match=r"contain no \.ppm files"):
        read_gtsrb(tmp_path)
    with pytest.raises(ConfigError, match=r"test="):
        read_gtsrb(tmp_path, test="maybe")


def test_the_experiment_trains(tmp_path: Path, mlfix, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    training(tmp_path)
    answer = mlfix(
        "train",
        "experiment=gtsrb",
        "data.root=GTSRB",
        "model=small",
        "recipe.epochs=1",
        "logger=none",
        "loader.batch_size=8",
        "trainer.accelerator=cpu",
        "split.fraction=0.5",
    )
    assert answer.code == 0, answer.err
    assert "outputs/gtsrb/original/seed=0" in answer.out


def test_names_are_those_of_the_shared_data() -> None:
    archive = REPO.parent / "shared/data/gtsrb.tar.xz"
    if not archive.is_file():
        pytest.skip(f"checks the names of real photos (GTSRB), which users don't have: {archive} is not here")
    import tarfile

    with tarfile.open(archive) as packed:
        names = {parts[-2] for member in packed for parts in [member.name.split("/")] if member.name.endswith(".jpg")}
    assert names == set(LABELS) and len(LABELS) == 43
