"""`mlfix crop`: every box cropped or named, with its reason; interrupted it goes on; what comes next reads it."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from box_helpers import ONE, SMALL_PNG
from photos import COLORS, WRITE, Photo, for_format, photos, write_coco, write_mtsd, write_yolo
from PIL import Image
from shapes import FAST, start

from mlfix_train import run_command
from mlfix_train.commands.inputs import read_samples
from mlfix_train.data.crops import build as crop_build
from mlfix_train.data.crops import photo as crop_photo_module
from mlfix_train.data.readers.crops import read_crops
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.errors import ConfigError


def table_of(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "samples.parquet").set_index("sample_id")


def dropped_of(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "dropped.csv", keep_default_na=False)


@pytest.mark.parametrize("name", list(WRITE))
def test_every_box_is_cropped_and_shows_its_color(name: str, tmp_path: Path, mlfix, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = for_format(name)
    WRITE[name](tmp_path / "data", made)
    answer = mlfix("crop", "data.root=data", *SMALL_PNG)
    assert answer.code == 0, answer.err
    table = table_of(tmp_path / "crops")
    count = sum(len(photo.boxes) for photo in made)
    assert len(table) == count and len(dropped_of(tmp_path / "crops")) == 0
    assert f"cropped    {count:,} of {count:,} boxes" in answer.out
    for sample, row in table.iterrows():
        pixels = np.asarray(Image.open(tmp_path / "crops" / str(sample)), float)
        assert pixels.shape == (16, 16, 3)
        assert np.abs(pixels[2:-2, 2:-2] - COLORS[row["label"]]).mean() < 6, sample
        assert str(row["group"]).rpartition("/")[2] in str(sample)
    by_name = {photo.name: photo for photo in made}
    for row in table.itertuples():
        photo = by_name[row.group.rpartition("/")[2]]
        box = tuple(round(edge) for edge in (row.x_min, row.y_min, row.x_max, row.y_max))
        assert (row.label, box) in photo.boxes
        assert (row.split, row.photo_width, row.photo_height) == (photo.split, photo.width, photo.height)
        assert row.aspect == pytest.approx((box[2] - box[0]) / (box[3] - box[1]), abs=1e-3)
    assert int(table["wraps"].sum()) == (1 if name == "mtsd" else 0)


def test_what_comes_next_reads_the_crops(tmp_path: Path, mlfix, monkeypatch) -> None:
    """Crops train as they are, with photos as groups; escaped labels are themselves again."""
    monkeypatch.chdir(tmp_path)
    write_mtsd(tmp_path / "data", photos(count=24))
    table = run_command("crop", "data.root=data", "out=crops", *SMALL_PNG)
    assert list(table.columns[:4]) == ["path", "label", "group", "split"]
    assert all(Path(path).is_file() for path in table["path"])
    read = read_crops(tmp_path / "crops")
    assert read["label"].equals(table["label"]) and read["group"].equals(table["group"])
    assert "speed/50 km:h" in set(read["label"])
    assert sorted(read_folder(tmp_path / "crops").index) == sorted(read.index)
    (tmp_path / "crops").rename(tmp_path / "moved")  # the table knows no absolute path
    answer = mlfix("train", "data=crops", "data.root=moved", "split.column=split", *FAST, "recipe.epochs=1")
    assert answer.code == 0, answer.err
    assert f"held out   {(table['split'] == 'val').sum()} of {len(table)} samples" in answer.out


def test_ids_survive_reordering_and_new_boxes(tmp_path: Path) -> None:
    """A crop keeps its name when objects are shuffled, others go or come, and photos are listed otherwise."""
    made = photos(count=8)
    write_mtsd(tmp_path / "data", made)
    first = run_command("crop", f"data.root={tmp_path / 'data'}", f"out={tmp_path / 'a'}", *SMALL_PNG)
    for file in (tmp_path / "data/annotations").iterdir():
        content = json.loads(file.read_text())
        random.Random(1).shuffle(content["objects"])
        content["objects"] = content["objects"][: max(1, len(content["objects"]) - 1)]
        file.write_text(json.dumps(content))
    second = run_command("crop", f"data.root={tmp_path / 'data'}", f"out={tmp_path / 'b'}", *SMALL_PNG)
    assert set(second.index) < set(first.index)
    for sample in second.index:
        assert second.at[sample, "annotation"] == first.at[sample, "annotation"]
        assert (tmp_path / "a" / sample).read_bytes() == (tmp_path / "b" / sample).read_bytes()


@pytest.mark.parametrize("name", ["coco", "yolo", "voc"])
def test_ids_survive_reordering_in_every_format(name: str, tmp_path: Path) -> None:
    made = for_format(name)
    WRITE[name](tmp_path / "data", made)
    first = run_command("crop", f"data.root={tmp_path / 'data'}", f"out={tmp_path / 'a'}", *SMALL_PNG)
    if name == "coco":
        for file in (tmp_path / "data/annotations").iterdir():
            content = json.loads(file.read_text())
            for rows in (content["annotations"], content["images"], content["categories"]):
                rows.reverse()
            file.write_text(json.dumps(content))
    else:
        for photo in made:
            photo.boxes.reverse()
        WRITE[name](tmp_path / "data", made)
    second = run_command("crop", f"data.root={tmp_path / 'data'}", f"out={tmp_path / 'b'}", *SMALL_PNG)
    assert sorted(second.index) == sorted(first.index)
    assert second["label"].sort_index().equals(first["label"].sort_index())


def test_names_by_position_are_those_of_the_published_crops(tmp_path: Path) -> None:
    made = photos()
    write_mtsd(tmp_path / "data", made)
    table = run_command("crop", f"data.root={tmp_path / 'data'}", f"out={tmp_path / 'a'}", "ids=positions", *SMALL_PNG)
    wanted = {
        f"{label.replace('/', '%2F').replace(':', '%3A')}/{photo.name}-{place}.png"
        for photo in made
        for place, (label, _) in enumerate(photo.boxes)
    }
    assert set(table.index) == wanted


def broken(root: Path) -> dict[str, str]:
    """Adds an object of every kind that can't be cropped to two photos; returns key to problem."""
    good = {"xmin": 1, "xmax": 19, "ymin": 5, "ymax": 29}
    kinds = {
        "nan": ({"xmin": float("nan")}, "not a number"),
        "swapped": ({"xmin": 50, "xmax": 20}, "swapped corners"),
        "below": ({"ymin": 90, "ymax": 20}, "swapped corners"),
        "flat": ({"ymax": 5}, "no area"),
        "out": ({"xmin": 900, "xmax": 950}, "outside"),
        "left": ({"xmin": -30, "xmax": -3}, "outside"),
        "tiny": ({"xmax": 1.2}, "too small"),
        "inf": ({"xmax": float("inf")}, "not a number"),
    }
    file = root / "annotations/photo0.json"
    content = json.loads(file.read_text())
    for key, (changes, _) in kinds.items():
        box = {**good, **changes}
        content["objects"].append({"key": key, "label": "stop", "bbox": box, "properties": {}})
    content["objects"].append(
        {"key": "over", "label": "stop", "bbox": {**good, "xmin": -5, "ymin": -4}, "properties": {}}
    )
    file.write_text(json.dumps(content))
    return {key: problem for key, (_, problem) in kinds.items()}


