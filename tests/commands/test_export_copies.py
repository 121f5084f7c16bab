"""``mlfix export`` writes fixed copies of data by any of its keys, and refuses what would harm the source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from box_helpers import write_fixes_file
from containers import encoded, write_mnist, write_shard

from mlfix_train.data.readers.folder import read_folder
from mlfix_train.data.readers.table import read_table


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(encoded())
    return tmp_path / "photos"


@pytest.mark.parametrize("to", ["source", "folder"])
def test_class_folders(tmp_path: Path, photos: Path, mlfix, to: str) -> None:
    fixes = write_fixes_file(tmp_path / "f.csv", {"a/1.png": "b", "a/2.png": "invalid"})
    answer = mlfix("export", f"to={to}", f"data.root={photos}", fixes, f"out={tmp_path / 'out'}", "links=symbolic")
    assert answer.code == 0, answer.err
    assert read_folder(tmp_path / "out").index.tolist() == ["b/1-a.png", "b/1.png"], "a label may vanish"
    assert "exported   2 samples, 1 with a new label, 1 left out as invalid, 1 renamed" in answer.out
    assert f"mlfix train data.root={tmp_path / 'out'}" in answer.out


def test_a_table_is_read_with_the_folder_of_its_images(tmp_path: Path, photos: Path, mlfix) -> None:
    (photos / "t.csv").write_text("path,sign\na/1.png,x\nb/1.png,y\n")
    fixes = write_fixes_file(tmp_path / "f.csv", {"a/1.png": "y"})
    data = ("data=table", f"data.file={photos / 't.csv'}", "data.columns.label=sign")
    answer = mlfix("export", "to=source", *data, fixes, f"out={tmp_path / 'out'}")
    assert answer.code == 0, answer.err
    assert f"data=table data.file={tmp_path / 'out/t.csv'} data.root={photos}" in answer.out
    table = read_table(tmp_path / "out/t.csv", photos, {"path": "path", "label": "sign"})
    assert table["label"].tolist() == ["y", "y"] and all(Path(path).is_file() for path in table["path"])


def test_other_readers_to_class_folders(tmp_path: Path, mlfix) -> None:
    shard = write_shard(tmp_path / "0.tar", {"p.png": encoded(), "p.cls": b"0", "q.png": encoded(), "q.cls": b"1"})
    for number, (data, sample) in enumerate(
        (
            (("data=webdataset", f"data.root={shard}"), "p"),
            (("data=torchvision", "data.name=MNIST", f"data.root={write_mnist(tmp_path / 'm')}"), "train/1"),
        )
    ):
        new, place = {"p": ("1", "1/p.png"), "train/1": ("2 - two", "train/2 - two/1.png")}[sample]
        fixes = write_fixes_file(tmp_path / "f.csv", {sample: new})
        answer = mlfix("export", "to=folder", *data, fixes, f"out={tmp_path / str(number)}")
        assert answer.code == 0, answer.err
        assert read_folder(tmp_path / str(number)).loc[place, "label"] == new


def test_what_is_refused(tmp_path: Path, photos: Path, mlfix) -> None:
    fixes = write_fixes_file(tmp_path / "f.csv", {"a/1.png": "b"})
    root, out = f"data.root={photos}", f"out={tmp_path / 'out'}"
    mnist = ("data=torchvision", "data.name=MNIST", f"data.root={write_mnist(tmp_path)}")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    for arguments, expected in (
        (("to=source", fixes, out), "needs crops or data"),
        (("to=folder", root, out), "needs fixes.path"),
        (("to=folder", root, fixes, f"out={photos / 'fixed'}"), "is inside data.root"),
        (("to=folder", root, fixes, f"out={tmp_path / 'full'}"), "is not empty"),
        (("to=folder", root, fixes, out, "links=soft"), "links=soft is not one of copy, hard, symbolic"),
        (("to=hf", root, fixes, out), "is not read by data=hf"),
        (("to=source", *mnist, fixes, out), "has no format of its own to copy\n  -> use to=folder"),
        (("to=source", root, "crops=c", fixes, out), "crops and data are both set"),
        (("to=folder", "crops=c", fixes, out), "needs data, not crops"),
        (("to=coco", root, fixes, out), "to=coco needs crops"),
    ):
        answer = mlfix("export", *arguments)
        assert (answer.code, expected in answer.err) == (2, True), (arguments, answer.err)
    (photos / "t.csv").write_text("path,label\na/1.png,a\nb/1.png,b\n")
    answer = mlfix("export", "to=table", "data=table", f"data.file={photos / 't.csv'}", fixes, out, "links=hard")
    assert (answer.code, "links no images" in answer.err) == (2, True), answer.err
    assert not (tmp_path / "out").exists()


def test_the_whole_loop_on_shards(tmp_path: Path, mlfix) -> None:
    """Audited by the images alone, without files of their own; FiftyOne gets files."""
    colors = ((200, 30, 30), (30, 30, 200))
    members = {}
    for i in range(24):
        members[f"{i:02d}.png"] = encoded((colors[i % 2][0] - i, i, colors[i % 2][2]))
        members[f"{i:02d}.cls"] = b"1" if i == 4 else b"%d" % (i % 2)
    data = ("data=webdataset", f"data.root={write_shard(tmp_path / '0.tar', members)}")
    keys = ("by=pixels", "logger=none", f"pixels.cache={tmp_path / 'cache'}", "pixels.size=8")
    answer = mlfix("audit", *data, *keys, f"out={tmp_path / 'audit'}")
    assert answer.code == 0, answer.err
    assert (tmp_path / "audit/panels/worst.png").is_file()
    assert (tmp_path / "audit/ranking.csv").read_text().splitlines()[1].startswith("04,1,0,")
    answer = mlfix("export", "to=fiftyone", f"audit={tmp_path / 'audit'}", f"out={tmp_path / 'out'}", "top=2")
    assert answer.code == 0, answer.err
    files = list(json.loads((tmp_path / "out/labels.json").read_text())["labels"])
    assert len(files) == 2 and files[0] == str(tmp_path / "out/images/04.png") and Path(files[1]).is_file()
