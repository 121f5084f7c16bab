"""Views: groups and orders compared with plain sorting, filters, search, typical images, sprites."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from review_helpers import LABELS, mark, open_session, order_of, pixels_of, ranking_of, table_of

from mlfix_train.audit.review.samples import make_samples, natural_sort_key, typical_images
from mlfix_train.audit.review.sprites import BLOCK, Sprites, brighten_images, tile_side
from mlfix_train.audit.review.views import FIRST_BAND, SCREEN_SIZE, ViewSpec, make_view
from mlfix_train.errors import ConfigError


def view_of(table: pd.DataFrame, ranking: pd.DataFrame | None, order: pd.DataFrame | None, marks=None, **spec: str):
    samples = make_samples(table, ranking, order)
    marks = np.full(len(table), -1, np.int32) if marks is None else marks
    view = make_view(samples, ViewSpec.parse(spec, samples), marks, np.zeros(len(table), bool))
    return samples, view


def test_groups_by_label_most_suspicious_first() -> None:
    table = table_of(600)
    ranking = ranking_of(table)
    _, view = view_of(table, ranking, None)
    frame = ranking.set_index("sample_id").loc[table.index].assign(row=np.arange(600))
    worth = (
        frame.groupby("given_label")["suspicion"]
        .apply(lambda s: s.nlargest(SCREEN_SIZE).sum())
        .sort_values(ascending=False)
    )
    assert view.names == worth.index.tolist()
    for g, name in enumerate(view.names):
        wanted = frame[frame["given_label"] == name].sort_values("suspicion", ascending=False)["row"].tolist()
        assert view.group(g).tolist() == wanted
        assert view.expected[g] == pytest.approx(frame.loc[frame["given_label"] == name, "suspicion"].sum(), rel=1e-4)


def test_groups_by_pair_and_by_name() -> None:
    table = table_of(200)
    ranking = ranking_of(table)
    _, view = view_of(table, ranking, None, group_by="pair", group_order="name")
    frame = ranking.set_index("sample_id").loc[table.index]
    wanted = frame.groupby(["given_label", "predicted_label"]).size()
    found = {name: int(n) for name, n in zip(view.names, np.diff(view.starts), strict=True)}
    names = {f"{a} → {b}" if a != b else f"{a}, prediction agrees": int(n) for (a, b), n in wanted.items()}
    assert found == names and view.names == sorted(names, key=natural_sort_key)
    assert [natural_sort_key("limit 100") > natural_sort_key("limit 20"), sorted(LABELS, key=natural_sort_key)] == [
        True,
        ["limit 20", "limit 100", "stop"],
    ]


def test_the_visual_order_and_bands_of_suspicion() -> None:
    table = table_of(900)
    ranking, order = ranking_of(table), order_of(table)
    _, view = view_of(table, ranking, order, sort_by="visual")
    for g, name in enumerate(view.names):
        rows = view.group(g)
        assert order["label_position"].to_numpy()[rows].tolist() == list(range((table["label"] == name).sum()))
    _, view = view_of(table, ranking, order, group_by="all", sort_by="both")
    rows = view.group(0)
    by_suspicion = ranking["sample_id"].tolist()
    start, width = 0, FIRST_BAND
    while start < 900:
        band = rows[start : start + width]
        assert set(table.index[band]) == set(by_suspicion[start : start + width]), (
            "a band holds the next most suspicious samples"
        )
        assert (np.diff(order["position"].to_numpy()[band]) > 0).all(), "in visual order inside a band"
        start, width = start + width, 2 * width


def test_metadata_columns_bins_and_empty_values() -> None:
    table = table_of(400, altitude=np.linspace(0, 1, 400), stars=[float(i % 3) for i in range(400)])
    samples, view = view_of(table, None, None, group_by="column:weather", group_order="name")
    assert sorted(view.names) == ["(empty)", "rain", "sun"] and set(samples.columns) >= {
        "weather",
        "altitude",
        "stars",
        "group",
    }
    assert view_of(table, None, None, group_by="column:stars", group_order="name")[1].names == ["0", "1", "2"]
    bins = view_of(table, None, None, group_by="column:altitude", group_order="name")[1]
    assert len(bins.names) == 10 and np.diff(bins.starts).tolist() == [40] * 10


def test_filters_and_search() -> None:
    table = table_of(210)
    ranking = ranking_of(table)
    marks = np.full(210, -1, np.int32)
    marks[[3, 5]] = -2
    for name, wanted in (
        ("marked", {3, 5}),
        ("unmarked", set(range(210)) - {3, 5}),
        ("suspicious", set(range(0, 210, 7))),
    ):
        assert set(view_of(table, ranking, None, marks, group_by="all", filter=name)[1].rows.tolist()) == wanted
    found = view_of(table, ranking, None, group_by="all", search=" STOP  20")[1].rows
    text = (
        table.index + " " + table["label"] + " " + ranking.set_index("sample_id")["predicted_label"].loc[table.index]
    ).str.lower()
    assert set(found.tolist()) == set(np.flatnonzero(text.str.contains("stop") & text.str.contains("20")))
    empty = view_of(table, ranking, None, search="nothing like it")[1]
    assert len(empty.rows) == 0 and empty.names == []


def test_unknown_settings_of_a_view_are_refused() -> None:
    table = table_of(12)
    samples = make_samples(table)
    for wrong in (
        {"group_by": "lable"},
        {"group_by": "column:nope"},
        {"sort_by": "x"},
        {"group_order": "x"},
        {"filter": "x"},
    ):
        with pytest.raises(ConfigError, match="is not one of"):
            ViewSpec.parse(wrong, samples)


def test_scores_of_a_changed_label_are_left_out() -> None:
    table = table_of(30)
    ranking = ranking_of(table)
    table.loc["stop/002.jpg", "label"] = "limit 20"
    samples = make_samples(table, ranking)
    assert np.isnan(samples.suspicion[2]) and samples.predicted[2] == -1 and not samples.is_label_issue[2]
    assert np.isfinite(np.delete(samples.suspicion, 2)).all()


def test_typical_images_are_not_suspicious_and_from_different_tracks() -> None:
    table = table_of(600)
    ranking, order = ranking_of(table), order_of(table)
    samples = make_samples(table, ranking, order)
    typical = typical_images(samples)
    assert typical.shape == (3, 8)
    for code, rows in enumerate(typical):
        assert (samples.given[rows] == code).all() and (samples.suspicion[rows] < 0.5).all()
        assert len(set(samples.groups[rows])) == 8
    few = typical_images(make_samples(table_of(7)))
    assert (few >= 0).sum(1).tolist() == [2, 3, 2]


def test_sheets_hold_the_right_tiles(tmp_path: Path) -> None:
    sprites = Sprites(pixels_of, 16, "test", tmp_path / "s")
    rows = np.random.default_rng(0).permutation(5000)[:BLOCK]
    name = sprites.plan(rows, sprites.small, 16, False)
    assert sprites.sheet("0" * 32) is None
    sheet = np.asarray(Image.open(io.BytesIO(sprites.sheet(name) or b"")).convert("RGB")).astype(int)
    assert sheet.shape == (256, 256, 3)
    for place in (0, 1, 17, 255):
        y, x = divmod(place, 16)
        tile = sheet[y * 16 : y * 16 + 16, x * 16 : x * 16 + 16]
        assert abs(tile - pixels_of(rows[[place]])[0]).max() < 12, "a tile that bleeds, or the wrong one"
    again = Sprites(lambda rows: pytest.fail("it is cached on disk"), 16, "test", tmp_path / "s")
    assert again.plan(rows, 16, 16, False) == name and again.sheet(name) == sprites.sheet(name)
    assert Sprites(pixels_of, 16, "other pixels", None).plan(rows, 16, 16, False) != name, "named by content"
    (tmp_path / "s" / f"{name}.jpg").write_bytes(b"\xff\xd8 truncated")
    third = Sprites(pixels_of, 16, "test", tmp_path / "s")
    third.plan(rows, 16, 16, False)
    assert third.sheet(name) == sprites.sheet(name), "a damaged sheet is cut again"


def test_sheets_on_disk_stay_below_a_limit_and_no_folder_is_needed(tmp_path: Path) -> None:
    sprites = Sprites(pixels_of, 16, "test", tmp_path / "s", disk_limit=20_000)
    for start in range(0, 3000, 64):
        sprites.sheet(sprites.plan(np.arange(start, start + 64), 16, 16, False))
    held = [path.stat().st_size for path in (tmp_path / "s").glob("*.jpg")]
    assert 0 < sum(held) <= 20_000 and sum(held) == sprites._disk_used
    (tmp_path / "file").write_text("")
    other = Sprites(pixels_of, 16, "test", tmp_path / "file" / "s")
    assert other.folder is None and other.sheet(other.plan(np.arange(5), 16, 16, False))


def test_only_dark_tiles_are_brightened() -> None:
    images = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (0, 20, 104, 200)])
    means = brighten_images(images).mean(axis=(1, 2, 3))
    assert means[0] == 0 and 70 <= means[1] <= 85 and abs(means[2] - 105) < 2 and means[3] == 200
    assert [tile_side(size, 64) for size in (8, 30, 40, 64, 224)] == [8, 32, 40, 64, 64]


def test_blocks_and_suggestions(tmp_path: Path) -> None:
    table = table_of(600)
    session = open_session(tmp_path, table)
    view = session.handle("view", {"group_by": "label"})
    block = session.handle("block", {"view": view["view"], "number": 1})
    assert len(block["rows"]) == BLOCK and block["ids"] == table.index[block["rows"]].tolist()
    last = session.handle("block", {"view": view["view"], "number": 2})
    assert len(last["rows"]) == 600 - 2 * BLOCK
    labels = session.samples.labels
    group = view["names"].index("limit 20")
    assert session.handle("group", {"view": view["view"], "group": group})["suggestions"][0] == labels.index("stop")
    mark(session, ("limit 20/000.jpg", "limit 100"))
    assert session.handle("group", {"view": view["view"], "group": group})["suggestions"][0] == labels.index(
        "limit 100"
    )
    random = session.handle("view", {"group_by": "random"})
    hidden = session.handle("block", {"view": random["view"], "number": 0})
    assert set(hidden["suspicion"]) == {None} and set(hidden["predicted"]) == {-1}, "nothing biases the reviewer"


def test_digits_set_the_labels_that_the_audit_suggests_most(tmp_path: Path) -> None:
    assert open_session(tmp_path / "few").handle("describe", {})["digits"] == [0, 1, 2], "all, where they are few"
    labels = tuple(f"label {i:02d}" for i in range(12))
    session = open_session(tmp_path / "many", table_of(120, labels))
    samples = session.samples
    weights = dict.fromkeys(range(12), 0.0)
    for given, suggested, suspicion in zip(samples.given, samples.suggested, samples.suspicion, strict=True):
        weights[int(suggested)] += float(suspicion) if given != suggested else 0
    best = sorted(weights, key=lambda label: -weights[label])[:9]
    assert session.handle("describe", {})["digits"] == sorted(label for label in best if weights[label])