def test_boxes_that_cant_be_cropped_are_named(tmp_path: Path, mlfix) -> None:
    write_mtsd(tmp_path / "data", photos())
    wanted = broken(tmp_path / "data")
    answer = mlfix("crop", f"data.root={tmp_path / 'data'}", f"out={tmp_path / 'a'}", *SMALL_PNG)
    assert answer.code == 0
    dropped = dropped_of(tmp_path / "a").set_index("annotation")
    assert dropped["problem"].to_dict() == wanted
    assert "dropped    8 boxes: 2 not a number, 2 outside, 2 swapped corners, 1 no area, 1 too small" in answer.out
    table = table_of(tmp_path / "a").set_index("annotation")
    assert table.at["over", "clipped"] == pytest.approx(1 - 19 * 29 / (24 * 33), abs=1e-4)
    assert "1 boxes extend beyond their photo" in answer.out
    about = json.loads((tmp_path / "a/crop.json").read_text())
    assert about["boxes"] == about["crops"] + sum(about["dropped"].values())


def test_photos_that_cant_be_read_are_named_up_to_a_limit(tmp_path: Path, mlfix) -> None:
    made = photos(count=12)
    root = write_mtsd(tmp_path / "data", made)
    command = ("crop", f"data.root={root}", f"out={tmp_path / 'a'}", *SMALL_PNG)
    whole = (root / "images/photo3.jpg").read_bytes()
    (root / "images/photo3.jpg").write_bytes(whole[:-800])
    answer = mlfix(*command)
    assert answer.code == 0
    dropped = dropped_of(tmp_path / "a")
    assert dropped["problem"].tolist() == ["photo unreadable"] * 4
    assert set(dropped["photo"]) == {"photo3"} and "truncated" in dropped["detail"][0]
    assert "photo unreadable: photo3" in answer.out
    # Repaired, it is cropped at the next call, and only it.
    (root / "images/photo3.jpg").write_bytes(whole)
    answer = mlfix(*command)
    assert "11 of 12 photos were cropped before" in answer.out
    assert len(dropped_of(tmp_path / "a")) == 0
    # Missing ones are expected before anything is done.
    for name in ("photo3", "photo5"):
        (root / f"images/{name}.jpg").unlink()
    answer = mlfix(*command[:2], f"out={tmp_path / 'b'}", *SMALL_PNG)
    assert answer.code == 1
    assert "of 12 photos 2 photos are missing, more than max_unreadable=0.01 allows" in answer.err
    assert "photo3.jpg" in answer.err and "unpack all archives" in answer.err
    assert not list((tmp_path / "b").glob("*/*.png"))
    answer = mlfix(*command[:2], f"out={tmp_path / 'b'}", "max_unreadable=0.2", *SMALL_PNG)
    assert answer.code == 0
    assert set(dropped_of(tmp_path / "b")["problem"]) == {"photo missing"}


