"""The output directory of an audit, read back. Reading needs no torch.

``ranking.csv`` (see :mod:`mlfix_train.audit.scores.ranking`), ``slices.csv``, ``unranked.csv`` (samples that no run
held out, with the reason) and ``audit.json``, which is written last: a directory without it is incomplete.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train.audit.reporting.exporters import SCORES
from mlfix_train.errors import DataError, format_list

TEXT = ("sample_id", "given_label", "predicted_label", "suggested_label", "slice")
OPTIONAL_TEXT = ("fault",)


def read_audit(folder: str | Path, compact: bool = False) -> tuple[dict[str, Any], pd.DataFrame]:
    """Reads what an audit wrote.

    Args:
        folder: output directory of ``mlfix audit``, or of :meth:`mlfix_train.audit.audit.Audit.save`.
        compact: whether labels are categories, and scores float32, which takes a third of the memory.

    Returns:
        The content of ``audit.json``, and the ranking.

    Raises:
        DataError: No audit, or an incomplete one.
    """
    path = Path(folder).expanduser()
    try:
        about = json.loads((path / "audit.json").read_text(encoding="utf-8"))
        ranking = _read_ranking(path / "ranking.csv", compact)
    except FileNotFoundError as error:
        raise DataError(
            f"audit={folder} contains no audit: {Path(error.filename).name} is missing",
            "set audit=<output folder of mlfix audit>",
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"audit={folder} can't be read: {error}", "run the audit again") from error
    lacking = [name for name in (*TEXT, *SCORES, "label_score", "is_label_issue") if name not in ranking.columns]
    lacking += [name for name in ("ranked", "run_paths", "label_names") if name not in about]
    if lacking or about["ranked"] != len(ranking):
        problem = (
            f"it lacks {format_list(lacking)}" if lacking else "ranking.csv and audit.json are of different audits"
        )
        raise DataError(f"audit={folder} is incomplete: {problem}", "run the audit again")
    ranking["is_label_issue"] = ranking["is_label_issue"].astype(str) == "True"
    for name in ranking.columns.difference([*TEXT, *OPTIONAL_TEXT, "is_label_issue"]):
        ranking[name] = pd.to_numeric(ranking[name], errors="coerce")
    return about, ranking


def _read_ranking(path: Path, compact: bool) -> pd.DataFrame:
    """Reads the file with a type for each column: text, unless it is a score that all audits have."""
    import pyarrow as pa
    from pyarrow import csv

    label = pa.dictionary(pa.int32(), pa.string()) if compact else pa.string()
    score = pa.float32() if compact else pa.float64()
    with open(path, "rb") as file:
        names = pd.read_csv(file, nrows=0).columns.tolist()
        file.seek(0)
        types = dict.fromkeys(names, pa.string()) | dict.fromkeys((*SCORES, "label_score"), score)
        types |= dict.fromkeys(TEXT[1:], label) | {"suspicion": pa.float64(), "rank": pa.string()}
        convert = csv.ConvertOptions(column_types=types, strings_can_be_null=False)
        table = csv.read_csv(file, parse_options=csv.ParseOptions(newlines_in_values=True), convert_options=convert)
    frame: pd.DataFrame = table.to_pandas(split_blocks=compact, self_destruct=compact)  # such columns are read-only
    del table
    pa.default_memory_pool().release_unused()
    return frame
