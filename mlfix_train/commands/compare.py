"""``mlfix compare``: the runs of two or three arms become a table, a page, and a W&B run."""

import logging
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train.audit.comparison.arms import Comparison, compare_arms
from mlfix_train.audit.comparison.inputs import LoadedArm, check_comparable, check_distinct, load_arm, match_held_out
from mlfix_train.audit.comparison.looks import LookRecord, looks_sentence
from mlfix_train.audit.comparison.study_card import study_card
from mlfix_train.audit.comparison.verdict import decimals, signed
from mlfix_train.audit.predictions.files import PUBLISHED_PHOTO, read_metadata
from mlfix_train.audit.reporting.comparison_report import BADGES, write_card
from mlfix_train.audit.reporting.log_results import log_comparison
from mlfix_train.audit.reporting.templates import format_effect, p_cell
from mlfix_train.audit.reporting.wandb import wandb_run
from mlfix_train.audit.scores.slices import ALL
from mlfix_train.commands.inputs import read_samples
from mlfix_train.commands.progress import align_columns
from mlfix_train.config.compare import CompareConfig
from mlfix_train.data.arms import excludes_samples
from mlfix_train.data.fixes.table import match_fixes, read_fixes
from mlfix_train.data.readers.files import group_names
from mlfix_train.errors import ConfigError, MlfixError, RunError, format_list

log = logging.getLogger(__name__)


def run(cfg: CompareConfig) -> dict[str, Any]:
    """Compares arms and writes ``summary.json``, ``compare.md``, ``compare.html`` and charts.

    Returns:
        What ``summary.json`` holds.

    Raises:
        MlfixError: arms that can't be compared, or fixes that don't belong to them.
    """
    arms, notes = load_arms(cfg)
    record = _look_record(arms)
    comparison = _look(cfg, arms, notes, record)
    out = Path(cfg.out).expanduser()
    charts = comparison.report(out)
    states = [state for arm in arms.values() for state in arm.states.values()]
    looks = record.content["looks"] if record is not None else ()
    write_card(study_card(comparison.summary, states, read_fixes(cfg.fixes.path), looks), out)
    _log(cfg, comparison.summary, out, charts)
    _print_summary(comparison.summary, out, charts)
    return comparison.summary


def look(cfg: CompareConfig) -> dict[str, Any]:
    """Compares arms, records the look, and prints headline and table; writes nothing else.

    Returns:
        What ``summary.json`` would hold, but for macro averages, single labels and fixes.

    Raises:
        MlfixError: arms that can't be compared, or fixes that don't belong to them.
    """
    arms, notes = load_arms(cfg)
    summary = _look(cfg, arms, notes, _look_record(arms), details=False).summary
    _print_table(summary)
    return summary


def _look(
    cfg: CompareConfig,
    arms: dict[str, LoadedArm],
    notes: Sequence[str],
    record: LookRecord | None,
    details: bool = True,
) -> Comparison:
    comparison = compare_loaded(cfg, arms, notes, record, details)
    if record is not None:
        try:
            record.add({name: arm["runs"] for name, arm in comparison.summary["arms"].items()}, comparison.headline)
        except OSError as error:  # such as a study that others may only read
            log.warning("this look is not recorded in %s: %s", record.path, error)
    return comparison


def load_arms(cfg: CompareConfig) -> tuple[dict[str, LoadedArm], list[str]]:
    """Reads the arms, without a control arm that excludes nothing; returns notes, too.

    Raises:
        RunError: nothing is there, or a run belongs to two arms.
    """
    given = {"original": cfg.original, "fixed": cfg.fixed, "control": cfg.control}
    arms = {name: load_arm(name, where) for name, where in given.items() if where is not None}
    notes = _without_idle_control(arms, str(cfg.fixes.path))
    check_distinct(arms, cfg.ignore)
    return arms, notes


