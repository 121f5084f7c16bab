"""YAML and JSON as they are written, and where they can't be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlfix_train.data.files.documents import decode_text, read_json, read_yaml
from mlfix_train.data.files.json_files import JsonPatch
from mlfix_train.errors import DataError

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32")


def test_names_in_yaml_stay_as_they_are_written(tmp_path: Path) -> None:
    names = ["020", "030", "1.10", "no", "yes", "on", "null", "1_000", "12:30", "2024-01-01", "0x10", "~", "1e3", "NaN"]
    file = tmp_path / "data.yaml"
    file.write_text("names: [" + ", ".join(names) + ']\nnc: 3\nquoted: "007"\nempty:\n020: x\n')
    assert read_yaml(file) == {"names": names, "nc": "3", "quoted": "007", "empty": "", "020": "x"}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "file"
    file.write_bytes("names: [größe]\n".encode(encoding))
    assert read_yaml(file) == {"names": ["größe"]}
    file.write_bytes('{"names": ["größe"]}'.encode(encoding))
    assert read_json(file) == ({"names": ["größe"]}, "")
    text, codec, mark = decode_text(file.read_bytes())
    assert mark + text.encode(codec) == file.read_bytes()
    file.write_bytes('{"rows": [{"label": "größe"}]}'.encode(encoding))
    patch = JsonPatch(file)
    patch.relabel("rows", ["k"], "label", {"k": "maß"})
    patch.write(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == '{"rows": [{"label": "maß"}]}'.encode(encoding)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("names:\n  0: a\n  1: b\n  0: c\n", "the key '0' stands in line 2 and in line 4"),
        ("names: {a: 1, a: 2}\n", "the key 'a' stands in line 1 and in line 1"),
        ("names: [a, b\ntrain: 3\n", "is not valid YAML: line 2, column 6"),
        ("a: b\n\tc: d\n", "is not valid YAML: line 2, column 1"),
        ("a: b\nc: \x07\n", "line 2, column 4: the character #x0007 is not allowed"),
        ("[a, b]: c\n", "a key is not text"),
    ],
)
def test_yaml_that_is_refused_names_the_place(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        read_yaml(file)
    assert expected in str(caught.value) and str(file) in str(caught.value)


def test_yaml_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("a: b\nc: gr\u00f6\u00dfe\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"line 2 is not UTF-8 \(byte 0xf6\)"):
        read_yaml(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1,\n "b": 2,\n "a": 3}', "the key 'a' stands in line 1 and in line 3"),
        ('{"rows": [{"x": 1},\n {"x": 1, "x": 2}]}', "the key 'x' stands in line 2 and in line 2"),
        ('{"a": "NaN",\n "b": NaN}', "it contains NaN in line 2, column 7"),
        ("[1,\n-Infinity]", "it contains -Infinity in line 2, column 1"),
        ('{"a": 1,\n"b": [1, 2', "it is cut off in line 2"),
        ('{"a": 1,\n"b": "text', "it is cut off in line 2"),
        ('{"a": tru', "it is cut off in line 1"),
        ('{"a": 1', "it is cut off in line 1"),
        ('{"a": 1,}', "it is not valid JSON: Expecting property name enclosed in double quotes in line 1, column 9"),
        ("", "it is empty"),
    ],
)
def test_json_that_is_refused_names_the_place(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "file.json").write_text(text)
    content, problem = read_json(tmp_path / "file.json")
    assert content is None and expected in problem


def test_numbers_in_json(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text('{"a": 1.10, "b": NaN, "c": 3}')
    content, problem = read_json(tmp_path / "file.json", allow_nan=True)
    assert problem == "" and content["a"] == 1.1 and content["b"] != content["b"]
    assert read_json(tmp_path / "file.json", allow_nan=True, exact=True)[0]["a"] == "1.10"
