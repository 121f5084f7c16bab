"""The table opener: dialects of CSV that spreadsheets write, cells that stay as they are, and bad lines by name."""

from __future__ import annotations

import codecs
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlfix_train.data.files.tables import UNNAMED, column_text, infer_types, open_table
from mlfix_train.errors import DataError

KNOWN = ("sample_id", "label", "loss")
WANTED = {"sample_id": ["a.jpg", "b, 1.jpg"], "label": ["007", "NA"], "loss": ["0.5", "1.25"]}


def opened(tmp_path: Path, content: str | bytes, name: str = "t.csv", known: tuple[str, ...] = KNOWN):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_table(path, "data.file", DataError, known)


@pytest.mark.parametrize(
    "content",
    [
        'sample_id,label,loss\na.jpg,007,0.5\n"b, 1.jpg",NA,1.25\n',
        'sample_id,label,loss\r\na.jpg,007,0.5\r\n"b, 1.jpg",NA,1.25',
        'sample_id,label,loss\ra.jpg,007,0.5\r"b, 1.jpg",NA,1.25\r',
        "sample_id;label;loss\na.jpg;007;0,5\nb, 1.jpg;NA;1,25\n",
        "sep=;\r\nsample_id;label;loss\r\na.jpg;007;0,5\r\nb, 1.jpg;NA;1,25\r\n",
        '"sep=;"\nsample_id;label;loss\na.jpg;007;0.5\nb, 1.jpg;NA;1.25\n',
        "sample_id\tlabel\tloss\na.jpg\t007\t0,5\nb, 1.jpg\tNA\t1,25\n",
        "sample_id|label|loss\na.jpg|007|0.5\nb, 1.jpg|NA|1.25\n",
        "\ufeffsample_id,label,loss\na.jpg,007,0.5\n'b',NA,1.25\n".replace("'b'", '"b, 1.jpg"'),
        '  sample_id , label,loss \n a.jpg, 007 ,0.5\n"b, 1.jpg", NA, 1.25\n',
        '"sample_id","label","loss"\n"a.jpg","007","0.5"\n"b, 1.jpg" ,"NA", "1.25"\n',
        'sample_id,label,loss,\na.jpg,007,0.5,\n"b, 1.jpg",NA,1.25,\n',
        'sample_id,label,loss\na.jpg,007,0.5,,\n"b, 1.jpg",NA,1.25,,\n',
        '\n\nsample_id,label,loss\n\na.jpg,007,0.5\n,,\n  \n"b, 1.jpg",NA,1.25\n\n\n',
        'Sample_ID,Label,LOSS\na.jpg,007,0.5\n"b, 1.jpg",NA,1.25\n',
        'Sample ID,label,Loss\na.jpg,007,0.5\n"b, 1.jpg",NA,1.25\n',
        '# by hand\n\n# id; label\nsample_id,label,loss\na.jpg,007,0.5\n# sure\n"b, 1.jpg",NA,1.25\n',
        "\ufeff# by hand\nsample_id;label;loss\na.jpg;007;0,5\nb, 1.jpg;NA;1,25\n",
        '# sample_id,label,loss\na.jpg,007,0.5\n"b, 1.jpg",NA,1.25\n',
    ],
)
def test_every_dialect_gives_the_same_cells(tmp_path: Path, content: str) -> None:
    table = opened(tmp_path, content)
    table.read_decimal_commas(["loss"])
    assert {name: table.frame[name].tolist() for name in table.frame.columns} == WANTED


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (b"", "utf-16-le"),
        (b"", "utf-16-be"),
    ],
)
def test_byte_order_marks(tmp_path: Path, mark: bytes, encoding: str, caplog: pytest.LogCaptureFixture) -> None:
    content = mark + "sample_id\tlabel\nü.jpg\tstop\n".encode(encoding)
    with caplog.at_level(logging.INFO):
        table = opened(tmp_path, content, "t.txt")
    assert table.frame.iloc[0].tolist() == ["ü.jpg", "stop"]
    assert ("is UTF-" in caplog.text) is (encoding != "utf-8"), "what isn't usual is said"
    assert ("without a byte order mark" in caplog.text) is (not mark)


