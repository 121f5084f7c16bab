"""Arms and fixes as users of the library have them: arrays, tables, mappings, files; what does not fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.comparison.arms import compare_arms
from mlfix_train.audit.comparison.inputs import (
    LoadedArm,
    as_arm,
    as_fixes,
    check_comparable,
    check_distinct,
    load_arm,
    match_held_out,
)
from mlfix_train.audit.comparison.study import ArmRuns
from mlfix_train.data.fixes.table import read_fixes
from mlfix_train.errors import RunError

LABELS = np.array(["speed-50", "speed-70", "stop", "stop"] * 8)
IDS = [f"{label}/{number:02d}.jpg" for number, label in enumerate(LABELS)]
FIXES = {IDS[0]: "invalid", IDS[1]: "stop"}


def predicted(wrong: float, runs: int = 3, seed: int = 0) -> np.ndarray:
    """Predicted labels ``(R, N)``."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((runs, len(LABELS))) < wrong, "other", LABELS)


ORIGINAL, FIXED, CONTROL = predicted(0.5), predicted(0.1, seed=1), predicted(0.5, seed=2)


def tables(preds: np.ndarray) -> list[pd.DataFrame]:
    return [pd.DataFrame({"sample_id": IDS, "label": LABELS, "pred": run}) for run in preds]


def by_arrays(**options: Any) -> dict[str, Any]:
    arms = {"original": ORIGINAL, "fixed": FIXED, "control": CONTROL}
    slices = {"speed": "^speed"}
    return compare_arms(
        **arms, fixes=FIXES, slices=slices, labels=LABELS, sample_ids=IDS, resamples=200, **options
    ).summary


def test_arrays_tables_and_files_give_the_same_comparison(tmp_path: Path) -> None:
    expected = by_arrays()
    options: dict[str, Any] = {"slices": {"speed": "^speed"}, "resamples": 200}
    arms = {"original": tables(ORIGINAL), "fixed": tables(FIXED), "control": tables(CONTROL)}
    fixes = pd.DataFrame({"sample_id": FIXES.keys(), "new_label": FIXES.values()})
    assert compare_arms(**arms, fixes=fixes, **options).summary == expected
    assert compare_arms(**arms, fixes=fixes.set_index("sample_id"), **options).summary == expected
    for name, runs in arms.items():
        for number, table in enumerate(runs):
            table.to_parquet(tmp_path / f"{name}-{number}.parquet", index=False)
    fixes.to_csv(tmp_path / "fixes.csv", index=False)
    globs = {"original": str(tmp_path / "original-*.parquet"), "fixed": [str(tmp_path / "fixed-*")]}
    paths = [tmp_path / f"control-{number}.parquet" for number in range(3)]
    found = compare_arms(**globs, control=paths, fixes=tmp_path / "fixes.csv", **options)
    assert found.summary == expected


def test_errors_of_arrays_by_hand() -> None:
    result = by_arrays()["slices"]["all"]
    clean = np.where(np.arange(len(LABELS)) == 1, "stop", LABELS)
    assert result["error"]["original_on_original"] == pytest.approx(100 * (ORIGINAL != LABELS).mean(), abs=1e-5)
    assert result["error"]["fixed_on_clean"] == pytest.approx(100 * (clean != FIXED)[:, 1:].mean(), abs=1e-5)


def test_the_result_is_a_table_markdown_and_files(tmp_path: Path) -> None:
    comparison = compare_arms(ORIGINAL, FIXED, fixes=FIXES, labels=LABELS, sample_ids=IDS, resamples=200)
    row = comparison.table.loc["all"]
    effect = comparison.summary["slices"]["all"]["effect"]
    assert (row["training"], row["p_value"]) == (effect["training"], effect["p_value"])
    assert [row["training_low"], row["training_high"]] == effect["training_ci95"]
    assert set(comparison.label_changes["label"]) == set(LABELS)
    assert comparison.headline in comparison._repr_markdown_()
    assert repr(comparison) == f"<Comparison of 1 slices: {comparison.headline}>"
    charts = comparison.report(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"summary.json", "compare.md", "compare.html", *(chart.name for chart in charts)}


def test_a_mapping_names_the_runs_and_pairs_them_by_name() -> None:
    first, second = (dict(zip(("a", "b", "c"), tables(preds), strict=True)) for preds in (ORIGINAL, FIXED))
    summary = compare_arms(first, second, fixes=FIXES, resamples=200).summary
    assert summary["arms"]["fixed"] == {"runs": ["a", "b", "c"], "paired": True}


@pytest.mark.parametrize("labels", [None, LABELS[:5]])
def test_an_array_needs_a_label_for_every_sample(labels: np.ndarray | None) -> None:
    with pytest.raises(RunError, match=r"original= is an array of shape \(3, 32\), with .* labels(.|\n)*labels="):
        as_arm("original", ORIGINAL, labels)


def test_fixes_of_another_tool_are_matched_to_held_out_samples(tmp_path: Path) -> None:
    """cleanlab's table may name samples without their suffix; most of its rows are not held out."""
    rows = [f"{name.removesuffix('.jpg')},{number < 3}" for number, name in enumerate(IDS)]
    (tmp_path / "issues.csv").write_text("\n".join(["sample_id,is_label_issue", *rows, "stop/99,True"]) + "\n")
    arm = ArmRuns("original", {"0": tables(ORIGINAL)[0]})
    fixes = match_held_out(read_fixes(tmp_path / "issues.csv"), arm)
    assert fixes["new_label"].to_dict() == dict.fromkeys(IDS[:3], "invalid")
    assert fixes.attrs["outside"] == 1


