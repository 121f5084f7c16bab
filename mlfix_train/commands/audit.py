"""``mlfix audit``: runs (and an order) to a ranking of doubtful labels, estimates, slices, panels and a page."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from mlfix_train.audit.predictions.held_out import HeldOut
from mlfix_train.audit.reporting import wandb as wandb_log
from mlfix_train.audit.reporting.pictures import ImageSource, Picture, draw_audit
from mlfix_train.audit.reporting.report import write_report
from mlfix_train.audit.scores.knn import NeighbourScores
from mlfix_train.audit.scores.ranking import Evidence, Ranking, rank, write_ranking
from mlfix_train.audit.scores.slices import Slice, rank_slices, select_slices, write_slices
from mlfix_train.audit.similarity.order_files import read_order
from mlfix_train.commands import audit_inputs, audit_neighbours
from mlfix_train.commands.audit_inputs import Runs, Source
from mlfix_train.config import build as config
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.samples import COLUMNS as TABLE_COLUMNS
from mlfix_train.errors import ConfigError, DataError, check_choice, check_range

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> pd.DataFrame:
    """Ranks all samples that the runs held out, by all the evidence there is.

    Args:
        cfg: the composed configuration of ``mlfix audit``.

    Returns:
        The ranking, also written to ``<out>/ranking.csv`` with slices, pictures, estimates and a page beside it.

    Raises:
        MlfixError: no runs, runs of different data or labels, or files that can't be used.
    """
    _check(cfg)
    clock = _Clock()
    runs = audit_inputs.load_runs(config.plain(cfg.runs))
    if runs.states:
        config.check_out(cfg.out, runs.states[0]["config"]["data"])
    held = audit_inputs.merged(runs)
    clock("predictions")
    source = audit_inputs.open_source(runs, held)
    clock("data")
    if cfg.order:
        read_order(cfg.order, pd.Index(held.ids), partial=True)  # one of other samples is an error
    near, used = audit_neighbours.find(cfg, source, held)
    clock("neighbours")
    ranking = _rank(runs, held, source, near)
    clock("ranking")
    marks = audit_inputs.fixes_as_marks(cfg, source.table)
    places = audit_neighbours.places_of(cfg, source.table)
    slices = _slices(cfg, ranking.table, source)
    out = Path(str(cfg.out)).expanduser()
    (out / "audit.json").unlink(missing_ok=True)  # written last: without it the directory holds no whole audit
    write_ranking(ranking.table, out / "ranking.csv")
    write_slices(slices, out / "slices.csv")
    unranked = _write_unranked(held, source, out)
    about = _about(cfg, runs, held, ranking, source, used, unranked)
    title = str(cfg.name or _name(runs))
    pictures = _draw(cfg, ranking.table, source, out, title, marks, places, slices)
    images = None if source.store is None else source.images
    write_report(
        out / "report.html", title, about, ranking.table, slices, images, _notes(about, source), bool(cfg.order)
    )
    clock("writing")
    about["seconds"] = clock.seconds
    with atomic_path(out / "audit.json") as temporary:
        temporary.write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
    _log(cfg, about, ranking.table, slices, images, pictures, out, title)
    _report(about, out, bool(pictures))
    return ranking.table


class _Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.monotonic()

    def __call__(self, step: str) -> None:
        now = time.monotonic()
        self.seconds[step], self.last = round(now - self.last, 2), now


def _check(cfg: DictConfig) -> None:
    """Checks the settings before anything is read or written."""
    config.check_type("n_panels", cfg.n_panels, "int")
    check_range("n_panels", cfg.n_panels, 0, 1000)
    check_choice("neighbours", cfg.neighbours, audit_neighbours.KINDS)
    if cfg.neighbours == "order" and not cfg.order:
        raise ConfigError("neighbours=order needs an order", "give order=<directory of mlfix sort>")
    if not isinstance(cfg.slices, DictConfig):
        raise ConfigError(f"slices={cfg.slices} is a value where a section belongs", "give slices.<name>=<regex>")
    config.check_place("out", cfg.out)
    config.check_out(cfg.out, {})
    if cfg.order and not (Path(str(cfg.order)).expanduser()).exists():
        raise DataError(f"order={cfg.order} does not exist", "give the directory that `mlfix sort` wrote")


def _rank(runs: Runs, held: HeldOut, source: Source, near: NeighbourScores | None) -> Ranking:
    groups = None
    if source.table is not None:
        found = pd.factorize(source.table.loc[held.ids, "group"])[0]
        groups = found if len(found) and found.max() + 1 < len(found) else None
    evidence = Evidence(
        audit_inputs.mean_aum(runs, held), near, audit_inputs.mean_probabilities(runs, held), groups
    )  # fmt: skip
    return rank(held, evidence)


def _slices(cfg: DictConfig, table: pd.DataFrame, source: Source) -> list[Slice]:
    """Builds all slices: pairs, labels, the user's own, and near-duplicates with different labels."""
    ids = pd.Index(table["sample_id"])
    metadata = None if source.table is None else source.table.drop(columns=[c for c in TABLE_COLUMNS if c != "split"])
    specs = {name: config.plain(spec) for name, spec in cfg.slices.items()}
    masks = select_slices(specs, table["given_label"].to_numpy(dtype=object), ids, metadata)
    named = {name: mask for name, mask in masks.items() if name != "all" and not name.startswith("not ")}
    duplicates = None
    if cfg.order and source.table is not None:
        duplicates = read_order(cfg.order, source.table.index, partial=True)["duplicate_group"]
    return rank_slices(table, named, duplicates)


