"""`mlfix audit` and `mlfix export` on real runs of folds, with planted label errors; and their errors."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from shapes import FAST, draw_shapes

from mlfix_train.cli import main as cli

WRONG = {f"disc/{i:03d}.png": "square" for i in range(3)} | {f"triangle/{i:03d}.png": "disc" for i in range(3)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with six wrong labels, a label of one sample, and three runs that hold out a third each."""
    root = tmp_path_factory.mktemp("audit")
    draw_shapes(root / "shapes", 40)
    draw_shapes(root / "shapes", 1, labels=("lonely",))
    names = sorted(path.relative_to(root / "shapes").as_posix() for path in (root / "shapes").rglob("*.png"))
    labels = [WRONG.get(name, name.split("/")[0]) for name in names]
    light = ["night" if i % 3 else "day" for i in range(len(names))]
    pd.DataFrame({"path": [f"shapes/{n}" for n in names], "label": labels, "light": light, "sample_id": names}).to_csv(
        root / "samples.csv", index=False
    )
    keys = ("data=table", f"data.file={root}/samples.csv", f"outputs={root}/o", *FAST, "recipe.epochs=8")
    for fold in range(3):
        more = ("split.folds=3", f"split.fold={fold}", "audit.probabilities=true")
        assert cli.run("train", [*keys, *more]) == 0
    return root


@pytest.fixture(scope="module")
def audited(place: Path) -> Path:
    code = cli.run(
        "audit",
        [
            f"runs={place}/o",
            f"out={place}/audit",
            "logger=none",
            "n_panels=3",
            "by=pixels",
            "slices.round=disc",
            "slices.light={column: light, values: [night]}",
        ],
    )
    assert code == 0
    return place / "audit"


def read_ranking(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "ranking.csv", keep_default_na=False, na_values=[""])


