"""The file walker: what counts as an image, what is passed over, and what is said of the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlfix_train.data.files.walk import find_images, list_files, printable
from mlfix_train.data.pixels import formats


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_images_and_other_files(tmp_path: Path) -> None:
    found = list_files(touch(tmp_path, "b/2.JPG", "b/notes.txt", "a.webp", "c/d/e.TiF", "b/no-suffix", ".hidden.png"))
    assert found.images == ["a.webp", "b/2.JPG", "c/d/e.TiF"]
    assert found.others == ["b/no-suffix", "b/notes.txt"]
    assert found.folders == ["b", "c", "c/d"] and found.hidden == [".hidden.png"]
    assert found.warnings() == []


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/1.png",
        "$RECYCLE.BIN/S-1-5/1.png",
        "System Volume Information/1.png",
        "__MACOSX/1.png",
        "__MACOSX/._1.png",
        "lost+found/1.png",
        ".ipynb_checkpoints/1-checkpoint.png",
        ".thumbnails/1.png",
        ".Trash-1000/files/1.png",
        ".AppleDouble/1.png",
        "._1.png",
        "Thumbs.db",
        "THUMBS.DB",
        "desktop.ini",
        "@Recycle/1.png",
        "#snapshot/daily/1.png",
        "SYNOPHOTO_FILM.jpg",
    ],
)
@pytest.mark.parametrize("folder", ["", "a/"])
def test_files_of_systems(tmp_path: Path, folder: str, name: str) -> None:
    found = list_files(touch(tmp_path, "a/1.png", f"{folder}{name}"))
    assert found.images == ["a/1.png"] and found.others == []
    assert len(found.system) + len(found.hidden) == 1


def test_classes_that_only_sound_like_the_system(tmp_path: Path) -> None:
    names = ["Thumbs/1.png", "recycled/1.png", "eadir/1.png", "recycle/1.png", "thumbnail/1.png"]
    assert list_files(touch(tmp_path, *names)).images == sorted(names)


def test_formats_that_cant_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("a.CR2", "b.nef", "c.psd", "d.svg", "e.PDF", "f.mp4", "g.MOV", "h.dcm", "i.nii.gz", "j.tar.gz", "k.jxl")
    found = find_images(touch(tmp_path, "1.png", *names))
    assert found.images == ["1.png"] and found.others == sorted(names)
    kinds = {name: len(files) for name, files in found.unread.items()}
    assert kinds == {"RAW": 2, "PSD": 1, "SVG": 1, "PDF": 1, "video": 2, "DICOM": 1, "NIfTI": 1, "JPEG XL": 1}
    assert "2 RAW files (a.CR2, b.nef) are left out; export them" in caplog.text
    assert "2 video files (f.mp4, g.MOV) are left out; extract their frames" in caplog.text


@pytest.mark.parametrize("installed", [False, True])
def test_heic_counts_once_it_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    formats.image_suffixes.cache_clear()
    formats.unread_suffixes.cache_clear()
    monkeypatch.setattr(formats, "can_read_heic", lambda: installed)
    found = list_files(touch(tmp_path, "a/1.HEIC", "a/2.heif"))
    formats.image_suffixes.cache_clear()
    formats.unread_suffixes.cache_clear()
    assert found.images == (["a/1.HEIC", "a/2.heif"] if installed else [])
    said = "2 HEIC files (a/1.HEIC, a/2.heif) are left out; pip install 'mlfix-train[heic]' to read HEIC"
    assert found.warnings() == ([] if installed else [said])


def test_links(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "b/1.png", "c/2.png")
    away = touch(tmp_path / "away", "deep/3.png", "4.png")
    (root / "a").symlink_to(root / "b")  # the folder itself goes before its link, whatever their names
    (root / "d").symlink_to(away)
    (root / "e").symlink_to(away / "deep")
    (root / "c" / "up").symlink_to("..")
    (root / "c" / "picture.png").symlink_to(away / "4.png")
    (away / "back").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "unmounted")
    found = list_files(root)
    assert found.images == ["b/1.png", "c/2.png", "c/picture.png", "d/4.png", "d/deep/3.png"]
    assert found.circles == ["c/up", "d/back"] and found.repeated == ["a", "e"]
    assert found.dangling == ["gone"] and any("1 link (gone) is to nothing" in text for text in found.warnings())


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png")
    try:
        open(os.fsencode(tmp_path) + b"/a/\xe4.png", "wb").close()
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    found = list_files(tmp_path)
    assert found.images == ["a/1.png"] and found.not_utf8 == [r"a/\xe4.png"]
    assert printable("ä\udcff") == r"ä\xff"
