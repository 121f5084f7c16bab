"""``mlfix audit``: ranks the labels of finished runs; writes estimates, slices, panels and a page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mlfix_train.audit import embedded
from mlfix_train.audit.audit import Audit
from mlfix_train.audit.predictions.runs import load_runs
from mlfix_train.audit.reporting.log_results import log_audit
from mlfix_train.audit.reporting.text import next_step
from mlfix_train.audit.reporting.wandb import wandb_run
from mlfix_train.audit.scores.registry import SCORES, LabelScore, registered
from mlfix_train.commands.embedders import build_embedder, computes_in_bfloat16, select_device
from mlfix_train.commands.inputs import (
    check_out,
    read_matching_fixes,
    read_samples,
    source_title,
    with_absolute_paths,
)
from mlfix_train.commands.progress import ProgressBar
from mlfix_train.config.audit import AuditConfig
from mlfix_train.config.instantiate import instantiate
from mlfix_train.config.sections import has_data
from mlfix_train.errors import ConfigError, DataError, format_list
from mlfix_train.models.embedding.base import Embedder
from mlfix_train.models.embedding.network import NetworkEmbedder, load_encoder

if TYPE_CHECKING:
    from mlfix_train.audit.reporting.pictures import Picture

log = logging.getLogger(__name__)

KINDS = {
    "runs": "predictions of runs",
    "probe": "linear layer",
    "run_probe": "linear layer on the runs' features",
    "neighbours": "neighbours",
    "dynamics": "training dynamics (in-sample)",
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
    if cfg.review and not Path(cfg.review).expanduser().is_dir():
        raise DataError(f"review={cfg.review} is not a folder", "set review=<output folder of mlfix review>")
    with registered(_build_scores(cfg.scores)):
        if not cfg.runs:
            return _audit_samples(cfg)
        own_data, runs = has_data(cfg.data), load_runs(cfg.runs, cfg.labels, ProgressBar)
        out = check_out(cfg.out, cfg.data if own_data else runs.config.get("data", {}))
        samples, pixels = (read_samples(cfg.data), cfg.pixels) if own_data else (None, None)
        options: dict[str, Any] = {"by": cfg.by, "slices": cfg.slices, "folder": out}
        options["bfloat16"] = computes_in_bfloat16(select_device(cfg.device))
        if cfg.by in ("auto", "pretrained", "network"):
            options["embedder"] = _build_embedder(cfg)
            options["by"] = "auto" if cfg.by == "auto" else "pretrained"
        if own_data:
            options["about"] = _images_for_review(cfg, cfg.pixels.size)
        audit = Audit.from_runs(
            runs, samples=samples, pixels=pixels, order=cfg.order, title=cfg.name, progress=ProgressBar, **options
        )
        return _save(cfg, audit, out)


def _audit_samples(cfg: AuditConfig) -> pd.DataFrame:
    """Audits samples without runs."""
    out, samples = check_out(cfg.out, cfg.data), read_samples(cfg.data)
    embedder = _build_embedder(cfg)
    audit = Audit.from_samples(
        samples,
        pixels=cfg.pixels,
        embedder=embedder,
        by_pixels=cfg.by == "pixels",
        folder=out,
        bfloat16=computes_in_bfloat16(select_device(cfg.device)),
        slices=cfg.slices,
        title=cfg.name or source_title(cfg.data),
        progress=ProgressBar,
    )
    assert audit.pixels is not None
    audit.add_facts(_images_for_review(cfg, audit.pixels.shape[1]))
    return _save(cfg, audit, out)


def _images_for_review(cfg: AuditConfig, size: int | None) -> dict[str, Any]:
    """Returns the configuration that review and export find the images by."""
    pixels = asdict(cfg.pixels) | {"size": size}
    return {"config": with_absolute_paths({"data": dict(cfg.data), "pixels": pixels})}


def _build_embedder(cfg: AuditConfig) -> Embedder | None:
    """Builds what embeds the images; ``None``: what is at hand."""
    device = select_device(cfg.device)
    if cfg.by == "network" or (cfg.by == "auto" and cfg.network and not cfg.embedder and not embedded.has_pretrained()):
        return NetworkEmbedder(load_encoder(str(cfg.network), device), device=device)
    if cfg.by == "pretrained" or (cfg.by == "auto" and (cfg.embedder or embedded.has_pretrained())):
        return build_embedder(cfg.embedder, device)
    return None


def _build_scores(section: Mapping[str, Any]) -> list[LabelScore]:
    """Builds the user's own scores."""
    scores: list[LabelScore] = []
    if "_target_" in section:
        raise ConfigError("scores._target_ names no score", "give it a name: scores.<name>._target_=...")
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
    if cfg.review:
        audit.calibrate(cfg.review)
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
    by = f"held out by {about['runs']} run(s)" if about["runs"] else "out of fold by a linear layer, without training"
    lines = [
        f"next       {next_step(about)}",
        f"ranked     {about['ranked']:,} of {about['samples']:,} samples, {by}; "
        f"{about['predicted_differently']:,} are predicted as another label than given",
    ]
    if about["unranked"]:
        reasons = audit.unranked["reason"].value_counts()
        shown = ", ".join(f"{count:,} because {reason}" for reason, count in reasons.items())
        remedy = "; `mlfix train -m sweep=out_of_fold` holds all out" if "no run held it out" in reasons else ""
        lines.append(f"unranked   {about['unranked']:,} samples ({shown}), listed in {out / 'unranked.csv'}{remedy}")
    kinds = ", ".join(f"{KINDS.get(kind, kind)} {weight:.2f}" for kind, weight in audit.kinds.items())
    lines.append(
        f"evidence   {kinds} (weights)" + (f"; images by {about['neighbours']}" if about["neighbours"] else "")
    )
    if estimate is not None:
        low, high = estimate.interval
        source = f", from {estimate.judged:,} judged" if estimate.judged else ""
        lines.append(
            f"wrong      about {estimate.wrong:,.0f} labels (95% interval {low:,.0f} to {high:,.0f}), "
            f"{estimate.share:.2f}% of the ranked{source}"
        )
        found = estimate.review_yield
        lines.append(
            f"review     the first {found['stop_rank']:,}: about {found['expected_found']:,.0f} wrong labels are "
            f"expected among them, {found['expected_left']:,.0f} beyond"
        )
    else:
        lines.append(
            f"wrong      how many can't be told before some are judged: mlfix review audit={out}, then Judge a sample"
        )
    if about["confident_learning"] is not None and audit.estimate is not None:
        issues = about["confident_learning"]
        lines.append(f"confident  learning counts {issues:,} wrong labels, including the models' own mistakes")
    single = about["single_group_labels"]
    if single:
        names = ", ".join(single[:5]) + (" ..." if len(single) > 5 else "")
        lines.append(
            f"unseen     {len(single):,} label(s) with a single sample or group, which no model could learn before "
            f"predicting it: {names}"
        )
    faults = [fault for fault in about["faults"] if fault["samples"]]
    if faults:
        text = format_list((_fault_text(fault) for fault in faults), 6)
        lines.append(f"faults     {text}; shown in the report, and on the review page grouped by other faults")
    lines.append(f"ranking    {out / 'ranking.csv'}")
    if pictures:
        lines.append(f"panels     {out / 'panels' / 'worst.png'}")
    return [*lines, f"page       {out / 'report.html'}"]


def _fault_text(fault: Mapping[str, Any]) -> str:
    if fault["score"] == "overlap":
        return f"{fault['name']} may be one label"
    return f"{fault['samples']:,} {fault['name']}"
