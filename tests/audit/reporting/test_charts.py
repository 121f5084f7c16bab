"""Charts of an audit: intervals, what is refused, and files of the expected size."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlfix_train.audit.reporting import chart_style as sheets
from mlfix_train.audit.reporting import charts
from mlfix_train.errors import DataError

ODD = ["停止標識", "שלום עולם", "<b>x</b> & y", "two\nlines", "$x^{2$", "x" * 200, "", "y" * 40]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """The figures that were saved."""
    figures: list = []
    save = sheets.save
    monkeypatch.setattr(sheets, "save", lambda figure, path: (figures.append(figure), save(figure, path))[1])
    return figures


def texts(figure) -> list[str]:
    """All words of a figure, tick labels in view included; checks on the way that none of them is cut off."""
    axes = figure.axes[0]
    words = [*figure.texts, *axes.texts, axes.xaxis.label, axes.yaxis.label]
    words += axes.get_legend().get_texts() if axes.get_legend() else []
    for labels, place, view in (
        (axes.get_xticklabels(), 0, axes.get_xlim()),
        (axes.get_yticklabels(), 1, axes.get_ylim()),
    ):
        words += [label for label in labels if min(view) <= label.get_position()[place] <= max(view)]
    renderer = figure.canvas.get_renderer()
    for text in filter(lambda text: text.get_text(), words):
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    return [text.get_text() for text in words]


def size_of(path: Path) -> tuple[int, int]:
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG" and round(image.info["dpi"][0]) == 150
        assert len(np.unique(np.asarray(image.convert("L")))) > 20
        return image.size


def test_the_interval_of_a_label_is_wilsons(tmp_path: Path, drawn: list) -> None:
    """Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927)."""
    percent, counts = np.array([100.0, 42.5, 7.5, 0.001, 0.0]), np.array([1, 40, 40, 100_000, 30])
    charts.error_per_label(list("abcde"), percent, counts, tmp_path / "labels.png", "title")
    (lines,) = (lines for lines in drawn[0].axes[0].collections if lines.get_linewidth()[0] == 2.4)
    for (low, high), share, n in zip(lines.get_segments(), percent / 100, counts, strict=True):
        z = 1.959963984540054
        center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
        np.testing.assert_allclose([low[0], high[0]], [100 * (center - half), 100 * (center + half)], atol=1e-9)


def test_the_interval_of_a_mean_over_runs_contains_it(tmp_path: Path, drawn: list) -> None:
    percent, counts = np.array([0.3, 1.7, 50.1, 99.9]), np.array([100, 7, 3, 20])
    charts.error_per_label(list("abcd"), percent, counts, tmp_path / "labels.png", "title")
    (lines,) = (lines for lines in drawn[0].axes[0].collections if lines.get_linewidth()[0] == 2.4)
    for (low, high), value in zip(lines.get_segments(), sorted(percent, reverse=True), strict=True):
        assert low[0] <= value <= high[0]


def test_loss_histogram_holds_every_sample(tmp_path: Path, drawn: list) -> None:
    generator = np.random.default_rng(0)
    losses = np.concatenate([generator.exponential(0.1, 500), [0.0, 0.0, 1e-6, 1e3, 1e9, np.inf]])
    wrong = losses > 0.3
    path = charts.loss_histogram(losses, wrong, tmp_path / "loss.png", "title")
    assert size_of(path) == (1200, 630)
    from matplotlib.patches import StepPatch

    counted = sorted({patch.get_data().values.sum() for patch in drawn[0].findobj(StepPatch)})
    assert counted == sorted({wrong.sum(), (~wrong).sum()})
    share = f"{wrong.sum()} ({100 * wrong.mean():.1f}%)"
    assert f"506 samples; the prediction differs from the given label for {share}" in texts(drawn[0])


@pytest.mark.parametrize("losses", [[0.0], [1e-3, 1e-3], [1e12], [0.7, 2.0, 12.0]])
def test_loss_histogram_of_few(losses: list[float], tmp_path: Path, drawn: list) -> None:
    charts.loss_histogram(np.array(losses), np.zeros(len(losses), bool), tmp_path / "new" / "loss.png", "t" * 300)
    assert f"prediction agrees ({len(losses)})" in texts(drawn[0])


@pytest.mark.parametrize(
    ("losses", "wrong", "problem"),
    [
        ([0.1, np.nan], [True, False], r"losses\[1\] is nan"),
        ([-0.1, 1.0], [True, False], r"losses\[0\] is -0.1"),
        ([0.1], [True, False], r"losses \(1,\), wrong \(2,\)"),
        ([], [], r"\(0,\)"),
        ([[0.1]], [[True]], r"\(1, 1\)"),
    ],
)
def test_loss_histogram_refuses(losses: list, wrong: list, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem):
        charts.loss_histogram(np.array(losses), np.array(wrong), tmp_path / "loss.png", "title")
    assert not list(tmp_path.iterdir())


def test_error_per_label_shows_the_worst_first(tmp_path: Path, drawn: list) -> None:
    labels = [f"regulatory--maximum-speed-limit-{i}-with-a-long-long-name--g1" for i in range(401)]
    errors, counts = np.linspace(0, 40, 401), np.full(401, 25)
    counts[400] = 0
    path = charts.error_per_label(labels, errors, counts, tmp_path / "labels.png", "title", max_labels=12)
    width, height = size_of(path)
    assert width == 1200 and height == int(150 * (1.45 + 0.21 * 12))
    words = texts(drawn[0])
    assert "the worst 12 of 400 labels; 1 without samples left out" in words
    names = [word for word in words if word.endswith("--g1")]
    assert len(names) == 12 and len(set(names)) == 12
    assert "399" in names[0] and "388" in names[-1]
    assert words.count("n = 25") == 12
    dots = drawn[0].axes[0].lines[0]
    np.testing.assert_allclose(dots.get_xdata(), errors[399:387:-1])
    assert "//" in words
    assert any("the axis ends at 6" in word for word in words), "it is cut short of 100%"


def test_labels_in_any_script_fit(tmp_path: Path, drawn: list) -> None:
    count = len(ODD)
    charts.error_per_label(ODD, np.full(count, 50.0), np.full(count, 1_000_000), tmp_path / "odd.png", "$x^{2$\n停")
    words = texts(drawn[0])
    assert f"{count} labels, worst first" in words and r"two\nlines" in words and "n = 1,000,000" in words


@pytest.mark.parametrize(
    ("errors", "counts", "problem"),
    [
        ([np.nan, 1.0], [1, 1], r"errors_percent\[0\] is nan"),
        ([1.0, 101.0], [1, 1], "101"),
        ([1.0, 2.0], [1, -1], r"counts\[1\] is -1"),
        ([1.0, 2.0], [0, 0], "every count is 0"),
        ([1.0], [1, 1], r"labels \(2,\), errors_percent \(1,\)"),
    ],
)
def test_error_per_label_refuses(errors: list, counts: list, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem):
        charts.error_per_label(["a", "b"], np.array(errors), np.array(counts), tmp_path / "labels.png", "title")


def test_pyplot_is_never_loaded() -> None:
    code = (
        "import sys, numpy as np, mlfix_train.audit.reporting.panels, mlfix_train.audit.reporting.charts as c\n"
        "assert 'matplotlib' not in sys.modules\n"
        "import tempfile, pathlib\n"
        "c.loss_histogram(np.ones(2), np.ones(2, bool), pathlib.Path(tempfile.mkdtemp()) / 'a.png', 't')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
