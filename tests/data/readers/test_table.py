"""The reader of CSV and Parquet files: which column is what, text that stays text, and what is wrong with a file."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import pytest

from mlfix_train import run_command
from mlfix_train.data.fixes.exporters import write_fixed_table
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.data.readers.table import read_table
from mlfix_train.data.samples import write_table
from mlfix_train.errors import DataError, name_keys


def ids(table: pd.DataFrame) -> list[str]:
    return table.index.tolist()


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_csv(tmp_path: Path) -> None:
    file = write(
        tmp_path / "t.csv", "path,label,group,split,score,place\na/1.jpg,x,g,train,0.5,Köln\n/b/2.jpg,y,,val,1,NA\n"
    )
    table = read_table(file)
    assert table["path"].tolist() == [str(tmp_path / "a/1.jpg"), "/b/2.jpg"]
    assert ids(table)[0] == "a/1.jpg"
    assert table["label"].tolist() == ["x", "y"]
    assert table["group"].tolist() == ["g", ids(table)[1]], "without a group a sample stands alone"
    assert table["split"].tolist() == ["train", "val"]
    assert table["score"].tolist() == [0.5, 1.0] and table["place"].tolist() == ["Köln", "NA"]


def test_root_and_ids(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "id,file\n007,./a/../1.jpg\n8,2.jpg\n")
    table = read_table(file, root=tmp_path / "photos", columns={"path": "file"})
    assert table["path"].tolist() == [str(tmp_path / "photos" / "1.jpg"), str(tmp_path / "photos" / "2.jpg")]
    assert ids(table) == ["1.jpg", "2.jpg"]
    assert table["label"].isna().all()
    named = read_table(file, columns={"path": "file", "sample_id": "id"})
    assert ids(named) == ["007", "8"], "an id is text"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_labels_stay_text(tmp_path: Path, kind: str) -> None:
    labels = ["NA", "null", "020", "1e3", "True", "nan", "None", " x ", 'ü,"q"']
    frame = pd.DataFrame({"path": [f"{i}.jpg" for i in range(9)], "label": labels, "extra": range(9)})
    file = tmp_path / f"t.{kind}"
    frame.to_csv(file, index=False) if kind == "csv" else frame.to_parquet(file)
    table = read_table(file)
    expected = labels if kind == "parquet" else ["x" if label == " x " else label for label in labels]
    assert table["label"].tolist() == expected, "in a CSV, blanks count only inside of quotes"
    assert table["extra"].tolist() == list(range(9))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_missing_label_is_missing(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"path": ["1.jpg", "2.jpg"], "label": ["a", None]})
    file = tmp_path / f"t.{kind}"
    frame.to_csv(file, index=False) if kind == "csv" else frame.to_parquet(file)
    table = read_table(file)
    assert table["label"].iloc[0] == "a" and table["label"].isna().tolist() == [False, True]


def test_number_labels_of_parquet_become_text(tmp_path: Path) -> None:
    pd.DataFrame({"path": ["1.jpg", "2.jpg"], "label": [20, 120]}).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet")["label"].tolist() == ["20", "120"]


def test_parquet_round_trip(tmp_path: Path, folder: Path) -> None:
    table = read_folder(folder, group=r"^(\w+)/").assign(n=range(6))
    assert read_table(write_table(table, tmp_path / "t.parquet")).equals(table)
    table.to_parquet(tmp_path / "indexed.parquet")
    assert read_table(tmp_path / "indexed.parquet").equals(table)


def test_metadata_with_a_name_of_ours_is_kept(tmp_path: Path) -> None:
    """Other columns give the label and the id: columns that happen to be called so are metadata like any other."""
    file = write(tmp_path / "t.csv", "path,sign,label\n1.jpg,stop,blurred\n2.jpg,yield,sharp\n")
    table = read_table(file, columns={"path": "path", "label": "sign"})
    assert table["label"].tolist() == ["stop", "yield"]
    assert ("blurred", "sharp") in {tuple(table[name]) for name in table.columns}


def test_a_metadata_column_called_sample_id(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "path,label,key,sample_id\n1.jpg,a,k1,s1\n2.jpg,b,k2,s2\n")
    table = read_table(file, columns={"path": "path", "label": "label", "sample_id": "key"})
    assert ids(table) == ["k1", "k2"]
    write_table(table, tmp_path / "again.parquet")
    assert read_table(tmp_path / "again.parquet").index.tolist() == ["k1", "k2"]


def test_missing_path_column(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "paths,label\n1.jpg,a\n")
    with pytest.raises(
        DataError,
        match=r"(?s)no column 'path' \(columns..path..\).*did you mean columns=..path.: .paths.*It has paths, label",
    ):
        read_table(file)


def test_missing_label_column_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        table = read_table(write(tmp_path / "t.csv", "path,lable\n1.jpg,a\n"))
    assert table["label"].isna().all() and "no column 'label'" in caplog.text


def test_a_row_without_a_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 3 has no path"):
        read_table(write(tmp_path / "t.csv", "path,label\n1.jpg,a\n,b\n"))


def test_lines_longer_than_the_header_are_an_error(tmp_path: Path) -> None:
    """pandas takes the first column for an index when every line has a cell too many."""
    file = write(tmp_path / "t.csv", "path,label\n1.jpg,stop,x\n2.jpg,yield,y\n")
    with pytest.raises(DataError, match=r"t.csv: line 2 has 3 cells, the header 2: '1.jpg,stop,x'"):
        read_table(file)
    file = write(tmp_path / "t.csv", "path,label\n1.jpg,stop,\n2.jpg,yield,\n")
    assert ids(read_table(file)) == ["1.jpg", "2.jpg"], "empty cells at the end are none"


def test_what_spreadsheets_write(tmp_path: Path) -> None:
    text = "sep=;\r\nPath;Label;score\r\n1.jpg; stop;0,5\r\n2.jpg;007;1,25\r\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        table = read_table(write(tmp_path / "t.csv", text, encoding))
        assert ids(table) == ["1.jpg", "2.jpg"] and table["label"].tolist() == ["stop", "007"]
        assert table["score"].tolist() == [0.5, 1.25]


def test_paths_of_another_machine(folder: Path, tmp_path: Path) -> None:
    text = (
        "path,label\nC:\\\\d\\\\data\\\\stop\\\\0.png,a\nyield\\\\1.png,b\n/home/x/data/yield/2.png,c\nyield/9.png,d\n"
    )
    table = read_table(write(folder / "t.csv", text.replace("\\\\", "\\")))
    assert ids(table) == ["stop/0.png", "yield/1.png", "yield/2.png", "yield/9.png"]
    assert [Path(path).exists() for path in table["path"]] == [True, True, True, False], "the last is said later"


def test_number_labels_with_a_gap_are_whole(tmp_path: Path) -> None:
    """The column of pandas has become one of floats."""
    pd.DataFrame({"path": ["1.jpg", "2.jpg"], "label": [20, None]}).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet")["label"].iloc[0] == "20"


def test_lists_of_labels_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"path": ["1.jpg", "2.jpg"], "label": [["a"], ["a", "b"]]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"(?s)t\.parquet: row 1 has the label \['a'\].*several labels per sample"):
        read_table(tmp_path / "t.parquet")


def test_wrong_encoding(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)t.csv: line 2 is not UTF-8 \(byte 0xfc\).*'Süd'.*as CSV UTF-8"):
        read_table(write(tmp_path / "t.csv", "path,label\n1.jpg,Süd\n", "latin-1"))


def test_byte_order_mark(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "path,label\r\n1.jpg,Süd\r\n", "utf-8-sig")
    assert read_table(file)["label"].tolist() == ["Süd"]


def test_duplicates(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "path,label\na/1.jpg,x\n./a/1.jpg,y\n2.jpg,x\n")
    with pytest.raises(
        DataError, match=r"(?s)t.csv: 1 sample_id\(s\) occur more than once: a/1.jpg \(line 2, line 3\)"
    ):
        read_table(file)


def test_a_table_of_boxes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label,xmin,ymin,xmax,ymax\na.jpg,x,1,1,5,5\na.jpg,y,2,2,9,9\n")
    with pytest.raises(DataError, match=r"(?s)a.jpg \(line 2, line 3\).*boxes in photos.*`mlfix crop`"):
        read_table(tmp_path / "t.csv")


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.csv. does not exist"):
        read_table(tmp_path / "gone.csv")
    (tmp_path / "some.csv").write_text("path,label\n1.jpg,a\n")
    with pytest.raises(DataError, match=r"(?s)' is a folder.*set a file in it: file='.*some\.csv'"):
        read_table(tmp_path)
    for name in ("empty.csv", "bad.parquet"):
        with pytest.raises(DataError, match=rf"{name}'? can't be read"):
            read_table(write(tmp_path / name, ""))
    with pytest.raises(DataError, match=r"file=.*bad.parquet. can't be read"):
        read_table(write(tmp_path / "bad.parquet", "path,label\n1,2\n"))
    with pytest.raises(DataError, match=r"there are no samples"):
        read_table(write(tmp_path / "header.csv", "path,label\n"))


def test_group_pattern_in_a_table(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "path,label\na/7_1.jpg,x\na/7_2.jpg,y\n")
    assert read_table(file, group=r"(.+)_\d")["group"].tolist() == ["a/7", "a/7"]


def test_an_image_in_several_rows_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_table(write(tmp_path / "t.csv", "sample_id,path,label\na,1.jpg,x\nb,2.jpg,x\nc,./1.jpg,y\n"))
    assert "1 image(s) are in several rows, some with other labels" in caplog.text
    assert f"{tmp_path}/1.jpg (line 2, line 4)" in caplog.text


def test_files_are_found_below_the_root_and_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data/t.csv", "path,label\n1.jpg,a\n")
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        assert read_table("t.csv", root="data")["path"].tolist() == [str(tmp_path / "data/1.jpg")]
    assert f"data.file=t.csv was found in {tmp_path}/data" in caplog.text
    write(tmp_path / "t.csv", "path,label\n1.jpg,a\n")
    assert len(read_table("t.csv", root="data")) == 1, "the same content"
    write(tmp_path / "t.csv", "path,label\n2.jpg,a\n")
    with pytest.raises(DataError, match=r"(?s)file='t.csv' may be \S+ or \S+data/t.csv, which differ.*the whole path"):
        read_table("t.csv", root="data")


def test_errors_name_keys_in_a_command_and_arguments_in_python(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "paths,label\n1.jpg,a\n")
    with pytest.raises(DataError) as error:
        read_table(file, columns={"path": "path"})
    assert error.value.hint == "did you mean columns={'path': 'paths'}? It has paths, label"
    with pytest.raises(DataError) as error, name_keys():
        read_table(file, columns={"path": "path"})
    assert error.value.hint == "did you mean data.columns.path=paths? It has paths, label"
    with pytest.raises(DataError, match=r"\(data.columns.path\)"):
        run_command("train", "data=table", f"data.file={file}", f"outputs={tmp_path / 'out'}")


def test_lines_that_begin_with_a_hash(tmp_path: Path, picture, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for name in ("b/x.png", "b/y.png", "#b/z.png"):
        picture(tmp_path / name, (9, 9, 9))
    file = write(tmp_path / "t.csv", "path,label\nb/x.png,k\n#b/y.png,k\n#b/z.png,l\n")
    assert read_table(file)["label"].to_dict() == {"b/x.png": "k", "#b/z.png": "l"}
    assert "1 line(s) begin with a # and are left out: line 3" in caplog.text
    table = read_table(file)
    fixed = write_fixed_table(file, table, pd.DataFrame({"new_label": ["k"]}, ["#b/z.png"]), "label", tmp_path / "out")
    assert fixed.path.read_text() == "path,label\nb/x.png,k\n#b/y.png,k\n#b/z.png,k\n"
    labels = read_table(write(tmp_path / "t.csv", "label,path\n#1,b/x.png\n#2,b/y.png\n"))["label"]
    assert labels.tolist() == ["#1", "#2"]
    labels = read_table(write(tmp_path / "t.csv", "label,path\nk,b/x.png\n#k,b/y.png\n"))["label"]
    assert labels.to_dict() == {"b/x.png": "k"}
    for first in ("color", "sample_id"):  # a # in another column is part of its value, unless a blank follows
        file = write(tmp_path / "t.csv", f"{first},path,label\n#ff0000,b/x.png,a\n#00ff00,b/y.png,b\n# 1,b/z.png,c\n")
        assert read_table(file)["label"].tolist() == ["a", "b"]
    file = write(tmp_path / "t.csv", "path,label\nb/x.png,a\n#missing/0.png,b\n")
    assert read_table(file)["label"].tolist() == ["a", "b"], "the missing image is named when it is read"


def test_a_table_without_a_header(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "b/x.jpg,k\nb/y.jpg,l\n")
    with pytest.raises(DataError, match="its first line seems to be data, not names of columns"):
        read_table(file)
