"""Charts of a comparison: complete, readable without color, and with labels of any kind."""

from __future__ import annotations

import gc
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlfix_train.audit.reporting import chart_style as sheets
from mlfix_train.audit.reporting import comparison_charts as charts
from mlfix_train.errors import DataError

ODD = [
    "停止標識",
    "<b>x</b> & \"y\" 'z'",
    "two\nlines",
    "$x^{2$",
    "x" * 200,
    "y" * 40,
    "</table><script>alert(1)</script>",
]
KEYS = [key for key, *_ in charts.ARM_ROWS]


@pytest.fixture(autouse=True, scope="module")
def nothing_left_behind() -> None:
    gc.collect()  # what other tests left behind warns before, not while something is drawn


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """The figures that were saved."""
    figures: list = []
    save = sheets.save
    monkeypatch.setattr(sheets, "save", lambda figure, *to: (figures.append(figure), save(figure, *to))[1])
    return figures


def texts(figure) -> list[str]:
    """All words of a figure; checks on the way that none is cut off at its edge, and that none covers another."""
    axes = figure.axes[0]
    words = [*figure.texts, *axes.texts, axes.xaxis.label, axes.yaxis.label]
    for labels, place, view in (
        (axes.get_xticklabels(), 0, axes.get_xlim()),
        (axes.get_yticklabels(), 1, axes.get_ylim()),
    ):
        words += [label for label in labels if min(view) <= label.get_position()[place] <= max(view)]
    figure.canvas.draw()  # an SVG is laid out at another resolution
    renderer = figure.canvas.get_renderer()
    words = [text for text in words if text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in words]
    for text, box in zip(words, boxes, strict=True):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for i, one in enumerate(boxes):
        for other, text in zip(boxes[:i], words, strict=False):
            gone = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
            assert min(gone) <= 1, f"{words[i]} covers {text}"
    return [text.get_text() for text in words]


def check_file(path: Path) -> None:
    """A PNG that can be read and isn't empty, or an SVG that stands alone; no other file beside it."""
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    if path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
    else:
        content = path.read_text(encoding="utf-8")
        assert content.lstrip().startswith("<?xml") and content.rstrip().endswith("</svg>")
        assert "<path" in content and not re.search(r'href="(?!#)', content), "loads nothing"


def errors(seed: int = 0, runs: int = 12, **means: float) -> dict[str, list[float] | None]:
    rng = np.random.default_rng(seed)
    return {key: rng.normal(means.get(key, 8.0), 0.3, runs).tolist() for key in KEYS}


# --- histograms of arms ---


@pytest.mark.parametrize(("kind", "runs"), [("png", 1), ("svg", 5), ("png", 6), ("svg", 40)])
def test_the_arms_as_png_and_svg(kind: str, runs: int, tmp_path: Path, drawn: list) -> None:
    values = errors(runs=runs)
    path = charts.arms_histogram(values, tmp_path / "new" / f"arms.{kind}", "Held-out error, all (13,938 rows)")
    assert path == tmp_path / "new" / f"arms.{kind}"
    check_file(path)
    words = texts(drawn[0])
    for key, name, _, _ in charts.ARM_ROWS:
        assert name in words
        mean = np.mean(values[key])
        assert any(word.startswith(f"{mean:.2f}") and f"{runs} run" in word for word in words), words


def test_a_histogram_holds_every_run(tmp_path: Path, drawn: list) -> None:
    values = errors(runs=23, fixed_on_clean=7.0)
    values["control_on_clean"] = None
    charts.arms_histogram(values, tmp_path / "arms.png", "title")
    axes = drawn[0].axes[0]
    assert len(axes.containers) == 3, "an arm that isn't there has no row"
    tallest = max(abs(bar.get_height()) for bars in axes.containers for bar in bars)
    for bars, key in zip(axes.containers, ("original_on_original", "original_on_clean", "fixed_on_clean"), strict=True):
        ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]
        wanted = np.array([sum(low <= x < high for x in values[key]) for low, high in ends])
        heights = np.array([abs(bar.get_height()) for bar in bars])
        assert wanted.sum() == 23 and wanted.all(), "empty bars are not drawn"
        unit = heights / wanted
        np.testing.assert_allclose(unit, unit[0])
    assert tallest < 1, "rows don't reach into each other"


