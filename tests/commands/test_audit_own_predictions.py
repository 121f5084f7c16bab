"""`mlfix audit` of predictions of any other framework, with images, groups and an order beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from shapes import draw_shapes

NAMES = ("disc", "square", "triangle")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos in class folders, four of them in the wrong one; probabilities that know better, in file order."""
    monkeypatch.chdir(tmp_path)
    draw_shapes(tmp_path / "photos", 20)
    for i in range(4):
        (tmp_path / f"photos/disc/{i:03}.png").rename(tmp_path / f"photos/square/disc-{i}.png")
    ids = sorted(path.relative_to(tmp_path / "photos").as_posix() for path in (tmp_path / "photos").rglob("*.png"))
    truth = np.array([0 if "disc" in name else NAMES.index(name.split("/")[0]) for name in ids])
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 60) * 0.3
    probabilities[np.arange(60), truth] += 0.7
    np.save("pred_probs.npy", probabilities)
    labels = [name.split("/")[0] for name in ids]
    np.save("labels.npy", np.array([NAMES.index(label) for label in labels]))
    table = pd.DataFrame({"sample_id": ids, "label": labels, **dict(zip(NAMES, probabilities.T, strict=True))})
    table.to_csv("p.csv", index=False)
    table.to_parquet("p.parquet")
    return tmp_path


def found(folder: Path) -> list[str]:
    ranking = pd.read_csv(folder / "ranking.csv", dtype={"sample_id": str})
    return sorted(ranking["sample_id"].head(4))


WRONG = [f"square/disc-{i}.png" for i in range(4)]


@pytest.mark.parametrize("file", ["p.csv", "p.parquet"])
def test_a_table_with_images_is_audited_by_all_evidence_and_reviewed(mlfix: Any, project: Path, file: str) -> None:
    done = mlfix("audit", f"runs={file}", "data.root=photos", "out=a", "logger=none", "data.group=(.+)")
    assert done.code == 0, done.err
    assert found(project / "a") == WRONG
    about = json.loads((project / "a/audit.json").read_text())
    assert set(about["evidence"]) == {"runs", "neighbours"}
    assert (project / "a/panels/worst.png").exists()
    ranking = pd.read_csv(project / "a/ranking.csv").set_index("sample_id")
    assert ranking.loc[WRONG, "suggested_label"].tolist() == ["disc"] * 4
    assert ranking["confident_score"].notna().all(), "whole probabilities"


def test_a_matrix_whose_rows_are_the_sorted_images(mlfix: Any, project: Path) -> None:
    names = np.array(NAMES)[np.load("labels.npy")]
    np.save("labels.npy", names)
    done = mlfix("audit", "runs=pred_probs.npy", "data.root=photos", "out=a", "logger=none")
    assert done.code == 0, done.err
    assert found(project / "a") == WRONG, "rows are named as their images are"
    assert mlfix("export", "audit=a", "to=cleanlab", "out=e").code == 0
    assert (project / "a/panels/worst.png").exists()
    np.save("labels.npy", np.roll(names, 1))
    done = mlfix("audit", "runs=pred_probs.npy", "data.root=photos", "out=b", "logger=none")
    assert done.code == 1, "the order of the rows is not that of the images"
    assert "the data lacks 60 of the 60 audited samples: 0, 1, 2" in done.err
    assert "labels=<CSV with sample_id and label>" in done.err


def test_numbers_and_labels_of_their_own_file(mlfix: Any, project: Path) -> None:
    Path("labels.npy").rename("given.npy")
    done = mlfix("audit", "runs=pred_probs.npy", "out=a", "logger=none")
    assert done.code == 1
    assert "labels=<file>" in done.err
    assert mlfix("audit", "runs=pred_probs.npy", "labels=given.npy", "out=a", "logger=none").code == 0


