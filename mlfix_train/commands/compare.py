"""``mlfix compare``: the runs of two or three arms to one honest table, a page, and W&B."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from mlfix_train.audit.comparison.arms import compare_arms
from mlfix_train.audit.predictions.files import PUBLISHED_PHOTO, photo_groups, read_metadata
from mlfix_train.audit.reporting import comparison_charts as evidence_charts
from mlfix_train.audit.reporting import comparison_markdown as compare_text
from mlfix_train.audit.reporting import comparison_page as compare_page
from mlfix_train.audit.reporting import wandb as wandb_log
from mlfix_train.audit.scores.slices import slug
from mlfix_train.commands.compare_inputs import ALLOWANCES, Arm, check_alike, check_distinct, load_arm
from mlfix_train.config import build as config
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.fixes.table import match_fixes, read_fixes
from mlfix_train.data.readers.files import group_names
from mlfix_train.errors import ConfigError, MlfixError, RunError, check_choice, check_range, format_list

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> dict[str, Any]:
    """Compares arms and writes ``summary.json``, ``compare.md``, ``compare.html`` and a few charts.

    Args:
        cfg: the composed configuration of ``mlfix compare``.

    Returns:
        What ``summary.json`` holds.

    Raises:
        MlfixError: arms that can't be compared, or fixes that don't belong to them.
    """
    allow = _check(cfg)
    arms = {name: load_arm(name, config.plain(cfg[name])) for name in ("original", "fixed", "control")
            if cfg[name] is not None}  # fmt: skip
    check_distinct(arms, allow)
    samples = Samples(cfg, arms)
    fixes, whole = match_all(cfg, arms, samples.data, allow)
    check_alike(arms, fixes if whole else None, allow, cfg.fixes.path)
    summary = compare_arms(
        arms["original"].runs, arms["fixed"].runs, fixes, config.plain(cfg.slices),
        arms["control"].runs if "control" in arms else None, groups=samples.groups(), metadata=samples.columns,
        paired=None if cfg.paired == "auto" else bool(cfg.paired), seed=int(cfg.seed), resamples=int(cfg.resamples),
    )  # fmt: skip
    summary = _describe(cfg, arms, summary, fixes)
    summary["notes"] = [samples.note] if samples.note else []
    out = Path(str(cfg.out)).expanduser()
    pictures = write(summary, out)
    _log(cfg, summary, out, pictures)
    report(summary, out, pictures)
    return summary


def _check(cfg: DictConfig) -> list[str]:
    """Checks the settings; returns what is allowed."""
    config.check_place("out", cfg.out)
    for key, low, high in (("resamples", 100, 10**7), ("seed", 0, 2**31)):
        config.check_type(key, cfg[key], "int")
        check_range(key, cfg[key], low, high)
    check_choice("paired", cfg.paired, ("auto", True, False))
    allow = [str(name) for name in config.as_list(cfg.allow)]
    for name in allow:
        check_choice("allow", name, ALLOWANCES)
    return allow


class Samples:
    """What is known of the samples behind the arms.

    Attributes:
        data: the sample table that the runs were trained on; ``None`` for files, and where it is gone.
        columns: what slices and groups may name: ``samples=<file>``, or else ``data``.
        note: what the report has to say about it.
    """

    def __init__(self, cfg: DictConfig, arms: dict[str, Arm]) -> None:
        self.arms, self.pattern = arms, cfg.group
        self.data: pd.DataFrame | None = None
        self.columns = None if cfg.samples is None else read_metadata(str(cfg.samples))
        self.note = ""
        states = [state for arm in arms.values() for state in arm.states.values()]
        if not states:
            return
        try:
            self.data = config.build_table(DictConfig(states[0]["config"]))
            self.columns = self.data if self.columns is None else self.columns
        except MlfixError as error:
            first = str(error).splitlines()[0]
            self.note = f"the data of the runs can't be read ({first}): samples are not grouped, and fixes are checked "
            self.note += "against the held-out samples only"
            log.warning("%s", self.note)

    def groups(self) -> pd.Series | None:
        """Returns the photo or track of each held-out sample; ``None`` where nothing is known of them."""
        first = next(iter(self.arms["original"].runs.predictions.values()))
        ids = [str(name) for name in first["sample_id"]]
        if self.pattern is not None:
            return pd.Series(group_names(ids, str(self.pattern), "group"), index=ids, dtype=object)
        for table in (self.columns, self.data):
            if table is not None and "group" in table.columns:
                return table["group"]
        if self.arms["original"].published:
            return photo_groups(ids, PUBLISHED_PHOTO)
        return None


def match_all(
    cfg: DictConfig, arms: dict[str, Arm], table: pd.DataFrame | None, allow: list[str]
) -> tuple[pd.DataFrame, bool]:
    """Matches the fixes against the data that the runs were trained on; false where only the held-out part is known.

    Raises:
        FixesError: fixes that don't fit the data.
        RunError: none of the fixes names a held-out sample of files whose data isn't known.
    """
    fixes = read_fixes(cfg.fixes.path)
    more = tuple(config.as_list(cfg.fixes.allow))
    if table is not None:
        return match_fixes(fixes, table, more), True
    held_out = next(iter(arms["original"].runs.predictions.values())).set_index("sample_id")[["label"]]
    before = logging.getLogger("mlfix_train.data.fixes.table")
    level, before.level = before.level, logging.ERROR  # training samples are not in the files: that is no mistake
    try:
        matched = match_fixes(fixes, held_out, (*more, "unknown_samples", "new_labels", "empty_labels"))
    finally:
        before.level = level
    if not len(matched) and len(fixes) and "fixes" not in allow:
        raise RunError(
            f"fixes.path={cfg.fixes.path}: none of its {len(fixes):,} lines names a held-out sample of original="
            f"{config.plain(cfg.original)}, such as {held_out.index[0]!r}",
            "give the fixes that belong to these predictions, or allow=[fixes] if they all lie in training",
        )
    matched.attrs["outside"] = fixes["sample_id"].nunique() - len(matched)
    return matched, False


def _describe(cfg: DictConfig, arms: dict[str, Arm], summary: dict[str, Any], fixes: pd.DataFrame) -> dict[str, Any]:
    """Adds to the summary what it was made of, and what is missing."""
    outside = int(fixes.attrs.get("outside", 0))
    summary["fixes"]["total"] += outside
    summary["fixes"]["training"] += outside
    partial = [line for arm in arms.values() for line in arm.partial]
    if summary["left_out"]:
        partial.append(f"without a partner of the same seed, and left out: {format_list(summary['left_out'], 12)}")
    for line in partial:
        log.warning("partial: %s", line)
    states = [state for arm in arms.values() for state in arm.states.values()]
    name = cfg.name or (states[0]["config"]["name"] if states else Path(str(cfg.out)).name)
    head = {"name": str(name), "headline": ("PARTIAL: " if partial else "") + summary["headline"], "partial": partial}
    head["about"] = _about(states)
    settings = {"resamples": int(cfg.resamples), "seed": int(cfg.seed), "slices": config.plain(cfg.slices)}
    return {**head, **{key: value for key, value in summary.items() if key != "headline"}, "settings": settings,
            "sources": {arm: loaded.paths for arm, loaded in arms.items()}}  # fmt: skip


def _about(states: list[dict[str, Any]]) -> dict[str, str]:
    """Says what was trained, for whoever cites the comparison; files say nothing of it."""
    about = {"compared": time.strftime("%Y-%m-%d")}
    if not states:
        return about
    settings = states[0]["config"]
    source = settings["data"].get("file") or settings["data"].get("root") or ""
    recipe = settings["recipe"]
    return {
        "data": Path(str(source)).name, "model": str(settings["model"].get("backbone", "")),
        "recipe": f"{recipe['name']} of {recipe['epochs'] + recipe['frozen_epochs']} epochs", **about,
    }  # fmt: skip


def write(summary: dict[str, Any], out: Path) -> list[Path]:
    """Writes the files of a comparison; returns the PNGs, the most telling first."""
    names = _file_names(list(summary["slices"]))
    pictures: list[Path] = []
    vectors: dict[str, list[Path]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for (name, piece), file in zip(summary["slices"].items(), names, strict=True):
            rows = f"{piece['rows_original']:,} rows, {piece['rows_clean']:,} clean"
            vectors[name] = []
            if not piece["rows_clean"]:
                continue
            vector, title = Path(folder) / f"{file}.svg", f"Held-out error, {name} ({rows})"
            pictures.append(evidence_charts.arms_histogram(piece["runs"], out / f"{file}.png", title, vector))
            fall, title = Path(folder) / f"{file}-effect.svg", f"Where it comes from, {name}"
            drawn = evidence_charts.waterfall(piece, out / f"{file}-effect.png", title, fall)
            pictures += [drawn] if drawn else []
            vectors[name] = [vector, fall] if drawn else [vector]
        dots = Path(folder) / "labels.svg"
        changes = evidence_charts.label_dots(summary["labels"], out / "labels.png", "Change of single labels", dots)
        pictures += [changes] if changes else []
        page = compare_page.page(summary, vectors, dots if changes else None)
    texts = {
        "summary.json": json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False),
        "compare.md": compare_text.markdown(summary),
        "compare.html": page,
    }
    for file, content in texts.items():
        with atomic_path(out / file) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return pictures


def _file_names(slices: list[str]) -> list[str]:
    """Returns a file's name, without its ending, for each slice, each another one."""
    taken = {"labels"}
    names = []
    for name in slices:
        plain = slug(name.replace("=", "-"))
        number, file = 1, plain
        while {file.lower(), f"{file}-effect".lower()} & taken:
            number += 1
            file = f"{plain}-{number}"
        taken |= {file.lower(), f"{file}-effect".lower()}
        names.append(file)
    return names


def _log(cfg: DictConfig, summary: dict[str, Any], out: Path, pictures: list[Path]) -> None:
    """Logs the comparison to W&B as one run in the group of the sweeps."""
    settings = config.plain(cfg.logger)
    if check_choice("logger.kind", settings.get("kind"), ("wandb", "csv", "none")) != "wandb":
        return
    settings["group"] = settings.get("group") or summary["name"]
    about = {"sources": summary["sources"], **summary["settings"]}
    run = wandb_log.open_run(settings, out, "compare", f"{summary['name']}-compare", about)
    if run is not None:
        wandb_log.log_comparison(run, summary, out, pictures)
        run.finish()


def report(summary: dict[str, Any], out: Path, pictures: list[Path]) -> None:
    """Prints what was shown and where it stands."""
    print(f"{summary['headline']}\n")
    for piece in summary["slices"].values():
        print(f"- {piece['sentence']}")
    print(f"\npage       {out / 'compare.html'}\ntable      {out / 'compare.md'}\nnumbers    {out / 'summary.json'}")
    if pictures:
        print(f"pictures   {pictures[0]} and {len(pictures) - 1} more beside it", flush=True)


__all__ = ["ConfigError", "match_all", "report", "run", "write"]
