"""What readers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlfix_train.data.readers.files import check_root, group_names
from mlfix_train.errors import DataError


def test_group_names_of_an_optional_part() -> None:
    assert group_names(["a_1", "b"], r"[ab](_\d)?") == ["_1", "b"], "an empty catch leaves the sample alone"


def test_the_folder_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path.parent)
    assert check_root(tmp_path.name, "") == tmp_path
    with pytest.raises(DataError, match=r"(?s)data.root is empty.*a hint"):
        check_root(" ", "a hint")
    with pytest.raises(DataError, match=r"(?s)data.root=\\xffa is not UTF-8.*convmv"):
        check_root("\udcffa", "a hint")