def test_arms_differ_in_hatch_and_shade_too(tmp_path: Path, drawn: list) -> None:
    assert len({hatch for *_, hatch in charts.ARM_ROWS}) == len(charts.ARM_ROWS)
    charts.arms_histogram(errors(), tmp_path / "arms.png", "title")
    bars = [container[0] for container in drawn[0].axes[0].containers]
    assert len({bar.get_hatch() for bar in bars}) == 4
    assert [bar.get_hatch() or "" for bar in bars] == [hatch for *_, hatch in charts.ARM_ROWS]


def test_few_runs_are_dots_that_differ_in_their_marker(tmp_path: Path, drawn: list) -> None:
    charts.arms_histogram(errors(runs=charts.MIN_HISTOGRAM_RUNS - 1), tmp_path / "arms.png", "title")
    lines = drawn[0].axes[0].lines
    assert len(lines) == 4 and len({line.get_marker() for line in lines}) == 4
    assert all(len(line.get_xdata()) == charts.MIN_HISTOGRAM_RUNS - 1 for line in lines)


@pytest.mark.parametrize("values", [[0.0] * 9, [7.3] * 9, [0.0] * 8 + [100.0], np.linspace(5, 5.001, 9)])
def test_histograms_of_odd_errors(values: list[float], tmp_path: Path, drawn: list) -> None:
    charts.arms_histogram({key: list(values) for key in KEYS}, tmp_path / "arms.png", "x" * 200)
    assert f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}\n9 runs" in texts(drawn[0])


@pytest.mark.parametrize("title", ["停 <b> & $x^{2$\ntwo", "x" * 200])
def test_titles_of_any_kind_fit(title: str, tmp_path: Path, drawn: list) -> None:
    charts.arms_histogram(errors(), tmp_path / "arms.png", f"Held-out error, {title} (1 row)")
    charts.waterfall(slice_of(8.0, 7.0, 6.0), tmp_path / "fall.svg", f"Where it comes from, {title}")
    for figure in drawn:
        texts(figure)


def test_no_runs_and_no_percentages_are_refused(tmp_path: Path) -> None:
    for runs in ({}, dict.fromkeys(KEYS), {"original_on_clean": []}):
        with pytest.raises(DataError, match="no run in any arm of the chart 'title'"):
            charts.arms_histogram(runs, tmp_path / "arms.png", "title")
    for bad in (-0.1, 100.1, np.nan):
        with pytest.raises(DataError, match=r"original arm, clean labels\[1\] is"):
            charts.arms_histogram({"original_on_clean": [1.0, bad] * 5}, tmp_path / "arms.png", "title")
    assert not list(tmp_path.iterdir())


# --- waterfall ---


def slice_of(
    before: float, middle: float, after: float, half: float | None = 0.4, evaluation_half: float | None = 0.2
) -> dict[str, Any]:
    training, evaluation = middle - after, before - middle
    return {
        "error": {"original_on_original": before, "original_on_clean": middle, "fixed_on_clean": after},
        "effect": {
            "total": before - after,
            "evaluation": evaluation,
            "training": training,
            "training_ci95": None if half is None else [training - half, training + half],
            "evaluation_ci95": None if evaluation_half is None else [evaluation - 0.2, evaluation + 0.2],
        },
    }


