"""The page and the Markdown of a comparison: self-contained, escaped, complete."""

from __future__ import annotations

import base64
import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from comparison_helpers import summarize

from mlfix_train.audit.comparison.study import ArmRuns
from mlfix_train.audit.reporting import comparison_charts as charts
from mlfix_train.audit.reporting.comparison_report import (
    BADGES,
    chart_stems,
    comparison_markdown,
    comparison_page,
)

ODD = [
    "停止標識",
    "<b>x</b> & \"y\" 'z'",
    "two\nlines",
    "$x^{2$",
    "x" * 200,
    "y" * 40,
    "</table><script>alert(1)</script>",
]


class Reader(HTMLParser):
    """Collects tags, attributes and words, and checks that tags close in order."""

    VOID = ("meta", "br", "img")

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.cells: list[int] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(content)
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    """A comparison of labels with odd names, with a control arm and slices with odd names."""
    rng = np.random.default_rng(0)
    given = np.repeat(ODD, 12)
    ids = [f"s{i:03d}" for i in range(len(given))]
    arms = {}
    for name, rate in (("original", 0.4), ("fixed", 0.1), ("control", 0.4)):
        tables = {}
        for seed in range(7):
            pred = np.where(rng.random(len(given)) < rate, rng.permutation(given), given)
            tables[f"seed={seed}"] = pd.DataFrame({"sample_id": ids, "label": given, "pred": pred})
        arms[name] = ArmRuns(name, tables)
    fixes = pd.DataFrame({"new_label": ["invalid", ODD[3]]}, index=pd.Index(["s000", "s040"], dtype=object))
    slices = {'<i>&"x"': [ODD[0]], "停": [ODD[1], ODD[2]], "gone": [ODD[5]]}
    found = summarize(arms["original"], arms["fixed"], fixes, slices, arms["control"], resamples=300)
    found["sources"] = {"original": ['/data/<a> & "b"/preds-1.csv'] * 70, "fixed": ["x"], "control": ["y"]}
    return {"name": "Study <1> & 'two'", "partial": [], **found}


def pictures(summary: dict[str, Any], folder: Path) -> dict[str, list[Path]]:
    drawn = {}
    for number, (name, piece) in enumerate(summary["slices"].items()):
        fall = charts.waterfall(piece, folder / f"{number}-fall.svg", f"From where, {name}")
        drawn[name] = [charts.arms_histogram(piece["runs"], folder / f"{number}.svg", name), *([fall] if fall else [])]
    return drawn


def test_the_page_stands_alone(summary: dict[str, Any], tmp_path: Path) -> None:
    drawn = pictures(summary, tmp_path)
    dots = charts.label_dots(summary["labels"], tmp_path / "labels.svg", "Labels")
    content = comparison_page(summary, drawn, dots)
    read = Reader(content)
    assert ("meta", "http-equiv", "Content-Security-Policy") in read.attributes
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(read.tags)
    assert "http:" not in content and "https:" not in content and "@import" not in content and "url(" not in content
    loads = [value for _, name, value in read.attributes if name in ("src", "href", "srcset", "data", "action")]
    assert len(loads) == sum(map(len, drawn.values())) + 1 == 15
    files = [path for paths in drawn.values() for path in paths] + [dots]
    for load, path in zip(loads, files, strict=True):
        head, _, data = load.partition(",")
        assert head == "data:image/svg+xml;base64"
        assert base64.b64decode(data) == path.read_bytes()
    assert not any(name.startswith("on") for _, name, _ in read.attributes)
    assert ("meta", "charset", "utf-8") in read.attributes and content.startswith("<!doctype html>")


def test_the_page_says_everything_in_its_own_words(summary: dict[str, Any]) -> None:
    read = Reader(comparison_page(summary, {}, None))
    assert summary["headline"] in read.words
    assert read.words.index(summary["headline"]) < read.words.index("evaluation")
    for name, piece in summary["slices"].items():
        assert piece["sentence"] in read.words
        assert BADGES[piece["verdict"]][0] in read.words
        assert name in read.words
    for row in summary["labels"]:
        assert row["label"] in read.words
        assert f"{row['before']:.2f}" in read.words
    shown = sum(row["significant"] for row in summary["labels"])
    assert read.words.count("●") == shown > 0
    assert "control against original" in read.words and "permutation test over runs" in read.words
    assert "Partial" not in read.words