def test_annotations_that_cant_be_read(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos(count=12))
    command = ("crop", f"data.root={root}", f"out={tmp_path / 'a'}", *SMALL_PNG)
    (root / "annotations/photo3.json").write_text("{")
    assert mlfix(*command).code == 0
    row = dropped_of(tmp_path / "a").iloc[0]
    assert (row["photo"], row["annotation"], row["problem"]) == ("photo3", "", "annotation unreadable")
    (root / "annotations/photo4.json").write_text('{"images": []}')
    answer = mlfix("crop", f"data.root={root}", f"out={tmp_path / 'b'}", *SMALL_PNG)
    assert answer.code == 1
    assert "2 have no usable annotation" in answer.err and "photo4.json: no width" in answer.err
    for file in (root / "annotations").iterdir():
        file.write_text("[]")
    answer = mlfix("crop", f"data.root={root}", f"out={tmp_path / 'b'}", "max_unreadable=1", *SMALL_PNG)
    assert answer.code == 1
    assert "nothing to crop" in answer.err and "12 of 12 photos can't be used" in answer.err


def test_labels_and_splits_can_be_chosen(tmp_path: Path, mlfix) -> None:
    made = photos(count=12)
    root = write_mtsd(tmp_path / "data", made)
    command = ("crop", f"data.root={root}", f"out={tmp_path / 'a'}", *SMALL_PNG)
    answer = mlfix(*command, "labels=^(stop|yield)$", "splits=[val]")
    assert answer.code == 0
    table = table_of(tmp_path / "a")
    wanted = [label for photo in made if photo.split == "val" for label, _ in photo.boxes if label in ("stop", "yield")]
    assert sorted(table["label"]) == sorted(wanted)
    assert "have other labels or splits than requested" in answer.out
    for key, expected in (
        ("splits=[vall]", "did you mean 'val'"),
        ("labels=^nothing", "matches none"),
        ("labels=(", "regular"),
    ):
        answer = mlfix(*command[:2], f"out={tmp_path / 'b'}", key)
        assert answer.code == 2 and expected in answer.err, key


