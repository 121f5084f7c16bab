"""Everything public is documented, and every block of Python in docs/your_own_parts.md runs, in order."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from shapes import REPO, draw_shapes

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


REFERENCE = (REPO / "docs" / "reference.md").read_text(encoding="utf-8")


def test_environment_variables_are_documented() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (REPO / "mlfix_train").rglob("*.py")]
    ours = {name for source in sources for name in re.findall(r"\bMLFIX_[A-Z_]+\b", source)}
    set_by_us = {name for source in sources for name in re.findall(r"environ\.setdefault\(\"([A-Z_]+)\"", source)}
    assert ours and [name for name in sorted(ours | set_by_us) if f"`{name}" not in REFERENCE] == []


def test_exit_codes_are_documented() -> None:
    from mlfix_train.cli import main
    from mlfix_train.training.signals import HANDLED

    returned = [
        node.value for node in ast.walk(ast.parse(Path(main.__file__).read_text())) if isinstance(node, ast.Return)
    ]
    numbers = (part.value for value in returned if value for part in ast.walk(value) if isinstance(part, ast.Constant))
    codes = {number for number in numbers if type(number) is int} | {main.UNEXPECTED, *(128 + one for one in HANDLED)}
    table = REFERENCE[REFERENCE.index("| code | meaning |") :].split("\n\n")[0]
    told = {int(code) for row in table.splitlines()[2:] for code in re.findall(r"\d+", row.split("|")[1])}
    assert told == codes


def test_keys_are_documented() -> None:
    """docs/keys.md is what ``--help`` prints (tests/scripts/test_write_keys.py): each key needs words beside it."""
    page = (REPO / "docs" / "keys.md").read_text(encoding="utf-8")
    lines = [line for block in page.split("```yaml")[1:] for line in block.split("```")[0].splitlines()]
    keys = [line for line in lines if re.match(r" *[\w.]+: \S", line)]
    assert len(keys) > 250 and [line for line in keys if "#" not in line] == []


def row_of(file: str) -> str:
    """The rows of the reference's tables that describe a file."""
    rows = [line for line in REFERENCE.splitlines() if line.startswith("|") and f"`{file}`" in line.split("|")[1]]
    return " ".join(row.split("|", 2)[2] for row in rows)


def test_columns_of_files_are_documented(tmp_path: Path) -> None:
    columns = {**_columns_of_training(), **_columns_of_an_audit(), **_columns_of_crops_and_copies(tmp_path)}
    missing = {
        file: [name for name in names if not re.search(rf"\b{name}\b", row_of(file))] for file, names in columns.items()
    }
    assert {file: names for file, names in missing.items() if names} == {}


def _columns_of_training() -> dict[str, Any]:
    from mlfix_train.audit.predictions import dynamics, table
    from mlfix_train.data.fixes.table import COLUMNS
    from mlfix_train.training import progress

    predictions = {"predictions.parquet": table.COLUMNS, "dynamics.parquet": dynamics.COLUMNS}
    return {**predictions, "metrics.csv": progress.COLUMNS, "fixes.csv": COLUMNS}


def _columns_of_an_audit() -> dict[str, Any]:
    import numpy as np

    import mlfix_train
    from mlfix_train.audit.scores.ranking import ranking_columns
    from mlfix_train.audit.scores.registry import SCORES
    from mlfix_train.audit.scores.slices import slices_table
    from mlfix_train.audit.similarity import order_files

    audit = mlfix_train.Audit.from_predictions(np.arange(30) % 3, np.eye(3)[np.arange(30) % 3] * 0.7 + 0.1)
    scores = {score.name for score in SCORES}
    table = REFERENCE[REFERENCE.index("| score | what it is |") :].split("\n\n")[0]
    assert [name for name in sorted(scores) if f"`{name}`" not in table] == []
    return {
        "ranking.csv": [name for name in dict.fromkeys([*ranking_columns(), *audit.ranking]) if name not in scores],
        "slices.csv": slices_table([]).columns,
        "unranked.csv": audit.unranked.columns,
        "order.parquet": [*order_files.COLUMNS, "label"],
    }


def _columns_of_crops_and_copies(folder: Path) -> dict[str, Any]:
    """Columns of files that commands write."""
    import numpy as np

    from mlfix_train import run_command
    from mlfix_train.audit.similarity.near_duplicates import duplicates_table
    from mlfix_train.audit.similarity.neighbours import Neighbours

    pair = np.arange(2)
    neighbours = Neighbours(pair[::-1, None].astype(np.int32), np.zeros((2, 1), np.float32))
    table = pd.DataFrame({"label": ["a", "b"]}, index=["x", "y"])
    draw_shapes(folder / "shapes", per_label=2)
    coco = {
        "images": [{"id": 1, "file_name": "disc/000.png", "width": 16, "height": 16}],
        "categories": [{"id": 1, "name": "stop"}],
        "annotations": [{"id": key, "image_id": 1, "category_id": 1, "bbox": [2, 2, key, 9]} for key in (0, 9)],
    }
    (folder / "shapes/coco.json").write_text(json.dumps(coco))
    boxes = ["data=coco", f"data.root={folder / 'shapes'}", "data.file=coco.json", "max_unreadable=1"]
    run_command("crop", *boxes, f"out={folder / 'crops'}", "workers=1")
    (folder / "fixes.csv").write_text("sample_id,new_label\ndisc/001.png,square\n")
    data = [f"data.root={folder / 'shapes'}", f"fixes.path={folder / 'fixes.csv'}"]
    run_command("export", "to=source", *data, f"out={folder / 'fixed'}")
    return {
        "samples.parquet": pd.read_parquet(folder / "crops/samples.parquet").columns,
        "dropped.csv": pd.read_csv(folder / "crops/dropped.csv").columns,
        "changes.csv": pd.read_csv(folder / "fixed/changes.csv").columns,
        "duplicates.csv": duplicates_table(pair - pair, pair, neighbours, table, None).columns,
    }


def test_pages_are_in_the_site() -> None:
    docs = REPO / "docs"
    toctrees = "\n".join(path.read_text(encoding="utf-8") for path in docs.rglob("index.md"))
    pages = [path for path in docs.rglob("*") if path.suffix in {".md", ".ipynb"} and "_build" not in path.parts]
    assert [path.name for path in pages if path.stem not in toctrees and path.stem != "index"] == []
