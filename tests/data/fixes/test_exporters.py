"""Fixed copies: class folders, tables and Hugging Face data sets with the fixes applied, and nothing else changed."""

from __future__ import annotations

import csv
import hashlib
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from containers import COLORS, encoded, write_mnist, write_shard

from mlfix_train.data.fixes.exporters import extract_images, write_fixed_folder, write_fixed_hf, write_fixed_table
from mlfix_train.data.pixels.decode import decode_image
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.data.readers.table import read_table
from mlfix_train.data.readers.torchvision import read_torchvision
from mlfix_train.data.readers.webdataset import read_webdataset
from mlfix_train.errors import DataError


def fixes(**new: str) -> pd.DataFrame:
    return pd.DataFrame({"new_label": list(new.values())}, index=pd.Index(list(new), name="sample_id"), dtype=object)


def changes(out: Path) -> list[list[str]]:
    with open(out / "changes.csv", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def contents(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("links", ["copy", "hard", "symbolic"])
def test_class_folders(folder: Path, tmp_path: Path, links: str) -> None:
    before, out = contents(folder), tmp_path / "out"
    new = fixes(**{"stop/0.png": "yield", "stop/1.png": "invalid", "yield/2.png": "no-entry"})
    done = write_fixed_folder(read_folder(folder), new, out, links)
    assert (done.samples, done.relabeled, done.excluded, done.renamed) == (5, 2, 1, 1)
    found = contents(out)
    del found["changes.csv"]
    places = {"stop/0.png": "yield/0-stop.png", "yield/2.png": "no-entry/2.png"}
    assert found == {places.get(name, name): digest for name, digest in before.items() if name != "stop/1.png"}
    assert changes(out) == [
        ["stop/0.png", "stop", "yield", "yield/0-stop.png"],
        ["stop/1.png", "stop", "invalid", ""],
        ["yield/2.png", "yield", "no-entry", "no-entry/2.png"],
    ]
    assert contents(folder) == before
    file = out / "stop/2.png"
    assert (file.is_symlink(), os.path.samefile(file, folder / "stop/2.png")) == (links == "symbolic", links != "copy")
    assert read_folder(out)["label"].tolist() == ["no-entry", "stop", "yield", "yield", "yield"]


def test_split_folders_and_deeper_ones(tmp_path: Path, picture) -> None:
    for name in ("train/a/x/1.png", "train/b/x/1.png", "train/b/x/1-a.png", "Val/a/2.png"):
        picture(tmp_path / "d" / name)
    done = write_fixed_folder(read_folder(tmp_path / "d"), fixes(**{"train/a/x/1.png": "b"}), tmp_path / "out")
    assert done.renamed == 1
    found = read_folder(tmp_path / "out")
    assert found.index.tolist() == ["train/b/x/1-a-2.png", "train/b/x/1-a.png", "train/b/x/1.png", "val/a/2.png"]
    assert found["split"].tolist() == ["train"] * 3 + ["val"]


def test_labels_that_are_no_names_of_folders(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    new = fixes(**{"stop/0.png": "a/b", "stop/1.png": "..", "stop/2.png": ".x"})
    write_fixed_folder(read_folder(folder), new, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a%2Fb", "%2E%2E", "%2Ex", "yield", "changes.csv"}
    assert "3 label(s) can't be the name of a folder" in caplog.text


def test_names_that_folders_have_stay_however_often_they_are_copied(tmp_path: Path, picture) -> None:
    for number, label in enumerate(("etc...", 'say "hi"', "100%", "a: b")):
        picture(tmp_path / "d" / label / f"{number}.png")
    write_fixed_folder(read_folder(tmp_path / "d"), fixes(**{"etc.../0.png": "100%"}), tmp_path / "x")
    write_fixed_folder(read_folder(tmp_path / "x"), fixes(), tmp_path / "y")
    assert read_folder(tmp_path / "y")["label"].tolist() == ["100%", "100%", "a: b", 'say "hi"']
    new = fixes(**{"100%/2.png": "@eaDir", "a: b/3.png": "lost+found"})  # which readers would pass over
    write_fixed_folder(read_folder(tmp_path / "y"), new, tmp_path / "z")
    assert len(read_folder(tmp_path / "z")) == 4


def test_unsorted_images(tmp_path: Path, picture) -> None:
    for name in ("1.png", "2.png"):
        picture(tmp_path / "d" / name)
    write_fixed_folder(read_folder(tmp_path / "d"), fixes(**{"1.png": "a"}), tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == ["a/1.png", "changes.csv", "unlabelled/2.png"]


def test_images_inside_other_files_become_files(tmp_path: Path) -> None:
    shard = {
        "p/0.img.jpg": encoded(COLORS[1], "JPEG"),
        "p/0.cls": b"x",
        "1.img.jpg": encoded(kind="JPEG"),
        "1.cls": b"y",
    }
    table = read_webdataset(write_shard(tmp_path / "0.tar", shard))
    write_fixed_folder(table, fixes(**{"p/0": "y"}), tmp_path / "a")
    assert (tmp_path / "a/y/p/0.jpg").read_bytes() == shard["p/0.img.jpg"] and (tmp_path / "a/y/1.jpg").is_file()
    table = read_torchvision("MNIST", write_mnist(tmp_path / "m"))
    write_fixed_folder(table, fixes(**{"test/1": "1 - one"}), tmp_path / "b")
    found = read_folder(tmp_path / "b")
    assert found.loc["test/1 - one/1.png", ["label", "split"]].tolist() == ["1 - one", "test"]
    assert (decode_image(found.loc["train/2 - two/2.png", "path"], 8) == 30).all()
    assert changes(tmp_path / "b") == [["test/1", "0 - zero", "1 - one", "test/1 - one/1.png"]]
    files = extract_images({"train/0": table["path"].iloc[0], "a": "/x/a.jpg"}, tmp_path / "images")
    assert files == {"train/0": str(tmp_path / "images/train/0.png"), "a": "/x/a.jpg"}
    assert Path(files["train/0"]).is_file()


def test_a_failed_copy_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    table = read_folder(folder)
    (folder / "yield/2.png").unlink()
    (folder / "yield/1.png").unlink()
    (folder / "yield/1.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"(?s)2 images are missing, 1 of them links to nothing.*yield/2.png.*invalid"):
        write_fixed_folder(table, fixes(), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]
    (tmp_path / ".out.unfinished/stop").mkdir(parents=True)  # of an export that was killed
    (tmp_path / "out").mkdir()
    new = fixes(**{"yield/1.png": "invalid", "yield/2.png": "invalid"})
    write_fixed_folder(table, new, tmp_path / "out", "symbolic")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([folder.name, "out"])


ROWS = 'path,label,note\n1.jpg,stop,"a, ""b"""\n2.jpg,yield,\n"3.jpg","stop","two\nlines"\n4.jpg, 007 ,x\n'
FIXED = 'path,label,note\n1.jpg,"a, b","a, ""b"""\n"3.jpg","yield","two\nlines"\n4.jpg, stop ,x\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_csv_keeps_every_other_byte(tmp_path: Path, encoding: str, newline: str) -> None:
    """Quotes, blanks, byte order mark and ends of lines stay as they are."""
    source = tmp_path / "t.csv"
    source.write_bytes(ROWS.replace(" 007 ", "007").replace("\n", newline).encode(encoding))
    new = fixes(**{"1.jpg": "a, b", "2.jpg": "invalid", "3.jpg": "yield", "4.jpg": "stop"})
    done = write_fixed_table(source, read_table(source), new, "label", tmp_path / "out")
    assert (done.samples, done.relabeled, done.excluded) == (3, 3, 1)
    wanted = FIXED.replace(" stop ", "stop").replace("\n", newline)
    assert done.path == tmp_path / "out/t.csv" and done.path.read_bytes() == wanted.encode(encoding)
    assert changes(tmp_path / "out")[1] == ["2.jpg", "yield", "invalid", ""]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("head", ["", "sep=;\r\n", "# my labels\r\n"])
def test_other_separators_and_encodings_stay(tmp_path: Path, encoding: str, head: str) -> None:
    source = tmp_path / "t.csv"
    rows = head + "Path; Label ;note\r\n1.jpg; halt ;0,5\r\n# sure\r\n2.jpg;tür;1,0\r\n"
    source.write_bytes(rows.encode(encoding))
    new = fixes(**{"1.jpg": "a;b", "2.jpg": "invalid"})
    done = write_fixed_table(source, read_table(source), new, "label", tmp_path / "out")
    wanted = head + 'Path; Label ;note\r\n1.jpg; "a;b" ;0,5\r\n# sure\r\n'
    assert done.path.read_bytes() == wanted.encode(encoding)
    assert read_table(done.path)["label"].tolist() == ["a;b"]


def test_the_last_line_of_a_csv_without_an_end(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_text("label,path\nstop,1.jpg\n\nyield,2.jpg\nstop,3.jpg")
    write_fixed_table(
        source, read_table(source), fixes(**{"3.jpg": "invalid", "1.jpg": "yield"}), "label", tmp_path / "a"
    )
    assert (tmp_path / "a/t.csv").read_text() == "label,path\nyield,1.jpg\n\nyield,2.jpg\n"
    with pytest.raises(DataError, match=r"(?s)t.csv: no column 'sign' \(data.columns.label\)"):
        write_fixed_table(source, read_table(source), fixes(), "sign", tmp_path / "b")
    table = read_table(source)
    source.write_text("label,path\nother,1.jpg\nyield,2.jpg\nstop,3.jpg\n")
    with pytest.raises(DataError, match=r"the labels from row 1 on are not those that were read"):
        write_fixed_table(source, table, fixes(), "label", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    source = tmp_path / "t.parquet"
    columns = {"path": ["1.jpg", "2.jpg", "3.jpg"], "label": pa.array([1, 2, 1], pa.int32()), "box": [[1, 2], [3], []]}
    pq.write_table(pa.table(columns).replace_schema_metadata({"who": "me"}), source)
    write_fixed_table(source, read_table(source), fixes(**{"1.jpg": "2", "2.jpg": "invalid"}), "label", tmp_path / "a")
    found = pq.read_table(tmp_path / "a/t.parquet")
    assert found.to_pydict() == {"path": ["1.jpg", "3.jpg"], "label": [2, 1], "box": [[1, 2], []]}
    assert found.schema == pq.read_table(source).schema and found.schema.metadata[b"who"] == b"me"
    write_fixed_table(source, read_table(source), fixes(**{"1.jpg": "new"}), "label", tmp_path / "b")
    assert pq.read_table(tmp_path / "b/t.parquet")["label"].to_pylist() == ["new", "2", "1"], "text where it has to be"


@pytest.mark.parametrize(
    ("values", "new", "wanted"),
    [
        ([True, False, None], "False", [False, False, None]),
        ([1.0, 2.0, None], "2", [2.0, 2.0, None]),
    ],
)
def test_parquet_of_booleans_and_numbers_with_gaps(tmp_path: Path, values: list, new: str, wanted: list) -> None:
    source = tmp_path / "t.parquet"
    pq.write_table(pa.table({"path": ["1.jpg", "2.jpg", "3.jpg"], "label": values}), source)
    write_fixed_table(source, read_table(source), fixes(**{"1.jpg": new}), "label", tmp_path / "a")
    assert pq.read_table(tmp_path / "a/t.parquet")["label"].to_pylist() == wanted


def test_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason='not installed: pip install "mlfix-train[hf]"')
    from mlfix_train.data.readers.hf import open_hf, read_hf

    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"]), "n": datasets.Value("int8")}
    images = [{"bytes": encoded(color), "path": None} for color in COLORS]
    columns = {"image": images, "label": [0, 1, -1], "n": [1, 2, 3]}
    part = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    datasets.DatasetDict({"train": part, "test": part.select([1, 0])}).save_to_disk(tmp_path / "d")
    new = fixes(**{"train/0": "b", "train/1": "invalid", "test/0": "new"})
    done = write_fixed_hf(open_hf(tmp_path / "d", None), read_hf(tmp_path / "d"), new, tmp_path / "out")
    assert (done.samples, done.relabeled, done.excluded) == (4, 2, 1)
    found = datasets.load_from_disk(tmp_path / "out")
    assert found["train"].column_names == ["image", "label", "n"]
    assert found["train"].features["label"].names == ["a", "b", "new"] == found["test"].features["label"].names
    assert (found["train"]["label"][:], found["train"]["n"][:]) == ([1, -1], [1, 3])
    assert (found["test"]["label"][:], found["test"]["n"][:]) == ([2, 0], [2, 1])
    assert found["train"][1]["image"].getpixel((0, 0)) == COLORS[2]
    assert read_hf(tmp_path / "out")["label"].tolist() == ["b", None, "new", "a"]
    columns["label"] = ["x", "y", None]
    text = datasets.Features({**features, "label": datasets.Value("string")})
    datasets.Dataset.from_dict(columns, features=text).save_to_disk(tmp_path / "t")
    write_fixed_hf(open_hf(tmp_path / "t", None), read_hf(tmp_path / "t"), fixes(**{"2": "z"}), tmp_path / "u")
    assert datasets.load_from_disk(tmp_path / "u")["label"][:] == ["x", "y", "z"]