def compare_loaded(
    cfg: CompareConfig,
    arms: dict[str, LoadedArm],
    notes: Sequence[str] = (),
    record: LookRecord | None = None,
    details: bool = True,
) -> Comparison:
    """Compares loaded arms, and describes what was compared.

    Args:
        cfg: the configuration.
        arms: from :func:`load_arms`.
        notes: to be repeated in the result.
        record: the looks at the study so far.
        details: compute macro averages, the change of every single label and what each fix did, too.

    Raises:
        MlfixError: arms that can't be compared, or fixes that don't belong to them.
    """
    samples, more_notes = _sample_table(arms)
    fixes = _match_fixes(cfg, arms["original"], samples)
    check_comparable(arms, None if samples is None else fixes, cfg.ignore, cfg.fixes.path)
    metadata = samples
    if cfg.samples is not None:
        held_out = next(iter(arms["original"].runs.predictions.values()))["sample_id"]
        metadata = read_metadata(cfg.samples, held_out.tolist())
    slices, primary = _planned_slices(cfg, record)
    comparison = compare_arms(
        *(arm.runs if record is None else record.in_order(arm.runs) for arm in arms.values()),
        fixes=fixes,
        slices=slices,
        primary=primary,
        plan=None if record is None else record.plan,
        earlier_looks=() if record is None else record.taken,
        groups=_groups(cfg.group, arms["original"], metadata, samples),
        metadata=metadata,
        paired=None if cfg.paired == "auto" else cfg.paired is True,
        seed=cfg.seed,
        resamples=cfg.resamples,
        details=details,
    )
    return _describe(cfg, comparison, arms, [*more_notes, *notes])


def _without_idle_control(arms: dict[str, LoadedArm], fixes_path: str) -> list[str]:
    """Removes the control arm if it is the same as the original one, since no fix excludes a sample; returns a note."""
    if "control" not in arms or excludes_samples(read_fixes(fixes_path)):
        return []
    del arms["control"]
    note = "the control arm is left out: the fixes mark no sample as invalid, so it excluded nothing"
    log.warning("%s", note)
    return [note]


def _sample_table(arms: Mapping[str, LoadedArm]) -> tuple[pd.DataFrame | None, list[str]]:
    """Reads the samples that the runs were trained on; a note instead where they can't be read."""
    states = [state for arm in arms.values() for state in arm.states.values()]
    if not states:
        return None, []
    try:
        return read_samples(states[0]["config"]["data"], uses_labels=False), []
    except MlfixError as error:
        reason = f"the data of the runs can't be read ({str(error).splitlines()[0]})"
        note = f"{reason}, so samples are not grouped, and the fixes are checked against the held-out samples only"
        log.warning("%s", note)
        return None, [note]


def _match_fixes(cfg: CompareConfig, original: LoadedArm, samples: pd.DataFrame | None) -> pd.DataFrame:
    """Matches the fixes to all samples, or to the held-out ones where no others are known."""
    fixes = read_fixes(str(cfg.fixes.path))
    if samples is not None:
        return match_fixes(fixes, samples, tuple(cfg.fixes.ignore))
    matched = match_held_out(fixes, original.runs, cfg.fixes.ignore)
    if not len(matched) and len(fixes) and "fixes" not in cfg.ignore:
        first = next(iter(original.runs.predictions.values()))["sample_id"].iloc[0]
        raise RunError(
            f"fixes.path={cfg.fixes.path}: none of its {len(fixes):,} lines matches a held-out sample of original="
            f"{cfg.original}, such as {first!r}",
            "use the fixes for these predictions, or set ignore=[fixes] if all of them are in training",
        )
    return matched


def _look_record(arms: Mapping[str, LoadedArm]) -> LookRecord | None:
    """Returns the looks at the study that all runs belong to; ``None`` for prediction files and runs of several."""
    folders = {path.parents[1] for arm in arms.values() for path in arm.states}
    return LookRecord(folders.pop()) if len(folders) == 1 else None


def _planned_slices(cfg: CompareConfig, record: LookRecord | None) -> tuple[dict[str, Any], str | None]:
    """Returns slices and primary slice, those of the plan of a study that has one included.

    Raises:
        ConfigError: Another primary slice than the planned one.
    """
    planned = None if record is None else record.content["plan"]
    if record is None or planned is None:
        return cfg.slices, cfg.primary
    primary = planned["primary"] or ALL
    if cfg.primary not in (None, primary):
        problem = f"primary={cfg.primary}, but this study was planned with {primary} ({record.path})"
        raise ConfigError(problem, f"leave primary out, or set primary={primary}")
    return {**planned["slices"], **cfg.slices}, primary


def _groups(pattern: str | None, original: LoadedArm, *tables: pd.DataFrame | None) -> pd.Series | None:
    """Returns the photo or track of each sample; ``None`` where it is unknown."""
    if pattern is None:
        for table in tables:
            if table is not None and "group" in table.columns:
                return table["group"]
        if not original.published:
            return None
        pattern = PUBLISHED_PHOTO
    ids = [str(name) for name in next(iter(original.runs.predictions.values()))["sample_id"]]
    return pd.Series(group_names(ids, pattern, "group"), index=ids, dtype=object)


