"""A comparison as Markdown, to read and to paste into a paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlfix_train.audit.comparison.verdict import signed

METHOD = (
    "Clean rows: held-out samples that the fixes leave in, judged by their new label. Evaluation effect: the same "
    "models, judged by given and by clean labels. Training effect: models trained on the given and on the fixed "
    "labels, both judged on clean rows. Intervals (95%) resample runs and {unit}, crossed; p-values are of a "
    "permutation test over runs ({pairs}), and speak of these held-out samples. Macro: the mean of the labels' errors."
)


def method(summary: Mapping[str, Any]) -> str:
    """Says how the numbers were made."""
    paired = summary["arms"]["fixed"]["paired"]
    unit = f"the {summary['groups']:,} groups of samples" if summary["groups"] else "single samples"
    words = METHOD.format(unit=unit, pairs="signs of pairs by seed flipped" if paired else "runs that are no pairs")
    tested = summary.get("slices_tested", {"count": 1, "corrected": False})
    if tested["corrected"]:
        return (
            f"{words} {tested['count']} slices were tested: q-values (Benjamini and Hochberg) correct for their number."
        )
    if tested["count"] > 1:
        return f"{words} {tested['count']} slices were tested; p-values are not corrected for their number."
    return words


def inputs(summary: Mapping[str, Any]) -> str:
    """Says what was compared."""
    counts = ", ".join(f"{len(arm['runs'])} {name}" for name, arm in summary["arms"].items())
    fixes = summary["fixes"]
    about = summary.get("about", {})
    told = [f"{key} {about[key]}" for key in ("data", "model", "recipe", "compared") if about.get(key)]
    return (
        f"Runs: {counts}. Held out: {summary['held_out']:,} samples. Fixes: {fixes['total']:,}, of them "
        f"{fixes['training']:,} in training and {fixes['held_out']:,} held out."
        + (f" ({', '.join(told)}.)" if told else "")
    )


def markdown(summary: Mapping[str, Any]) -> str:
    """Returns the comparison as Markdown: the headline, what is partial, the table, the sentences, the method."""
    control = "control" in summary["arms"]
    lines = ["# Before against after", "", f"**{summary['headline']}**", ""]
    if summary.get("partial"):
        lines += ["**Partial:**", *[f"- {line}" for line in summary["partial"]], ""]
    lines += [inputs(summary), "", *table(summary, control), ""]
    lines += [*[f"- {piece['sentence']}" for piece in summary["slices"].values()], ""]
    lines += ["Macro-averaged, every label weighing alike:", "", *macro_table(summary), ""]
    if control:
        lines += ["Against the control arm, which lost as many random samples:", "", *control_table(summary), ""]
    changed = [row for row in summary["labels"] if row["shown"]]
    if summary["labels"]:
        tested = sum(row["q_value"] is not None for row in summary["labels"])
        names = ", ".join(f"{row['label']} ({signed(row['training'])})" for row in changed[:20]) or "none"
        lines += [f"Labels whose error changed (q < 0.05, Benjamini and Hochberg, {tested:,} tested): {names}.", ""]
    lines += [method(summary), *[f"\nNote: {note}." for note in summary.get("notes", ())]]
    return "\n".join(lines) + "\n"


def table(summary: Mapping[str, Any], control: bool) -> list[str]:
    """Returns the main table: error in percent (standard deviation of the runs), effects in points with interval."""
    head = ["rows (given / clean)", "original arm, given labels", "original arm, clean labels",
            "fixed arm, clean labels", *(["control arm, clean labels"] if control else []), "evaluation effect",
            "training effect [95%]", "p"]  # fmt: skip
    lines = _head(head)
    for name, piece in summary["slices"].items():
        effect = piece["effect"]
        keys = ["original_on_original", "original_on_clean", "fixed_on_clean", *(["control_on_clean"] * control)]
        cells = [f"{_plain(name)} ({piece['rows_original']:,} / {piece['rows_clean']:,})"]
        cells += [_error(piece, key) for key in keys]
        cells += [_points(effect["evaluation"]), points_with_interval(effect), p_cell(effect)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def macro_table(summary: Mapping[str, Any]) -> list[str]:
    """Returns the table of macro-averaged errors."""
    lines = _head(["rows", "original arm, given labels", "original arm, clean labels", "fixed arm, clean labels",
                   "training effect [95%]", "p"])  # fmt: skip
    for name, piece in summary["slices"].items():
        error, effect = piece["macro"]["error"], piece["macro"]["effect"]
        keys = ("original_on_original", "original_on_clean", "fixed_on_clean")
        cells = [_plain(name), *[_percent(error[key]) for key in keys], points_with_interval(effect), p_cell(effect)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def control_table(summary: Mapping[str, Any]) -> list[str]:
    """Returns the effect of shrinking (control against original) and of cleaning beyond it (fixed against control)."""
    lines = _head(["rows", "shrinking alone [95%]", "p", "cleaning beyond it [95%]", "p"])
    for name, piece in summary["slices"].items():
        shrinking, cleaning = piece["control"]["effect"], piece["control"]["cleaning"]
        cells = [_plain(name), points_with_interval(shrinking), p_cell(shrinking), points_with_interval(cleaning),
                 p_cell(cleaning)]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _plain(name: str) -> str:
    """Returns a name that doesn't end a cell."""
    return name.replace("|", "\\|")


def _head(cells: list[str]) -> list[str]:
    return ["| " + " | ".join(cells) + " |", "|" + " --- |" * len(cells)]


def _error(piece: Mapping[str, Any], key: str) -> str:
    value, spread = piece["error"][key], piece["error_sd"][key]
    return _percent(value) + ("" if spread is None else f" ({spread:.2f})")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}".replace("-", "−")


def points_with_interval(effect: Mapping[str, Any]) -> str:
    """Returns ``+0.35 [−0.04, 0.73]``."""
    text, ci = _points(effect["training"]), effect["training_ci95"]
    return text if ci is None else f"{text} [{signed(ci[0])}, {signed(ci[1])}]"


def p_cell(effect: Mapping[str, Any]) -> str:
    """Returns the p-value in a cell."""
    p = effect["p_value"]
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
