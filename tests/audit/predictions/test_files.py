"""Predictions in files: MLfix's format, CSV and Parquet, and what is said of each that can't be used."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.predictions.files import (
    PUBLISHED_PHOTO,
    find_prediction_files,
    open_predictions,
    read_metadata,
    read_predictions_file,
    run_names,
)
from mlfix_train.audit.predictions.runs import load_runs
from mlfix_train.audit.scores.ranking import rank_samples
from mlfix_train.data.readers.files import group_names
from mlfix_train.errors import DataError, RunError


@pytest.fixture
def written(tmp_path: Path):
    """Writes a file and returns its path."""

    def write(content: str | bytes, name: str = "preds-1.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# --- MLfix's own files ---


def test_the_published_format(written) -> None:
    table = read_predictions_file(
        written(",pred,loss\nval/speed-50/ab-1.jpg,speed-70,-1.25\nval/stop/c-12.jpg,stop,-0.0\n")
    )
    assert table["sample_id"].tolist() == ["speed-50/ab-1.jpg", "stop/c-12.jpg"]
    assert table["label"].tolist() == ["speed-50", "stop"]
    assert table["pred"].tolist() == ["speed-70", "stop"]
    assert table["loss"].tolist() == [1.25, 0.0], "MLfix writes the negative of the loss"
    assert table.attrs["published"] is True


@pytest.mark.parametrize("folder", ["", "val/", "/data/mtsd/crops/val/", "a b/c,d/"])
def test_folders_before_the_label_are_left_out(folder: str, written) -> None:
    table = read_predictions_file(written(f',pred,loss\n"{folder}stop/x-1.jpg",yield,-2\n'))
    assert table.iloc[0].tolist() == ["stop/x-1.jpg", "stop", "yield", 2.0]


def test_the_published_format_may_lack_losses_and_have_more(written) -> None:
    assert "loss" not in read_predictions_file(written(",pred\nv/stop/1.jpg,stop\n")).columns
    table = read_predictions_file(written(",loss,more,pred\nv/stop/1.jpg,-1,x,yield\n"))
    assert table[["pred", "loss"]].iloc[0].tolist() == ["yield", 1.0]


def test_what_pandas_wrote_is_read_back(published, tmp_path: Path) -> None:
    """A published table, written as MLfix writes it, comes back whole."""
    wanted = published.arms["original"]["0"].head(500)
    frame = pd.DataFrame({"pred": wanted["pred"], "loss": -wanted["loss"]})
    frame.index = pd.Index(wanted["sample_id"]).rename(None)
    frame.to_csv(tmp_path / "original-preds-0.csv")
    found = read_predictions_file(tmp_path / "original-preds-0.csv")
    assert found["sample_id"].tolist() == [name.split("/", 1)[1] for name in wanted["sample_id"]]
    for name in ("label", "pred"):
        assert found[name].tolist() == wanted[name].tolist()
    assert found["loss"].tolist() == pytest.approx(wanted["loss"].tolist(), rel=1e-12)


def test_published_names_of_any_script(written) -> None:
    table = read_predictions_file(written("\ufeff,pred,loss\nval/停止/é-1.jpg,שלום,-1\n"))
    assert table.iloc[0].tolist() == ["停止/é-1.jpg", "停止", "שלום", 1.0]


@pytest.mark.parametrize("path", ["1.jpg", "/1.jpg", "val//1.jpg", "val/stop/", "", "val\\stop\\1.jpg"])
def test_a_path_without_a_labels_folder_is_refused_by_line(path: str, written) -> None:
    file = written(f",pred,loss\nval/stop/0.jpg,stop,-1\n{path},stop,-1\n")
    with pytest.raises(RunError, match=rf"^{re.escape(str(file))}: line 3 has the path ") as error:
        read_predictions_file(file)
    assert repr(path) in error.value.problem
    assert "<folder>/<label>/<file>" in error.value.hint


# --- our columns ---


def test_a_csv_with_our_columns(written) -> None:
    table = read_predictions_file(written('loss,pred,sample_id,label\n0.5,b,"a,1.jpg",020\n1e-3,020,NA,b\n'))
    assert table["sample_id"].tolist() == ["a,1.jpg", "NA"]
    assert table["label"].tolist() == ["020", "b"] and table["pred"].tolist() == ["b", "020"], "labels are text"
    assert table["loss"].tolist() == [0.5, 0.001], "here a loss is a loss"
    assert table.attrs["published"] is False


@pytest.mark.parametrize("label", ["NA", "null", "nan", "None", "True", "1e5", '" x "', "<b>&", "停"])
def test_labels_stay_what_they_are(label: str, written) -> None:
    table = read_predictions_file(written(f"sample_id,label,pred\n1,{label},{label}\n"))
    assert table.iloc[0].tolist() == ["1", label.strip('"'), label.strip('"')]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_spreadsheets_write(encoding: str, written) -> None:
    text = "sep=;\r\nSample_ID;label;pred;loss;\r\na;stop; stop;0,5;\r\nb;1;1,0;1,25;\r\n"
    table = read_predictions_file(written(text.encode(encoding)))
    assert table[["sample_id", "label", "loss"]].to_numpy().tolist() == [["a", "stop", 0.5], ["b", "1", 1.25]]
    assert table["pred"].tolist()[0] == "stop"


def test_ids_and_labels_that_pandas_made_floats(tmp_path: Path) -> None:
    frame = pd.DataFrame({"sample_id": [1.0, 2.0], "label": [3, 4], "pred": [4.0, 4.0], "loss": [2.0, 0.1]})
    frame.to_parquet(tmp_path / "p.parquet")
    table = read_predictions_file(tmp_path / "p.parquet")
    assert table[["sample_id", "label", "pred"]].to_numpy().tolist() == [["1", "3", "4"], ["2", "4", "4"]]


def test_capitals_and_line_ends_of_windows(written) -> None:
    table = read_predictions_file(written(b"\xef\xbb\xbfsample_id,label,pred\r\n1,a,b\r\n", "P.CSV"))
    assert table.iloc[0].tolist() == ["1", "a", "b"]


@pytest.mark.parametrize("name", ["p.parquet", "p.pq", "p.PARQUET"])
def test_parquet(name: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"sample_id": ["1", "2"], "label": ["a", "b"], "pred": ["b", "b"], "loss": [2.0, 0.1]})
    frame.to_parquet(tmp_path / name, index=False)
    table = read_predictions_file(str(tmp_path / name))
    assert table.attrs["published"] is False
    pd.testing.assert_frame_equal(table, frame, check_dtype=False)


# --- mistakes ---

HEAD = "sample_id,label,pred,loss\n1,a,b,0.5\n"


@pytest.mark.parametrize(
    ("content", "problem", "hint"),
    [
        ("sample_id,pred\n1,a\n", "lacks the columns label; it has sample_id, pred", "sample_id, label and one of"),
        ("a;b\n1;2\n", "lacks the columns sample_id, label, pred; it has a, b", "sample_id, label and one of"),
        ("cat/1.jpg,cat,dog\n", "its first line seems to be data", "sample_id, label and one of"),
        (",label,sample\nx/y/1.jpg,a,b\n", "lacks the columns sample_id, pred", "MLfix's own: paths, pred, loss"),
        (HEAD + "2,,b,1\n", "line 3 has no label", "complete or remove"),
        (HEAD + "2,a,,1\n", "line 3 has no pred", "complete or remove"),
        (HEAD + ",a,b,1\n", "line 3 has no sample_id", "complete or remove"),
        (HEAD + "2,a\n", "line 3 has no pred", "complete or remove"),
        (",pred,loss\nv/a/1.jpg,,-1\n", "line 2 has no pred", "complete or remove"),
        (HEAD + "2,a,b,1\n1,a,b,1\n2,b,b,2\n", "twice: 1 (line 2, line 4), 2 (line 3, line 5)", "one row per sample"),
        (
            ",pred,loss\nx/a/1.jpg,a,-1\ny/a/1.jpg,a,-1\n",
            "names 1 sample(s) twice: a/1.jpg (line 2, line 3)",
            "one row per sample",
        ),
        (HEAD + "2,a,b,small\n", "line 3 has the loss 'small'", "losses must be finite numbers"),
        (HEAD + "2,a,b,\n", "line 3 has the loss ''", "losses must be finite numbers"),
        (HEAD + "2,a,b,nan\n", "line 3 has the loss 'nan'", "losses must be finite numbers"),
        (",pred,loss\nv/a/1.jpg,b,--1\n", "line 2 has the loss '--1'", "losses must be finite numbers"),
        (HEAD + "2,a,b,1,9\n", "line 3 has 5 cells", "double quotes"),
        ("", "lacks the columns sample_id, label, pred", "predictions have the columns"),
        ("\n\n", "lacks the columns sample_id, label, pred", "predictions have the columns"),
        ("sample_id,label,pred\n", "contains no predictions", "one row per held-out sample"),
        ("sample_id,label,pred\n1,é,b\n".encode("latin-1"), "line 2 is not UTF-8", "UTF-8"),
    ],
)
def test_errors_name_the_file_the_problem_and_a_hint(content: str | bytes, problem: str, hint: str, written) -> None:
    path = written(content, "bad-3.csv")
    with pytest.raises(RunError) as error:
        read_predictions_file(path)
    assert error.value.problem.startswith(str(path))
    assert problem in error.value.problem
    assert hint in error.value.hint


def test_bad_parquet(tmp_path: Path, written) -> None:
    good = pd.DataFrame({"sample_id": ["1", "2"], "label": ["a", "b"], "pred": ["b", "b"]})
    for frame, problem in (
        (good.drop(columns="label"), "lacks the columns label"),
        (good.assign(sample_id="1"), r"names 1 sample\(s\) twice: 1 \(row 1, row 2"),
    ):
        frame.to_parquet(tmp_path / "p.parquet", index=False)
        with pytest.raises(RunError, match=rf"p\.parquet {problem}(.|\n)*->"):
            read_predictions_file(tmp_path / "p.parquet")
    with pytest.raises(RunError, match=r"q\.parquet can't be read"):
        read_predictions_file(written("no Parquet at all", "q.parquet"))


@pytest.mark.parametrize("name", ["none.csv", "none.parquet"])
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=name):
        read_predictions_file(tmp_path / name)


# --- names of runs ---


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/original-preds-0.csv", "a/original-preds-12.csv"], ["0", "12"]),
        (["seed=3.parquet", "x07.parquet"], ["3", "7"]),
        (["a/preds-1.csv", "b/other-1.csv"], ["preds-1", "other-1"]),
        (["a-1.csv", "a-01.csv"], ["a-1", "a-01"]),
        (["a-1.csv", "last.csv"], ["a-1", "last"]),
        (["a/preds.csv", "b/preds.csv"], ["a/preds.csv", "b/preds.csv"]),
        (["a/p-1.csv", "b/p-1.csv"], ["a/p-1.csv", "b/p-1.csv"]),
        (["only.csv"], ["only"]),
    ],
)
def test_names_of_runs_are_short_and_tell_them_apart(paths: list[str], names: list[str]) -> None:
    assert run_names([Path(path) for path in paths]) == names
    assert len(set(names)) == len(names)


# --- photos ---


def test_crops_of_one_photo_belong_together_whatever_their_label() -> None:
    ids = ["stop/ab-1.jpg", "yield/ab-2.png", "stop/abc-1.jpg", "stop/a-b-3.jpeg", "stop/odd.jpg", "stop/odd2.jpg"]
    groups = ["ab", "ab", "abc", "a-b", "stop/odd.jpg", "stop/odd2.jpg"]
    assert group_names(ids, PUBLISHED_PHOTO) == groups
    assert group_names(ids[-2:], PUBLISHED_PHOTO) == groups[-2:], "no photo in any name is no error"


def test_groups_by_other_expressions() -> None:
    ids = ["t1_01", "t1_02", "t22_01", "x"]
    assert group_names(ids, r"(.+)_\d+") == ["t1", "t1", "t22", "x"]
    assert group_names(ids, r"^t\d") == ["t1", "t1", "t2", "x"], "without parenthesis the whole match"
    assert group_names(ids, r"^(t1)?") == ["t1", "t1", "t22_01", "x"], "an empty group is none"


def test_published_photos_hold_several_crops(published) -> None:
    ids = published.arms["original"]["0"]["sample_id"].tolist()
    groups = pd.Series(group_names(ids, PUBLISHED_PHOTO), index=ids)
    sizes = groups.value_counts()
    assert 0.2 * len(ids) < len(sizes) < 0.9 * len(ids)
    first = sizes.index[0]
    assert all(f"/{first}-" in name for name in groups.index[groups == first])


def test_an_index_that_pandas_wrote_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(",sample_id,label,pred\n0,a,x,y\n")
    assert read_predictions_file(tmp_path / "p.csv")["sample_id"].tolist() == ["a"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [("sample_id,label,pred\na,x,y,z\nb,x,y,z\n", "line 2"), ("sample_id,label,pred\na,x,y\n\nb,,y\n", "line 4")],
)
def test_lines_of_a_csv_are_counted_as_an_editor_does(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(RunError, match=problem):
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


def test_metadata_needs_ids_alone(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("sample_id,country\n007,de\n8,NA\n")
    found = read_metadata(tmp_path / "m.csv")
    assert found["country"].to_dict() == {"007": "de", "8": "NA"}
    (tmp_path / "m.csv").write_text("id,country\n7,de\n")
    with pytest.raises(DataError, match=r"samples=.*no column sample_id"):
        read_metadata(tmp_path / "m.csv")
    with pytest.raises(DataError, match=r"samples=.*does not exist"):
        read_metadata(tmp_path / "gone.csv")


def test_metadata_of_samples_by_other_names(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("Sample ID;light\nC:\\\\d\\\\a\\\\1.jpg;0,5\n./b/2.jpg;1,5\n".replace("\\\\", "\\"))
    found = read_metadata(tmp_path / "m.csv", ["a/1.jpg", "b/2.jpg", "b/3.jpg"])
    assert found["light"].to_dict() == {"a/1.jpg": 0.5, "b/2.jpg": 1.5}


# --- probabilities ---


def test_a_column_per_class_gives_all_scores(written) -> None:
    file = written(
        "sample_id,label,cat,dog,fox,camera\na,cat,0.7,0.2,0.1,x\nb,dog,0.6,0.3,0.1,y\nc,dog,0,1,0,x\n", "p.csv"
    )
    found = open_predictions(file)
    assert found.class_names == ["cat", "dog", "fox"]
    np.testing.assert_allclose(found.probabilities, [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0, 1, 0]])
    table = found.table.set_index("sample_id")
    assert table["pred"].tolist() == ["cat", "cat", "dog"]
    np.testing.assert_allclose(table["loss"], -np.log([0.7, 0.3, 1]), atol=1e-6)
    np.testing.assert_allclose(table["label_prob"], [0.7, 0.3, 1])
    np.testing.assert_allclose(table["margin"][:2], np.log([0.7 / 0.2, 0.3 / 0.6]), rtol=1e-5)
    assert table["camera"].tolist() == ["x", "y", "x"]


def test_the_probability_of_the_label_alone(written, caplog) -> None:
    table = open_predictions(written("sample_id,label,label_prob\na,x,0.9\nb,y,0.25\n")).table
    assert "what is predicted for 1 of 2 samples is unknown" in caplog.text
    assert table["pred"].tolist() == ["x", ""], "below a half the prediction is not known"
    np.testing.assert_allclose(table["loss"], -np.log([0.9, 0.25]))
    ranking = rank_samples([table])
    assert ranking["sample_id"].tolist() == ["b", "a"]
    assert ranking["suggested_label"].tolist() == ["y", "x"], "nothing is suggested that nobody said"
    assert ranking["predicted_label"].tolist() == ["", "x"]
    np.testing.assert_array_equal(ranking["disagreement"], [np.nan, 0])


@pytest.mark.parametrize("labels", ["numbers", "names", "csv", "beside", "floats"])
def test_a_matrix_and_its_labels(labels: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 30)
    probabilities = 0.4 * rng.dirichlet(np.ones(3), 30) + 0.6 * np.eye(3)[codes]
    names = np.array(["cat", "dog", "fox"])[codes]
    np.save(tmp_path / "pred_probs.npy", probabilities)
    ids = [f"{i}.jpg" for i in range(30)]
    if labels == "csv":
        pd.DataFrame({"sample_id": ids, "label": names}).to_csv(tmp_path / "given.csv", index=False)
    else:
        values = {"names": names, "floats": codes.astype(float)}.get(labels, codes)
        np.save(tmp_path / ("labels.npy" if labels == "beside" else "given.npy"), values)
    given = {"csv": tmp_path / "given.csv", "beside": None}.get(labels, tmp_path / "given.npy")
    found = open_predictions(tmp_path / "pred_probs.npy", given)
    text = labels in ("names", "csv")
    assert found.table["label"].tolist() == (names.tolist() if text else [str(code) for code in codes])
    assert found.table["sample_id"].tolist() == (ids if labels == "csv" else [str(i) for i in range(30)])
    np.testing.assert_allclose(found.table["label_prob"], probabilities[np.arange(30), codes], rtol=1e-6)


def test_a_matrix_that_can_not_be_used(tmp_path: Path) -> None:
    path = tmp_path / "pred_probs.npy"
    np.save(path, np.full((4, 3), 1 / 3))
    with pytest.raises(RunError, match="no labels beside it") as error:
        open_predictions(path)
    assert "labels=<file>" in error.value.hint
    np.save(tmp_path / "labels.npy", np.array([0, 1, 2]))
    with pytest.raises(RunError, match=r"has 3 labels, .* 4 rows"):
        open_predictions(path)
    np.save(tmp_path / "labels.npy", np.array([0, 1, 2, 3]))
    with pytest.raises(RunError, match="row 3 has the label 3, and there are 3 columns"):
        open_predictions(path)
    np.save(tmp_path / "labels.npy", np.array(["a", "b", "a", "b"], dtype=object), allow_pickle=True)
    with pytest.raises(RunError, match="is not a plain array") as error:
        open_predictions(path)
    assert "astype(str)" in error.value.hint
    np.save(tmp_path / "labels.npy", np.array(["a", "b", "a", "b"]))
    with pytest.raises(RunError, match=r"2 different labels, but 3 columns") as error:
        open_predictions(path)
    assert "class_names.json" in error.value.hint
    (tmp_path / "class_names.json").write_text('["b", "c", "a"]')
    assert open_predictions(path).table["label"].tolist() == ["a", "b", "a", "b"]
    np.save(path, np.full((4, 3), 0.5))
    with pytest.raises(RunError, match="row 0 is not a probability distribution"):
        open_predictions(path)


def test_folders_of_the_callback_and_globs(tmp_path: Path) -> None:
    for fold in (0, 1):
        (tmp_path / f"fold{fold}").mkdir()
        frame = pd.DataFrame({"sample_id": [str(fold)], "label": ["a"], "pred": ["a"], "loss": [0.1]})
        frame.to_parquet(tmp_path / f"fold{fold}" / "predictions.parquet")
        np.save(tmp_path / f"fold{fold}" / "probabilities.npy", np.ones((1, 2)) / 2)
    wanted = [tmp_path / f"fold{fold}" / "predictions.parquet" for fold in (0, 1)]
    assert find_prediction_files(str(tmp_path / "fold*")) == wanted
    assert find_prediction_files(str(tmp_path / "*" / "*")) == wanted, "a matrix is never found by a glob"
    matrix = str(tmp_path / "fold0" / "probabilities.npy")
    assert find_prediction_files(matrix) == [Path(matrix)]


def test_labels_that_differ_by_blanks_are_one(written, caplog: pytest.LogCaptureFixture) -> None:
    rows = "".join(f"{i},cat,0.9,0.1\n" for i in range(5))
    found = open_predictions(
        written("sample_id,label,cat,dog\n" + rows + 'x," cat",0.8,0.2\ny,"dog ",0.3,0.7\nz,dog,0.1,0.9\n')
    )
    assert found.table["label"].tolist() == ["cat"] * 6 + ["dog"] * 2
    assert "differ by blanks" in caplog.text


def test_columns_are_not_taken_in_alphabetical_order_if_that_is_wrong(tmp_path: Path) -> None:
    labels = [f"class{i % 12}" for i in range(120)]
    np.save(tmp_path / "pred_probs.npy", 0.88 * np.eye(12)[[i % 12 for i in range(120)]] + 0.01)
    np.save(tmp_path / "labels.npy", np.array(labels))
    with pytest.raises(RunError, match=r"alphabetical order of the labels, 83% of the labels are not predicted"):
        open_predictions(tmp_path / "pred_probs.npy")
    pd.DataFrame({"label": [f"{i % 12}.0" for i in range(120)]}).to_csv(tmp_path / "given.csv", index=False)
    table = open_predictions(tmp_path / "pred_probs.npy", tmp_path / "given.csv").table
    assert (table["label"] == table["pred"]).all()


def test_cells_and_columns_that_are_missing_are_named(written) -> None:
    with pytest.raises(RunError, match="line 3 has no number in dog"):
        open_predictions(written("sample_id,label,cat,dog\na,cat,0.9,0.1\nb,dog,0.2,\nc,cat,1,0\n"))
    with pytest.raises(RunError, match="lacks the columns pred") as error:
        open_predictions(written("sample_id,label,cat\na,cat,0.9\nb,dog,0.2\n"))
    assert "a column of probabilities for dog" in error.value.hint


def test_folds_that_number_their_samples_are_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for fold in "ab":
        table = pd.DataFrame({"sample_id": ["0", "1"], "label": ["x", "y"], "pred": ["x", "y"], "loss": [0.1, 0.2]})
        table.to_csv(tmp_path / f"{fold}.csv", index=False)
    load_runs([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert "2 files number their samples" in caplog.text


def test_lines_that_begin_with_a_hash(written, caplog: pytest.LogCaptureFixture) -> None:
    rows = "sample_id,label,pred,loss\na.jpg,stop,stop,0.1\n# b.jpg,stop,go,2\n#c.jpg,go,go,0.2\n"
    with caplog.at_level(logging.INFO):
        assert read_predictions_file(written(rows))["sample_id"].tolist() == ["a.jpg", "#c.jpg"]
    assert "1 line(s) begin with a # and are left out: line 3" in caplog.text
    rows = "sample_id,label,pred,loss\na.jpg,stop,stop,0.1\n#c.jpg,go,go,0.2\n"
    with caplog.at_level(logging.INFO):
        assert len(read_predictions_file(written(rows))) == 2
    assert "1 line(s) begin with a # and are read as values: #c.jpg" in caplog.text