def test_a_review_tells_how_many_are_wrong(place: Path, audited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, ids = place / "review", read_ranking(audited)["sample_id"].tolist()
    folder.mkdir()
    fixes = [f"{name},invalid" for name in WRONG]
    (folder / "fixes.csv").write_text("\n".join(["sample_id,new_label", *fixes]) + "\n")
    (folder / "journal.jsonl").write_text(json.dumps({"mlfix": "review", "version": 2}) + "\n")
    (folder / "seen.jsonl").write_text(json.dumps({"seen": ids, "random": True}) + "\n")
    keys = [f"runs={place}/o", "logger=none", "n_panels=0", f"out={place}/judged"]
    assert cli.run("audit", [*keys, f"review={folder}"]) == 0
    assert (
        f"about 6 labels (95% interval 6 to 6), 4.96% of the ranked, from {len(ids)} judged" in capsys.readouterr().out
    )
    about = json.loads((place / "judged" / "audit.json").read_text())
    found = about["estimates"]
    assert (found["judged"], found["judged_wrong"], found["wrong"]) == (len(ids), 6, 6)
    suspicion = read_ranking(place / "judged")["suspicion"]
    assert suspicion.is_monotonic_decreasing and 3 < suspicion.sum() < 12
    assert cli.run("audit", [*keys, f"review={place}/nowhere"]) == 1
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_all_kinds_of_evidence_find_the_planted_errors(audited: Path) -> None:
    ranking = read_ranking(audited)
    about = json.loads((audited / "audit.json").read_text())
    assert set(about["evidence"]) == {"runs", "neighbours", "dynamics"}, "by=pixels: no linear layer"
    assert about["neighbours"] == "the pixels"
    assert about["confident_learning"] >= 3, "the runs kept their probabilities"
    assert (about["ranked"], about["samples"], about["unranked"]) == (len(ranking), 121, 121 - len(ranking))
    assert set(ranking["runs"]) == {1}
    head = ranking["sample_id"].head(2 * len(WRONG))
    assert len(set(head) & set(WRONG)) >= 5, "among twice as many"
    for name in ("aum", "confident_score", "neighbour_disagreement", "outlierness"):
        assert ranking[name].notna().mean() > 0.95, name
    assert ranking["twin_disagreement"].isna().all(), "no groups, no twins"
    assert ranking["suspicion"].is_monotonic_decreasing
    np.testing.assert_allclose(ranking["label_score"], 1 - ranking["suspicion"], atol=1e-8)


def test_a_score_is_the_mean_over_the_runs_that_held_a_sample_out(place: Path, audited: Path) -> None:
    ranking = read_ranking(audited).set_index("sample_id")
    for fold in range(3):
        run = place / f"o/default/original/seed=0,fold={fold}"
        held = pd.read_parquet(run / "predictions.parquet").set_index("sample_id")
        np.testing.assert_allclose(ranking.loc[held.index, "loss"], held["loss"], rtol=1e-5, atol=1e-6)
        dynamics = pd.read_parquet(run / "dynamics.parquet").set_index("sample_id")
        assert not set(dynamics.index) & set(held.index)
    both = [pd.read_parquet(place / f"o/default/original/seed=0,fold={f}/dynamics.parquet") for f in (1, 2)]
    mean = pd.concat(both).groupby("sample_id")["aum"].mean()
    own = pd.read_parquet(place / "o/default/original/seed=0,fold=0/predictions.parquet")["sample_id"]
    np.testing.assert_allclose(ranking.loc[own, "aum"], mean.reindex(own), rtol=1e-5, atol=1e-6)


def test_slices_panels_and_the_summary(audited: Path, place: Path, mlfix: Any) -> None:
    slices = pd.read_csv(audited / "slices.csv")
    assert {"pair", "label", "slice"} == set(slices["kind"])
    assert {"round", "light"} <= set(slices["name"])
    assert slices["first_screen"].is_monotonic_decreasing
    assert len(list((audited / "panels").glob("0*.png"))) >= 6
    answer = mlfix("audit", f"runs={place}/o", f"out={place}/again", "logger=none", "n_panels=1", "by=none")
    assert re.search(
        r"evidence   predictions of runs 1.00, training dynamics \(in-sample\) 0.\d\d \(weights\)\n", answer.out
    )
    judged = "lonely" in read_ranking(place / "again")["given_label"].values
    assert ("unseen     1 label(s) with a single sample or group" in answer.out) == judged


def test_samples_that_no_run_held_out_are_listed(place: Path, tmp_path: Path, mlfix: Any) -> None:
    answer = mlfix("audit", f"runs={place}/o/default/original/seed=0,fold=1", f"out={tmp_path}/a", "logger=none")
    assert answer.code == 0
    ranking, lost = read_ranking(tmp_path / "a"), pd.read_csv(tmp_path / "a/unranked.csv")
    assert len(ranking) + len(lost) == 121
    assert not set(ranking["sample_id"]) & set(lost["sample_id"])
    assert set(lost["reason"]) == {"no run held it out"}
    assert f"unranked   {len(lost)} samples" in answer.out
    assert "unranked.csv" in (tmp_path / "a/report.html").read_text()
    assert ranking["aum"].isna().all(), "this run trained on none of them"


def test_images_that_are_gone_or_broken_leave_the_ranking(place: Path, tmp_path: Path, mlfix: Any) -> None:
    shutil.copytree(place, tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved/o/.pixels")
    for run in (tmp_path / "moved/o").rglob("run.json"):
        run.write_text(run.read_text().replace(str(place), str(tmp_path / "moved")))
    for path in (tmp_path / "moved/shapes/disc").glob("00*.png"):
        path.write_bytes(b"no picture")
    answer = mlfix("audit", f"runs={tmp_path}/moved/o", f"out={tmp_path}/a", "logger=none", "n_panels=1")
    assert answer.code == 0, answer.err
    assert len(read_ranking(tmp_path / "a")) > 100
    shutil.rmtree(tmp_path / "moved/shapes")
    (tmp_path / "moved/samples.csv").unlink()
    answer = mlfix("audit", f"runs={tmp_path}/moved/o", f"out={tmp_path}/b", "logger=none")
    assert answer.code == 0
    assert "no panels could be drawn" in answer.err
    assert "No pictures" in (tmp_path / "b/report.html").read_text()


def test_other_data_other_labels_and_damaged_probabilities_are_errors(place: Path, tmp_path: Path, mlfix: Any) -> None:
    shutil.copytree(place / "o", tmp_path / "o")
    run = tmp_path / "o/default/original/seed=0,fold=0"
    state = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(state | {"labels": [*state["labels"], "more"]}))
    answer = mlfix("audit", f"runs={tmp_path}/o", f"out={tmp_path}/a")
    assert (answer.code, "they differ in more" in answer.err) == (1, True)
    (run / "run.json").write_text(json.dumps(state | {"data": state["data"] | {"fingerprint": "x"}}))
    assert "2 different data sets" in mlfix("audit", f"runs={tmp_path}/o", f"out={tmp_path}/a").err
    (run / "run.json").write_text(json.dumps(state))
    matrix = np.load(run / "probabilities.npy")
    matrix[5] *= 2
    np.save(run / "probabilities.npy", matrix)
    answer = mlfix("audit", f"runs={tmp_path}/o", f"out={tmp_path}/a", "logger=none")
    assert answer.code == 1
    assert "probabilities.npy: row 5 is not a probability distribution: sum 2" in answer.err
    np.save(run / "probabilities.npy", matrix[:-1])
    assert "its predictions are" in mlfix("audit", f"runs={tmp_path}/o", f"out={tmp_path}/a", "logger=none").err
    assert not (tmp_path / "a").exists(), "nothing is written before it is sure"


@pytest.mark.slow
def test_features_that_runs_kept_are_evidence(place: Path, tmp_path: Path, mlfix: Any) -> None:
    """Features that know the shape: the wrong labels get the largest losses of the linear layers on them."""
    shutil.copytree(place / "o", tmp_path / "o")
    runs = sorted((tmp_path / "o").rglob("predictions.parquet"))
    assert len(runs) == 3
    for number, path in enumerate(runs):
        true = [name.split("/")[0] for name in pd.read_parquet(path)["sample_id"]]
        codes = np.array([("disc", "square", "triangle", "lonely").index(name) for name in true])
        noise = np.random.default_rng(number).normal(0, 0.3, (len(codes), 4))
        turned = np.roll(np.eye(4), number, 1)[codes] + noise  # another space for each run
        np.save(path.parent / "features.npy", turned.astype(np.float16))
    keys = (f"runs={tmp_path}/o", "logger=none", "n_panels=0", "by=none")
    assert mlfix("audit", *keys, f"out={tmp_path}/a").code == 0
    table = read_ranking(tmp_path / "a").sort_values("run_probe_loss", ascending=False)
    assert set(table["sample_id"].head(7)) >= set(WRONG)
    weights = json.loads((tmp_path / "a/audit.json").read_text())["evidence"]
    assert weights["run_probe"] > weights["runs"]
    runs[0].with_name("features.npy").unlink()
    assert mlfix("audit", *keys, f"out={tmp_path}/b").code == 0, "some runs kept none"
    table = read_ranking(tmp_path / "b").set_index("sample_id")
    blank = table.loc[pd.read_parquet(runs[0])["sample_id"], "run_probe_loss"]
    assert blank.nunique() == 1, "all labels are as likely"
    np.save(runs[1].with_name("features.npy"), np.zeros((3, 4), np.float16))
    assert "has the shape (3, 4)" in mlfix("audit", *keys, f"out={tmp_path}/c").err


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["by=order"], "by=order needs order"),
        (["by=near"], "by=near"),
        (["slices=3"], "slices is a section, not a single value"),
        (["slices.x=zebra"], "matches none of the labels"),
        (["slices.x={column: none, values: [1]}"], "no column 'none'"),
    ],
)
def test_wrong_settings(place: Path, tmp_path: Path, mlfix: Any, keys: list[str], words: str) -> None:
    answer = mlfix("audit", f"runs={place}/o", f"out={tmp_path}/a", "logger=none", *keys)
    assert answer.code == 2
    assert words in answer.err
    assert not (tmp_path / "a").exists()