@pytest.mark.parametrize(
    ("kind", "before", "middle", "after"),
    [
        ("png", 10.42, 8.84, 8.49),
        ("svg", 5.0, 5.0, 5.0),
        ("png", 3.0, 4.0, 6.0),
        ("svg", 0.0, 0.0, 100.0),
        ("svg", 9, 2, 4),
    ],
)
def test_the_waterfall(kind: str, before: float, middle: float, after: float, tmp_path: Path, drawn: list) -> None:
    path = charts.waterfall(slice_of(before, middle, after), tmp_path / f"fall.{kind}", "Where it comes from, speed")
    assert path is not None
    check_file(path)
    words = texts(drawn[0])
    for value in (before, middle, after):
        assert f"{value:.2f}%" in words
    way = "falls" if before >= after else "rises"
    assert any(f"the error {way} by {abs(before - after):.2f} points in total" in word for word in words)
    bars = [bar for container in drawn[0].axes[0].containers for bar in getattr(container, "patches", ())]
    assert [bar.get_x() for bar in bars] == pytest.approx([before, middle])
    assert [bar.get_width() for bar in bars] == pytest.approx([middle - before, after - middle])
    assert len({bar.get_hatch() for bar in bars}) == 2
    effect = middle - after
    step = f"effect {effect:+.2f}\n[{effect - 0.4:.2f}, {effect + 0.4:.2f}]"
    assert step.replace("-", "−") in words


def test_the_interval_stands_about_the_end_of_its_step(tmp_path: Path, drawn: list) -> None:
    piece = slice_of(10.0, 9.0, 7.0)
    piece["effect"]["training_ci95"] = [1.5, 3.0]  # training 2.0: the error ends between 9 - 3 and 9 - 1.5
    charts.waterfall(piece, tmp_path / "fall.png", "title")
    bars = [c for c in drawn[0].axes[0].collections if len(c.get_segments()) == 1 and c.get_linewidth()[0] == 1.4]
    ends = [sorted(point[0] for point in c.get_segments()[0]) for c in bars]
    assert [6.0, 7.5] in [[round(x, 6) for x in pair] for pair in ends]


def test_a_waterfall_without_intervals(tmp_path: Path, drawn: list) -> None:
    charts.waterfall(slice_of(8.0, 7.0, 6.0, None, None), tmp_path / "fall.png", "title")
    assert "effect +1.00" in texts(drawn[0])
    assert not any("[" in word for word in texts(drawn[0]))


@pytest.mark.parametrize("key", ["total", "training"])
def test_nothing_to_take_apart_gives_no_waterfall(key: str, tmp_path: Path) -> None:
    piece = slice_of(8.0, 7.0, 6.0)
    piece["effect"][key] = None
    assert charts.waterfall(piece, tmp_path / "fall.png", "title") is None
    assert not list(tmp_path.iterdir())


# --- single labels ---


def label_row(name: str, training: float, ci: list[float] | None = None, shown: bool = False) -> dict[str, Any]:
    return {
        "label": name,
        "rows": 1234,
        "groups": 50,
        "before": 50.0,
        "after": 50.0 - training,
        "training": training,
        "ci95": ci,
        "p_value": None if ci is None else 0.01,
        "q_value": None,
        "significant": shown,
    }


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_change_of_labels(kind: str, tmp_path: Path, drawn: list) -> None:
    rows = [
        label_row("worse", -9.0, [-14.0, -4.0], True),
        label_row("unsure", 5.0, [-1.0, 11.0]),
        label_row("better", 3.0, [1.0, 5.0], True),
        label_row("untested", 40.0),
        label_row("same", 0.0, [0.0, 0.0]),
    ]
    path = charts.label_dots(rows, tmp_path / f"labels.{kind}", "Change of single labels")
    assert path is not None
    check_file(path)
    words = texts(drawn[0])
    assert [word for word in words if word in {row["label"] for row in rows}] == ["unsure", "better", "worse"]
    assert any("3 of 5 labels" in word and word.endswith("significant (2)") for word in words)
    assert "50.0 → 59.0%  n = 1,234" in words
    dots = {line.get_xdata()[0]: line for line in drawn[0].axes[0].lines if line.get_marker() in "os"}
    assert dots[-9.0].get_marker() != dots[3.0].get_marker(), "better and worse differ in more than color"
    assert dots[5.0].get_markerfacecolor() == "white" != dots[3.0].get_markerfacecolor()


