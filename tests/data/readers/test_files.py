"""What readers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlfix_train.data.readers.files import check_root, find_images, group_names
from mlfix_train.errors import DataError


def test_group_names_of_an_optional_part() -> None:
    assert group_names(["a_1", "b"], r"[ab](_\d)?") == ["_1", "b"], "an empty catch leaves the sample alone"


def test_images_and_other_files(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/notes.txt", "a.webp", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert find_images(tmp_path) == (["a.webp", "b/2.JPG"], ["b/notes.txt"])


def test_the_folder_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path.parent)
    assert check_root(tmp_path.name, "") == tmp_path
    with pytest.raises(DataError, match=r"(?s)data.root is empty.*a hint"):
        check_root(" ", "a hint")