def test_panels_never_go_where_they_would_be_read_as_data(shapes: Path, tmp_path: Path, mlfix: Any) -> None:
    assert mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST).code == 0
    answer = mlfix("audit", f"runs={tmp_path}/o", f"out={shapes}/audit", "logger=none")
    assert answer.code == 2
    assert "would become samples next time" in answer.err
    assert not (shapes / "audit").exists()


def test_prediction_files_alone_are_enough(place: Path, tmp_path: Path, mlfix: Any) -> None:
    for fold in range(3):
        table = pd.read_parquet(place / f"o/default/original/seed=0,fold={fold}/predictions.parquet")
        table[["sample_id", "label", "pred", "loss"]].to_csv(tmp_path / f"p-{fold}.csv", index=False)
    answer = mlfix("audit", f"runs={tmp_path}/p-*.csv", f"out={tmp_path}/a", "logger=none")
    assert answer.code == 0, answer.err
    ranking = read_ranking(tmp_path / "a")
    np.testing.assert_allclose(ranking["pooled_loss"], ranking["loss"], rtol=1e-5, atol=1e-8)
    assert ranking["loss"].is_monotonic_decreasing
    assert ranking["margin"].isna().all()
    assert "unseen  " not in answer.out, "files don't say what was trained on"
    assert mlfix("export", f"audit={tmp_path}/a", "to=fiftyone", f"out={tmp_path}/f").code == 1
    assert mlfix("export", f"audit={tmp_path}/a", "to=cleanlab", f"out={tmp_path}/c").code == 0