def test_it_writes_over_nothing(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("x")
    answer = mlfix("crop", f"data.root={root}", f"out={other}")
    assert answer.code == 2 and "contains other files (mine.txt)" in answer.err
    answer = mlfix("crop", f"data.root={root}", f"out={root}")
    assert answer.code == 2
    assert mlfix("crop", f"data.root={root}", f"out={tmp_path / 'a'}", "size=16").code == 0
    answer = mlfix("crop", f"data.root={root}", f"out={tmp_path / 'a'}", "size=24", "aspect=pad")
    assert answer.code == 1
    assert "contains crops made with other settings" in answer.err and "size: 16 there, 24 requested" in answer.err
    answer = mlfix("crop", f"data.root={root}", f"out={tmp_path / 'a'}", "size=24", "overwrite=true")
    assert answer.code == 0
    assert {Image.open(path).size for path in (tmp_path / "a").glob("*/*.jpg")} == {(24, 24)}


def test_crops_that_no_box_asks_for_any_more_go(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    command = ("crop", f"data.root={root}", f"out={tmp_path / 'a'}", *SMALL_PNG)
    mlfix(*command)
    before = {path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").glob("[!.]*/*.png")}
    file = root / "annotations/photo3.json"
    content = json.loads(file.read_text())
    gone, changed = content["objects"].pop(0), content["objects"][0]
    changed["label"] = "yield" if changed["label"] != "yield" else "stop"
    file.write_text(json.dumps(content))
    (tmp_path / "a/stop/kept-by-the-user.png").write_bytes(b"mine")
    answer = mlfix(*command)
    assert "5 of 6 photos were cropped before" in answer.out and "were deleted" in answer.err
    after = {path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").glob("[!.]*/*.png")}
    table = table_of(tmp_path / "a")
    assert after - {"stop/kept-by-the-user.png"} == set(table.index)
    assert gone["key"] not in set(table["annotation"])
    assert len(before - after) == 2 and len(after - before) == 2


def test_an_interrupted_cropping_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos(count=24))
    monkeypatch.setattr(crop_build, "BATCH_SIZE", 2)
    real = crop_build.crop_in_parallel
    cropped: list[str] = []

    def stop(jobs, spec, out, workers, white):
        for place, (batch, results) in enumerate(real(jobs, spec, out, 1, white)):
            if place == 5:
                raise KeyboardInterrupt
            yield batch, results

    def record(jobs, spec, out, workers, white):
        for batch, results in real(jobs, spec, out, 1, white):
            cropped.extend(job.name for job in batch)
            yield batch, results

    monkeypatch.setattr(crop_build, "crop_in_parallel", stop)
    command = ("crop", f"data.root={root}", f"out={tmp_path / 'a'}", *SMALL_PNG)
    assert mlfix(*command).code == 130
    answer = mlfix("train", "data=crops", f"data.root={tmp_path / 'a'}")
    assert answer.code == 1 and "unfinished crops" in answer.err
    with open(tmp_path / "a/.mlfix/photos.jsonl", "a") as file:
        file.write('{"name": "photo20", "key": "trunc')  # as a crash leaves it
    monkeypatch.setattr(crop_build, "crop_in_parallel", record)
    answer = mlfix(*command)
    assert answer.code == 0 and "10 of 24 photos were cropped before" in answer.out
    assert len(cropped) == 14
    whole = run_command("crop", f"data.root={root}", f"out={tmp_path / 'b'}", *SMALL_PNG)
    pd.testing.assert_frame_equal(table_of(tmp_path / "a"), table_of(tmp_path / "b"))
    for sample in whole.index:
        assert (tmp_path / "a" / sample).read_bytes() == (tmp_path / "b" / sample).read_bytes()


@pytest.mark.slow
def test_ctrl_c_and_kill_leave_what_was_done(tmp_path: Path) -> None:
    """Two processes, stopped in the middle of the work by SIGINT and by SIGKILL; the third call does the rest alone."""
    root = write_mtsd(tmp_path / "data", photos(count=6))
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.jpg")
    box = {"xmin": 1, "xmax": 40, "ymin": 1, "ymax": 40}
    for number in range(6, 306):  # seconds of work, so that there is a middle to stop in
        os.link(tmp_path / "large.jpg", root / f"images/photo{number}.jpg")
        objects = [{"key": "k", "label": "stop", "bbox": box, "properties": {}}]
        content = {"width": 1200, "height": 900, "ispano": False, "objects": objects}
        (root / f"annotations/photo{number}.json").write_text(json.dumps(content))
    journal, counts = tmp_path / "a/.mlfix/photos.jsonl", []
    for sign in (signal.SIGINT, signal.SIGKILL):
        already = counts[-1] if counts else 0
        process = start("crop", f"data.root={root}", "out=a", "workers=2", cwd=tmp_path)
        until = time.monotonic() + 300
        while time.monotonic() < until and (
            not journal.exists() or len(journal.read_bytes().splitlines()) < already + 8
        ):
            time.sleep(0.01)
        process.send_signal(sign)
        _, said = process.communicate(timeout=300)
        assert process.returncode == (130 if sign == signal.SIGINT else -signal.SIGKILL), said
        assert "Traceback" not in said
        counts.append(len(journal.read_bytes().splitlines()))
    process = start("crop", f"data.root={root}", "out=a", "workers=2", cwd=tmp_path)
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert f"{counts[-1]} of 306 photos were cropped before" in out or f"{counts[-1] - 1} of 306 photos" in out
    assert len(table_of(tmp_path / "a")) == len(list((tmp_path / "a").glob("*/*.jpg")))


def test_a_full_disk_keeps_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos(count=12))
    real, written = crop_photo_module.write_crop, []

    def full(crop, path, spec):
        if len(written) == 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.append(path)
        real(crop, path, spec)

    monkeypatch.setattr(crop_photo_module, "write_crop", full)
    command = ("crop", f"data.root={root}", f"out={tmp_path / 'a'}", "workers=1", *SMALL_PNG)
    answer = mlfix(*command)
    assert answer.code == 1
    assert "No space left on device" in answer.err and "run the same command again" in answer.err
    monkeypatch.setattr(crop_photo_module, "write_crop", real)
    answer = mlfix(*command)
    assert answer.code == 0
    assert "of 12 photos were cropped before" in answer.out


def test_a_worker_that_dies_names_its_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlfix) -> None:
    def crash(jobs, spec, out, white):
        os.kill(os.getpid(), signal.SIGKILL)

    root = write_mtsd(tmp_path / "data", photos(count=12))
    monkeypatch.setattr(crop_build, "crop_photos", crash)
    answer = mlfix("crop", f"data.root={root}", f"out={tmp_path / 'a'}", "workers=2")
    assert answer.code == 1
    assert "a worker process died" in answer.err
    assert any(f"photo{number}.jpg" in answer.err for number in range(12))