def _describe(
    cfg: CompareConfig, comparison: Comparison, arms: Mapping[str, LoadedArm], notes: list[str]
) -> Comparison:
    """Adds to the summary what was compared, and what is missing."""
    summary = comparison.summary
    partial = [line for arm in arms.values() for line in arm.partial]
    if summary["left_out"]:
        partial.append(f"left out, without a run of the same seed: {format_list(summary['left_out'], 12)}")
    for line in partial:
        log.warning("partial: %s", line)
    states = [state for arm in arms.values() for state in arm.states.values()]
    name = cfg.name or (states[0]["config"]["name"] if states else Path(cfg.out).name)
    headline = ("PARTIAL: " if partial else "") + summary["headline"]
    settings = {**summary["settings"], **_choices(cfg)}
    more = {
        "settings": settings,
        "about": _about(states),
        "sources": {arm: loaded.paths for arm, loaded in arms.items()},
        "notes": notes,
    }
    return Comparison({"name": str(name), **summary, "headline": headline, "partial": partial, **more})


def _choices(cfg: CompareConfig) -> dict[str, Any]:
    """Returns what else was chosen for the comparison, so that it can be repeated."""
    samples = None
    if cfg.samples is not None:
        samples = {"file": cfg.samples, "sha256": sha256(Path(cfg.samples).expanduser().read_bytes()).hexdigest()}
    chosen = {"group": cfg.group, "samples": samples, "paired": cfg.paired, "ignore": list(cfg.ignore)}
    return {**chosen, "ignored_fixes": list(cfg.fixes.ignore)}


def _about(states: list[dict[str, Any]]) -> dict[str, str]:
    """Returns what was trained, for citing the comparison; prediction files don't record it."""
    about = {"compared": time.strftime("%Y-%m-%d")}
    if not states:
        return about
    data, model, recipe = (states[0]["config"][section] for section in ("data", "model", "recipe"))
    source, epochs = data.get("file") or data.get("root") or "", recipe["epochs"] + recipe["frozen_epochs"]
    trained = {"model": str(model.get("backbone", "")), "recipe": f"{recipe['name']}, {epochs} epochs"}
    return {"data": Path(str(source)).name, **trained, **about}


def _log(cfg: CompareConfig, summary: Mapping[str, Any], out: Path, charts: list[Path]) -> None:
    """Logs the comparison as a W&B run in the group of the trainings."""
    wandb = cfg.logger.get("wandb")
    if wandb is None:
        return
    settings = {**wandb, "group": wandb.get("group") or summary["name"]}
    config = {"sources": summary["sources"], **summary["settings"]}
    with wandb_run(settings, out, "compare", f"{summary['name']}-compare", config) as tracker:
        if tracker is not None:
            log_comparison(tracker, summary, out, charts)


def _print_table(summary: Mapping[str, Any]) -> None:
    print(f"{summary['headline']}\n")
    for line in align_columns(_table(summary)):
        print(line)
    print("effects in points of error: above 0 is better")
    looks = looks_sentence(summary["looks"])
    if looks:
        print(f"\n{looks}")


def _print_summary(summary: Mapping[str, Any], out: Path, charts: list[Path]) -> None:
    _print_table(summary)
    print(f"\npage       {out / 'compare.html'}\ntable      {out / 'compare.md'}\nnumbers    {out / 'summary.json'}")
    print(f"card       {out / 'study.html'}")
    if charts:
        print(f"charts     {charts[0]} and {len(charts) - 1} more in the same folder", flush=True)


def _table(summary: Mapping[str, Any]) -> list[list[str]]:
    """Returns a row of text per slice, with a header."""
    rows = [["slice", "clean samples", "error before → after", "training effect [95% interval]", "p", "verdict"]]
    for name, result in summary["slices"].items():
        effect, error = result["effect"], result["error"]
        digits, interval = decimals(effect), effect["training_ci95"]
        before, after = (error[key] for key in ("original_on_clean", "fixed_on_clean"))
        ends = f" [{signed(interval[0], digits)}, {signed(interval[1], digits)}]" if interval else ""
        rows.append(
            [
                name,
                f"{result['rows_clean']:,}",
                "–" if effect["training"] is None else f"{before:.{digits}f}% → {after:.{digits}f}%",
                f"{format_effect(effect['training'], digits)}{ends}",
                p_cell(effect["p_value"]),
                BADGES[result["verdict"]][0],
            ]
        )
    return rows
