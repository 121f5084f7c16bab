"""What is the sorting network's own in ``mlfix train``: its data, callback, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig

from mlfix_train.config import build as config
from mlfix_train.data.runs import RunDirectory

KIND = "sorting_network"
RESULTS = ("agreement",)
"""Keys of :func:`result`."""


def build_data(cfg: DictConfig, progress: Callable[[int, int], None] | None = None) -> Any:
    """Builds the DataModule."""
    return config.build_view_data(cfg, progress)


def describe(cfg: DictConfig, data: Any) -> dict[str, Any]:
    """Returns what ``run.json`` keeps of the inputs, beside settings and versions."""
    from mlfix_train.data.samples import table_fingerprint

    counts = {"samples": len(data.table), "held_out": 0, "labels": len(data.labels)}
    return {"data": {"fingerprint": table_fingerprint(data.table), **counts}, "fixes": None, "labels": data.labels}


def identity(cfg: DictConfig, data: Any) -> dict[str, Any]:
    """Returns the settings that make a run the run that it is, beside those of every training.

    Labels are none of them: nothing is learnt from labels, so that mending some leaves the network as it is.
    """
    import hashlib

    names = "\n".join(data.table.index)
    return {
        "views": config.plain(cfg.views),
        "loader": {"batch_size": cfg.loader.batch_size},
        "data": hashlib.sha256(names.encode()).hexdigest(),
    }


def build_callback(cfg: DictConfig, directory: RunDirectory, title: str) -> Any:
    """Builds the callback that shows nearest neighbours."""
    from mlfix_train.audit.similarity.callback import NeighbourCallback

    return NeighbourCallback(directory.path, title)


def is_complete(directory: RunDirectory) -> bool:
    """Whether what a run leaves is there."""
    return (directory.path / "checkpoints" / "model.ckpt").exists()


def result(directory: RunDirectory) -> dict[str, Any]:
    """Returns what ``run.json`` keeps of a finished run: percent of nearest neighbours of the same label."""
    import pandas as pd

    rows = pd.read_csv(directory.path / "metrics.csv")
    if "val_agreement" not in rows or rows["val_agreement"].isna().all():
        return {"agreement": None}
    return {"agreement": round(float(rows["val_agreement"].dropna().iloc[-1]), 3)}


def report(directory: RunDirectory, quiet: bool = False) -> None:
    """Prints what a person wants to know of a finished run."""
    from mlfix_train.commands.progress import duration

    state = directory.read()
    took = duration(state["timings"]["total_seconds"])
    agreement = state.get("agreement")
    said = "" if agreement is None else f"nearest neighbour of the same label {agreement:.1f}%"
    if quiet:
        print(f"           {directory.path}: {said or 'trained'} ({took})", flush=True)
        return
    lines = [f"run        {directory.path} ({took})", f"learnt     from {state['data']['samples']:,} images, no labels"]
    if said:
        lines.append(f"neighbours {said}, its own group left out")
    lines.append(f"pictures   {directory.path / 'panels' / 'neighbours.png'}")
    lines.append(f"sort by it mlfix sort {config.assign('network', directory.path)} ...")
    print("\n".join(lines), flush=True)