def test_cells_stay_as_they_are_written(tmp_path: Path) -> None:
    labels = ["007", "1", "NA", "None", "null", "true", "1.10", "nan", "1e3", "-", "0", 'a"b', "'x'", "#N/A", "TRUE"]
    table = opened(tmp_path, "sample_id,label\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels)))
    assert table.text("label", DataError) == labels
    quoted = opened(tmp_path, 'sample_id,label\n1," x "\n2, y \n3,"z\n"\n')
    assert quoted.frame["label"].tolist() == [" x ", "y", "z\n"], "blanks inside of quotes count"


def test_what_is_assumed_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        table = opened(tmp_path, "Sample ID;label;loss\na;x;0,5\nb;y\n")
        table.read_decimal_commas(["label", "loss"])
    assert table.frame["loss"].tolist() == ["0.5", ""]
    for part in ("separated by semicolons", "'Sample ID' as 'sample_id'", "line 3", "decimal points in loss"):
        assert part in caplog.text


def test_lines_are_those_of_an_editor(tmp_path: Path) -> None:
    table = opened(tmp_path, 'sep=,\n\nsample_id,label\n\na,"two\nlines"\nb,y\n')
    assert [table.place(row) for row in range(2)] == ["line 6", "line 7"]
    table = opened(tmp_path, "# one\r\n# two\r\nsample_id,label\r\na,x\r\n# three\r\nb,y\r\n")
    assert [table.place(row) for row in range(2)] == ["line 4", "line 6"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("sample_id,label\na,b\nx,y.jpg,stop\n", r"line 3 has 3 cells, the header 2: 'x,y\.jpg,stop'"),
        ("sep=;\nsample_id;label\nx;y.jpg;stop\n", r"line 3 has 3 cells, the header 2: 'x;y\.jpg;stop'"),
        ("sample_id,label,label\na,b,c\n", r"has 2 columns called 'label' \(2, 3\)"),
        ("Label,label ,LABEL\na,b,c\n", ""),
        ("sample_id,Label,LABEL\na,b,c\n", r"the column 'label' may be any of 'Label', 'LABEL'"),
        ('sample_id,label\na,b\n"x,stop\ny,go\n', "a quote after line 2 is never closed"),
        ("sample_id,label\na,süd\n".encode("latin-1"), r"line 2 is not UTF-8 \(byte 0xfc\).*Windows-1252.*'süd'"),
        ("號列,label\na,b\n".encode("utf-16-le"), "line 1 is not UTF-8.*may be UTF-16 without a byte order mark"),
        ("列,label\na,b\n".encode("utf-16-le"), "NUL characters.*UTF-16 without a byte order mark"),
        (b"PK\x03\x04rest", "is an Excel workbook"),
        (b"\x1f\x8brest", "is compressed"),
        ('[{"sample_id": 1}]', "is JSON, not a CSV"),
        ("<!DOCTYPE html><html>", "is a web page"),
    ],
)
def test_what_can_not_be_known_is_an_error(tmp_path: Path, content: str | bytes, problem: str) -> None:
    if not problem:
        assert opened(tmp_path, content).frame["label"].tolist() == ["b"], "the exact name counts"
        return
    with pytest.raises(DataError, match=rf"(?s)t\.csv.*{problem}") as error:
        opened(tmp_path, content)
    assert error.value.hint


def test_names_that_do_not_matter_are_numbered(tmp_path: Path) -> None:
    table = opened(tmp_path, ",sample_id,x,x,\n0,a,1,2,3\n")
    assert table.frame.columns.tolist() == [UNNAMED, "sample_id", "x", "x.1", "Unnamed: 4"]


def test_no_header(tmp_path: Path) -> None:
    table = opened(tmp_path, "stop/1.jpg,invalid\nstop/2.jpg,go\n")
    assert "its first line seems to be data" in table.lacks(["sample_id"])
    assert "seems to be data" not in opened(tmp_path, "id,class\n1,a\n").lacks(["sample_id"])


def test_parquet_by_its_content(tmp_path: Path) -> None:
    frame = pd.DataFrame({"label": [1.0, 2.0, None], 0: [1, 2, 3]}, index=["a.jpg", "b.jpg", "c.jpg"])
    frame.columns = [str(name) for name in frame.columns]
    frame.to_parquet(tmp_path / "t.csv")
    table = open_table(tmp_path / "t.csv", "data.file", DataError, KNOWN)
    assert table.frame["sample_id"].tolist() == ["a.jpg", "b.jpg", "c.jpg"], "the index is the ids"
    assert table.text("label", DataError) == ["1", "2", ""]
    assert table.place(1) == "row 2"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1, 20], ["1", "20"]),
        ([1.0, np.nan, 3.0], ["1", "", "3"]),
        ([0.5, 1.0], ["0.5", "1.0"]),
        ([True, False], ["True", "False"]),
        (["a", None, 1.0, b"stop"], ["a", "", "1", "stop"]),
        (pd.array([1, None], "Int64"), ["1", ""]),
        (pd.Categorical(["x", "y"]), ["x", "y"]),
    ],
)
def test_values_as_text(values: object, text: list[str]) -> None:
    assert column_text(pd.Series(values), "t: {place}") == text


@pytest.mark.parametrize("value", [["a", "b"], np.array(["a", "b"]), {"a": 1}, ("a",)])
def test_lists_are_no_text(value: object) -> None:
    with pytest.raises(DataError, match=r"t: row 2 has the label .*a.*, which is not text") as error:
        column_text(pd.Series(["x", value], name="label"), "t: {place}", error_type=DataError)
    assert "several labels" in error.value.hint


def test_types_of_other_columns() -> None:
    cells = {"n": ["1", "2"], "x": ["1", ""], "id": ["007", "8"], "b": ["True", "false"], "t": ["NA", ""]}
    found = infer_types(pd.DataFrame(cells, dtype=object))
    assert found["n"].tolist() == [1, 2] and found["x"].tolist()[0] == 1.0 and found["b"].tolist() == [True, False]
    assert found["id"].tolist() == ["007", "8"], "a zero in front is part of a name"
    assert found["t"].isna().tolist() == [False, True]
