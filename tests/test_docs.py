"""Every block of Python in docs/your_own_parts.md runs, in order, as a reader would paste them into one file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from shapes import REPO

PAGE = REPO / "docs" / "your_own_parts.md"


def test_the_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from mlfix_train.audit.reporting import trackers

    monkeypatch.setattr(trackers, "_trackers", dict(trackers._trackers))
    monkeypatch.chdir(tmp_path)
    text, scope = PAGE.read_text(encoding="utf-8"), {"__name__": "your_own_parts"}
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S))
    assert len(blocks) == text.count("```python") >= 11
    for block in blocks:
        line = text.count("\n", 0, block.start(1))
        exec(compile("\n" * line + block[1], str(PAGE), "exec"), scope)
    _check_what_they_wrote(tmp_path, scope)


def _check_what_they_wrote(folder: Path, scope: dict[str, Any]) -> None:
    assert {file.name for file in (folder / "audit").iterdir()} >= {"ranking.csv", "report.html", "predictions.parquet"}
    assert len(scope["audit"].audit.ranking) == 20
    assert (folder / "report.html").exists()
    (folder / "photos").mkdir()
    for name in ("cat_1.jpg", "dog_1.jpg"):
        (folder / "photos" / name).touch()
    assert scope["read_samples"](str(folder / "photos"))["label"].tolist() == ["cat", "dog"]


def test_the_page_is_linked_and_its_lines_are_short() -> None:
    assert max(map(len, PAGE.read_text(encoding="utf-8").splitlines())) <= 120
    for page, link in (
        (REPO / "README.md", "docs/your_own_parts.md"),
        (REPO / "docs/reference.md", "your_own_parts.md"),
    ):
        assert f"]({link})" in page.read_text(encoding="utf-8"), page


def test_the_public_names_are_on_the_page_of_the_api() -> None:
    import mlfix_train

    page = (REPO / "docs" / "api.md").read_text(encoding="utf-8")
    classes = set(mlfix_train.__all__) - {"COMMANDS", "__version__", "MlfixError"}
    assert "mlfix_train.errors" in page
    assert [name for name in sorted(classes) if f":: mlfix_train.{name}" not in page] == []


def test_environment_variables_are_documented() -> None:
    reference = (REPO / "docs" / "reference.md").read_text(encoding="utf-8")
    sources = [path.read_text(encoding="utf-8") for path in (REPO / "mlfix_train").rglob("*.py")]
    ours = {name for source in sources for name in re.findall(r"\bMLFIX_[A-Z_]+\b", source)}
    assert [name for name in sorted(ours) if name not in reference] == []


def test_pages_are_in_the_site() -> None:
    docs = REPO / "docs"
    toctrees = "\n".join(path.read_text(encoding="utf-8") for path in docs.rglob("index.md"))
    pages = [path for path in docs.rglob("*") if path.suffix in {".md", ".ipynb"} and "_build" not in path.parts]
    assert [path.name for path in pages if path.stem not in toctrees and path.stem != "index"] == []