def test_as_many_workers_as_this_process_may_use_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cores outside the affinity of the process don't count."""
    asked: list[int] = []

    def record(function, jobs, workers, describe):
        asked.append(workers)
        return ((job, function(job)) for job in jobs)

    monkeypatch.setattr(crop_build, "map_unordered", record)
    root = write_mtsd(tmp_path / "data", photos(count=12))
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        run_command("crop", f"data.root={root}", f"out={tmp_path / 'a'}", *SMALL_PNG)
    finally:
        os.sched_setaffinity(0, cores)
    assert asked == [1]


def test_processes_give_what_one_gives(tmp_path: Path) -> None:
    root = write_mtsd(tmp_path / "data", photos(count=12))
    one = run_command("crop", f"data.root={root}", f"out={tmp_path / 'a'}", "workers=1", *SMALL_PNG)
    two = run_command("crop", f"data.root={root}", f"out={tmp_path / 'b'}", "workers=2", *SMALL_PNG)
    pd.testing.assert_frame_equal(one.drop(columns="path"), two.drop(columns="path"))


def test_wrong_kinds_of_data_name_the_way(tmp_path: Path, mlfix, shapes: Path) -> None:
    root = write_coco(tmp_path / "data", for_format("coco"))
    answer = mlfix("train", "data=coco", f"data.root={root}")
    assert answer.code == 2 and "crop them first: mlfix crop" in answer.err
    answer = mlfix("crop", "data=folder", f"data.root={shapes}", f"out={tmp_path / 'a'}")
    assert answer.code == 2 and "samples need no cropping" in answer.err
    answer = mlfix("train", "data=crops", f"data.root={shapes}")
    assert answer.code == 1 and "contains no crops" in answer.err
    yolo = write_yolo(tmp_path / "yolo", for_format("yolo"))
    answer = mlfix("crop", f"data.root={yolo}", f"out={yolo / 'crops'}")
    assert answer.code == 2 and "read as photos next time" in answer.err
    for key, expected in (
        ("size=5", "size=5"),
        ("max_unreadable=2", "max_unreadable"),
        ("workers=0", "workers"),
        ("exif=x", "exif"),
    ):
        answer = mlfix("crop", f"data.root={root}", f"out={tmp_path / 'b'}", key)
        assert answer.code == 2 and expected in answer.err
    answer = mlfix("crop")
    assert answer.code == 2 and "data.root" in answer.err


