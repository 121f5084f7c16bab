"""The reader of WebDataset shards: ids, labels, splits, and what is wrong with a shard."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from containers import COLORS, encoded, write_shard

from mlfix_train.data.pixels.decode import decode_image
from mlfix_train.data.readers.webdataset import read_webdataset
from mlfix_train.errors import DataError


def sample(key: str, label: object = 0, image: bytes | None = None) -> dict[str, bytes]:
    return {f"{key}.png": image or encoded(), f"{key}.cls": str(label).encode()}


def test_keys_labels_and_metadata(tmp_path: Path) -> None:
    fields = json.dumps({"camera": 3, "tags": ["x"], "path": "p"}).encode()
    members = {
        **sample("a/0001", 7, encoded(COLORS[1])),
        "a/0001.json": fields,
        "./b.png": encoded(),
        "b.cls": b" 12\n",
    }
    table = read_webdataset(write_shard(tmp_path / "0.tar", members))
    assert table.index.tolist() == ["a/0001", "b"] and table["label"].tolist() == ["7", "12"]
    assert table["camera"].iloc[0] == 3 and "tags" not in table and table["path_in_file"].iloc[0] == "p"
    assert (decode_image(table["path"].iloc[0], 8) == COLORS[1]).all()
    assert (table["split"] == "").all() and table["group"].tolist() == table.index.tolist()


@pytest.mark.parametrize("member", ["cls", "txt", "json"])
@pytest.mark.parametrize(("value", "label"), [("007", "007"), ("NA", "NA"), ("true", "true"), ("größe", "größe")])
def test_labels_are_kept_as_they_are_written(tmp_path: Path, member: str, value: str, label: str) -> None:
    content = json.dumps({"label": value}) if member == "json" else value
    shard = write_shard(tmp_path / "0.tar", {"a.png": encoded(), f"a.{member}": content.encode()})
    assert read_webdataset(shard, label="txt" if member == "txt" else None)["label"].tolist() == [label]


def test_numbers_in_json_are_labels_and_names_replace_them(tmp_path: Path) -> None:
    members = {f"{i}.jpg": encoded(kind="JPEG") for i in range(3)}
    members |= {f"{i}.json": json.dumps({"cls": value}).encode() for i, value in enumerate((1, 0.0, None))}
    write_shard(tmp_path / "0.tar", members)
    assert read_webdataset(tmp_path)["label"].tolist() == ["1", "0", None]
    (tmp_path / "classnames.txt").write_text("cat\ndog\nbird\n")
    assert read_webdataset(tmp_path)["label"].tolist() == ["dog", "cat", None]
    assert read_webdataset(tmp_path).attrs["classes"] == ["cat", "dog", "bird"]
    (tmp_path / "other.txt").write_text("one\n")
    with pytest.raises(DataError, match=r"(?s)class 1 has no name; there are 1.*names="):
        read_webdataset(tmp_path, names=tmp_path / "other.txt")


def test_splits_and_repeated_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train-000", "train-001", "val-000"):
        write_shard(tmp_path / f"{name}.tar", sample("0") | sample(f"only-{name}"))
    caplog.set_level(logging.INFO)
    table = read_webdataset(tmp_path)
    assert table.index.tolist() == [
        *("train-000/0", "only-train-000", "train-001/0", "only-train-001", "val-000/0", "only-val-000"),
    ]
    assert table["split"].tolist() == ["train"] * 4 + ["val"] * 2
    assert "1 key(s) occur in several shards" in caplog.text
    (tmp_path / "train-001.tar").unlink()
    assert read_webdataset(tmp_path).index.tolist()[::2] == ["train/0", "val/0"]


def test_names_with_dots(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    members = {f"./{name}.{end}": b"1" for name in ("Track 2.0 (x)", "Track 2.1 (x)", "3") for end in ("jpg", "cls")}
    write_shard(tmp_path / "0.tar", members)
    with caplog.at_level(logging.INFO):
        table = read_webdataset(tmp_path)
    assert table["label"].to_dict() == {"Track 2.0 (x)": "1", "Track 2.1 (x)": "1", "3": "1"}
    assert "names have dots, such as Track 2.0 (x): their last one begins the extension" in caplog.text
    views = {f"{key}.{view}": b"1" for key in "abc" for view in ("left.jpg", "right.jpg", "cls")}
    views |= {"d.left.jpg": b"1", "d.cls": b"2"}
    write_shard(tmp_path / "0.tar", views)
    assert read_webdataset(tmp_path, image="right.jpg").index.tolist() == ["a", "b", "c"]
    with pytest.raises(DataError, match=r"samples have several images: .left.jpg, .right.jpg"):
        read_webdataset(tmp_path)


def test_patterns_and_missing_shards(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (0, 1, 3):
        write_shard(tmp_path / f"s-{number:03d}.tar", sample(f"k{number}"))
    assert read_webdataset(tmp_path / "s-{000..001}.tar").index.tolist() == ["k0", "k1"]
    assert read_webdataset(tmp_path / "s-{001,003}.tar").index.tolist() == ["k1", "k3"]
    assert len(read_webdataset(tmp_path / "s-*.tar")) == 3
    assert "1 shard(s) seem to be missing" in caplog.text and "s-*2.tar" in caplog.text
    with pytest.raises(DataError, match=r"2 of 5 shards are missing: \S*s-002.tar, \S*s-004.tar"):
        read_webdataset(tmp_path / "s-{000..004}.tar")
    for root, problem in (
        (None, "not set"),
        (tmp_path / "x", "no such file"),
        (tmp_path.parent / "empty", "no shards"),
    ):
        (tmp_path.parent / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=problem):
            read_webdataset(root)
    (tmp_path / "t.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)1 shard\(s\) are compressed.*t.tar.gz.*gunzip"):
        read_webdataset(tmp_path)


def test_damaged_shards_and_members(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shard = write_shard(tmp_path / "0.tar", {**sample("a"), **sample("b")})
    whole = shard.read_bytes()
    shard.write_bytes(whole[: 4 * 512 + 600])
    with pytest.raises(DataError, match=r"0.tar is damaged after b.png"):
        read_webdataset(shard)
    shard.write_bytes(whole[: 8 * 512])
    assert read_webdataset(shard).index.tolist() == ["a", "b"]
    assert "ends without the mark" in caplog.text
    shard.write_bytes(b"x" * 2048)
    with pytest.raises(DataError, match=r"0.tar is damaged"):
        read_webdataset(shard)
    write_shard(shard, [("a.png", encoded()), ("a.cls", b"1"), ("a.png", encoded())])
    with pytest.raises(DataError, match=r"0.tar: a.png is in the shard twice"):
        read_webdataset(shard)
    write_shard(shard, {"a.png": encoded(), "a.json": b"{"})
    with pytest.raises(DataError, match=r"0.tar: a.json: it is cut off in line 1"):
        read_webdataset(shard)
    write_shard(shard, {"a.png": encoded(), "a.json": b'{"label": "x", "label": "y"}'})
    with pytest.raises(DataError, match=r"0.tar: a.json: the key 'label' stands in line 1 and in line 1"):
        read_webdataset(shard)
    thumbnail = {"@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg": encoded(), "__MACOSX/._a.png": b"x"}
    write_shard(shard, {**sample("a"), **thumbnail})
    assert read_webdataset(shard).index.tolist() == ["a"]


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"a.txt": b"x"}, r"no member is an image; they end in txt"),
        ({"a.left.png": b"1", "a.right.png": b"1"}, r"(?s)several images: .left.png, .right.png.*image=.left.png"),
        ({"a.png": b"1", "a.json": b'{"label": [1, 2]}'}, r"(?s)the label of row 0 is a list, \[1, 2\].*multi-label"),
        ({"a.png": b"1", "a.json": b'{"label": 0.5}'}, r"label of row 0 is 0.5: a number to predict \(regression\)"),
        ({"a.png": b"1", "a.json": b'{"label": 1, "class": 2}'}, r"(?s)several keys.*label, class.*label=.label"),
    ],
)
def test_what_can_not_be_known_is_an_error(tmp_path: Path, members: dict[str, bytes], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_webdataset(write_shard(tmp_path / "0.tar", members))


def test_keys_choose_and_are_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    members = {
        "a.left.png": encoded(COLORS[0]),
        "a.right.png": encoded(COLORS[2]),
        "a.json": b'{"kind": "x"}',
        "b.cls": b"1",
    }
    shard = write_shard(tmp_path / "0.tar", members)
    table = read_webdataset(shard, image="right.png", label="kind")
    assert table["label"].tolist() == ["x"] and (decode_image(table["path"].iloc[0], 8) == COLORS[2]).all()
    assert "1 samples have no .right.png and are left out: b in 0.tar" in caplog.text
    with pytest.raises(DataError, match=r"(?s)no member ends in .rigth.png \(image\).*right.png"):
        read_webdataset(shard, image="rigth.png")
    with pytest.raises(DataError, match=r"(?s)no .knd and no key 'knd' \(label\).*did you mean 'kind'"):
        read_webdataset(shard, image="right.png", label="knd")


def test_images_in_several_formats_and_no_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    members = {"a.png": encoded(), "b.jpg": encoded(kind="JPEG"), "b.txt": b"a caption"}
    table = read_webdataset(write_shard(tmp_path / "0.tar", members))
    assert table.index.tolist() == ["a", "b"] and table["label"].isna().all()
    assert "samples have no label; data.label=<name> takes it from one of these: .txt" in caplog.text