# --- export, and back ---


def test_fiftyone_there_and_back(audited: Path, place: Path, tmp_path: Path, mlfix: Any) -> None:
    from mlfix_train.data.fixes.table import match_fixes, read_fixes
    from mlfix_train.data.readers.table import read_table

    answer = mlfix("export", f"audit={audited}", "to=fiftyone", f"out={tmp_path}")
    assert answer.code == 0, answer.err
    content = json.loads((tmp_path / "labels.json").read_text())
    ranking = read_ranking(audited)
    assert len(content["labels"]) == len(ranking)
    assert all(Path(name).is_file() for name in content["labels"])
    first = str(place / "shapes" / ranking["sample_id"][0])
    assert content["labels"][first]["attributes"]["rank"] == 1
    columns = {name: name for name in ("sample_id", "path", "label")}
    table = read_table(place / "samples.csv", columns=columns)
    assert not len(match_fixes(read_fixes(tmp_path / "labels.json"), table)), "nothing was changed"
    content["labels"][first]["label"] = "invalid"
    (tmp_path / "labels.json").write_text(json.dumps(content))
    assert match_fixes(read_fixes(tmp_path / "labels.json"), table)["new_label"].to_dict() == {
        ranking["sample_id"][0]: "invalid"
    }


def test_label_studio_tasks(audited: Path, tmp_path: Path, mlfix: Any) -> None:
    answer = mlfix("export", f"audit={audited}", "to=label_studio", f"out={tmp_path}", "top=10", "url=http://x/{path}")
    assert answer.code == 0, answer.err
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    ranking = read_ranking(audited).head(10)
    assert [task["data"]["sample_id"] for task in tasks] == ranking["sample_id"].tolist()
    assert tasks[0]["data"]["image"] == "http://x/" + ranking["sample_id"][0]
    assert tasks[3]["predictions"][0]["result"][0]["value"]["choices"] == [ranking["suggested_label"][3]]
    import xml.etree.ElementTree as ElementTree

    view = ElementTree.parse(tmp_path / "label_config.xml").getroot()
    assert [choice.get("value") for choice in view.iter("Choice")] == [
        "disc",
        "lonely",
        "square",
        "triangle",
        "invalid",
    ]


def test_cleanlab_takes_what_is_exported(audited: Path, tmp_path: Path, mlfix: Any) -> None:
    filters = pytest.importorskip("cleanlab.filter")
    assert mlfix("export", f"audit={audited}", "to=cleanlab", f"out={tmp_path}").code == 0
    table = pd.read_csv(tmp_path / "label_issues.csv")
    assert list(table.columns) == ["sample_id", "is_label_issue", "label_score", "given_label", "predicted_label"]
    labels, probabilities = np.load(tmp_path / "labels.npy"), np.load(tmp_path / "pred_probs.npy")
    names = json.loads((tmp_path / "class_names.json").read_text())
    assert [names[i] for i in labels] == table["given_label"].tolist()
    agree = np.array(names)[probabilities.argmax(1)] == table["predicted_label"]
    assert agree.mean() > 0.95, "half precision may tie"
    kept = labels != names.index("lonely")
    issues = filters.find_label_issues(labels[kept], probabilities[kept], filter_by="predicted_neq_given")
    assert set(table["sample_id"][kept][issues]) & set(WRONG)


def test_fixes_are_applied_on_the_way_out(audited: Path, place: Path, tmp_path: Path, mlfix: Any) -> None:
    pd.DataFrame({"sample_id": ["disc/000.png", "disc/001.png"], "new_label": ["disc", "invalid"]}).to_csv(
        tmp_path / "fixes.csv", index=False
    )
    keys = (f"audit={audited}", f"out={tmp_path}/c", f"fixes.path={tmp_path}/fixes.csv")
    answer = mlfix("export", *keys, "to=cleanlab")
    assert "2 applied, 1 of them exclude the sample" in answer.out
    table = pd.read_csv(tmp_path / "c/label_issues.csv").set_index("sample_id")
    assert table.loc["disc/000.png", "given_label"] == "disc"
    assert not table.loc["disc/000.png", "is_label_issue"]
    assert "disc/001.png" not in table.index


