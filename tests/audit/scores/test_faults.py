"""Other faults than wrong labels: planted ones are found and nothing else, whatever the other images are like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from image_helpers import texture
from scipy import ndimage

from mlfix_train import Audit
from mlfix_train.audit.files import read_audit
from mlfix_train.audit.predictions.held_out import merge_runs
from mlfix_train.audit.predictions.table import predictions_table
from mlfix_train.audit.review.samples import FAULT, make_samples
from mlfix_train.audit.review.views import ViewSpec, make_view
from mlfix_train.audit.scores.faults import FAULT_KINDS, FaultKind, fault_names, fault_threshold, find_faults
from mlfix_train.audit.scores.knn import KnnVote, NeighbourScores
from mlfix_train.audit.scores.ranking import rank
from mlfix_train.audit.scores.registry import Evidence

KIND = FaultKind("odd", "oddness", 0.7, "Odd from {threshold}.")


def test_a_threshold_is_bad_in_itself_and_unusual() -> None:
    rng = np.random.default_rng(0)
    low, wide = rng.uniform(0, 0.1, 500), rng.uniform(0.2, 0.6, 500)
    assert fault_threshold(low, KIND) == 0.7, "unusual, but not bad"
    q1, q3 = np.percentile(wide, [25, 75])
    assert fault_threshold(wide, KIND) == pytest.approx(q3 + 3 * (q3 - q1))
    assert fault_threshold(np.append(wide, np.nan), KIND) == fault_threshold(wide, KIND)
    assert fault_threshold(np.full(9, 0.9), KIND) > 0.9, "what all images are is not unusual"
    ratio = replace(KIND, limit=3.0, scale="log")
    values = np.exp(rng.normal(size=500))
    q1, q3 = np.percentile(np.log(values), [25, 75])
    assert fault_threshold(values, ratio) == pytest.approx(np.exp(q3 + 3 * (q3 - q1)))
    share = replace(KIND, scale="logit")
    q1, q3 = np.percentile(np.log(wide / (1 - wide)), [25, 75])
    assert fault_threshold(wide, share) == pytest.approx(1 / (1 + np.exp(-(q3 + 3 * (q3 - q1)))))


def test_few_that_are_bad_are_unusual_however_wide_the_rest_is_spread() -> None:
    values = np.concatenate([np.linspace(0, 0.69, 190), np.full(10, 0.75)])
    assert fault_threshold(values, KIND) > 1, "no score reaches the fence"
    assert fault_threshold(values, replace(KIND, few=0.05)) == 0.7
    assert fault_threshold(values, replace(KIND, few=0.04)) > 1


def planted() -> tuple[np.ndarray, dict[str, list[int]]]:
    images = texture(300)
    images[[5, 6]] = images[[5, 6]] // 12
    images[[20, 21]] = 245 + images[[20, 21]] // 26
    for row in (30, 31):
        images[row] = ndimage.gaussian_filter(images[row].astype(float), (5, 5, 0)).round()
    images[[40, 41]] = (90, 120, 30)
    return images, {"dark": [5, 6], "bright": [20, 21], "blurred": [30, 31], "nearly empty": [40, 41]}


def audit_of(images: np.ndarray, title: str = "t") -> Audit:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=len(images))
    logits = rng.normal(size=(len(images), 3)) + 4 * np.eye(3)[labels]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Audit.from_predictions(labels, p, images=images, class_names=["cat", "dog", "fox"], title=title)


def test_planted_faults_are_found_alone_and_reach_files_and_page(tmp_path: Path) -> None:
    images, wanted = planted()
    audit = audit_of(images)
    ids = audit.ranking["sample_id"].astype(int).to_numpy()
    found = {fault.name: sorted(ids[fault.rows].tolist()) for fault in audit.faults if len(fault.rows)}
    dim = found.pop("nearly empty")
    assert set(dim) >= {40, 41}
    assert set(dim) <= {40, 41, 5, 6, 20, 21}, "faint ones may be so, too"
    assert found == {name: rows for name, rows in wanted.items() if name != "nearly empty"}
    assert [one.name for one in audit.slices if one.kind == "fault"] == [f.name for f in audit.faults if len(f.rows)]
    plain = audit_of(texture(300)).ranking
    assert audit.ranking["suspicion"].tolist() == plain["suspicion"].tolist(), "faults say nothing about labels"
    for one in (one for one in audit.slices if one.kind == "fault"):
        assert one.values is not None
        assert audit.ranking[one.score].iloc[one.rows].tolist() == one.values.tolist()
        assert (np.diff(one.values) <= 0).all()
        assert one.values.min() >= one.threshold

    audit.save(tmp_path / "audit", n_panels=4)
    rows = pd.read_csv(tmp_path / "audit" / "slices.csv").set_index("name")
    assert rows.loc["dark", ["kind", "samples", "score"]].tolist() == ["fault", 2, "darkness"]
    assert rows.loc["dark", "worst"] >= rows.loc["dark", "threshold"] == 0.9
    assert any(path.name.endswith("-dark.png") for path in (tmp_path / "audit" / "panels").iterdir())
    about, ranking = read_audit(tmp_path / "audit")
    dark = next(fault for fault in about["faults"] if fault["kind"] == "dark")
    assert (dark["samples"], dark["checked"], dark["threshold"]) == (2, 300, 0.9)
    assert ranking.set_index("sample_id")["fault"].loc[["5", "30", "0"]].tolist()[1:] == ["blurred", ""]
    assert audit.samples is not None
    samples = make_samples(audit.samples, ranking)
    nothing = np.full(len(samples), -1, np.int32)
    view = make_view(samples, ViewSpec(group_by=f"column:{FAULT}"), nothing, nothing >= 0)
    assert sorted(samples.ids[view.rows].astype(int)) == sorted({row for rows in wanted.values() for row in rows})
    assert {"dark", "bright", "blurred", "nearly empty"} <= {part for name in view.names for part in name.split(", ")}
    assert FAULT not in samples.details(0)
    assert "dark" in samples.details(5)[FAULT]


def test_a_set_that_is_dark_or_blurred_as_a_whole_has_no_faults() -> None:
    images = texture(200)
    dark = audit_of(images // 8)
    assert not any(len(fault.rows) for fault in dark.faults if fault.kind in ("dark", "blurred"))
    soft = ndimage.gaussian_filter(images.astype(float), (0, 3, 3, 0)).round().astype(np.uint8)
    assert not any(len(fault.rows) for fault in audit_of(soft).faults)


def test_without_images_only_labels_are_looked_at() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), 60)
    audit = Audit.from_predictions(p.argmax(1), p)
    assert [fault.kind for fault in audit.faults] == ["overlapping labels"]
    assert audit.ranking["darkness"].isna().all()
    assert (audit.ranking["fault"] == "").all()


def evidence_of(n: int = 100) -> Evidence:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=n)
    logits = rng.normal(size=(n, 3)) + 5 * np.eye(3)[labels]
    held = merge_runs([predictions_table([f"s{i}" for i in range(n)], labels, logits, ["a", "b", "c"])])
    outlierness = rng.uniform(0.8, 1.2, n).astype(np.float32)
    outlierness[[3, 4]] = 9.0, 8.0
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p[3] = 0.34, 0.33, 0.33
    share = np.full(n, 0.3, np.float32)
    votes = KnnVote(labels[:, None], np.ones((n, 1), np.float32), np.ones(n, int))
    return Evidence(held, neighbours=NeighbourScores(votes, {}, labels, share, outlierness), probabilities=p)


def test_an_outlier_is_far_and_of_no_class() -> None:
    evidence = evidence_of()
    ranking = rank(evidence).table
    found = {fault.kind: ranking["sample_id"].iloc[fault.rows].tolist() for fault in find_faults(ranking, evidence)}
    assert found["outlier"] == ["s3"], "s4 is as far, but the models are sure of it"


def test_near_duplicates_across_the_split_leak() -> None:
    evidence = evidence_of(30)
    ranking = rank(evidence).table
    ids = [f"s{i}" for i in range(30)] + ["t0", "t1"]
    samples = pd.DataFrame({"split": ""}, index=ids)
    groups = pd.Series(-1, index=ids)
    groups[["s0", "t0", "t1"]], groups[["s1", "s2"]] = 0, 1
    found = next(f for f in find_faults(ranking, evidence, samples, groups) if f.kind.startswith("duplicate"))
    assert ranking["sample_id"].iloc[found.rows].tolist() == ["s0"]
    assert found.values.tolist() == [2.0]
    samples.loc["s1", "split"] = "test"
    found = next(f for f in find_faults(ranking, evidence, samples, groups) if f.kind.startswith("duplicate"))
    assert sorted(ranking["sample_id"].iloc[found.rows]) == ["s0", "s1", "s2"]
    same = samples.iloc[:30].assign(split="")
    kinds = [fault.kind for fault in find_faults(ranking, evidence, same, groups)]
    assert "duplicate across the split" not in kinds, "with one side there is nothing to look for"


def test_a_sample_may_have_several_faults() -> None:
    images = texture(100)
    images[7] = 0
    audit = audit_of(images)
    assert audit.ranking.set_index("sample_id")["fault"].loc["7"] == "dark, nearly empty"
    assert fault_names([], 2).tolist() == ["", ""]


def test_kinds_say_what_they_are() -> None:
    for kind in FAULT_KINDS:
        text = kind.description.format(threshold="1", complement="2")
        assert text.endswith(".")
        assert "{" not in text