def test_an_interval_that_leaves_the_axis_ends_in_an_arrow(tmp_path: Path, drawn: list) -> None:
    rows = [label_row("wide", 2.0, [-1.0, 90.0]), label_row("narrow", 1.0, [0.5, 1.5])]
    charts.label_dots(rows, tmp_path / "labels.png", "title")
    markers = [line.get_marker() for line in drawn[0].axes[0].lines]
    assert (markers.count(">"), markers.count("<")) == (1, 0)
    assert any("arrows: the interval goes on" in text for text in texts(drawn[0]))


def test_what_is_shown_goes_before_what_is_larger(tmp_path: Path, drawn: list) -> None:
    rows = [label_row(f"l{i}", 30.0 - i, [-1.0, 60.0]) for i in range(9)] + [label_row("sure", 1.0, [0.5, 1.5], True)]
    charts.label_dots(rows, tmp_path / "labels.png", "title", max_labels=4)
    assert [word for word in texts(drawn[0]) if word in {row["label"] for row in rows}] == ["l0", "l1", "l2", "sure"]


def test_labels_in_any_script_and_thirty_of_them_fit(tmp_path: Path, drawn: list) -> None:
    charts.label_dots(
        [label_row(name, 3.0 - i, [-50.0, 50.0]) for i, name in enumerate(ODD)], tmp_path / "odd.png", "t"
    )
    rows = [
        label_row(f"regulatory--maximum-speed-limit-{i}-with-a-long-name--g1", 30.0 - i, [0, 60]) for i in range(99)
    ]
    charts.label_dots(rows, tmp_path / "labels.png", "t")
    assert r"two\nlines" in texts(drawn[0])
    names = [word for word in texts(drawn[1]) if word.endswith("--g1")]
    assert len(names) == len(set(names)) == 30


def test_nothing_changed_gives_no_chart(tmp_path: Path) -> None:
    assert charts.label_dots([], tmp_path / "labels.png", "title") is None
    assert charts.label_dots([label_row("same", 0.0, [0.0, 0.0])], tmp_path / "labels.png", "title") is None
    assert not list(tmp_path.iterdir())


def test_few_runs_are_shown_with_their_mean(tmp_path: Path, drawn: list) -> None:
    runs = {"original_on_clean": [7.0, 8.0, 9.0], "fixed_on_clean": [4.126]}
    charts.arms_histogram(runs, tmp_path / "arms.png", "title")
    found = texts(drawn[0])
    assert {"8.00  (3 runs)", "4.13  (1 run)", "//"} <= set(found)
    assert any(text.startswith("error of a run (%); the axis starts at 3.8") for text in found), "the axis is cut"
    assert [line.get_xdata().tolist() for line in drawn[0].axes[0].lines] == list(runs.values())


def test_charts_repeat_exactly(tmp_path: Path) -> None:
    for kind in ("png", "svg"):
        files = [charts.waterfall(slice_of(8.0, 7.0, 6.0), tmp_path / f"{i}.{kind}", "t") for i in range(2)]
        first, second = (re.sub(rb'(id="|#)[a-z0-9]{11}\b', b"", file.read_bytes()) for file in files if file)
        assert first == second


def test_equal_errors_of_100_percent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list = []
    save = sheets.save
    monkeypatch.setattr(sheets, "save", lambda f, *to: (got.append(f), save(f, *to))[1])
    charts.arms_histogram({"original_on_clean": [100.0] * 9}, tmp_path / "a.png", "t")
    assert not got[0].axes[0].xaxis.get_offset_text().get_text()
