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


def read_audit(folder: str | Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Reads what an audit wrote.

    Args:
        folder: output directory of ``mlfix audit``, or of :meth:`mlfix_train.audit.audit.Audit.save`.

    Returns:
        The content of ``audit.json``, and the ranking.

    Raises:
        DataError: No audit, or an incomplete one.
    """
    path = Path(folder).expanduser()
    try:
        about = json.loads((path / "audit.json").read_text(encoding="utf-8"))
        ranking = pd.read_csv(
            path / "ranking.csv", keep_default_na=False, dtype=dict.fromkeys((*TEXT, *OPTIONAL_TEXT), str)
        )
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
    numbers = [name for name in ranking.columns if name not in (*TEXT, *OPTIONAL_TEXT, "is_label_issue")]
    ranking[numbers] = ranking[numbers].apply(pd.to_numeric, errors="coerce")
    return about, ranking
