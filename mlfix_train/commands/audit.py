"""``mlfix audit``: ranks the labels of finished runs; writes estimates, slices, panels and a page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mlfix_train.audit.audit import Audit
from mlfix_train.audit.predictions.runs import load_runs
from mlfix_train.audit.reporting.log_results import log_audit
from mlfix_train.audit.reporting.wandb import wandb_run
from mlfix_train.audit.scores.registry import SCORES, LabelScore, registered
from mlfix_train.commands.inputs import check_out, read_matching_fixes, read_samples, with_absolute_paths
from mlfix_train.commands.progress import ProgressBar
from mlfix_train.config.audit import AuditConfig
from mlfix_train.config.instantiate import instantiate
from mlfix_train.config.sections import has_data
from mlfix_train.errors import ConfigError, DataError

if TYPE_CHECKING:
    from mlfix_train.audit.reporting.pictures import Picture

log = logging.getLogger(__name__)

KINDS = {
    "held_out": "held-out predictions",
    "dynamics": "training dynamics (in-sample)",
    "neighbour": "neighbours of other groups",
    "twin": "twins",
}
"""Kinds of evidence as the summary calls them."""


def run(cfg: AuditConfig) -> pd.DataFrame:
    """Ranks all samples that the runs held out, by all the evidence there is.

    Returns:
        The ranking, also written to ``<out>/ranking.csv``, with estimates, slices, panels and a page beside it.

    Raises:
        MlfixError: No finished runs, runs with different data or labels, or files that can't be used.
    """
    if cfg.order and not Path(cfg.order).expanduser().exists():
        raise DataError(f"order={cfg.order} does not exist", "set order=<output folder of mlfix sort>")
    own_data, runs = has_data(cfg.data), load_runs(cfg.runs, cfg.labels, ProgressBar)
    out = check_out(cfg.out, cfg.data if own_data else runs.config.get("data", {}))
    samples, pixels = (read_samples(cfg.data), cfg.pixels) if own_data else (None, None)
    options: dict[str, Any] = {"order": cfg.order, "neighbours": cfg.neighbours, "slices": cfg.slices}
    if own_data:  # so that review and export find the images
        options["about"] = {"config": with_absolute_paths({"data": dict(cfg.data), "pixels": asdict(cfg.pixels)})}
    with registered(_build_scores(cfg.scores)):
        audit = Audit.from_runs(runs, samples=samples, pixels=pixels, title=cfg.name, progress=ProgressBar, **options)
        return _save(cfg, audit, out)


def _build_scores(section: Mapping[str, Any]) -> list[LabelScore]:
    """Builds the user's own scores."""
    scores: list[LabelScore] = []
    for name, one in section.items():
        score = instantiate(one, f"scores.{name}")
        if not isinstance(score, LabelScore):
            problem = f"scores.{name}._target_={one['_target_']} makes a {type(score).__name__}, not a LabelScore"
            raise ConfigError(problem, "return mlfix_train.audit.scores.registry.LabelScore(name, compute, ...)")
        if any(score.name == other.name for other in [*SCORES, *scores]):
            raise ConfigError(f"scores.{name}: a score named {score.name!r} exists", "use another name")
        scores.append(score)
    return scores


def _save(cfg: AuditConfig, audit: Audit, out: Path) -> pd.DataFrame:
    """Writes, logs and prints the audit, and returns the ranking."""
    marks = None
    if audit.samples is not None:
        fixes = read_matching_fixes(cfg.fixes, audit.samples)
        marks = None if fixes is None else {str(name): str(new) for name, new in fixes["new_label"].items()}
    if audit.pixels is None:
        log.warning("no panels could be drawn: %s", audit.about["images"])
    pictures = audit.save(out, cfg.n_panels, marks)
    _log(cfg.logger.get("wandb"), audit, pictures, out)
    print("\n".join(_summary(audit, out, bool(pictures))), flush=True)
    return audit.ranking


def _log(settings: dict[str, Any] | None, audit: Audit, pictures: Sequence[Picture], out: Path) -> None:
    """Logs the audit as a W&B run in the group of the trainings."""
    if settings is None:
        return
    group = settings.get("group") or audit.title.rpartition(", ")[0] or audit.title
    config = {key: value for key, value in audit.about.items() if key != "estimates"}
    with wandb_run({**settings, "group": group}, out, "audit", f"audit-{audit.title}", config) as tracker:
        if tracker is not None:
            log_audit(tracker, audit, pictures, out)


def _summary(audit: Audit, out: Path, pictures: bool) -> list[str]:
    """Returns the lines of the printed summary."""
    about, estimate = audit.about, audit.estimate
    lines = [
        f"ranked     {about['ranked']:,} of {about['samples']:,} samples, held out by {about['runs']} run(s); "
        f"{about['predicted_differently']:,} are predicted as another label than given"
    ]
    if about["unranked"]:
        lines.append(
            f"unranked   {about['unranked']:,} samples that no run held out, listed in {out / 'unranked.csv'}; "
            "`-m sweep=out_of_fold` covers all"
        )
    kinds = ", ".join(KINDS.get(kind, kind) for kind in audit.kinds)
    lines.append(f"evidence   {kinds}" + (f"; neighbours by {about['neighbours']}" if about["neighbours"] else ""))
    if estimate is not None:
        low, high = estimate.interval
        interval = f"{'95% interval ' if estimate.clear else ''}{low:,.0f} to {high:,.0f}"
        lines.append(f"wrong      about {estimate.wrong:,.0f} labels ({interval}), {estimate.share:.2f}% of the ranked")
        if not estimate.clear:
            lines.append(
                "           they are not separated from hard images here, so only a range is known: from those that "
                "are to those that two kinds of evidence contradict"
            )
        found = estimate.review_yield
        lines.append(
            f"review     the first {found['stop_rank']:,}: about {found['expected_found']:,.0f} wrong labels are "
            f"expected among them, {found['expected_left']:,.0f} beyond"
        )
    if about["confident_learning"] is not None:
        issues = about["confident_learning"]
        lines.append(f"confident  learning counts {issues:,} wrong labels, including the models' own mistakes")
    single = about["single_group_labels"]
    if single:
        names = ", ".join(single[:5]) + (" ..." if len(single) > 5 else "")
        lines.append(
            f"unseen     {len(single):,} label(s) with a single sample or group, which no model could learn before "
            f"predicting it: {names}"
        )
    lines.append(f"ranking    {out / 'ranking.csv'}")
    if pictures:
        lines.append(f"panels     {out / 'panels' / 'worst.png'}")
    return [*lines, f"page       {out / 'report.html'}"]