@pytest.mark.parametrize("shape", ["last part", "without suffix", "whole path", "backslashes"])
def test_ids_are_matched_to_images_where_that_is_certain(mlfix: Any, project: Path, shape: str) -> None:
    table = pd.read_csv("p.csv")
    table["sample_id"] = {
        "last part": table["sample_id"],
        "without suffix": table["sample_id"].str.removesuffix(".png"),
        "whole path": str(project / "photos") + "/" + table["sample_id"],
        "backslashes": "C:\\data\\" + table["sample_id"].str.replace("/", "\\"),
    }[shape]
    if shape == "last part":
        table = table[table["sample_id"].str.contains("disc-")]
        table["sample_id"] = table["sample_id"].str.split("/").str[1]
    table.to_csv("q.csv", index=False)
    done = mlfix("audit", "runs=q.csv", "data.root=photos", "out=a", "logger=none")
    assert done.code == 0, done.err
    assert (project / "a/panels/worst.png").exists()
    table["sample_id"] = "000.png" if len(table) == 1 else [f"{i:03}.png" for i in range(len(table))]
    table.to_csv("q.csv", index=False)
    done = mlfix("audit", "runs=q.csv", "data.root=photos", "out=b", "logger=none")
    assert done.code == 1, "three images are called 000.png"
    assert "the data lacks" in done.err


def test_folds_of_the_callback_are_one_audit(mlfix: Any, project: Path) -> None:
    table = pd.read_csv("p.csv")
    for fold in range(3):
        (project / f"fold{fold}").mkdir()
        part = table.iloc[fold::3]
        loss = -np.log([row[row["label"]] for _, row in part.iterrows()])
        pred = part[list(NAMES)].idxmax(axis=1)
        frame = pd.DataFrame({"sample_id": part["sample_id"], "label": part["label"], "pred": pred, "loss": loss})
        frame.to_parquet(project / f"fold{fold}/predictions.parquet")
    done = mlfix("audit", "runs=fold*", "out=a", "logger=none")
    assert done.code == 0, done.err
    assert "ranked     60 of 60 samples, held out by 3 run(s)" in done.out
    assert found(project / "a") == WRONG


def test_compare_judges_the_same_files_in_the_same_way(mlfix: Any, project: Path) -> None:
    table = pd.DataFrame({"sample_id": [f"{i}.jpg" for i in range(30)], "label": [1, 2, 3] * 10})
    table["pred"], table["loss"] = table["label"].astype(float), -0.1
    table.to_csv("o-0.csv", index=False)
    table.to_csv("f-0.csv", index=False)
    Path("fixes.csv").write_text("sample_id,new_label\n3.jpg,2\n")
    done = mlfix("compare", "original=o-0.csv", "fixed=f-0.csv", "fixes.path=fixes.csv", "out=c", "logger=none")
    assert done.code == 1
    assert "line 2 has the loss -0.1, below 0" in done.err


def test_review_and_export_find_the_images_of_the_audit(mlfix: Any, project: Path) -> None:
    from mlfix_train.commands.review import open_configured_session
    from mlfix_train.config.compose import load

    table = pd.read_csv("p.csv")
    table["sample_id"] = "photos/" + table["sample_id"]
    table.to_csv("q.csv", index=False)
    assert mlfix("audit", "runs=q.csv", "data.root=photos", "out=a", "logger=none").code == 0
    assert found(project / "a") == WRONG, "samples are named as the images are"
    for keys in ([], ["data.root=photos"]):
        session = open_configured_session(load("review", ["audit=a", f"out=r{len(keys)}", "order=none", *keys]))
        assert len(session.samples) == 60
        session.close()
    done = mlfix("export", "audit=a", "to=fiftyone", "out=e")
    assert done.code == 0, done.err
    assert json.loads((project / "e/labels.json").read_text())["labels"]
    done = mlfix("export", "audit=a", "to=cleanlab", "out=c")
    assert done.code == 0
    assert "find_label_issues" not in done.out, "there is no pred_probs.npy"