def _write_unranked(held: HeldOut, source: Source, out: Path) -> int:
    """Lists the samples that no run held out in ``unranked.csv``; returns how many there are."""
    path = out / "unranked.csv"
    path.unlink(missing_ok=True)
    if source.table is None:
        return 0
    lost = source.table.index.difference(held.ids, sort=False)
    if not len(lost):
        return 0
    unreadable = set() if source.store is None else set(source.store.unreadable)
    reasons = ["the image can't be read" if name in unreadable else "no run held it out" for name in lost]
    rows = pd.DataFrame({"sample_id": lost, "given_label": source.table.loc[lost, "label"], "reason": reasons})
    with atomic_path(path) as temporary:
        rows.to_csv(temporary, index=False)
    return len(lost)


def _about(
    cfg: DictConfig, runs: Runs, held: HeldOut, ranking: Ranking, source: Source, used: str, unranked: int
) -> dict[str, Any]:
    """Returns what ``audit.json`` holds."""
    table = ranking.table
    samples = runs.states[0]["data"]["samples"] if runs.states else len(held)
    return {
        "runs": len(runs), "samples": int(samples), "ranked": len(table), "unranked": unranked,
        "labels": len(held.names), "evidence": ranking.kinds, "neighbours": used,
        "held_out_error": round(100 * float(held.disagreement.mean()), 3),
        "predicted_otherwise": int((held.predicted != held.labels).sum()),
        "issues": int(table["is_label_issue"].sum()), "confident_learning": ranking.confident,
        "lonely": _lonely(held, source),
        "label_names": held.names, "run_paths": [str(run.path.resolve()) for run in runs.directories],
        "estimates": ranking.estimates, "data": _fingerprint(runs), "images": source.why or None,
        "order": str(Path(str(cfg.order)).expanduser().resolve()) if cfg.order else None,
    }  # fmt: skip


def _fingerprint(runs: Runs) -> str | None:
    return str(runs.states[0]["data"]["fingerprint"]) if runs.states else None


def _lonely(held: HeldOut, source: Source) -> list[str]:
    """Returns labels whose samples are all of one group: a model that holds them out has never seen the label."""
    if source.table is None:
        return []
    groups = source.table.groupby("label")["group"].nunique()
    judged = np.asarray(held.names, dtype=object)[np.unique(held.labels)]
    return sorted(set(groups.index[groups < 2]) & set(judged))


def _draw(
    cfg: DictConfig,
    table: pd.DataFrame,
    source: Source,
    out: Path,
    title: str,
    marks: dict[str, str] | None,
    places: pd.Series | None,
    slices: list[Slice],
) -> list[Picture]:
    """Draws the panels, where there are images."""
    if source.store is None:
        log.warning("no panels could be drawn: %s", source.why)
        return []
    return draw_audit(table, source.images, out / "panels", title, int(cfg.n_panels), marks, places, slices)