def test_labels_that_fixes_bring_are_exported_too(audited: Path, tmp_path: Path, mlfix: Any) -> None:
    (tmp_path / "fixes.csv").write_text("sample_id,new_label\ndisc/000.png,new one\n")
    keys = (f"audit={audited}", f"fixes.path={tmp_path}/fixes.csv", "fixes.ignore=[new_labels]")
    answer = mlfix("export", *keys, "to=cleanlab", f"out={tmp_path}/c")
    assert answer.code == 0, answer.err
    names, labels = json.loads((tmp_path / "c/class_names.json").read_text()), np.load(tmp_path / "c/labels.npy")
    assert "new one" in names
    assert labels.min() >= 0
    assert not (tmp_path / "c/pred_probs.npy").exists()
    assert "labels that the runs were not trained on" in answer.err
    assert mlfix("export", *keys, "to=label_studio", f"out={tmp_path}/l").code == 0
    assert 'value="new one"' in (tmp_path / "l/label_config.xml").read_text()


def test_incomplete_audits_are_errors(audited: Path, tmp_path: Path, mlfix: Any) -> None:
    shutil.copytree(audited, tmp_path / "a")
    lines = (tmp_path / "a/ranking.csv").read_text().splitlines(keepends=True)
    (tmp_path / "a/ranking.csv").write_text("".join(lines[:-5]))
    answer = mlfix("export", f"audit={tmp_path}/a", "to=cleanlab", f"out={tmp_path}/c")
    assert (answer.code, "are of different audits" in answer.err) == (1, True)
    (tmp_path / "a/audit.json").write_text("{}")
    assert "it lacks ranked" in mlfix("export", f"audit={tmp_path}/a", "to=cleanlab", f"out={tmp_path}/c").err
    (tmp_path / "a/audit.json").write_text("{")
    assert "can't be read" in mlfix("export", f"audit={tmp_path}/a", "to=cleanlab", f"out={tmp_path}/c").err


def test_labels_that_changed_since_training_are_reported(
    place: Path, tmp_path: Path, mlfix: Any, audited: Path
) -> None:
    shutil.copytree(place / "o", tmp_path / "o")
    table = pd.read_csv(place / "samples.csv")
    table["label"] = table["label"].where(table["sample_id"] != "square/005.png", "disc")
    table["path"] = [str(place / path) for path in table["path"]]
    table.to_csv(tmp_path / "samples.csv", index=False)
    for run in (tmp_path / "o").rglob("run.json"):
        run.write_text(run.read_text().replace(f"{place}/samples.csv", f"{tmp_path}/samples.csv"))
    answer = mlfix("audit", f"runs={tmp_path}/o", f"out={tmp_path}/a", "logger=none", "n_panels=0")
    assert answer.code == 0, answer.err
    assert "1 labels in the data have changed since training" in answer.err
    columns = ["sample_id", "given_label", "suspicion"]
    pd.testing.assert_frame_equal(read_ranking(tmp_path / "a")[columns], read_ranking(audited)[columns])


@pytest.mark.parametrize(
    ("keys", "words", "code"),
    [
        (["audit=nowhere", "to=cleanlab"], "contains no audit: audit.json is missing", 1),
        (["audit=x", "to=voc"], "to=voc", 2),
        (["audit=x", "to=label_studio", "url=http://x"], "does not contain the path of the image", 2),
        (["audit=x", "to=cleanlab", "top=0"], "top=0", 2),
    ],
)
def test_wrong_exports(tmp_path: Path, mlfix: Any, keys: list[str], words: str, code: int) -> None:
    answer = mlfix("export", f"out={tmp_path}/e", *keys)
    assert answer.code == code
    assert words in answer.err
    assert not (tmp_path / "e").exists()


def test_from_a_notebook(place: Path, tmp_path: Path) -> None:
    from mlfix_train import run_command

    ranking = run_command("audit", f"runs={place}/o", f"out={tmp_path}/a", "logger=none", "n_panels=0")
    assert len(ranking) > 100
    files = run_command("export", f"audit={tmp_path}/a", "to=cleanlab", f"out={tmp_path}/c")
    assert all(path.exists() for path in files)
