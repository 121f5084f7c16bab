"""The pictures of an audit: which files, in which order, with which words and tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlfix_train.audit.reporting import pictures
from mlfix_train.audit.reporting.pictures import MAX_TILES, draw_audit, tiles_of
from mlfix_train.audit.scores.slices import first_slices, rank_slices

Source = Callable[[list[str]], np.ndarray]
Ranking = Callable[..., pd.DataFrame]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def description(path: Path) -> str:
    with Image.open(path) as image:
        image.load()
        return " ".join(str(image.info.get(key, "")) for key in ("Title", "Description"))


def test_files_keys_and_captions_in_the_order_of_looking(tmp_path: Path, ranking: Ranking, flat: Source) -> None:
    table = ranking(n=60)
    found = draw_audit(table, flat, tmp_path / "panels", "run 7", n_panels=3)
    chosen = first_slices(rank_slices(table), 3)
    sections = {"pair": "suspicious pairs", "label": "suspicious labels"}
    slices = [f"{sections[one.kind]}/Given {one.name.replace(' → ', ', suggested ')}" for one in chosen]
    keys = ["audit/most suspicious", *slices, "audit/loss of every sample", "audit/error by label"]
    assert [picture.key for picture in found] == keys, "one key a picture: W&B wants one size for those of one key"
    assert all(picture.path.parent == tmp_path / "panels" for picture in found)
    assert names(tmp_path / "panels") == sorted(picture.path.name for picture in found)
    for number, (picture, piece) in enumerate(zip(found[1:7], chosen, strict=True), start=1):
        name = piece.name.replace(" → ", "--as--")
        assert picture.path.name == f"{number:02d}-{name}.png"
        mean = table["suspicion"].to_numpy()[piece.rows].mean()
        title = "Given " + piece.name.replace(" → ", ", suggested ")
        assert picture.caption == f"{title}: {len(piece.rows)} samples, suspicion {mean:.2f} on average"
        words = description(picture.path)
        assert ("Given " + piece.name.replace(" → ", ", suggested ")) in words
        assert "run 7, most suspicious first" in words
        assert f"{len(piece.rows)} sample" in words
    assert found[0].caption == "the 60 most suspicious labels"


def test_panels_of_an_earlier_audit_go_and_other_files_stay(tmp_path: Path, ranking: Ranking, flat: Source) -> None:
    draw_audit(ranking(n=60), flat, tmp_path, "before", n_panels=6)
    assert len([name for name in names(tmp_path) if name[:2].isdigit()]) == 6 + 3
    for own in ("notes.txt", "mine.png", "2024-mine.png"):
        (tmp_path / own).write_text("x")
    draw_audit(ranking(n=60), flat, tmp_path, "after", n_panels=1)
    assert [name for name in names(tmp_path) if name[:2].isdigit()] == [
        *(next(name for name in names(tmp_path) if name.startswith(f"0{i}-")) for i in (1, 2)),
        "2024-mine.png",
    ]
    assert {"notes.txt", "mine.png", "2024-mine.png"} < set(names(tmp_path))
    assert "after" in description(tmp_path / "worst.png")


def test_more_than_99_panels_of_an_earlier_audit_go_too(tmp_path: Path, ranking: Ranking, flat: Source) -> None:
    stale = tmp_path / "100-a--as--b.png"
    first = draw_audit(ranking(n=20), flat, tmp_path, "t", n_panels=1)[1].path
    first.rename(stale)  # what n_panels=100 would have left
    draw_audit(ranking(n=20), flat, tmp_path, "t", n_panels=1)
    assert not stale.exists()


@pytest.mark.parametrize("n", [1, MAX_TILES, MAX_TILES + 1, 300])
def test_at_most_108_tiles_and_the_panel_says_of_how_many(
    tmp_path: Path, ranking: Ranking, flat: Source, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    asked: list[list[str]] = []

    def source(ids: list[str]) -> np.ndarray:
        asked.append(ids)
        return flat(ids)

    table = ranking(n=n)
    found = draw_audit(table, source, tmp_path, "t", n_panels=0)
    assert asked == [table["sample_id"].tolist()[:108]], "no more pixels are read than drawn"
    words = description(found[0].path)
    assert (f"first 108 of {n}" in words) == (n > 108)
    assert (f"{n} sample" in words) == (n <= 108)
    assert found[0].caption == f"the {min(n, 108)} most suspicious labels"


def test_tiles_carry_the_row_and_its_mark(ranking: Ranking, flat: Source) -> None:
    table = ranking(n=9)
    first, second = table["sample_id"][:2]
    tiles = tiles_of(table, flat, {first: "invalid", second: "c", "elsewhere": "invalid"})
    assert [tile.mark for tile in tiles] == ["invalid", "c"] + [None] * 7
    for tile, row in zip(tiles, table.itertuples(), strict=True):
        assert (tile.given, tile.predicted, tile.suspicion) == (row.given_label, row.suggested_label, row.suspicion)
        assert tile.caption == f"loss {row.loss:.2f}"
        assert (np.asarray(tile.image) == int(row.sample_id[1:])).all(), "each tile shows its own sample"


def test_marks_show(tmp_path: Path, ranking: Ranking, flat: Source) -> None:
    table = ranking(n=9)
    plain = draw_audit(table, flat, tmp_path / "a", "t", 0)[0].path.read_bytes()
    marked = draw_audit(table, flat, tmp_path / "b", "t", 0, {table["sample_id"][0]: "invalid"})[0].path.read_bytes()
    assert plain != marked


def only(table: pd.DataFrame, label: str) -> pd.DataFrame:
    """Makes every prediction right but those of one label."""
    right = table["given_label"] != label
    table.loc[right, "predicted_label"] = table["given_label"]
    table["is_label_issue"] = table["given_label"] != table["predicted_label"]
    table["disagreement"] = table["is_label_issue"].astype(float)
    table["suggested_label"] = table["predicted_label"]
    table["slice"] = table["given_label"] + " → " + table["predicted_label"]
    return table


def test_one_label_only_is_wrong(tmp_path: Path, ranking: Ranking, flat: Source) -> None:
    found = draw_audit(only(ranking(n=40), "b"), flat, tmp_path, "t")
    slices = [picture.path.name[3:] for picture in found if picture.key.startswith("suspicious ")]
    assert set(slices) == {"b--as--a.png", "b--as--c.png", "a.png", "b.png", "c.png"}


def test_nothing_is_wrong(tmp_path: Path, ranking: Ranking, flat: Source) -> None:
    found = draw_audit(only(ranking(n=40), "no such label"), flat, tmp_path, "t")
    assert (
        names(tmp_path) == ["01-a.png", "02-b.png", "03-c.png", "errors.png", "loss.png", "worst.png"]
        or len(found) == 6
    )


def test_one_sample(tmp_path: Path, ranking: Ranking, flat: Source) -> None:
    found = draw_audit(ranking(n=1), flat, tmp_path, "t")
    assert found[0].caption == "the 1 most suspicious labels"
    for picture in found:
        with Image.open(picture.path) as image:
            assert image.format == "PNG"


def test_error_per_label_gets_the_mean_disagreement(
    tmp_path: Path, ranking: Ranking, flat: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], np.ndarray, np.ndarray]] = []

    def record(labels: list[str], percent: np.ndarray, counts: np.ndarray, path: Path, title: str) -> Path:
        seen.append((labels, percent, counts))
        return path

    monkeypatch.setattr(pictures.charts, "error_per_label", record)
    table = ranking(n=40)
    draw_audit(table, flat, tmp_path, "t", 0)
    for label, percent, count in zip(*seen[0], strict=True):
        rows = table[table["given_label"] == label]
        assert count == len(rows)
        assert percent == pytest.approx(100 * sum(rows["disagreement"]) / len(rows))


@pytest.mark.parametrize("label", ["../../escape", "\U00020000" * 90, " "])
def test_strange_labels_stay_in_the_folder(tmp_path: Path, ranking: Ranking, flat: Source, label: str) -> None:
    table = ranking(n=12)
    table["given_label"] = table["given_label"].replace("a", label)
    table["slice"] = table["given_label"] + " → " + table["predicted_label"]
    found = draw_audit(table, flat, tmp_path / "panels", "t")
    assert all(picture.path.parent == tmp_path / "panels" and picture.path.exists() for picture in found)
    assert names(tmp_path) == ["panels"]