def test_two_photos_of_one_name(tmp_path: Path, mlfix) -> None:
    root = write_coco(tmp_path / "data", for_format("coco"))
    file = root / "annotations/instances_val2017.json"
    content = json.loads((root / "annotations/instances_train2017.json").read_text())
    file.write_text(json.dumps(content))
    answer = mlfix("crop", f"data.root={root}", f"out={tmp_path / 'a'}")
    # Both lists name the same files; where the second's lie is expected by its name, and they are missing there.
    assert answer.code == 1
    rows = content["images"]
    rows[1]["file_name"] = rows[0]["file_name"]
    file.unlink()
    (root / "annotations/instances_train2017.json").write_text(json.dumps(content))
    answer = mlfix("crop", f"data.root={root}", f"out={tmp_path / 'a'}")
    assert answer.code == 1 and "are used twice" in answer.err


def test_crowds_and_photos_without_boxes(tmp_path: Path, mlfix) -> None:
    two = Photo("p", boxes=[("stop", (10, 10, 40, 40)), ("yield", (60, 10, 90, 40))])
    held = Photo("r", split="val", boxes=[("stop", (9, 9, 50, 50))])
    root = write_coco(tmp_path / "data", [two, Photo("q"), held])
    file = root / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["iscrowd"] = 1
    file.write_text(json.dumps(content))
    answer = mlfix("crop", f"data.root={root}", f"out={tmp_path / 'a'}", *SMALL_PNG)
    assert answer.code == 0
    assert len(table_of(tmp_path / "a")) == 2
    assert dropped_of(tmp_path / "a")["problem"].tolist() == ["crowd"]


# Interrupted, or in the wrong place


def test_yolo_label_files_without_a_photo_are_reported(tmp_path: Path, mlfix) -> None:
    write_yolo(tmp_path / "y", for_format("yolo"))
    (tmp_path / "y/labels/train/orphan.txt").write_text("0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n")
    answer = mlfix("crop", f"data.root={tmp_path / 'y'}", f"out={tmp_path / 'o'}", *SMALL_PNG)
    assert answer.code == 0
    dropped = pd.read_csv(tmp_path / "o/dropped.csv")
    assert dropped["problem"].tolist() == ["no photo"] * 2 and dropped["detail"].str.contains("orphan.txt").all()


