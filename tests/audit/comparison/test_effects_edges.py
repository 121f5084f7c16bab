"""The edges of the evidence: rounding, extreme effects, few groups, odd names; each was once wrong."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.comparison import effects as evidence
from mlfix_train.audit.comparison.arms import ArmRuns, compare_arms
from mlfix_train.audit.comparison.effects import Part, Variance
from mlfix_train.audit.comparison.label_changes import label_changes
from mlfix_train.audit.comparison.study import Study, pair_runs
from mlfix_train.audit.predictions.files import read_metadata, read_predictions_file
from mlfix_train.audit.reporting import chart_style as figures
from mlfix_train.audit.reporting import comparison_charts as charts
from mlfix_train.audit.reporting.comparison_markdown import markdown
from mlfix_train.audit.scores.slices import select_slices
from mlfix_train.commands.compare import _file_names
from mlfix_train.errors import ConfigError, DataError, RunError


@pytest.mark.parametrize("effect", [0.15, 0.4, 1.0, -1.0, 5.0, 300.0])
@pytest.mark.parametrize("variances", [(1.0,), (1.0, 0.3)])
def test_runs_needed_is_the_smallest_answer(variances: tuple[float, ...], effect: float) -> None:
    for groups, goal in itertools.product((0.0, 0.001), (0.5, 0.8, 0.95)):
        known = Variance(variances, (10,) * len(variances), groups, 500, 1.0)
        needed = evidence.runs_needed(effect, known, goal)
        assert needed is not None and needed >= 2
        assert evidence.power(effect, known, needed) >= goal
        assert needed == 2 or evidence.power(effect, known, needed - 1) < goal


@pytest.mark.parametrize(("effect", "wanted"), [(0.15, 351), (0.5, 34), (1.0, 10), (5.0, 3)])
def test_runs_needed_by_known_answers(effect: float, wanted: int) -> None:
    """Paired t-test, two-sided at 5%, 80% power: any table of sample sizes has these."""
    assert evidence.runs_needed(effect, Variance((1.0,), (10,), 0.0, 500, 1.0)) == wanted


def test_few_groups_do_not_turn_the_answer_round() -> None:
    known = Variance((1.0,), (5,), 0.01, 3, 1.0)
    assert evidence.power(0.5, known, 159) >= 0.8 > evidence.power(0.5, known, 10_000)
    assert evidence.runs_needed(0.5, known) is not None


def test_equal_runs_have_a_point_as_interval() -> None:
    for value, runs in itertools.product((0.1, 0.3, 100 / 7), (3, 6, 7, 10)):
        found = evidence.interval([Part(np.full(runs, value), np.zeros((runs, 4)))])
        assert found == pytest.approx([value, value])


def test_equal_arms_of_unequal_runs_can_be_written() -> None:
    table = pd.DataFrame({"sample_id": [f"s{i}" for i in range(13)], "label": "a", "pred": ["b"] * 3 + ["a"] * 10})
    fixes = pd.DataFrame({"new_label": ["invalid"]}, index=pd.Index(["s0"], dtype=object))
    arms = [ArmRuns(n, {str(i): table for i in range(r)}, False) for n, r in (("original", 3), ("fixed", 6))]
    json.dumps(compare_arms(*arms, fixes, resamples=100), allow_nan=False)


@pytest.mark.parametrize("n", [13, 14, 30, 50])
def test_a_label_that_all_runs_learn_is_shown(n: int) -> None:
    clean = np.zeros(n, int)
    preds = {"original": np.full((6, n), 9), "fixed": np.zeros((6, n), int)}
    study = Study(pd.Index(range(n)), np.array(["a"], object), clean, clean, np.arange(n), False, {}, preds)
    (row,) = label_changes(study, True)
    assert row["shown"]
    assert row["p_value"] == pytest.approx(max(2 / 2**6, 2 / 2**n))


@pytest.mark.parametrize("spec", [None, True, []])
def test_a_slice_that_is_none(spec: object) -> None:
    with pytest.raises(ConfigError, match=r"slices\.x"):
        select_slices({"x": spec}, np.array(["a", "b"], object), pd.Index(["s", "t"]))  # type: ignore[dict-item]


def test_a_slice_of_digits_is_an_expression() -> None:
    found = select_slices({"x": 50}, np.array(["speed-50", "b"], object), pd.Index(["s", "t"]))  # type: ignore[dict-item]
    assert found["x"].tolist() == [True, False]


def test_a_column_slice_with_a_wrong_expression() -> None:
    meta = pd.DataFrame({"c": ["x"]}, index=["s"])
    with pytest.raises(ConfigError, match="not a valid regular expression"):
        select_slices({"x": {"column": "c", "match": "("}}, np.array(["a"], object), pd.Index(["s"]), meta)


def test_whole_numbers_of_a_column_stay_whole() -> None:
    meta = pd.DataFrame({"year": [2019]}, index=["s"])
    spec = {"x": {"column": "year", "values": [2019]}}
    found = select_slices(spec, np.array(["a", "b"], object), pd.Index(["s", "t"]), meta)
    assert found["x"].tolist() == [True, False]


def test_a_slice_per_value_does_not_take_anothers_name() -> None:
    meta = pd.DataFrame({"c": ["x", "y"]}, index=["s", "t"])
    with pytest.raises(ConfigError, match="taken"):
        select_slices({"c=x": "b", "c": {"column": "c"}}, np.array(["a", "b"], object), pd.Index(["s", "t"]), meta)


def test_an_index_that_pandas_wrote_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(",sample_id,label,pred\n0,a,x,y\n")
    assert read_predictions_file(tmp_path / "p.csv")["sample_id"].tolist() == ["a"]


@pytest.mark.parametrize(
    ("text", "told"),
    [("sample_id,label,pred\na,x,y,\nb,x,y,\n", "line 2"), ("sample_id,label,pred\na,x,y\n\nb,,y\n", "line 4")],
)
def test_lines_of_a_csv_are_counted_as_an_editor_does(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(RunError, match=told):
        read_predictions_file(tmp_path / "p.csv")


@pytest.mark.parametrize(
    "change", [{"label": [None, "a"]}, {"pred": ["a", None]}, {"label": ["", "a"]}, {"loss": ["x", "1"]}, "empty"]
)
def test_parquet_is_checked_as_csv_is(change: object, tmp_path: Path) -> None:
    frame = pd.DataFrame({"sample_id": ["1", "2"], "label": ["a", "b"], "pred": ["b", "b"], "loss": [1.0, 2.0]})
    frame = frame.head(0) if change == "empty" else frame.assign(**change)  # type: ignore[arg-type]
    frame.to_parquet(tmp_path / "p.parquet", index=False)
    with pytest.raises(RunError, match=r"p\.parquet"):
        read_predictions_file(tmp_path / "p.parquet")


def test_a_small_control_arm_does_not_cost_the_main_comparison_its_runs() -> None:
    sizes = (("original", 20), ("fixed", 20), ("control", 2))
    found = pair_runs([ArmRuns(n, {f"seed={i}": pd.DataFrame() for i in range(k)}) for n, k in sizes])
    assert [len(arm.predictions) for arm in found.arms] == [20, 20, 2]
    assert found.paired == {"original", "fixed"}


def test_markdown_tables_hold_names_with_bars() -> None:
    table = pd.DataFrame({"sample_id": list("abcd"), "label": list("xxyy"), "pred": list("xyyx")})
    arms = [ArmRuns(n, {"seed=0": table}) for n in ("original", "fixed")]
    fixes = pd.DataFrame({"new_label": ["invalid"]}, index=pd.Index(["a"], dtype=object))
    text = markdown(compare_arms(*arms, fixes, {"x|y": "x"}, resamples=100))
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_file_names_differ() -> None:
    for slices in (["all", "x y", "x-y", "x-y-1"], ["all", "a", "a-effect"], ["all", "labels", "A", "a"]):
        files = [f.lower() for n in _file_names(slices) for f in (n, f"{n}-effect")]
        assert len({*files, "labels"}) == len(files) + 1, files


def test_equal_errors_of_100_percent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list = []
    save = figures.save
    monkeypatch.setattr(figures, "save", lambda f, p: (got.append(f), save(f, p))[1])
    charts.arms_histogram({"original_on_clean": [100.0] * 9}, tmp_path / "a.png", "t")
    assert not got[0].axes[0].xaxis.get_offset_text().get_text()


def test_metadata_needs_ids_alone(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("sample_id,country\n007,de\n8,NA\n")
    found = read_metadata(tmp_path / "m.csv")
    assert found["country"].to_dict() == {"007": "de", "8": "NA"}
    (tmp_path / "m.csv").write_text("id,country\n7,de\n")
    with pytest.raises(DataError, match=r"samples=.*no column sample_id"):
        read_metadata(tmp_path / "m.csv")
    with pytest.raises(DataError, match=r"samples=.*can't be read"):
        read_metadata(tmp_path / "gone.csv")
