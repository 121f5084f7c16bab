"""What ``mlfix audit`` left, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train.audit.reporting import exporters as exchange
from mlfix_train.errors import DataError, format_list

TEXT = ("sample_id", "given_label", "predicted_label", "suggested_label", "slice")


def read_audit(place: str | Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Reads what ``mlfix audit`` wrote.

    Args:
        place: its directory.

    Returns:
        What ``audit.json`` holds, and the ranking.

    Raises:
        DataError: no audit, or one that is not whole.
    """
    where = Path(str(place)).expanduser()
    hint = "give the directory that `mlfix audit` wrote: audit=<directory>"
    try:
        about = json.loads((where / "audit.json").read_text(encoding="utf-8"))
        ranking = pd.read_csv(where / "ranking.csv", keep_default_na=False, dtype=dict.fromkeys(TEXT, str))
    except FileNotFoundError as error:
        raise DataError(f"audit={place} holds no audit: {Path(error.filename).name} is missing", hint) from error
    except (OSError, ValueError) as error:
        raise DataError(f"audit={place} can't be read: {error}", "run the audit again") from error
    lacking = [name for name in (*TEXT, *exchange.SCORES, "label_score") if name not in ranking.columns]
    lacking += [name for name in ("ranked", "run_paths", "label_names") if name not in about]
    if lacking or about["ranked"] != len(ranking):
        told = f"it lacks {format_list(lacking)}" if lacking else "ranking.csv and audit.json are of different audits"
        raise DataError(f"audit={place} is not whole: {told}", "run the audit again")
    numbers = [name for name in ranking.columns if name in exchange.SCORES or name == "label_score"]
    ranking[numbers] = ranking[numbers].apply(pd.to_numeric, errors="coerce")
    ranking["is_label_issue"] = ranking["is_label_issue"].astype(str) == "True"
    return about, ranking
