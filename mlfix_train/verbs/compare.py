"""``mlfix compare``: the runs of two or three arms to one honest table."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from mlfix_train import config
from mlfix_train.audit.charts import arms_chart
from mlfix_train.audit.compare import ArmRuns, compare_arms, markdown, sentence
from mlfix_train.audit.predictions import read_predictions
from mlfix_train.audit.slices import slug
from mlfix_train.data.atomic import atomic_path
from mlfix_train.data.fixes import fixes_fingerprint, match_fixes, read_fixes
from mlfix_train.data.runs import FINISHED, RunDirectory, differences, find_runs
from mlfix_train.errors import RunError, check_choice, listing

log = logging.getLogger(__name__)

ROWS = (
    ("original_on_original", "original arm, original rows"),
    ("original_on_clean", "original arm, clean rows"),
    ("control_on_clean", "control arm, clean rows"),
    ("fixed_on_clean", "fixed arm, clean rows"),
)


def run(cfg: DictConfig) -> dict[str, Any]:
    """Compares arms and writes ``summary.json``, ``compare.md`` and a chart for each slice.

    Args:
        cfg: the composed configuration of ``mlfix compare``.

    Returns:
        What ``summary.json`` holds.

    Raises:
        MlfixError: arms that can't be compared, or fixes that don't belong to them.
    """
    arms = {name: load_arm(name, config.plain(cfg[name])) for name in ("original", "fixed")}
    control = load_arm("control", config.plain(cfg.control)) if cfg.control is not None else None
    _check_distinct(cfg)
    config.check_place("out", cfg.out)
    fixes, whole = _fixes(cfg, arms["original"])
    check_alike(cfg, fixes if whole else None)
    slices = {str(name): str(pattern) for name, pattern in config.plain(cfg.slices).items()}
    summary = compare_arms(arms["original"], arms["fixed"], fixes, slices, control)
    out = Path(str(cfg.out)).expanduser()
    with atomic_path(out / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1, ensure_ascii=False), encoding="utf-8")
    with atomic_path(out / "compare.md") as temporary:
        temporary.write_text(markdown(summary), encoding="utf-8")
    charts = [_chart(name, piece, out / file) for (name, piece), file in
              zip(summary["slices"].items(), _file_names(list(summary["slices"])), strict=True)]  # fmt: skip
    for name in summary["slices"]:
        print(sentence(summary, name))
    print(f"table      {out / 'compare.md'}\nnumbers    {out / 'summary.json'}\npictures   {charts[0]}", flush=True)
    return summary


def load_arm(name: str, where: Any) -> ArmRuns:
    """Reads the predictions of an arm's finished runs; the folds of one seed become one table.

    Raises:
        RunError: no finished runs, runs of another arm, two runs of one seed, or folds that are missing.
    """
    runs = find_runs(where, name)
    done = []
    for directory in runs:
        if directory.status != FINISHED:
            log.warning("%s=%s is %s and left out", name, directory.path, directory.status or "not started")
            continue
        state = directory.require()
        arm = state["config"]["arm"]
        if arm != name:
            raise RunError(
                f"{name}={where} holds a run of the arm {arm}: {directory.path}",
                f"give the runs of arm={name}, such as {name}=outputs/<name>/{name}",
            )
        done.append((directory, state))
    if not done:
        raise RunError(
            f"{name}={where}: none of its {len(runs)} run(s) is finished", "wait for them, or start them again"
        )
    by_seed: dict[str, list[tuple[RunDirectory, dict[str, Any]]]] = {}
    for directory, state in done:
        by_seed.setdefault(f"seed={state['config']['seed']}", []).append((directory, state))
    return ArmRuns(
        name, {seed: _join(name, seed, members) for seed, members in sorted(by_seed.items(), key=_by_number)}
    )


def _by_number(item: tuple[str, Any]) -> int:
    return int(item[0].removeprefix("seed="))


def _join(arm: str, seed: str, members: list[tuple[RunDirectory, dict[str, Any]]]) -> pd.DataFrame:
    folds = [state["config"]["split"]["fold"] for _, state in members]
    if len(set(folds)) < len(folds):
        raise RunError(
            f"{arm} {seed} stands twice: {listing([directory.path for directory, _ in members])}",
            "give the runs of one name= at a time",
        )
    count = members[0][1]["config"]["split"]["folds"]
    if count is not None and len(folds) < count:
        missing = sorted(set(range(count)) - set(folds))
        raise RunError(f"{arm} {seed} lacks the folds {listing(missing)} of {count}", "let them finish, then compare")
    return pd.concat([read_predictions(directory.predictions) for directory, _ in members], ignore_index=True)


def _check_distinct(cfg: DictConfig) -> None:
    paths = {name: {run.path.resolve() for run in find_runs(config.plain(cfg[name]), name)}
             for name in ("original", "fixed", "control") if cfg[name] is not None}  # fmt: skip
    shared = paths["original"] & paths["fixed"]
    if shared:
        raise RunError(f"original= and fixed= name the same run: {listing(shared, 1)}", "give each arm its own runs")


def check_alike(cfg: DictConfig, fixes: pd.DataFrame | None) -> None:
    """Checks that the arms differ in nothing but arm, seed and fixes, and that the fixed arm had these very fixes.

    Args:
        cfg: the settings; ``allow=[settings,fixes]`` lets differences pass.
        fixes: the matched fixes; ``None`` where they could not be matched against the whole data.

    Raises:
        RunError: naming the run and the settings that differ.
    """
    allow = config.as_list(cfg.allow)
    for name in allow:
        check_choice("allow", name, ("settings", "fixes"))
    first: tuple[RunDirectory, dict[str, Any]] | None = None
    for arm in ("original", "fixed", "control"):
        for run in find_runs(config.plain(cfg[arm]), arm) if cfg[arm] is not None else []:
            if run.status != FINISHED:
                continue
            known = run.require()["identity"]
            used = known.get("fixes")
            kept = {key: value for key, value in known.items() if key not in ("arm", "seed", "fixes")}
            kept["split"] = {key: value for key, value in kept["split"].items() if key != "fold"}
            first = first or (run, kept)
            changed = differences(first[1], kept)
            if changed and "settings" not in allow:
                raise RunError(
                    f"{run.path} was trained with other settings than {first[0].path}: their difference is no effect "
                    "of the fixes",
                    "train both arms alike, or allow=[settings] to compare them all the same",
                    changed[:8],
                )
            if fixes is not None and used is not None and used != fixes_fingerprint(fixes) and "fixes" not in allow:
                raise RunError(
                    f"{run.path} was trained with other fixes than fixes.path={cfg.fixes.path}",
                    "give the fixes that it was trained with, or allow=[fixes] to judge it by these",
                )


def _fixes(cfg: DictConfig, original: ArmRuns) -> tuple[pd.DataFrame, bool]:
    """Matches the fixes against the data that the runs were trained on; false where those are gone."""
    states = [run.require() for run in find_runs(config.plain(cfg.original), "original")]
    settings = DictConfig(states[0]["config"])
    fixes = read_fixes(cfg.fixes.path)
    allow = tuple(config.as_list(cfg.fixes.allow))
    try:
        table = config.build_table(settings)
    except Exception as error:
        log.warning(
            "the data of the runs can't be read (%s): fixes are checked against the held-out samples only", error
        )
        held_out = next(iter(original.predictions.values())).set_index("sample_id")[["label"]]
        return match_fixes(fixes, held_out, (*allow, "unknown_samples", "new_labels", "empty_labels")), False
    return match_fixes(fixes, table, allow), True


def _file_names(slices: list[str]) -> list[str]:
    """Returns a PNG's name for each slice, each another one."""
    plain = [slug(name) for name in slices]
    return [f"{name}.png" if plain.count(name) == 1 else f"{name}-{i}.png" for i, name in enumerate(plain)]


def _chart(name: str, piece: dict[str, Any], path: Path) -> Path:
    values = {label: piece["runs"][key] for key, label in ROWS if key in piece["runs"]}
    rows = f"{piece['rows_original']:,} rows, {piece['rows_clean']:,} clean"
    return arms_chart(values, path, f"Held-out error, {name} ({rows})", "error (%)")