def _log(
    cfg: DictConfig, about: dict[str, Any], table: pd.DataFrame, slices: list[Slice], images: ImageSource | None,
    pictures: list[Picture], out: Path, title: str,
) -> None:  # fmt: skip
    """Logs the audit to W&B, where that is wanted and can be had."""
    settings = config.plain(cfg.logger)
    if settings.get("kind") != "wandb":
        return
    settings["group"] = settings["group"] or title.rpartition(", ")[0] or title
    shown = {key: value for key, value in about.items() if key != "estimates"}
    run = wandb_log.open_run(settings, out, "audit", f"audit-{title}", shown)
    if run is None:
        return
    try:
        wandb_log.log_audit(run, about, table, slices, images, pictures, out, wandb_log.IMAGES_PER_KEY)
    finally:
        run.finish()


def _name(runs: Runs) -> str:
    """Returns what the runs are called: their name and number."""
    name = str(runs.states[0]["config"]["name"]) if runs.states else runs.files[0].parent.name
    return f"{name}, {len(runs)} run{'s' if len(runs) > 1 else ''}"


def _notes(about: dict[str, Any], source: Source) -> list[str]:
    """Returns what a reader of the page must know beforehand."""
    notes = []
    if about["unranked"]:
        notes.append(f"{about['unranked']:,} of {about['samples']:,} samples were held out by no run, and not ranked: "
                     "they are listed in unranked.csv.")  # fmt: skip
    if about["lonely"]:
        shown = ", ".join(about["lonely"][:20]) + (" …" if len(about["lonely"]) > 20 else "")
        notes.append("Labels of a single sample or group, which the models that hold them out have never seen: "
                     f"{shown}. Their suspicion says little.")  # fmt: skip
    if source.store is None:
        notes.append(f"No pictures: {source.why}.")
    if about["estimates"] and not about["estimates"]["clear"]:
        notes.append("Wrong labels don't stand apart from hard images here: their number lies between what stands out "
                     "and what held-out models and training both contradict, and half-way is taken. Longer training, "
                     "more runs, or an order by a sorting network tell them apart better.")  # fmt: skip
    if not about["estimates"]:
        notes.append(
            "How many labels are wrong is not estimated: that takes several kinds of evidence and 1,000 samples."
        )
    return notes


def _report(about: dict[str, Any], out: Path, pictures: bool) -> None:
    """Prints what a person wants to know of an audit."""
    print(f"ranked     {about['ranked']:,} of {about['samples']:,} samples that {about['runs']} run(s) held out; "
          f"{about['predicted_otherwise']:,} are predicted as another label than given")  # fmt: skip
    if about["unranked"]:
        print(f"unranked   {about['unranked']:,} samples that no run held out, listed in {out / 'unranked.csv'}; "
              "`-m sweep=out_of_fold` covers all")  # fmt: skip
    kinds = {"held_out": "held-out predictions", "dynamics": "training dynamics (in-sample)",
             "neighbour": "neighbours of other groups", "twin": "twins"}  # fmt: skip
    told = ", ".join(kinds[kind] for kind in about["evidence"])
    print(f"evidence   {told}" + (f"; alike by {about['neighbours']}" if about["neighbours"] else ""))
    estimates = about["estimates"]
    if estimates:
        low, high = estimates["interval"]
        expected = estimates["review_yield"]
        kind = "95% interval " if estimates["clear"] else ""
        print(f"wrong      {estimates['wrong']:,.0f} labels by estimate ({kind}"
              f"{low:,.0f} to {high:,.0f}), {estimates['share']:.2f}% of the ranked")  # fmt: skip
        if not estimates["clear"]:
            print("           they don't stand apart from hard images here: from what stands out to what two kinds of "
                  "evidence contradict")  # fmt: skip
        print(f"looking    pays down to rank {expected['stop_rank']:,}: {expected['expected_found']:,.0f} wrong labels expected there, "
              f"{expected['expected_left']:,.0f} beyond")  # fmt: skip
    if about["confident_learning"] is not None:
        print(f"confident  learning counts {about['confident_learning']:,} wrong labels; models' own mistakes are "
              "among them")  # fmt: skip
    if about["lonely"]:
        shown = ", ".join(about["lonely"][:5]) + (" ..." if len(about["lonely"]) > 5 else "")
        print(f"lonely     {len(about['lonely']):,} label(s) of a single sample or group, never seen by the model that "
              f"holds them out: {shown}")  # fmt: skip
    print(f"ranking    {out / 'ranking.csv'}")
    if pictures:
        print(f"panels     {out / 'panels' / 'worst.png'}")
    print(f"page       {out / 'report.html'}", flush=True)