def test_names_are_escaped_wherever_they_stand(summary: dict[str, Any], tmp_path: Path) -> None:
    content = comparison_page(
        {**summary, "partial": ['fixed: <b>"run"</b> & co is failed']}, pictures(summary, tmp_path), None
    )
    read = Reader(content)
    for bad in ("<i>", "<b>", "<script", "</table><script", "<a>", "& co", "& 'two'"):
        assert bad not in content, bad
    for name in (*ODD, *summary["slices"], "Study <1> & 'two'", '/data/<a> & "b"/preds-1.csv', '<b>"run"</b> & co'):
        assert name in read.words, name
    alts = [value for tag, name, value in read.attributes if (tag, name) == ("img", "alt")]
    assert alts[0] == summary["slices"]["all"]["sentence"]


def test_the_table_has_a_cell_for_every_head(summary: dict[str, Any]) -> None:
    for one in (summary, without_control(summary)):
        for table in re.findall(r"<table>.*?</table>", comparison_page(one, {}, None), re.DOTALL):
            heads = table.count("<th>")
            for row in re.findall(r"<tr>(?:(?!</tr>).)*</tr>", table.split("</thead>")[1], re.DOTALL):
                assert len(re.findall(r"<td\b", row)) == heads


def without_control(summary: dict[str, Any]) -> dict[str, Any]:
    one = copy.deepcopy(summary)
    del one["arms"]["control"]
    for piece in one["slices"].values():
        del piece["control"]
    return one


def test_the_page_without_control_labels_and_sources(summary: dict[str, Any]) -> None:
    one = {**without_control(summary), "labels": [], "sources": None, "name": None, "headline": "x"}
    one["slices"] = {name: {**piece, "sentence": name} for name, piece in one["slices"].items()}
    read = Reader(comparison_page(one, {}, None))
    assert "control" not in read.words.lower()
    assert "Single labels" not in read.words and "Sources" not in read.words
    assert "Before and after: comparison" in read.words


def test_a_partial_result_is_marked_before_the_numbers(summary: dict[str, Any]) -> None:
    lines = ["fixed: /o/seed=3 is failed", "original: seed=4 lacks the fold(s) 1 and is left out"]
    read = Reader(comparison_page({**summary, "partial": lines}, {}, None))
    assert ("div", "class", "partial") in read.attributes
    assert all(line in read.words for line in lines)
    assert read.words.index("Partial result.") < read.words.index(lines[0]) < read.words.index("(given / clean)")
    whole = Reader(comparison_page(summary, {}, None))
    assert ("div", "class", "partial") not in whole.attributes


def test_a_slice_with_nothing_left_has_its_place_on_the_comparison_page(summary: dict[str, Any]) -> None:
    given = [f"s{i}" for i in range(6)]
    table = pd.DataFrame({"sample_id": given, "label": list("aaabbb"), "pred": list("aabbba")})
    arms = [ArmRuns(name, {"seed=0": table, "seed=1": table}) for name in ("original", "fixed")]
    fixes = pd.DataFrame({"new_label": ["invalid"] * 3}, index=pd.Index(given[:3], dtype=object))
    found = summarize(*arms, fixes, {"gone": "a"}, resamples=200)
    read = Reader(comparison_page({"name": "x", **found}, {}, None))
    assert "no samples left" in read.words
    assert "the fixes leave no held-out sample to evaluate on" in read.words


def test_markdown_tables_hold_names_with_bars() -> None:
    table = pd.DataFrame({"sample_id": list("abcd"), "label": list("xxyy"), "pred": list("xyyx")})
    arms = [ArmRuns(n, {"seed=0": table}) for n in ("original", "fixed")]
    fixes = pd.DataFrame({"new_label": ["invalid"]}, index=pd.Index(["a"], dtype=object))
    text = comparison_markdown(summarize(*arms, fixes, {"x|y": "x"}, resamples=100))
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_file_names_differ() -> None:
    for slices in (["all", "x y", "x-y", "x-y-1"], ["all", "a", "a-effect"], ["all", "labels", "A", "a"]):
        files = [f.lower() for n in chart_stems(slices) for f in (n, f"{n}-effect")]
        assert len({*files, "labels"}) == len(files) + 1, files
