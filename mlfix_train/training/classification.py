"""What is a classifier's own in ``mlfix train``: its data, model, audit, and what is said of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from omegaconf import DictConfig

from mlfix_train.config import build as config
from mlfix_train.data.runs import RunDirectory

log = logging.getLogger(__name__)

KIND = "classifier"
RESULTS = ("held_out_error",)
"""Keys of :func:`result`."""


def build_data(cfg: DictConfig, progress: Callable[[int, int], None] | None = None) -> Any:
    """Builds the DataModule."""
    return config.build_datamodule(cfg, progress)


def describe(cfg: DictConfig, data: Any) -> dict[str, Any]:
    """Returns what ``run.json`` keeps of the inputs, beside settings and versions."""
    from mlfix_train.data.fixes.table import fixes_fingerprint
    from mlfix_train.data.samples import table_fingerprint

    fixes = data.arm.fixes
    return {
        "data": {
            "fingerprint": table_fingerprint(data.table),
            "samples": len(data.table),
            "held_out": int(data.held_out.sum()),
            "labels": len(data.labels),
        },
        "fixes": None if fixes is None else {"count": len(fixes), "sha256": fixes_fingerprint(fixes)},
        "labels": data.labels,
    }


def identity(cfg: DictConfig, data: Any) -> dict[str, Any]:
    """Returns the settings that make a run the run that it is, beside those of every training."""
    from mlfix_train.data.fixes.table import fixes_fingerprint
    from mlfix_train.data.samples import table_fingerprint

    full = config.plain(cfg)
    kept = {key: full[key] for key in ("arm", "split", "augment")}
    kept["loader"] = {key: full["loader"][key] for key in ("batch_size", "sampling")}
    kept["data"] = table_fingerprint(data.table)
    used = data.arm.fixes if data.arm.name != "original" else None
    kept["fixes"] = None if used is None else fixes_fingerprint(used)
    return kept


def build_callback(cfg: DictConfig, directory: RunDirectory, title: str) -> Any:
    """Builds the callback that gathers the held-out predictions and writes the audit."""
    from mlfix_train.audit.callback import AuditCallback

    options = config.plain(cfg.audit)
    return config.checked(AuditCallback, options, "audit", folder=directory.path, title=title)


def is_complete(directory: RunDirectory) -> bool:
    """Whether what a run leaves is there."""
    return directory.predictions.exists()


def result(directory: RunDirectory) -> dict[str, Any]:
    """Returns what ``run.json`` keeps of a finished run."""
    return {"held_out_error": held_out_error(directory)}


def held_out_error(directory: RunDirectory) -> float:
    """Returns the share of held-out samples, in percent, whose prediction is not the given label."""
    import pandas as pd

    rows = pd.read_parquet(directory.predictions, columns=["label", "pred"])
    return round(float(100 * (rows["label"] != rows["pred"]).mean()), 6)


def report(directory: RunDirectory, quiet: bool = False) -> None:
    """Prints what a person wants to know of a finished run."""
    import pandas as pd

    from mlfix_train.commands.progress import duration

    state = directory.read()
    names = dict.fromkeys(("sample_id", "given_label", "predicted_label"), str)
    ranking = pd.read_csv(directory.path / "ranking.csv", keep_default_na=False, dtype=names)
    otherwise = ranking["predicted_label"] != ranking["given_label"]
    wrong = 100 * otherwise.mean()
    guessing = float(np.log(state["data"]["labels"]))
    if ranking["loss"].mean() > max(10.0, 3 * guessing):
        log.warning("%s: the held-out loss is %.3g, guessing would give %.2f: the training diverged; lower recipe.lr",
                    directory.path, ranking["loss"].mean(), guessing)  # fmt: skip
    if quiet:
        took = duration(state["timings"]["total_seconds"])
        print(f"           {directory.path}: held-out error {wrong:.2f}% ({took})", flush=True)
        return
    lines = [
        f"run        {directory.path} ({duration(state['timings']['total_seconds'])})",
        f"held out   {len(ranking):,} of {state['data']['samples']:,} samples, {state['data']['labels']} labels: "
        f"error {wrong:.2f}%",
        "doubtful   the labels that the model believes least:",
    ]
    if not otherwise.any():
        lines[-1] = "doubtful   none: the model agrees with every held-out label; the highest losses:"
    for row in ranking.head(5).itertuples():
        lines.append(f"           {row.sample_id}: given {row.given_label}, predicted {row.predicted_label}, "
                     f"loss {row.loss:.2f}")  # fmt: skip
    lines.append(f"all        {directory.path / 'ranking.csv'}")
    lines.append(f"pictures   {directory.path / 'panels' / 'worst.png'} and {_count_others(directory)} more beside it")
    print("\n".join(lines), flush=True)


def _count_others(directory: RunDirectory) -> int:
    return len(list((directory.path / "panels").glob("*.png"))) - 1
