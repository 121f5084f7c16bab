"""``mlfix export``: an audit to the files of another tool, or fixes of crops back into their annotations."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from mlfix_train.audit.reporting import exporters as exchange
from mlfix_train.commands import audit_inputs, export_annotations
from mlfix_train.commands.audit_files import read_audit
from mlfix_train.config import build as config
from mlfix_train.data.fixes.table import INVALID
from mlfix_train.errors import ConfigError, DataError, check_choice, check_range

log = logging.getLogger(__name__)

TOOLS = ("fiftyone", "label_studio", "cleanlab")
LOAD = {
    "fiftyone": "fiftyone.Dataset.from_dir(dataset_type=fiftyone.types.FiftyOneImageClassificationDataset, "
                "labels_path='labels.json', data_path=None)",
    "label_studio": "label_config.xml is the labelling interface, tasks.json what to import",
    "cleanlab": "cleanlab.filter.find_label_issues(numpy.load('labels.npy'), numpy.load('pred_probs.npy'))",
}  # fmt: skip


def run(cfg: DictConfig) -> list[Path]:
    """Writes an audit for another tool, or fixes back into the source's annotations.

    Args:
        cfg: the composed configuration of ``mlfix export``.

    Returns:
        The files.

    Raises:
        MlfixError: no audit there, its runs or data gone, or settings that mean nothing.
    """
    tool = check_choice("to", cfg.to, (*TOOLS, *export_annotations.FORMATS, "source"))
    config.check_place("out", cfg.out)
    if tool not in TOOLS:
        return export_annotations.run(cfg, tool)
    if cfg.audit is None:
        raise ConfigError(f"to={tool} needs audit", f"mlfix export audit=<directory of mlfix audit> to={tool}")
    if cfg.top is not None:
        config.check_type("top", cfg.top, "int")
        check_range("top", cfg.top, 1, 10**9)
    if "{path}" not in str(cfg.url) and "{file}" not in str(cfg.url):
        raise ConfigError(f"url={cfg.url} has no place for the image", "put {path} or {file} where its path belongs")
    about, ranking = read_audit(cfg.audit)
    table = _table(about)
    if table is not None:
        missing = ranking["sample_id"][~ranking["sample_id"].isin(table.index)]
        if len(missing):
            raise DataError(f"{len(missing):,} audited samples are no longer in the data, such as {missing.iloc[0]}",
                            "audit the data as they are now")  # fmt: skip
    rows = _with_fixes(cfg, ranking, table)
    labels = sorted({*rows["given_label"], *about["label_names"]})
    if cfg.top is not None:
        rows = rows.head(int(cfg.top))
    out = Path(str(cfg.out)).expanduser()
    if tool == "cleanlab":
        files = _cleanlab(rows, about, labels, out)
    else:
        if table is None:
            raise DataError(f"audit={cfg.audit} was made from files of predictions, which name no images",
                            "audit run directories, or export to=cleanlab")  # fmt: skip
        paths = {str(name): str(path) for name, path in table["path"].items()}
        files = (
            exchange.write_fiftyone(rows, paths, labels, out)
            if tool == "fiftyone"
            else exchange.write_label_studio(rows, paths, labels, out, str(cfg.url))
        )
    print(f"exported   {len(rows):,} samples for {tool}: " + ", ".join(str(file) for file in files))
    print(f"load it    {LOAD[tool]}", flush=True)
    return files


def _table(about: dict[str, Any]) -> pd.DataFrame | None:
    """Reads the sample table of the audited runs; ``None`` where these were files."""
    if not about["run_paths"]:
        return None
    runs = audit_inputs.load_runs(about["run_paths"])
    return config.build_table(OmegaConf.create(runs.states[0]["config"]))


def _with_fixes(cfg: DictConfig, ranking: pd.DataFrame, table: pd.DataFrame | None) -> pd.DataFrame:
    """Applies fixes: relabelled samples get their new label, those marked invalid are left out."""
    if cfg.fixes.path is None:
        return ranking
    if table is None:
        raise ConfigError("fixes.path needs the data, and this audit was made from files", "leave it out")
    fixes = config.build_fixes(cfg, table)
    assert fixes is not None
    new = fixes["new_label"].reindex(ranking["sample_id"]).to_numpy()
    fixed = pd.Series(new).where(pd.notna(new), ranking["given_label"].to_numpy())
    settled = pd.notna(new)
    ranking = ranking.assign(given_label=fixed.to_numpy())
    ranking.loc[settled, "suggested_label"] = fixed.to_numpy()[settled]
    ranking.loc[settled, "is_label_issue"] = False
    kept = ranking[(fixed != INVALID).to_numpy()]
    print(f"fixes      {int(settled.sum()):,} applied, {len(ranking) - len(kept):,} of them leave the sample out")
    return kept


def _cleanlab(rows: pd.DataFrame, about: dict[str, Any], labels: list[str], out: Path) -> list[Path]:
    probabilities = None
    if about["run_paths"]:
        runs = audit_inputs.load_runs(about["run_paths"])
        held = audit_inputs.merged(runs)
        found = audit_inputs.mean_probabilities(runs, held)
        if found is None:
            log.warning("the runs kept no probabilities (audit.probabilities=true): pred_probs.npy is not written")
        elif labels != held.names:
            log.warning("the fixes bring labels that the runs don't know: pred_probs.npy is not written")
        else:
            places = held.ids.get_indexer(pd.Index(rows["sample_id"]))
            if (places < 0).any():
                raise DataError(f"audit: the runs no longer hold out {int((places < 0).sum()):,} of its samples",
                                "run the audit again")  # fmt: skip
            probabilities = found[places]
    return exchange.write_cleanlab(rows, labels, out, probabilities)