def test_fixes_of_training_samples_are_counted_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ["sample_id,new_label", f"{IDS[0]},invalid", "stop/train-1.jpg,invalid", "new/train-2.jpg,brand-new"]
    (tmp_path / "fixes.csv").write_text("\n".join(lines) + "\n")
    fixes = match_held_out(read_fixes(tmp_path / "fixes.csv"), ArmRuns("original", {"0": tables(ORIGINAL)[0]}))
    assert fixes["new_label"].to_dict() == {IDS[0]: "invalid"}
    assert fixes.attrs["outside"] == 2
    assert not caplog.records


def loaded(name: str, state: dict[str, Any] | None = None, path: str = "") -> LoadedArm:
    states = {} if state is None else {Path(path or name): state}
    return LoadedArm(ArmRuns(name, {"0": tables(ORIGINAL)[0]}), states, [path or name])


def state(**changes: Any) -> dict[str, Any]:
    identity = {"arm": "original", "seed": 0, "fixes": None, "split": {"seed": 1, "fold": None}, "epochs": 3}
    return {"labels": ["speed-50", "stop"], "identity": {**identity, **changes}}


def test_runs_may_differ_in_arm_seed_and_fold() -> None:
    other = state(arm="fixed", seed=5, split={"seed": 1, "fold": 2})
    check_comparable({"original": loaded("original", state()), "fixed": loaded("fixed", other)}, None)


@pytest.mark.parametrize(
    ("change", "ignored", "problem"),
    [
        ({"epochs": 4}, "settings", "were trained with different settings"),
        ({"split": {"seed": 2, "fold": None}}, "settings", "split.seed: 1 -> 2"),
        ({"fixes": "0" * 64}, "fixes", "fixed was not trained with fixes.path=f.csv"),
    ],
)
def test_other_differences_are_errors_unless_ignored(change: dict[str, Any], ignored: str, problem: str) -> None:
    arms = {"original": loaded("original", state()), "fixed": loaded("fixed", state(**change))}
    fixes = pd.DataFrame({"new_label": ["invalid"]}, index=[IDS[0]])
    with pytest.raises(RunError, match=problem):
        check_comparable(arms, fixes, (), "f.csv")
    check_comparable(arms, fixes, (ignored,), "f.csv")


def test_runs_with_other_labels_are_errors_unless_ignored() -> None:
    arms = {"original": loaded("original", state()), "fixed": loaded("fixed", {**state(), "labels": ["stop", "go"]})}
    with pytest.raises(RunError, match="fixed was trained on 2 labels, original on 2; they differ in go, speed-50"):
        check_comparable(arms, None)
    check_comparable(arms, None, ("labels",))


def test_a_run_in_two_arms_is_an_error() -> None:
    with pytest.raises(RunError, match="original= and fixed= contain the same run: /o/seed=0"):
        check_distinct({name: loaded(name, None, "/o/seed=0") for name in ("original", "fixed")})


def test_no_runs_at_a_path(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"original=.*nowhere matches nothing"):
        load_arm("original", tmp_path / "nowhere")


def test_frames_of_numbers_become_text() -> None:
    frame = pd.DataFrame({"sample_id": [7, 8], "label": [1, 2], "pred": [1.0, 1.0], "loss": [0.1, 2.0]})
    table = as_arm("original", [frame]).predictions["0"]
    assert table[["sample_id", "label", "pred"]].to_numpy().tolist() == [["7", "1", "1"], ["8", "2", "1"]]
    assert as_arm("original", {"a": frame}).predictions["a"]["pred"].tolist() == ["1", "1"]


def test_fixes_by_other_names_are_matched_however_they_are_given(caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = {f"C:\\data\\{name.replace('/', chr(92))}": label for name, label in FIXES.items()}
    assert (
        by_arrays()
        == compare_arms(
            ORIGINAL,
            FIXED,
            CONTROL,
            fixes=elsewhere,
            slices={"speed": "^speed"},
            labels=LABELS,
            sample_ids=IDS,
            resamples=200,
        ).summary
    )
    caplog.clear()
    as_fixes({"nowhere/1.jpg": "stop"}, as_arm("original", tables(ORIGINAL)))
    assert "none of the 1 fixes is of a held-out sample: fixes name nowhere/1.jpg" in caplog.text
    with pytest.raises(RunError, match="fixes= is a NoneType"):
        as_fixes(None, as_arm("original", tables(ORIGINAL)))  # type: ignore[arg-type]


def test_tables_of_probabilities_predict_their_likeliest_label() -> None:
    names = sorted(set(LABELS))
    shares = pd.DataFrame({name: np.where(name == LABELS, 0.75, 0.25 / (len(names) - 1)) for name in names})
    table = pd.concat([pd.DataFrame({"sample_id": IDS, "label": LABELS}), shares], axis=1)
    assert as_arm("original", [table]).predictions["0"]["pred"].tolist() == list(LABELS)
    with pytest.raises(RunError, match="no column pred, nor a column of probabilities"):
        as_arm("original", [table[["sample_id", "label"]]])
