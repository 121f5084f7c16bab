"""The fixes file: every mistake in it is an error with line, value and hint; everything else is applied exactly."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from mlfix_train.data.fixes import table as fixes_module
from mlfix_train.data.fixes.table import (
    COLUMNS,
    INVALID,
    apply_fixes,
    fixes_fingerprint,
    match_fixes,
    read_fixes,
    write_fixes,
)
from mlfix_train.data.samples import known_labels, label_list, make_table
from mlfix_train.errors import FixesError

Counted = Callable[..., pd.DataFrame]


@pytest.fixture
def table(counted: Counted) -> pd.DataFrame:
    return counted(stop=3, yield_=3, parking=1)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def to_file(*lines: str, encoding: str = "utf-8", end: str = "\n") -> Path:
        path = tmp_path / "fixes.csv"
        path.write_bytes((end.join(lines) + end).encode(encoding))
        return path

    return to_file


def load(path: Path, table: pd.DataFrame, ignore: Sequence[str] = ()) -> pd.DataFrame:
    return match_fixes(read_fixes(path), table, ignore)


def error_of(path: Path, table: pd.DataFrame | None = None, ignore: Sequence[str] = ()) -> str:
    with pytest.raises(FixesError) as caught:
        load(path, table, ignore) if table is not None else read_fixes(path)
    assert str(path) in str(caught.value), "it names the file"
    assert caught.value.hint, "it says what to do"
    return str(caught.value)


def says(message: str, *parts: str) -> None:
    missing = [part for part in parts if part not in message]
    assert not missing, f"{missing} not in:\n{message}"


# Reading


def test_own_format(write: Callable[..., Path], table: pd.DataFrame) -> None:
    path = write(
        "sample_id,new_label,old_label,reviewer,time,note",
        'stop/0000.png,invalid,stop,jan,2024-01-01T10:00:00,"blurred, dark"',
        "",
        "yield_/0001.png,stop,,,,",
    )
    raw = read_fixes(path)
    assert raw["row"].tolist() == [2, 4] and not raw.attrs["published_format"]
    assert raw["note"].tolist() == ["blurred, dark", ""]
    matched = match_fixes(raw, table)
    assert matched.index.tolist() == ["stop/0000.png", "yield_/0001.png"]
    assert matched["new_label"].tolist() == [INVALID, "stop"]
    assert matched["given_label"].tolist() == ["stop", "yield_"]
    assert matched["reviewer"].tolist() == ["jan", ""]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_columns_in_any_order_and_line_ends(
    write: Callable[..., Path], table: pd.DataFrame, end: str, encoding: str
) -> None:
    path = write("note, new_label ,extra,sample_id", "é,stop,x,yield_/0000.png", encoding=encoding, end=end)
    matched = load(path, table)
    assert matched["new_label"].to_dict() == {"yield_/0000.png": "stop"} and matched["note"].tolist() == ["é"]


def test_mlfix_format(write: Callable[..., Path], table: pd.DataFrame) -> None:
    path = write(",new_label", "some/folder/stop/0000.png,invalid", "yield_/0000.png,stop")
    assert load(path, table)["new_label"].to_dict() == {"stop/0000.png": INVALID, "yield_/0000.png": "stop"}
    named = write("Unnamed: 0,new_label", "f/stop/0000.png,invalid")
    assert load(named, table).index.tolist() == ["stop/0000.png"]


@pytest.mark.parametrize(
    "name",
    [
        "f/stop/0000.png",
        "./stop/0000.png",
        "stop\\0000.png",
        "C:\\f\\stop\\0000.png",
        "https://h/f/stop/0000.png",
        "/nowhere/stop/0000.png",
        "stop/0000",
        "stop/0000.jpg",
        "/data/upload/4/cb0618f6-0000.png",
    ],
)
def test_samples_by_other_names(
    name: str, write: Callable[..., Path], table: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    table = table.drop(index="yield_/0000.png").drop(index="parking/0000.png")
    with caplog.at_level(logging.INFO):
        assert load(write("sample_id,new_label", f"{name},invalid"), table)["new_label"].to_dict() == {
            "stop/0000.png": INVALID
        }
    assert f"such as {name!r} to 'stop/0000.png'" in caplog.text


def test_samples_that_are_not_certain(write: Callable[..., Path], table: pd.DataFrame) -> None:
    path = write("sample_id,new_label", "0000.png,invalid", "stop/0001,invalid")
    says(error_of(path, table), "1 of 2 lines name no sample for certain", "For '0000.png', it may be any of", "line 2")
    says(error_of(write("sample_id,new_label", "go/0002.png,invalid"), table), "1 of 1 lines", "line 2: go/0002.png")


def test_labels_in_another_spelling(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Numbers of pandas, and other Unicode forms."""
    data = make_table(["a", "b", "c"], ["a", "b", "c"], ["1", "2", "ü"])
    frame = pd.DataFrame(
        {"sample_id": ["a", "b", "c"], "new_label": ["2.0", "u\u0308", "1"], "old_label": ["1.0", "2", ""]}
    )
    with caplog.at_level(logging.INFO):
        matched = match_fixes(read_fixes(write_fixes(frame, tmp_path / "f.csv")), data)
    assert matched["new_label"].tolist() == ["2", "ü", "1"] and matched["old_label"].tolist() == ["1", "2", ""]
    assert "'2.0' is '2'" in caplog.text
    numbers = pd.DataFrame({"sample_id": [0, 1], "new_label": [2.0, 1.0]})
    numbers.to_parquet(tmp_path / "f.parquet")
    rows = make_table(["0", "1"], ["p", "q"], ["1", "2"])
    assert match_fixes(read_fixes(tmp_path / "f.parquet"), rows)["new_label"].to_dict() == {"0": "2", "1": "1"}


