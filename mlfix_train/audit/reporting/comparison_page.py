"""A comparison as one self-contained HTML page: the sentence, the pictures, the tables, the method."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlfix_train.audit.comparison.verdict import (
    BETTER,
    HINT,
    NO_ROWS,
    NOT_SHOWN,
    ONE_RUN,
    THESE_ROWS,
    WORSE,
    p_text,
    signed,
)
from mlfix_train.audit.reporting import comparison_markdown as text

BADGES = {
    BETTER: ("better models: shown", "good"), WORSE: ("worse models: shown", "bad"), HINT: ("a hint, no proof", "mid"),
    THESE_ROWS: ("shown for these images only", "mid"), NOT_SHOWN: ("no effect shown", "none"),
    ONE_RUN: ("too few runs", "none"), NO_ROWS: ("nothing to judge by", "none"),
}  # fmt: skip

STYLE = """
:root{--ink:#212121;--grey:#686868;--rule:#e2e2e2;--ground:#fdfdfb}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1160px;margin:0 auto;padding:28px 24px 60px}
h1{font-size:1.05rem;font-weight:600;color:var(--grey);margin:0 0 10px;letter-spacing:.02em}
.lead{font-size:1.3rem;line-height:1.38;font-weight:600;margin:0 0 14px;max-width:60em}
.sub{color:var(--grey);margin:0 0 22px}
h2{font-size:1.18rem;margin:44px 0 6px;padding-top:14px;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:24px 0 4px}
.partial{border-left:5px solid #D55E00;background:#fdf1e8;padding:10px 16px;margin:0 0 20px}
.partial ul{margin:4px 0 0;padding-left:20px}
.tag{display:inline-block;font-size:.8rem;font-weight:600;border:1.5px solid;border-radius:99px;padding:1px 11px;
margin-left:8px;vertical-align:2px;white-space:nowrap}
.good{color:#00593f;border-color:#009E73;background:#e5f5f0}.bad{color:#8a3500;border-color:#D55E00;background:#fdf1e8}
.mid{color:#6b4a00;border-color:#E69F00;background:#fdf5e2}.none{color:#505050;border-color:#b5b5b5;background:#f3f3f1}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums;margin:8px 0 4px}
th,td{padding:6px 10px;border-bottom:1px solid var(--rule);text-align:right;vertical-align:top}
th{font-weight:600;color:var(--grey);font-size:.8rem;line-height:1.25;vertical-align:bottom}
th:first-child,td:first-child{text-align:left}
td.key{font-weight:650;background:#f4f4ef}
small{color:var(--grey)}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(430px,100%),1fr));gap:12px 22px;align-items:start}
figure{margin:10px 0 0}img{width:100%;height:auto;display:block}
details{margin:14px 0}summary{cursor:pointer;font-weight:600}
.max{max-height:30em;overflow:auto}
p.method{color:var(--grey);font-size:.88rem;max-width:75em}
@media print{main{max-width:none;padding:0}details>*{display:block}}
"""


def page(summary: Mapping[str, Any], pictures: Mapping[str, Sequence[Path]], label_picture: Path | None) -> str:
    """Returns the page.

    Args:
        summary: what ``summary.json`` holds.
        pictures: SVG files of each slice.
        label_picture: the SVG of the changes of labels.
    """
    e = html.escape
    title = f"Before against after: {summary.get('name') or 'comparison'}"
    body = [
        f"<h1>{e(title)}</h1>",
        f'<p class="lead">{e(summary["headline"])}</p>',
        f'<p class="sub">{e(text.inputs(summary))}</p>',
        _partial(summary),
        _main_table(summary),
        '<p class="method">Given labels: as they were. Clean labels: after the fixes, removed samples left out. '
        "Effects are in points of error; more than 0 is better. <em>Evaluation effect</em>: the same models, judged by "
        "cleaner labels. <em>Training effect</em>: models trained on the fixed labels, judged alike. Only the second "
        "is what fixing the labels bought; published comparisons often add the two up.</p>",
    ]
    for name, piece in summary["slices"].items():
        words, kind = BADGES[piece["verdict"]]
        body += [
            f'<h2>{e(_title(name))}<span class="tag {kind}">{e(words)}</span></h2>',
            f"<p>{e(piece['sentence'])}</p>",
            '<div class="pair">',
            *[_figure(path, piece["sentence"]) for path in pictures.get(name, ())],
            "</div>",
            _control(piece),
        ]
    body += [_macro(summary), _labels(summary, label_picture), "<h2>How it was computed</h2>",
             f'<p class="method">{e(" ".join([text.method(summary), *_notes(summary)]))}</p>',
             _sources(summary)]  # fmt: skip
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{e(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style></head><body><main>\n" + "\n".join(filter(None, body)) + "\n</main></body></html>\n"
    )


def _notes(summary: Mapping[str, Any]) -> list[str]:
    return [f"Note: {note}." for note in summary.get("notes", ())]


def _title(name: str) -> str:
    return "All held-out rows" if name == "all" else f"Slice: {name}"


def _partial(summary: Mapping[str, Any]) -> str:
    if not summary.get("partial"):
        return ""
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in summary["partial"])
    return f'<div class="partial"><strong>Partial result.</strong> What is missing:<ul>{lines}</ul></div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], key: int | None = None) -> str:
    """Returns a table; cells are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    lines = []
    for row in rows:
        cells = "".join(f'<td class="key">{c}</td>' if i == key else f"<td>{c}</td>" for i, c in enumerate(row))
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _main_table(summary: Mapping[str, Any]) -> str:
    control = "control" in summary["arms"]
    head = ["rows<br>(given / clean)", "original arm,<br>given labels", "original arm,<br>clean labels",
            "fixed arm,<br>clean labels", *(["control arm,<br>clean labels"] * control), "evaluation<br>effect",
            "training effect<br>[95% interval]", "p"]  # fmt: skip
    rows = []
    for name, piece in summary["slices"].items():
        keys = ["original_on_original", "original_on_clean", "fixed_on_clean", *(["control_on_clean"] * control)]
        effect = piece["effect"]
        evaluation = "–" if effect["evaluation"] is None else signed(effect["evaluation"])
        rows.append([
            f"{html.escape(name)}<br><small>{piece['rows_original']:,} / {piece['rows_clean']:,}</small>",
            *[_error(piece, key) for key in keys], evaluation, _effect(effect),
            html.escape(text.p_cell(effect)),
        ])  # fmt: skip
    note = "<p><small>Error in percent, mean of the runs ± standard deviation; effects in points.</small></p>"
    return _table(head, rows, key=len(head) - 2) + note


def _error(piece: Mapping[str, Any], key: str) -> str:
    value, spread = piece["error"][key], piece["error_sd"][key]
    if value is None:
        return "–"
    return f"{value:.2f}" + ("" if spread is None else f"<br><small>± {spread:.2f}</small>")


def _effect(effect: Mapping[str, Any]) -> str:
    if effect["training"] is None:
        return "–"
    ci = effect["training_ci95"]
    return signed(effect["training"]) + ("" if ci is None else f"<br><small>[{signed(ci[0])}, {signed(ci[1])}]</small>")


def _control(piece: Mapping[str, Any]) -> str:
    if "control" not in piece or piece["control"]["cleaning"]["training"] is None:
        return ""
    parts = []
    for words, effect in (
        ("taking out as many random samples (control against original)", piece["control"]["effect"]),
        ("cleaning beyond shrinking (fixed against control)", piece["control"]["cleaning"]),
    ):
        ci = effect["training_ci95"]
        sure = "" if ci is None else f" [{signed(ci[0])}, {signed(ci[1])}], {p_text(effect['p_value'])}"
        parts.append(f"{words}: {signed(effect['training'])}{sure}")
    return f"<p><small>Control arm, points: {html.escape('; '.join(parts))}.</small></p>"


def _macro(summary: Mapping[str, Any]) -> str:
    rows = []
    for name, piece in summary["slices"].items():
        error, effect = piece["macro"]["error"], piece["macro"]["effect"]
        keys = ("original_on_original", "original_on_clean", "fixed_on_clean")
        cells = ["–" if error[key] is None else f"{error[key]:.2f}" for key in keys]
        rows.append([html.escape(name), *cells, _effect(effect), html.escape(text.p_cell(effect))])
    head = ["rows", "original arm,<br>given labels", "original arm,<br>clean labels", "fixed arm,<br>clean labels",
            "training effect<br>[95% interval]", "p"]  # fmt: skip
    note = "<p>The mean of the labels' errors: a rare label counts as much as a frequent one.</p>"
    return "<h2>Every label weighing alike (macro average)</h2>" + note + _table(head, rows, key=4)


def _labels(summary: Mapping[str, Any], picture: Path | None) -> str:
    labels = summary["labels"]
    if not labels:
        return ""
    shown = [row for row in labels if row["shown"]]
    tested = sum(row["q_value"] is not None for row in labels)
    words = (
        f"{len(shown)} of {tested:,} tested labels changed by more than chance explains (q &lt; 0.05, Benjamini and "
        f"Hochberg); {len(labels) - tested:,} have too few held-out samples to be tested."
    )
    rows = []
    for row in sorted(labels, key=lambda row: (not row["shown"], -abs(row["training"]))):
        ci, q = row["ci95"], row["q_value"]
        rows.append([
            html.escape(row["label"]) + (" <strong>●</strong>" if row["shown"] else ""), f"{row['rows']:,}",
            f"{row['before']:.2f}", f"{row['after']:.2f}", signed(row["training"]),
            "–" if ci is None else f"[{signed(ci[0])}, {signed(ci[1])}]", "–" if q is None else f"{q:.3f}",
        ])  # fmt: skip
    head = ["label", "clean rows", "before, %", "after, %", "training effect", "95% interval", "q"]
    table = (
        f'<details><summary>All {len(labels):,} labels</summary><div class="max">{_table(head, rows)}</div></details>'
    )
    figure = "" if picture is None else f'<div style="max-width:820px">{_figure(picture, "change of labels")}</div>'
    return f"<h2>Single labels</h2><p>{words}</p>{figure}{table}"


def _figure(path: Path, words: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><img alt="{html.escape(words, quote=True)}" src="data:image/svg+xml;base64,{data}"></figure>'


def _sources(summary: Mapping[str, Any]) -> str:
    sources = summary.get("sources")
    if not sources:
        return ""
    items = "".join(
        f"<li>{html.escape(arm)}: {html.escape(', '.join(paths[:60]))}{' …' if len(paths) > 60 else ''}</li>"
        for arm, paths in sources.items()
    )
    return f"<details><summary>Sources</summary><ul>{items}</ul></details>"
