"""The study card: all that a reviewer of a paper asks about a comparison, and what another group needs to repeat it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

import mlfix_train
from mlfix_train.data.fixes.table import fixes_fingerprint

FORMAT = 2
FIGURES = ("total", "evaluation", "training", "training_ci95", "p_value")
PATHS = ("outputs", "jobs", "runs_per_device", "retries", "logger", "overwrite", "report")
"""Settings of a run that say nothing about what was learned."""


def study_card(
    summary: Mapping[str, Any],
    states: Sequence[Mapping[str, Any]],
    fixes: pd.DataFrame,
    looks: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Returns the study card, the content of ``study.json``.

    Args:
        summary: what ``summary.json`` holds.
        states: ``run.json`` of each run; none for prediction files, whose card then lacks settings, data and time.
        fixes: as from :func:`mlfix_train.data.fixes.table.read_fixes`; by ``sample_id`` or with such a column.
        looks: the recorded looks, with their times.
    """
    table = fixes if "sample_id" in fixes.columns else fixes.reset_index()
    first = states[0] if states else {}
    seconds = [state["timings"]["total_seconds"] for state in states if state.get("timings", {}).get("total_seconds")]
    times = sorted(str(state[key]) for state in states for key in ("started", "finished") if state.get(key))
    return {
        "format": FORMAT,
        "name": summary.get("name"),
        "headline": summary["headline"],
        "verdict": str(summary["verdict"]),
        "mlfix_train": mlfix_train.__version__,
        "data": {**first.get("data", {}), "held_out": summary["held_out"], "groups": summary["groups"]},
        "fixes": {
            **summary["fixes"],
            "sha256": fixes_fingerprint(table.set_index("sample_id")),
            "invalid": int((table["new_label"] == "invalid").sum()),
            "reviewers": _counts(table, "reviewer"),
            "reviewed": _range(table, "time"),
            "list": table[["sample_id", "new_label"]].astype(str).to_numpy().tolist(),
        },
        "runs": {name: arm["runs"] for name, arm in summary["arms"].items()},
        "partial": list(summary.get("partial", ())),
        "planned": {"slices": summary["settings"]["slices"], "primary": summary["primary"], "looks": summary["looks"]},
        "looks": list(looks),
        "results": {
            name: {**{key: result["effect"].get(key) for key in FIGURES}, "verdict": str(result["verdict"])}
            for name, result in summary["slices"].items()
        },
        "comparison": {key: value for key, value in summary["settings"].items() if key not in ("slices", "primary")},
        "settings": {key: value for key, value in first.get("config", {}).items() if key not in PATHS},
        "versions": _distinct(states, "versions"),
        "hardware": _distinct(states, "hardware"),
        "time": {
            "trainings": len(states),
            "hours": round(sum(seconds) / 3600, 3),
            "first": times[0] if times else None,
            "last": times[-1] if times else None,
        },
    }


def _counts(table: pd.DataFrame, column: str) -> dict[str, int]:
    """Returns how many fixes each value of a column has; of nobody named, ``unknown``."""
    if column not in table.columns:
        return {"unknown": len(table)}
    return {str(name) or "unknown": count for name, count in Counter(table[column].fillna("").astype(str)).items()}


def _range(table: pd.DataFrame, column: str) -> list[str] | None:
    known = sorted(text for text in table[column].fillna("").astype(str) if text) if column in table.columns else []
    return [known[0], known[-1]] if known else None


def _distinct(states: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    """Returns the different values of an entry of ``run.json``, with the number of runs that have each."""
    found: list[dict[str, Any]] = []
    for state in states:
        for one in found:
            if {name: value for name, value in one.items() if name != "runs"} == state.get(key):
                one["runs"] += 1
                break
        else:
            if state.get(key):
                found.append({**state[key], "runs": 1})
    return found
