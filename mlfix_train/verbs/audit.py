"""``mlfix audit``: the held-out predictions of runs to one ranking, and panels worth looking at."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from mlfix_train import config
from mlfix_train.audit.orders import read_order
from mlfix_train.audit.pictures import draw_audit
from mlfix_train.audit.predictions import read_predictions
from mlfix_train.audit.rankings import rank_samples, write_ranking
from mlfix_train.data.pixels import PixelSpec, open_store
from mlfix_train.data.runs import FINISHED, RunDirectory, find_runs
from mlfix_train.errors import DataError, RunError, check_range, listing

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> pd.DataFrame:
    """Ranks all samples that the runs held out, by their mean loss.

    Args:
        cfg: the composed configuration of ``mlfix audit``.

    Returns:
        The ranking, also written to ``<out>/ranking.csv`` with pictures in ``<out>/panels``.

    Raises:
        MlfixError: no runs, runs of different data, or files that are missing.
    """
    config.check_type("panels", cfg.panels, "int")
    check_range("panels", cfg.panels, 0, 1000)
    config.check_place("out", cfg.out)
    if cfg.order and not (Path(str(cfg.order)).expanduser()).exists():
        raise DataError(f"order={cfg.order} does not exist", "give the directory that `mlfix sort` wrote")
    where = config.plain(cfg.runs)
    runs = [run for run in find_runs(where) if _usable(run)]
    if not runs:
        remedy = "wait for them, or start them again; a sorting network is for mlfix sort"
        raise RunError(f"runs={where}: none of these runs is finished", remedy)
    states = [run.require() for run in runs]
    prints = {state["data"]["fingerprint"] for state in states}
    if len(prints) > 1:
        raise RunError(
            f"runs={where} holds runs of {len(prints)} different data sets",
            "audit the runs of one data set (and one labelling) at a time",
            [f"{run.path}: {state['data']['samples']:,} samples, {state['data']['fingerprint'][:12]}"
             for run, state in zip(runs, states, strict=True)][:6],
        )  # fmt: skip
    ranking = rank_samples([read_predictions(run.predictions) for run in runs])
    if cfg.order:
        read_order(cfg.order, pd.Index(ranking["sample_id"]), partial=True)  # one of other samples is an error
    out = Path(str(cfg.out)).expanduser()
    write_ranking(ranking, out / "ranking.csv")
    try:
        _draw(cfg, states[0], ranking, out, len(runs))
    except DataError as error:
        log.warning("no panels could be drawn: %s", error)
    total = states[0]["data"]["samples"]
    issues = int(ranking["is_label_issue"].sum())
    print(f"ranked     {len(ranking):,} of {total:,} samples that {len(runs)} run(s) held out; "
          f"{issues:,} are predicted as another label than given")  # fmt: skip
    if len(ranking) < total:
        print(f"unranked   {total - len(ranking):,} samples that no run held out; `-m sweep=out_of_fold` covers all")
    print(f"ranking    {out / 'ranking.csv'}\npanels     {out / 'panels' / 'worst.png'}", flush=True)
    return ranking


def _usable(run: RunDirectory) -> bool:
    try:
        if run.read().get("kind") == "sorting_network":
            log.warning("%s is a sorting network, which predicts nothing, and left out", run.path)
            return False
        if run.status == FINISHED:
            return True
    except RunError as error:
        log.warning("%s; left out", error.problem)
        return False
    log.warning("%s is %s and left out", run.path, run.status or "not started")
    return False


def _draw(cfg: DictConfig, state: dict, ranking: pd.DataFrame, out: Path, runs: int) -> None:
    """Draws the panels from the pixel store of the runs."""
    settings = OmegaConf.create(state["config"])
    table = config.build_table(settings)
    known = table.index.isin(ranking["sample_id"])
    if known.sum() < len(ranking):
        gone = sorted(set(ranking["sample_id"]) - set(table.index))
        raise DataError(
            f"{config.source_name(settings)} no longer holds {len(gone):,} of the ranked samples: {listing(gone, 3)}",
            "bring the images back, or train again on the data as it is now",
        )
    pixels = config.plain(settings.pixels)
    cache, limit = pixels.pop("cache"), pixels.pop("max_unreadable")
    store = open_store(table, config.checked(PixelSpec, pixels, "pixels"), cache, max_unreadable=limit)
    rows = pd.Series(np.arange(len(table)), index=table.index)
    fixes = config.build_fixes(cfg, table)
    marks = None if fixes is None else {str(name): str(new) for name, new in fixes["new_label"].items()}
    title = f"{runs} run{'s' if runs > 1 else ''}"

    def images(ids: list[str]) -> np.ndarray:
        return np.asarray(store[rows.loc[ids].to_numpy()])

    order = None if not cfg.order else _order(cfg, table)
    draw_audit(ranking, images, out / "panels", title, int(cfg.panels), marks, order)


def _order(cfg: DictConfig, table: pd.DataFrame) -> pd.Series:
    """Reads the places of `mlfix sort`; samples that it does not hold come last in their panels."""
    found = read_order(cfg.order, table.index, partial=True)
    if len(found) < len(table):
        log.warning("order=%s lacks %d of %d samples; they come last", cfg.order, len(table) - len(found), len(table))
    places: pd.Series = found["place"]
    return places