def test_an_unfinished_cropping_is_not_trained_on(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    run_command("crop", f"data.root={root}", f"out={tmp_path / 'o'}", *SMALL_PNG)
    about = json.loads((tmp_path / "o/crop.json").read_text())
    (tmp_path / "o/crop.json").write_text(json.dumps({**about, "status": "running"}))
    answer = mlfix("train", "data=crops", f"data.root={tmp_path / 'o'}")
    assert answer.code == 1 and "unfinished crops" in answer.err


def test_what_fails_before_it_begins_leaves_all_as_it_was(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    command = ("crop", f"data.root={root}", f"out={tmp_path / 'o'}", *SMALL_PNG)
    assert mlfix(*command).code == 0
    before = (tmp_path / "o/crop.json").read_bytes()
    kept = [path.rename(path.with_suffix(".off")) for path in list((root / "images").iterdir())[:3]]
    assert mlfix(*command).code == 1
    assert (tmp_path / "o/crop.json").read_bytes() == before
    for path in kept:
        path.rename(path.with_suffix(".jpg"))
    # A first call that fails leaves no folder, and binds no later one to its settings.
    for file in (root / "annotations").iterdir():
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "width": 2 * content["width"], "height": 2 * content["height"]}))
    answer = mlfix("crop", f"data.root={root}", f"out={tmp_path / 'p'}", *SMALL_PNG)
    assert answer.code == 1 and "rescale=true" in answer.err
    assert mlfix("crop", f"data.root={root}", f"out={tmp_path / 'p'}", *SMALL_PNG, "rescale=true").code == 0
    assert mlfix("crop", f"data.root={tmp_path / 'nowhere'}", f"out={tmp_path / 'q'}").code == 1
    assert not (tmp_path / "q").exists()


@pytest.mark.slow
def test_two_at_once_with_other_settings(tmp_path: Path) -> None:
    root = write_mtsd(tmp_path / "data", photos(count=60))
    pair = [start("crop", f"data.root={root}", "out=o", f"size={size}", cwd=tmp_path) for size in (24, 48)]
    said = [process.communicate(timeout=300)[1] for process in pair]
    codes = [process.returncode for process in pair]
    assert sorted(codes) == [0, 1], said
    assert "contains crops made with other settings" in said[codes.index(1)]


def test_labels_called_as_our_files(tmp_path: Path) -> None:
    root = write_mtsd(tmp_path / "data", [Photo("p", boxes=ONE)])
    file = root / "annotations/p.json"
    for name in ("crop.json", "samples.parquet", "dropped.csv"):
        content = json.loads(file.read_text())
        content["objects"][0]["label"] = name
        file.write_text(json.dumps(content))
        table = run_command("crop", f"data.root={root}", f"out={tmp_path / name.partition('.')[0]}", *SMALL_PNG)
        assert table["label"].tolist() == [name]


def test_out_among_the_photos_is_refused(tmp_path: Path, mlfix) -> None:
    root = write_mtsd(tmp_path / "data", photos())
    answer = mlfix("crop", f"data.root={root}", f"out={root / 'images/crops'}")
    assert answer.code == 2 and "would be read as photos next time" in answer.err
    assert mlfix("crop", f"data.root={root}", f"out={root / 'crops'}", *SMALL_PNG).code == 0


def test_photos_with_boxes_are_no_class_folders(tmp_path: Path) -> None:
    for name in WRITE:
        root = WRITE[name](tmp_path / name, for_format(name, count=2))
        with pytest.raises(ConfigError, match=rf"(?s)contains photos with boxes \({name}\).*mlfix crop data.root="):
            read_samples({"_target_": "mlfix_train.data.readers.folder.read_folder", "root": str(root)})