@pytest.mark.parametrize("text", ["sep=;\r\nsample_id;new_label\r\nstop/0000.png;yield_\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_spreadsheets_write(tmp_path: Path, table: pd.DataFrame, text: str, encoding: str) -> None:
    (tmp_path / "f.csv").write_bytes(text.encode(encoding))
    assert load(tmp_path / "f.csv", table)["new_label"].to_dict() == {"stop/0000.png": "yield_"}


def test_published_file(published_fixes: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = read_fixes(published_fixes)
    assert len(raw) == 227 and raw.attrs["published_format"]
    assert set(raw["new_label"]) == {INVALID}
    ids = [name.split("/", 1)[1] for name in raw["sample_id"]]
    others = [f"{name.split('/')[0]}/other-{i}.jpg" for i, name in enumerate(ids)]
    labels = [name.split("/")[0] for name in ids + others]
    data = make_table(ids + others, ids + others, labels)
    matched = match_fixes(raw, data)
    assert matched.index.tolist() == ids
    labels, keep = apply_fixes(data["label"], matched)
    assert keep.tolist() == [False] * 227 + [True] * 227 and labels.equals(data["label"])
    few = data.drop(index=ids[:2])
    says(error_of(published_fixes, few), "2 of 227 lines", "line 2: yolo-bbox-crops-aspects/" + ids[0], "line 3")
    with caplog.at_level(logging.WARNING):
        assert len(load(published_fixes, few, ["unknown_samples"])) == 225
    assert "2 lines name samples that aren't in the data" in caplog.text


def test_file_errors(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(FixesError, match=r"(?s)fixes.path=.*gone.csv does not exist.*check the path"):
        read_fixes(tmp_path / "gone.csv")
    with pytest.raises(FixesError, match=r"is a folder"):
        read_fixes(tmp_path)
    for text in ("", "\n", ",,\n", "  \n\n"):
        (tmp_path / "e.csv").write_text(text)
        says(error_of(tmp_path / "e.csv"), "is empty", "sample_id,new_label")
    says(error_of(write("sample_id,label", "a,b")), "the header 'sample_id,label' lacks new_label", "name the columns")
    says(error_of(write("sample_id;neu", "a;b")), "the header 'sample_id;neu' lacks new_label")
    says(error_of(write("path,new_label", "a,b")), "lacks sample_id")
    says(error_of(write("stop/1.png,invalid")), "lacks sample_id, new_label")


def test_encodings(write: Callable[..., Path]) -> None:
    lines = ("sample_id,new_label", "a,b", "süd,b")
    says(error_of(write(*lines, encoding="latin-1")), "line 3 is not UTF-8", "byte 0xfc", "CSV UTF-8")
    assert read_fixes(write(*lines, encoding="utf-16-le"))["sample_id"].tolist() == ["a", "süd"]


def test_encoding_error_behind_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "fixes.csv"
    path.write_bytes(b"\xef\xbb\xbfsample_id,new_label\na,b\n\xfc,b\n")
    says(error_of(path), "line 3 is not UTF-8", "byte 0xfc")


def test_lines_that_are_not_whole(write: Callable[..., Path]) -> None:
    long = error_of(write("sample_id,new_label", "ok,stop", "stop/a,b.png,invalid"))
    says(long, "line 3 has 3 cells, the header 2", "stop/a,b.png,invalid", "double quotes")
    says(error_of(write("sample_id,new_label", "stop/1.png,")), "line 2 has no new_label", "stop/1.png")
    says(error_of(write("sample_id,new_label", "stop/1.png")), "line 2 has no new_label")
    says(error_of(write("sample_id,new_label", "ok,stop", ",stop")), "line 3 has no sample_id", ",stop")


def test_line_numbers_behind_a_note_of_two_lines(write: Callable[..., Path], table: pd.DataFrame) -> None:
    path = write("sample_id,new_label,note", 'stop/0000.png,invalid,"two', 'lines"', "stop/9999.png,invalid,")
    says(error_of(path, table), "line 4: stop/9999.png")


# Matching


def test_unknown_sample(write: Callable[..., Path], table: pd.DataFrame) -> None:
    path = write("sample_id,new_label", "stop/0000.png,invalid", "stop/0009.png,yield_")
    says(
        error_of(path, table),
        "1 of 2 lines name a sample that isn't in the data",
        "line 3: stop/0009.png -> 'yield_'",
        "fixes.ignore=[unknown_samples]",
    )
    assert "did you mean" not in error_of(path, table), "another number is another sample"
    misspelled = write("sample_id,new_label", "stpo/0000.png,yield_")
    says(error_of(misspelled, table), "did you mean 'stop/0000.png'?")
    path = write("sample_id,new_label", "stop/0000.png,invalid", "stop/0009.png,yield_")
    assert load(path, table, ["unknown_samples"]).index.tolist() == ["stop/0000.png"]


def test_many_lines_are_shortened(write: Callable[..., Path], table: pd.DataFrame) -> None:
    path = write("sample_id,new_label", *(f"x/{i},invalid" for i in range(12)))
    message = error_of(path, table)
    says(message, "12 of 12 lines", "line 2:", "line 6:", "and 7 more")
    assert "line 7:" not in message


def test_unknown_label(write: Callable[..., Path], table: pd.DataFrame) -> None:
    path = write("sample_id,new_label", "stop/0000.png,yeild_", "stop/0001.png,Invalid")
    says(
        error_of(path, table),
        "2 lines have a new_label that no sample has",
        "line 2: stop/0000.png -> 'yeild_'",
        "line 3: stop/0001.png -> 'Invalid'",
        "did you mean 'yield_'?",
        "fixes.ignore=[new_labels]",
    )
    assert load(path, table, ["new_labels"])["new_label"].tolist() == ["yeild_", "Invalid"]
    for word in ("Invalid", "INVALID"):
        says(error_of(write("sample_id,new_label", f"stop/0000.png,{word}"), table), "did you mean 'invalid'? Or fixes")


def test_classes_of_the_source_that_no_sample_has(write: Callable[..., Path], counted: Counted) -> None:
    table = counted(stop=3)
    path = write("sample_id,new_label", "stop/0000.png,closed", "stop/0001.png, zebra ")
    table.attrs["classes"] = ["stop", "zebra", "closed"]
    assert load(path, table)["new_label"].tolist() == ["closed", "zebra"]
    assert known_labels(table) == ["closed", "stop", "zebra"] and label_list(table) == ["stop"]


def test_lines_that_begin_with_a_hash_are_left_out(write: Callable[..., Path], table: pd.DataFrame) -> None:
    path = write("sample_id,new_label", "stop/0000.png,invalid", "#stop/0001.png,yield_", "# stop/0002.png,yield_")
    assert load(path, table).index.tolist() == ["stop/0000.png"]
    there = table.rename(index={"stop/0001.png": "#stop/0001.png"})
    assert load(path, there).index.tolist() == ["stop/0000.png", "#stop/0001.png"]
    assert load(write("sample_id,new_label", "#stop\\0001.png,yield_"), there).index.tolist() == ["#stop/0001.png"]
    says(error_of(write("sample_id,new_label", "stop/0000.png,zzz"), table), "choose one of parking, stop, yield_")


def test_stale(write: Callable[..., Path], table: pd.DataFrame) -> None:
    path = write("sample_id,new_label,old_label", "stop/0000.png,yield_,stop", "stop/0001.png,yield_,parking")
    says(
        error_of(path, table),
        "1 lines have an old_label that is not",
        "line 3: stop/0001.png: old_label 'parking', now 'stop'",
        "fixes.ignore=[stale]",
    )
    assert load(path, table, ["stale"])["new_label"].tolist() == ["yield_", "yield_"]


def test_two_answers(write: Callable[..., Path], table: pd.DataFrame) -> None:
    path = write("sample_id,new_label", "stop/0000.png,yield_", "stop/0001.png,invalid", "stop/0000.png,invalid")
    message = error_of(path, table)
    says(message, "1 sample(s) have two different new labels", "line 2: stop/0000.png -> 'yield_'")
    says(message, "line 4: stop/0000.png -> 'invalid'", "fixes.ignore=[conflicts]")
    assert "stop/0001" not in message
    ignored = load(path, table, ["conflicts"])
    assert ignored["new_label"].to_dict() == {"stop/0001.png": INVALID, "stop/0000.png": INVALID}
    other = write("sample_id,new_label", "stop/0000.png,invalid", "stop/0000.png,yield_")
    assert load(other, table, ["conflicts"])["new_label"].tolist() == ["yield_"], "the last line wins"


def test_two_answers_under_two_names(write: Callable[..., Path], table: pd.DataFrame) -> None:
    path = write(",new_label", "stop/0000.png,yield_", "folder/stop/0000.png,invalid")
    says(error_of(path, table), "two different new labels", "line 2", "line 3")


def test_the_same_answer_twice_is_fine(write: Callable[..., Path], table: pd.DataFrame) -> None:
    path = write("sample_id,new_label,reviewer", "stop/0000.png,invalid,jan", "stop/0000.png,invalid,eva")
    assert load(path, table)["new_label"].to_dict() == {"stop/0000.png": INVALID}


def test_a_label_that_vanishes(write: Callable[..., Path], table: pd.DataFrame) -> None:
    for answer in ("invalid", "stop"):
        path = write("sample_id,new_label", f"parking/0000.png,{answer}")
        says(error_of(path, table), "no sample of 1 label(s): parking", "fixes.ignore=[empty_labels]")
        assert len(load(path, table, ["empty_labels"])) == 1
    swapped = write("sample_id,new_label", "parking/0000.png,stop", "stop/0000.png,parking")
    assert len(load(swapped, table)) == 2, "another sample takes the label up"


@pytest.mark.parametrize(
    ("ignore", "line"),
    [
        ("unknown_samples", "x.png,invalid,"),
        ("new_labels", "stop/0000.png,new,"),
        ("stale", "stop/0000.png,yield_,parking"),
        ("conflicts", "stop/0001.png,stop,"),
        ("empty_labels", "parking/0000.png,invalid,"),
    ],
)
def test_each_ignored_problem_is_one_problem(
    write: Callable[..., Path], table: pd.DataFrame, ignore: str, line: str
) -> None:
    path = write("sample_id,new_label,old_label", "stop/0001.png,yield_,", line)
    load(path, table, [ignore])
    rest = [name for name in fixes_module.IGNORABLE if name != ignore]
    says(error_of(path, table, rest), f"fixes.ignore=[{ignore}]")


def test_an_unknown_problem_to_ignore(write: Callable[..., Path], table: pd.DataFrame) -> None:
    path = write("sample_id,new_label", "stop/0000.png,invalid")
    with pytest.raises(FixesError, match=r"(?s)fixes.ignore=new_label is not known.*did you mean 'new_labels'"):
        load(path, table, ["new_label"])


def test_no_lines_but_the_header(write: Callable[..., Path], table: pd.DataFrame) -> None:
    matched = load(write("sample_id,new_label"), table)
    assert len(matched) == 0
    labels, keep = apply_fixes(table["label"], matched)
    assert labels.equals(table["label"]) and keep.all()


# Applying, writing


def test_apply(write: Callable[..., Path], table: pd.DataFrame) -> None:
    matched = load(write("sample_id,new_label", "yield_/0001.png,stop", "stop/0002.png,invalid"), table)
    before = table.copy()
    labels, keep = apply_fixes(table["label"], matched)
    assert labels.tolist() == ["stop", "stop", "stop", "yield_", "stop", "yield_", "parking"]
    assert keep.tolist() == [True, True, False, True, True, True, True] and keep.dtype == bool
    assert labels.index.equals(table.index) and table.equals(before)
    part, keep = apply_fixes(table["label"].iloc[[4, 0]], matched)
    assert part.to_dict() == {"yield_/0001.png": "stop", "stop/0000.png": "stop"} and keep.all()


ODD = [
    "a,b.png",
    'q"uo"te.png',
    "标志 ü.png",
    " spaces .png",
    "'; drop.png",
    "semi;colon.png",
    "tab\t.png",
    "two\nlines.png",
]


@pytest.mark.parametrize("extra", ["", 'a, "b"\nc', "old mac\rline", "\ufeffmark", "ends with \\"])
def test_round_trip(tmp_path: Path, extra: str) -> None:
    table = make_table([*ODD, "rest"], ["p"] * 9, [*["ü,1"] * 8, 'b "2"'])
    fixes = pd.DataFrame({"sample_id": ODD, "new_label": [INVALID, 'b "2"'] * 4, "old_label": "ü,1", "note": extra})
    path = write_fixes(fixes, tmp_path / "deep" / "fixes.csv")
    assert path.read_bytes().startswith(b"sample_id,new_label,old_label,reviewer,time,note\n")
    back = read_fixes(path)
    for name in ("sample_id", "new_label", "old_label", "note"):
        assert back[name].tolist() == fixes[name].tolist(), name
    matched = match_fixes(back, table, ["empty_labels"])
    again = match_fixes(read_fixes(write_fixes(matched, tmp_path / "again.csv")), table, ["empty_labels"])
    assert again[list(COLUMNS[1:])].equals(matched[list(COLUMNS[1:])])
    assert fixes_fingerprint(again) == fixes_fingerprint(matched)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_fixes(pd.DataFrame({"sample_id": ["a"], "new_label": ["b"]}), tmp_path / "fixes.csv")
    before = path.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fixes_module.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space"):
        write_fixes(pd.DataFrame({"sample_id": ["a"] * 99, "new_label": ["c"] * 99}), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["fixes.csv"], "no leftovers"


def test_fingerprint() -> None:
    def printed(**pairs: str) -> str:
        frame = pd.DataFrame({"new_label": list(pairs.values())}, index=pd.Index(list(pairs), name="sample_id"))
        return fixes_fingerprint(frame)

    assert printed(a="x", b="y") == printed(b="y", a="x")
    prints = [
        printed(a="x", b="y"),
        printed(a="y", b="x"),
        printed(a="x"),
        printed(a="x", b="z"),
        printed(a="x", c="y"),
    ]
    assert len(set(prints)) == 5
    frame = pd.DataFrame({"new_label": ["x"], "note": ["n"]}, index=["a"])
    assert fixes_fingerprint(frame) == printed(a="x"), "notes don't matter"


def test_a_folder_is_no_fixes_file(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text("{}")
    with pytest.raises(FixesError, match=r"(?s)fixes.path=\S+ is a folder.*fixes.path=\S+labels.json"):
        read_fixes(tmp_path)
