"""The Audit object: from arrays and from runs, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlfix_train.audit.audit import Audit
from mlfix_train.audit.embedded import predict_out_of_fold
from mlfix_train.audit.files import read_audit
from mlfix_train.audit.predictions.held_out import merge_runs
from mlfix_train.audit.predictions.table import predictions_table
from mlfix_train.audit.reporting.text import next_step
from mlfix_train.audit.scores.knn import neighbours_needed, score_neighbours
from mlfix_train.audit.scores.ranking import rank
from mlfix_train.audit.scores.registry import Evidence
from mlfix_train.audit.similarity.neighbours import nearest_neighbours
from mlfix_train.audit.similarity.order_files import find_embeddings
from mlfix_train.errors import ConfigError, DataError, RunError


class Problem:
    """Labels of four classes, 3% of them wrong; predictions and embeddings that know better."""

    def __init__(self, n: int = 2000, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.true = rng.integers(4, size=n)
        self.wrong = rng.random(n) < 0.03
        self.labels = np.where(self.wrong, (self.true + 1) % 4, self.true)
        self.logits = rng.normal(size=(n, 4)) + 4 * np.eye(4)[self.true]
        p = np.exp(self.logits)
        self.pred_probs = p / p.sum(1, keepdims=True)
        self.embeddings = rng.normal(size=(n, 6)) + 3 * np.eye(6)[self.true]
        self.ids = [str(row) for row in range(n)]


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem()


def test_arrays_are_ranked_like_runs_of_the_same_predictions(problem: Problem) -> None:
    audit = Audit.from_predictions(problem.labels, problem.pred_probs, problem.embeddings)
    held = merge_runs([predictions_table(problem.ids, problem.labels, problem.logits, list("0123"))], list("0123"))
    found = nearest_neighbours(problem.embeddings, neighbours_needed(None))
    near = score_neighbours(found, held.labels[np.argsort(held.rows_of(problem.ids))])
    layer = predict_out_of_fold(problem.embeddings, problem.labels, 4)
    wanted = rank(Evidence(held, neighbours=near, probabilities=problem.pred_probs, probe_logits=layer))
    assert set(audit.kinds) == {"pred_probs", "probe", "neighbours"}
    assert list(audit.kinds.values()) == list(wanted.kinds.values())
    assert audit.ranking["sample_id"].tolist() == wanted.table["sample_id"].tolist()
    np.testing.assert_allclose(audit.ranking["suspicion"], wanted.table["suspicion"], atol=1e-4)
    head = audit.ranking["sample_id"].head(problem.wrong.sum()).astype(int)
    assert problem.wrong[head].mean() > 0.8


def test_embeddings_alone_are_enough(problem: Problem) -> None:
    audit = Audit.from_predictions(problem.labels, embeddings=problem.embeddings)
    assert set(audit.kinds) == {"probe", "neighbours"}
    head = audit.ranking["sample_id"].head(problem.wrong.sum()).astype(int)
    assert problem.wrong[head].mean() > 0.7
    named = Audit.from_predictions([f"class {code}" for code in problem.labels], embeddings=problem.embeddings)
    assert named.ranking["sample_id"].tolist() == audit.ranking["sample_id"].tolist()
    with pytest.raises(DataError, match="neither pred_probs nor embeddings"):
        Audit.from_predictions(problem.labels)
    with pytest.raises(DataError, match="row 0 has the label -1"):
        Audit.from_predictions(problem.labels - 1 - problem.labels[0], embeddings=problem.embeddings)
    with pytest.raises(DataError, match="the same label"):
        Audit.from_predictions(np.zeros(2000, int), embeddings=problem.embeddings)
    broken = problem.embeddings.copy()
    broken[7] = np.nan
    with pytest.raises(DataError, match="first is row 7"):
        Audit.from_predictions(problem.labels, embeddings=broken)


def test_without_a_look_at_labels_it_is_not_told_how_many_are_wrong(problem: Problem) -> None:
    audit = Audit.from_predictions(problem.labels, problem.pred_probs)
    assert audit.estimate is None and audit.kinds == {"pred_probs": 1.0}
    assert "can't be told before" in next_step(audit.about)
    assert any("given no images" in note for note in audit.notes)


def test_names_of_classes_whatever_their_order(problem: Problem) -> None:
    names = ["stop", "give way", "50", "80"]
    by_code = Audit.from_predictions(problem.labels, problem.pred_probs, class_names=names)
    by_name = Audit.from_predictions([names[code] for code in problem.labels], problem.pred_probs, class_names=names)
    pd.testing.assert_frame_equal(by_code.ranking, by_name.ranking)
    numbered = Audit.from_predictions(problem.labels, problem.pred_probs).ranking
    for column in ("given_label", "predicted_label", "suggested_label"):
        assert by_code.ranking[column].tolist() == [names[int(code)] for code in numbered[column]]
    assert by_code.ranking["sample_id"].tolist() == numbered["sample_id"].tolist()
    assert by_code.ranking["confident_score"].tolist() == numbered["confident_score"].tolist()
    alphabetical = Audit.from_predictions(np.array(list("abcd"))[problem.labels], problem.pred_probs)
    assert alphabetical.ranking["given_label"].tolist() == ["abcd"[int(code)] for code in numbered["given_label"]]


def test_groups_give_twins_and_probabilities_of_zero_are_taken(problem: Problem) -> None:
    groups = [f"track {row // 5}" for row in range(len(problem.labels))]
    sure = np.eye(4)[problem.true]
    audit = Audit.from_predictions(problem.labels, sure, problem.embeddings, groups)
    assert set(audit.kinds) == {"pred_probs", "probe", "neighbours", "twin"}
    assert np.isfinite(audit.ranking["loss"]).all()
    assert audit.evidence.groups is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1]}, "labels has 2 rows, not 2,000"),
        ({"embeddings": np.zeros((3, 2))}, "embeddings has 3 rows"),
        ({"groups": ["a"]}, "groups has 1 rows"),
        ({"labels": np.full(2000, 4)}, "2,000 labels are of no class, such as 4 in row 0"),
        ({"labels": ["x"] * 2000, "class_names": list("abcd")}, "such as 'x' in row 0; the classes are a, b, c, d"),
        ({"labels": ["x"] * 2000}, "there are 1 different labels, but 4 columns in pred_probs"),
        ({"class_names": list("abc")}, "there are 3 class names"),
        ({"class_names": {"a", "b", "c", "d"}}, "class_names is a set"),
        ({"sample_ids": set(map(str, range(2000)))}, "sample_ids is a set"),
        ({"pred_probs": np.full((2000, 4), "x")}, "pred_probs are of the type <U1"),
        ({"pred_probs": np.ones((2000, 4))}, "pred_probs: row 0 is not a probability distribution"),
    ],
)
def test_wrong_arrays_are_named(problem: Problem, change: dict[str, Any], message: str) -> None:
    arguments = {"labels": problem.labels, "pred_probs": problem.pred_probs, **change}
    with pytest.raises(DataError, match=message):
        Audit.from_predictions(**arguments)


def test_what_is_saved_is_read_back(problem: Problem, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (len(problem.labels), 16, 16, 3), dtype=np.uint8)
    audit = Audit.from_predictions(
        problem.labels, problem.pred_probs, problem.embeddings, images=images, slices={"zero": "0"}
    )
    pictures = audit.save(tmp_path / "audit", n_panels=1, marks={"7": "invalid"})
    assert {"worst.png", "loss.png", "errors.png"} <= {picture.path.name for picture in pictures}
    about, ranking = read_audit(tmp_path / "audit")
    assert about["ranked"] == len(ranking) == 2000 and about["label_names"] == list("0123")
    assert audit.estimate is None and about["estimates"] == {}
    pd.testing.assert_frame_equal(ranking, audit.ranking, check_dtype=False, rtol=1e-6)
    slices = pd.read_csv(tmp_path / "audit/slices.csv")
    assert {"pair", "label", "slice"} == set(slices["kind"]) and "zero" in set(slices["name"])
    assert (tmp_path / "audit/report.html").exists()
    np.testing.assert_array_equal(audit.images(["5", "3"]), images[[5, 3]])
    assert audit.to_csv(tmp_path / "r.csv").read_text() == (tmp_path / "audit/ranking.csv").read_text()
    assert json.loads((tmp_path / "audit/audit.json").read_text())["seconds"]["writing"] >= 0
    kept = find_embeddings([tmp_path / "audit"])
    assert kept is not None and kept.ids == problem.ids and kept.used == "the embeddings"
    np.testing.assert_array_equal(np.load(kept.path), problem.embeddings.astype(np.float32))


def test_image_files_become_pixels(problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for row in range(6):
        Image.new("RGB", (20, 30), (40 * row, 0, 0)).save(tmp_path / f"{row}.png")
    files = [str(tmp_path / f"{row}.png") for row in range(6)]
    audit = Audit.from_predictions(problem.labels[:6], problem.pred_probs[:6], images=files)
    assert set(audit.ranking["sample_id"]) == set(files)
    assert audit.images(files[:3])[:, 0, 0, 0].tolist() == [0, 40, 80]


def test_the_review_opens_on_the_ranking(problem: Problem, tmp_path: Path) -> None:
    pytest.importorskip("anywidget")
    from mlfix_train.audit.review.widget import close_review, get_open_session

    images = np.zeros((40, 16, 16, 3), np.uint8)
    x = problem.embeddings[:40]
    audit = Audit.from_predictions(problem.labels[:40], problem.pred_probs[:40], x, images=images, title="forty")
    widget = audit.review(tmp_path / "review", reviewer="me")
    session = get_open_session(tmp_path / "review")
    assert session is not None and session.title == "forty" and len(session.samples) == 40
    assert session.samples.audited and not session.samples.calibrated
    nearest, used = session.similar.nearest(7)
    wanted = np.argsort(np.linalg.norm(x - x[7], axis=1), kind="stable")
    assert used == "the embeddings" and nearest.tolist() == wanted.tolist()
    assert Path(widget.fixes).parent == tmp_path / "review"
    close_review(tmp_path / "review")


def test_nothing_is_printed(problem: Problem, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    audit = Audit.from_predictions(problem.labels, problem.pred_probs)
    audit.save(tmp_path / "audit")
    assert capsys.readouterr().out == ""
    with pytest.raises(DataError, match="no images"):
        audit.review(tmp_path / "review")


def test_files_of_predictions(predictions: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    for seed in range(2):
        predictions(seed=seed).to_parquet(tmp_path / f"run-{seed}.parquet")
    steps: list[str] = []
    audit = Audit.from_runs(
        str(tmp_path / "run-*.parquet"),
        progress=lambda step: lambda done, total: steps.append(f"{step} {done}/{total}"),
    )
    assert steps == ["reading predictions 1/2", "reading predictions 2/2"]
    assert set(audit.ranking["runs"]) == {2}
    assert audit.title == f"{tmp_path.name}, 2 runs"
    assert audit.about["images"] == "prediction files do not list images: set data.root=<folder>, or pass samples="
    with pytest.raises(ConfigError, match="by=order needs order"):
        Audit.from_runs(tmp_path, by="order")
    with pytest.raises(RunError, match="nowhere matches nothing"):
        Audit.from_runs(tmp_path / "nowhere")
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays/pred_probs.npy", np.eye(2))
    with pytest.raises(RunError, match=r"(?s)no run.json.*runs=.*arrays/pred_probs.npy; .* Audit.from_predictions"):
        Audit.from_runs(tmp_path / "arrays")
    assert all(len(repr(one)) < 300 for one in (audit, audit.estimate, audit.evidence, *audit.slices, *audit.faults))
    assert audit.ranking["sample_id"][0] in audit._repr_html_()


def test_arrays_as_people_have_them() -> None:
    import torch

    probabilities = np.eye(3)[[0, 1, 2, 0]] * 0.7 + 0.1
    frame = pd.DataFrame(probabilities, columns=["a", "b", "c"])
    for labels, given in (
        (["a", "b", "c", "b"], frame),
        (torch.tensor([0, 1, 2, 1]), torch.tensor(probabilities)),
        (np.array([0.0, 1.0, 2.0, 1.0]), frame),
    ):
        audit = Audit.from_predictions(labels, given)  # type: ignore[arg-type]
        assert audit.ranking["sample_id"][0] == "3"
    for labels, problem in (
        (np.array([0, 1, np.nan, 1]), "1 labels are missing, the first in row 2"),
        (np.array([0, 1, 1.5, 1]), r"row 2 has the label 1\.5"),
        (np.eye(3)[[0, 1, 2, 1]], r"labels have the shape \(4, 3\)"),
    ):
        with pytest.raises(DataError, match=problem):
            Audit.from_predictions(labels, frame)


def test_unknown_predictions_count_as_neither_right_nor_wrong(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"{i}.jpg" for i in range(40)]
    table = pd.DataFrame({"sample_id": names, "label": ["cat", "dog"] * 20, "label_prob": rng.random(40)})
    table.to_csv(tmp_path / "p.csv", index=False)
    audit = Audit.from_runs(tmp_path / "p.csv")
    below = int((table["label_prob"] < 0.5).sum())
    assert audit.about["predicted_differently"] == 0
    assert audit.about["held_out_error"] is None
    assert (audit.about["labels"], audit.about["label_names"]) == (2, ["cat", "dog"])
    assert any(f"predicted label of {below} samples is unknown" in note for note in audit.notes)
    audit.save(tmp_path / "out", n_panels=0)
    assert json.loads((tmp_path / "out/audit.json").read_text())["held_out_error"] is None
